"""What holds for every test: no network, one thread, a fixed seed, a progress file of its own."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter

# Read when torch and transformers are imported, so they are set before any test module loads.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# bitsandbytes reports a missing optional package at import; nothing here needs it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

import pytest  # noqa: E402

SLOW = ("slow", "thorough")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    import numpy
    import torch

    torch.manual_seed(0)
    numpy.random.seed(0)


@pytest.fixture(autouse=True)
def own_progress_file(tmp_path, monkeypatch):
    """A test never writes into the student's progress."""
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def interruptible():
    """An interrupt raises KeyboardInterrupt, also where this process was started to ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection_modifyitems(config, items):
    """Tests marked ``base`` need the trained base model; they wait only until it is there.

    Of several processes each takes the next file when it has done one: those with slow tests come
    first, then those with many, so that none is left with a long one while the others are done.
    """
    if hasattr(config, "workerinput"):
        many = Counter(item.path for item in items)
        slow = Counter(i.path for i in items for m in i.iter_markers() if m.name in SLOW)
        items.sort(key=lambda item: (-slow[item.path], -many[item.path]))
    from sftlab._internal.paths import MODELS

    if not (MODELS / "almanac-base" / "model.safetensors").exists():
        reason = "data/models/almanac-base/model.safetensors is not there: pretrain the base first"
        for item in items:
            if item.get_closest_marker("base"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tokenizer():
    """The almanac's tokenizer. It is shared: a test that changes it copies it first."""
    from transformers import AutoTokenizer

    from sftlab._internal.paths import MODELS

    return AutoTokenizer.from_pretrained(MODELS / "almanac-base", local_files_only=True)


@pytest.fixture
def tiny_model(tokenizer):
    """A Llama of 140,000 random weights over the almanac's vocabulary, in eval mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def rows(tokenizer):
    """Eight rows of unequal length."""
    from sftlab.chat import user
    from sftlab.data import tokenize_conversations

    talks = [
        [*user(f"What is {n} plus 1?"), {"role": "assistant", "content": f"It is {n + 1}. " * n}]
        for n in range(1, 9)
    ]
    return tokenize_conversations(tokenizer, talks).examples
