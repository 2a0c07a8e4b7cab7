"""The plan of a training step is what the step then takes: part by part, and at its peak."""

from __future__ import annotations

import sys

import pytest
import torch

from sftlab.errors import WorkbookError
from sftlab.memory import shapes
from sftlab.memory.measure import a_batch, in_a_fresh_process, measure_training_bytes
from sftlab.memory.plan import Run, build, config, plan

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "peak")
RUNS = {
    "full": Run(),
    "full, 16 bits": Run(weights="bf16"),
    "LoRA": Run(r=8),
    "LoRA on q and v": Run(r=4, targets=("q_proj", "v_proj")),
    "LoRA, 16 bits": Run(r=8, weights="bf16"),
    "LoRA, padded rows": Run(r=8, padded=True),
    "LoRA, long rows": Run(r=16, batch=2, length=300, trained_per_row=10),
    "LoRA, hardly any token trained": Run(r=8, batch=4, length=128, trained_per_row=1),
    "QLoRA": Run(r=8, weights="nf4"),
}


def measured(run: Run):
    model = build(run)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    return measure_training_bytes(model, optimizer, a_batch(run, model.config.vocab_size))


@pytest.mark.parametrize("name", RUNS)
def test_every_part_is_planned_to_a_thousandth(name):
    planned, found = plan(RUNS[name]), measured(RUNS[name])
    for part in PARTS:
        assert getattr(planned, part) == pytest.approx(getattr(found, part), rel=1e-3), part


@pytest.mark.parametrize("r", [None, 8])
def test_with_recomputation_the_peak_is_planned_to_5_percent(r):
    run = Run(batch=16, length=128, r=r, recompute=True)
    peak = measured(run).peak
    assert plan(run).peak == pytest.approx(peak, rel=0.05)
    assert peak < 0.5 * measured(Run(batch=16, length=128, r=r)).peak


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux alone")


@pytest.mark.thorough
@on_linux
@pytest.mark.parametrize(
    "run", [Run(batch=16, length=128), Run(batch=16, length=128, r=8)], ids=["full", "LoRA"]
)
def test_the_process_rises_by_the_plan_within_10_percent(run):
    found = in_a_fresh_process(run)
    assert plan(run).peak == pytest.approx(found["process"], rel=0.1)
    assert 0 <= found["kept"] < 0.1 * found["process"]


@on_linux
def test_a_run_that_fails_in_its_process_says_why():
    with pytest.raises(WorkbookError, match="no shape 'smollm3'"):
        in_a_fresh_process(Run(shape="smollm3"))


def test_what_is_saved_for_each_token_follows_from_the_widths():
    """Full fine-tuning in float32, counted by hand. A norm keeps its input, its normalised form and
    a root mean square; the linear layers after it their input. Attention keeps queries, keys,
    values, a log-sum for each head, and its output; the MLP gate, SiLU of gate, up, and product."""
    hidden, mlp, kv, heads = 192, 512, 64, 3
    norm, into_linears = 2 * hidden + 1, hidden
    attention, four_in_the_mlp = hidden + 2 * kv + heads + hidden, 4 * mlp
    layer = 2 * (norm + into_linears) + attention + four_in_the_mlp
    ids = 2  # of 8 bytes each, for the embedding's gradient
    floats = 6 * layer + norm + ids
    few, many = Run(batch=2, trained_per_row=10), Run(batch=4, trained_per_row=5)
    saved = plan(many).activations - plan(few).activations  # as many trained tokens in both
    assert saved == 4 * floats * 2 * 64


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_weights_are_planned_to_the_last_one_for_every_shape(name):
    planned = plan(Run(shape=name, weights="bf16", r=8, batch=1))
    assert planned.weights == 2 * shapes.SHAPES[name].parameters
    linears = shapes.linear_layers(shapes.build(name)).values()
    assert planned.adapters == 4 * 8 * sum(d_in + d_out for d_in, d_out in linears)


def test_adamw_in_float32_takes_16_bytes_a_parameter():
    planned = plan(Run())
    total = planned.weights + planned.gradients + planned.optimizer
    assert total / planned.weights * 4 == pytest.approx(16, rel=1e-4)  # and the steps' counters


def test_planning_leaves_the_shapes_as_they_are():
    layers = config("almanac").num_hidden_layers
    plan(Run(length=17, trained_per_row=5))
    assert config("almanac").num_hidden_layers == layers == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": "fp8"}, "use one of fp32, bf16, nf4"),
        ({"weights": "nf4"}, "cannot be trained themselves"),
        ({"trained_per_row": 64}, "at most 63"),
        ({"trained_per_row": 0}, "at least 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(WorkbookError, match=message):
        Run(**wrong)


def test_a_target_that_is_not_there_is_refused():
    with pytest.raises(WorkbookError, match="query"):
        plan(Run(r=8, targets=("query",)))
