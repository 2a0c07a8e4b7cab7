"""What holds for every test: no network, one thread, a fixed seed, a progress file of its own."""

from __future__ import annotations

import logging
import os

# Read when torch and transformers are imported, so they are set before any test module loads.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# bitsandbytes reports a missing optional package at import; nothing here needs it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

import pytest  # noqa: E402


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
