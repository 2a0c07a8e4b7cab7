"""Notebook 19: the recorded comparison, its figures, and the explorer of LoRA's memory."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from sftlab.exercises.ex19_full_vs_lora import explorer as explorer
from sftlab.exercises.ex19_full_vs_lora import plots
from sftlab.exercises.ex19_full_vs_lora.experiment import (
    BATCHES,
    BEST,
    EMBEDDED,
    METHODS,
    RATES,
    SEEDS,
    SHAPE,
    a_run,
    run,
    saved_bytes,
    step_seconds,
    variants,
)
from sftlab.exercises.record import runs
from sftlab.fetch import PACKAGES
from sftlab.memory.count import TrainingBytes
from sftlab.memory.plan import Run, peak_training_bytes, plan

NAME = "full_vs_lora"


def recorded(kind: str) -> list[dict]:
    return runs(NAME, kind=kind)


# --- the peak from its parts -----------------------------------------------------------------


def test_each_of_the_three_moments_can_be_the_peak():
    parts = {"weights": 100, "gradients": 10, "optimizer": 20, "activations": 50}
    rest = {"logits": 5, "in_flight": 3, "largest": 4}
    assert peak_training_bytes(**parts, **rest) == 120 + 50 + 2 * 5
    assert peak_training_bytes(**parts, **{**rest, "in_flight": 40}) == 120 + 50 - 5 + 40
    assert peak_training_bytes(**{**parts, "gradients": 90}, **rest) == 120 + 90 + 2 * 4


# --- the experiment --------------------------------------------------------------------------


def test_both_methods_are_timed_in_turn_on_the_same_batch():
    tiny = {name: run.small() for name, run in variants(EMBEDDED).items()}
    assert list(tiny) == ["full", "lora", "full, recomputed", "lora, recomputed"]
    seconds = step_seconds(tiny, rounds=1)
    assert list(seconds) == list(tiny)
    assert all(0 < s < 10 for s in seconds.values())


def test_half_of_each_row_is_trained():
    assert a_run(SHAPE, "lora", 4, 64) == Run(SHAPE, 4, 64, 32, r=8)
    assert a_run(SHAPE, "full", 4, 64, True) == Run(SHAPE, 4, 64, 32, recompute=True)


# --- the recorded file -----------------------------------------------------------------------


def test_the_plan_is_what_was_measured():
    """The allocator's peak to a hundredth; the process within 10%, or the libraries' 10 MB."""
    for found in recorded("memory"):
        chosen = {k: found[k] for k in ("shape", "method", "batch", "length", "recompute")}
        planned, tensors = plan(a_run(**chosen)), found["tensors"]
        exact = 0.05 if found["recompute"] else 0.002
        assert planned.peak == pytest.approx(tensors["peak"], rel=exact)
        assert planned.peak == pytest.approx(found["process"], rel=0.1, abs=10e6)


def test_malloc_left_alone_keeps_more():
    for found in recorded("malloc"):
        fixed = plots.recorded_run(
            recorded("memory"), shape=SHAPE, method=found["method"], batch=4, length=64, recompute=False
        )  # fmt: skip
        assert found["process"] > fixed["process"]


def test_what_the_notebook_says_of_memory():
    """Parallel lines, a slope that recomputation takes off, and copies in float32."""
    peaks = {
        (m, n, again): plan(a_run(SHAPE, m, 4, n, again)).peak
        for m, n, again in [
            (m, n, again) for m in METHODS for n in (64, 256, 512) for again in (False, True)
        ]
    }
    rise = [peaks[m, 512, False] - peaks[m, 256, False] for m in METHODS]
    assert rise[0] == pytest.approx(rise[1], rel=0.15)
    assert peaks["lora", 512, True] < 0.5 * peaks["lora", 512, False]
    bf16 = {
        m: plan(Run(SHAPE, 4, 64, 32, r=8 if m == "lora" else None, weights="bf16"))
        for m in METHODS
    }
    assert bf16["lora"].activations > bf16["full"].activations
    assert bf16["lora"].activations > 0.9 * plan(a_run(SHAPE, "lora", 4, 64)).activations


def test_what_the_notebook_says_of_time():
    """On SmolLM2 LoRA's step takes less than two thirds, on the embedded model as long as in full."""
    seconds = {run["shape"]: run["seconds"] for run in recorded("time")}
    assert seconds[SHAPE]["lora"] < 0.667 * seconds[SHAPE]["full"]
    assert seconds[EMBEDDED]["lora"] > 0.9 * seconds[EMBEDDED]["full"]
    for found in seconds.values():
        assert all(found[f"{m}, recomputed"] > 1.15 * found[m] for m in METHODS)


def test_the_rates_are_the_best_of_seed_0():
    for method, rates in RATES.items():
        found = {r["rate"]: r["nll"] for r in recorded("score") if r["method"] == method and r["seed"] == 0}  # fmt: skip
        assert set(found) >= set(rates)
        assert min(found, key=found.get) == BEST[method]


def test_every_score_is_of_the_pinned_model_and_better_than_no_tuning():
    found = recorded("score")
    assert {run["weights"] for run in found} == {PACKAGES["smollm2-instruct"].member_sha256[:16]}
    (untuned,) = [run["nll"] for run in found if run["method"] == "none"]
    for method in METHODS:
        best = [r["nll"] for r in found if r["method"] == method and r["rate"] == BEST[method]]
        assert len(best) == SEEDS
        assert max(best) < untuned


@pytest.mark.parametrize("method", METHODS)
def test_saving_gives_the_recorded_bytes(method):
    (found,) = runs(NAME, kind="disk", shape=EMBEDDED, method=method)
    assert saved_bytes(EMBEDDED, method) == pytest.approx(found["bytes"], rel=0.001)


@pytest.mark.slow
def test_a_run_gives_what_was_recorded():
    batch, length = BATCHES[EMBEDDED][0]
    setting = {"shape": EMBEDDED, "method": "lora", "batch": batch, "length": length, "recompute": False}  # fmt: skip
    (found,) = runs(NAME, kind="memory", **setting)
    again = run("memory", **setting)
    assert again["tensors"] == pytest.approx(found["tensors"], rel=0.001)
    assert again["process"] == pytest.approx(found["process"], rel=0.1)


# --- figures, tables, the explorer -----------------------------------------------------------


def test_a_part_that_is_not_there_is_told_and_others_with_their_distance():
    planned = TrainingBytes(100, 0, 10, 20, 50, 180)
    measured = TrainingBytes(100, 0, 10, 20, 40, 180)
    lines = dict(plots.beside({"x": (planned, measured)}))
    assert lines["adapters"] == "none"
    assert lines["weights"] == "100 bytes / 100 bytes (+0.0%)"
    assert lines["activations"] == "50 bytes / 40 bytes (+25.0%)"


def test_growth_draws_every_point():
    figure = plots.growth({"a": [(64, 1e9), (128, 2e9)]}, {"a": [(64, 1.1e9)]})
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2, 1]
    plt.close("all")


def test_casting_large_embeddings_up_makes_a_4_bit_model_larger_than_bf16():
    gemma = 100_000_000, 170_000_000
    assert plots.four_bit_weights(*gemma, 4) > 2 * sum(gemma) > plots.four_bit_weights(*gemma, 2)
    at_43 = 570, 430
    assert plots.four_bit_weights(*at_43, 4) == pytest.approx(2 * sum(at_43), rel=0.01)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ((8, "all linear layers", 64, False), "60% less"),
        ((1, "q and v", 32, True), "75% less"),
        ((256, "all linear layers", 1024, False), "more than full"),
    ],
)
def test_the_explorer_answers_at_its_extremes(setting, told):
    figure = explorer.draw(*setting)
    assert told in figure.get_suptitle()
    assert f"Rank {setting[0]} on {setting[1]}" in explorer.words(*setting)
    plt.close("all")
