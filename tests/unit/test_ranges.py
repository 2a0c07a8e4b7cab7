"""Every setting has a range, checked before anything is loaded; the message tells it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from sftlab import pipeline
from sftlab.data import collate, conversation, tokenize_conversations
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora
from sftlab.pipeline import train_run
from sftlab.settings import Adapter, read_run
from sftlab.train import TrainConfig, sft_train, train_step

PAIR = {"prompt": "What is 1 plus 1?", "response": "It is 2."}


@pytest.fixture
def rows(tokenizer):
    return tokenize_conversations(tokenizer, [conversation(PAIR)] * 4).examples


@pytest.fixture
def no_model(monkeypatch):
    """Whatever is refused is refused before a model is loaded."""

    def load(name):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(pipeline, "load", load)


def write_run(folder, **changes):
    (folder / "rows.jsonl").write_text(json.dumps(PAIR) + "\n")
    run = {"model": "almanac", "data": "rows.jsonl", "output": "out", "adapter": {}, "train": {}}
    path = folder / "run.json"
    path.write_text(json.dumps(run | changes))
    return path


@pytest.mark.parametrize(
    ("setting", "value", "needed"),
    [
        ("num_train_epochs", 0, "at least 1"),
        ("num_train_epochs", 10**12, "at most 100000"),
        ("num_train_epochs", 1.5, "a whole number"),
        ("num_train_epochs", True, "a whole number"),
        ("max_steps", -1, "at least 1"),
        ("batch_size", None, "a whole number"),
        ("batch_size", "8", "a whole number"),
        ("micro_batch_size", 0, "at least 1"),
        ("save_steps", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**64, "at most 18446744073709551615"),
        ("seed", None, "a whole number"),
        ("learning_rate", math.inf, "above 0, and finite"),
        ("learning_rate", -1e-3, "above 0, and finite"),
        ("learning_rate", True, "above 0, and finite"),
        ("warmup_ratio", math.nan, "from 0 to 1"),
        ("warmup_ratio", -0.1, "from 0 to 1"),
        ("weight_decay", -0.1, "at least 0, and finite"),
        ("weight_decay", math.inf, "at least 0, and finite"),
        ("max_grad_norm", -1.0, "at least 0; 0 or None is no clipping"),
        ("max_grad_norm", math.nan, "at least 0; 0 or None is no clipping"),
        ("lr_scheduler_type", None, 'use "cosine" or "constant"'),
    ],
)
def test_a_setting_of_the_training_out_of_its_range(setting, value, needed):
    with pytest.raises(WorkbookError) as told:
        TrainConfig(**{setting: value})
    assert str(told.value).startswith(f"{setting} is {value!r}; ")
    assert needed in str(told.value)


ADAPTERS = [
    ("r", 0, "at least 1"),
    ("r", 10**9, "at most 65536"),
    ("r", 2.0, "a whole number"),
    ("lora_alpha", 0, "above 0, and finite"),
    ("lora_alpha", -16, "above 0, and finite"),
    ("lora_alpha", math.nan, "above 0, and finite"),
    ("lora_dropout", 1.0, "at least 0 and below 1"),
    ("lora_dropout", -0.1, "at least 0 and below 1"),
    ("target_modules", [0, 1], 'a name, a list of names, or "all-linear"'),
    ("target_modules", "", 'a name, a list of names, or "all-linear"'),
    ("target_modules", 8, 'a name, a list of names, or "all-linear"'),
]


@pytest.mark.parametrize(("setting", "value", "needed"), ADAPTERS)
def test_a_setting_of_the_adapter_out_of_its_range(tiny_model, setting, value, needed):
    settings = {"target_modules": "all-linear", "r": 2, "lora_alpha": 4} | {setting: value}
    for make in (lambda: Adapter(**settings), lambda: inject_lora(tiny_model, **settings)):
        with pytest.raises(WorkbookError) as told:
            make()
        assert str(told.value).startswith(f"{setting} is {value!r}; ")
        assert needed in str(told.value)


@pytest.mark.parametrize(("setting", "value"), [("seed", -1), ("seed", 2**64), ("rule", "dora")])
def test_what_injecting_alone_knows(tiny_model, setting, value):
    with pytest.raises(WorkbookError, match=f"^{setting} is "):
        inject_lora(tiny_model, "all-linear", 2, 4, **{setting: value})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": {"lora_alpha": 0}}, r"run\.json: lora_alpha is 0\.0; it must be above 0"),
        (
            {"adapter": {"target_modules": [0, 1]}},
            r'run\.json, "adapter": "target_modules" is .*; expected a valid string',
        ),
        ({"train": {"max_grad_norm": -1}}, r"run\.json: max_grad_norm is -1"),
        ({"train": {"seed": 2**70}}, r"run\.json: seed is 1180591620717411303424; .*at most"),
        ({"max_length": 0}, r"run\.json: max_length is 0; it must be at least 1"),
        ({"model": ""}, r'run\.json: model is ""'),
        ({"output": "rows.jsonl"}, r"output is .*rows\.jsonl, which cannot be .* \(it is a file\)"),
        ({"output": "rows.jsonl/out"}, r"output is .*rows\.jsonl/out, which cannot be written to"),
        ({"data": "gone.jsonl"}, r"gone\.jsonl is no file"),
    ],
)
def test_a_file_is_refused_before_a_model_is_loaded(tmp_path, no_model, changes, told):
    with pytest.raises(WorkbookError, match=told):
        train_run(read_run(write_run(tmp_path, **changes)), progress=False)


def test_a_run_that_no_file_was_read_for_is_checked_too(tmp_path, no_model):
    run = read_run(write_run(tmp_path))
    with pytest.raises(WorkbookError, match="r is 0"):
        replace(run, adapter=replace(run.adapter, r=0))


def test_0_and_none_are_no_clipping(tiny_model, rows):
    batch, gradients = collate(rows, 0), []
    for limit in (0, 0.0, None, math.inf):
        train_step(tiny_model, batch, torch.optim.SGD(tiny_model.parameters(), lr=0.0), limit)
        gradients.append([p.grad.clone() for p in tiny_model.parameters()])
    assert any(gradient.any() for gradient in gradients[0])
    assert all(torch.equal(a, b) for other in gradients for a, b in zip(gradients[0], other))  # noqa: B905


@pytest.mark.parametrize(
    "settings", [{"max_grad_norm": -1.0}, {"max_grad_norm": math.nan}, {"micro_batch_size": 0}]
)
def test_a_step_refuses_what_would_turn_or_lose_its_gradient(tiny_model, rows, settings):
    optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in tiny_model.parameters()]
    (name,) = settings
    with pytest.raises(WorkbookError, match=f"^{name} is "):
        train_step(tiny_model, collate(rows, 0), optimizer, **settings)
    assert all(map(torch.equal, before, tiny_model.parameters()))


def test_until_0_does_no_step_and_below_is_refused(tiny_model, rows, tmp_path):
    before = [p.detach().clone() for p in tiny_model.parameters()]
    history = sft_train(tiny_model, rows, folder=tmp_path, progress=False, stop_after_steps=0)
    assert history.losses == [] and not history.finished
    assert all(map(torch.equal, before, tiny_model.parameters()))
    for until in (-1, 1.5, True):
        with pytest.raises(WorkbookError, match=f"^stop_after_steps is {until}"):
            sft_train(tiny_model, rows, progress=False, stop_after_steps=until)


def test_the_numbers_of_libraries_are_numbers():
    numpy = pytest.importorskip("numpy")
    config = TrainConfig(learning_rate=numpy.float64(1e-3), num_train_epochs=numpy.int64(2))
    assert config.num_train_epochs == 2
