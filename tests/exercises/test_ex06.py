"""Notebook 06: stopping at a score, bytes as people read them, and a part of the recorded runs."""

from __future__ import annotations

import pytest

from sftlab.exercises.ex06_why_peft import experiment, plots
from sftlab.exercises.ex06_why_peft import explorer as explorer
from sftlab.exercises.ex06_why_peft.experiment import (
    BEST,
    METHODS,
    SEEDS,
    TARGETS,
    train_to,
    validation_rows,
)
from sftlab.exercises.ex10_lora_learning_rate.experiment import METHODS as SWEPT
from sftlab.exercises.ex10_lora_learning_rate.experiment import fresh, measure, questions
from sftlab.exercises.record import runs
from sftlab.statistics import best_rate, change_by_seed, chosen

NAME = "matched_score"


# --- stopping at a score ---------------------------------------------------------------------


def stopped(monkeypatch, model, tokenizer, losses, targets):
    """train_to with held-out losses given beforehand, one per step."""
    seen, now = [], iter(losses)
    monkeypatch.setattr(experiment, "response_nll", lambda *_: next(now))
    return train_to(model, tokenizer, 1e-3, 0, targets, seen.append), seen


def test_it_stops_at_the_first_step_at_or_below_the_last_target(tiny_model, tokenizer, monkeypatch):
    losses = [2.0, 0.5, 0.9, 0.3, 0.31, 0.1]
    found, seen = stopped(
        monkeypatch, tiny_model, tokenizer, [*losses, "never asked"], (0.5, 0.3, 0.1)
    )
    assert found == {0.5: 2, 0.3: 4, 0.1: 6}
    assert seen == [0.5, 0.3, 0.1]


def test_one_step_may_pass_two_targets(tiny_model, tokenizer, monkeypatch):
    found, seen = stopped(monkeypatch, tiny_model, tokenizer, [2.0, 0.05], (0.3, 0.1))
    assert found == {0.3: 2, 0.1: 2}
    assert seen == [0.3, 0.1]


def test_a_target_that_is_not_reached_is_left_out(tiny_model, tokenizer, monkeypatch):
    monkeypatch.setattr(experiment, "MOST", 4)
    found, _ = stopped(monkeypatch, tiny_model, tokenizer, [2.0, 0.2, 0.2, 0.2], (0.3, 0.1))
    assert found == {0.3: 2}


def test_questions_that_stop_a_run_are_not_the_measured_ones(tokenizer):
    measured = {question["prompt"] for question in questions()}
    for row in validation_rows(tokenizer, 20):
        text = tokenizer.decode(row.input_ids)
        assert not any(f"\n{prompt}<" in text for prompt in measured)


# --- bytes, and the explorer -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 bytes"), (999, "999 bytes"), (12_345, "12.3 kB"), (999_600, "1 MB"), (16.1e9, "16.1 GB"), (141e12, "141 TB"), (5e15, "5,000 TB")],
)  # fmt: skip
def test_bytes_are_told_with_three_digits(value, told):
    assert plots.size(value) == told


def test_an_adapter_of_a_real_model_is_a_small_part_of_it():
    for name, (base, adapter) in explorer.sizes().items():
        assert 0.0005 < adapter / base < 0.03, name


@pytest.mark.parametrize("tasks", [1, 1000])
def test_the_explorer_draws_extreme_settings(tasks):
    for base, adapter in ((2.7e8, 4.9e6), (1.4e11, 2.1e8)):
        figure = plots.storage("a model", tasks, base, adapter, "words")
        assert ("no saving" in figure.get_suptitle()) == (tasks == 1)


# --- the recorded file -----------------------------------------------------------------------


def test_the_rates_are_the_sweep_s_best_rounded():
    for method in SWEPT:
        sweep = {}
        for run in runs("learning_rate", method=method):
            sweep.setdefault(run["seed"], {})[run["rate"]] = run["nll"]
        for found in sweep.values():
            assert 0.6 < best_rate(found) / BEST[method] < 1.6


def test_scores_are_matched():
    for target in TARGETS:
        here = plots.at_target(runs(NAME), target)
        sides = [chosen(here, method=method) for method in METHODS]
        assert [len(side) for side in sides] == [SEEDS, SEEDS]
        full, lora = (sum(run["nll"] for run in side) / SEEDS for side in sides)
        assert full == pytest.approx(lora, rel=0.3)


def test_what_the_notebook_says_of_forgetting():
    """At the same score LoRA has lost more; between two good rates of the sweep the order flips."""
    for target in TARGETS:
        here = plots.at_target(runs(NAME), target)
        change, (low, _) = change_by_seed(here, "documents", {"method": "full"}, {"method": "lora"})
        assert change > 0
        assert low > 0 or target > 0.1
        assert all(run["recall"] > 0.9 and run["asked"] > 0.5 for run in here)
    swept = runs("learning_rate")
    lora = {"method": "lora", "rate": 3e-3}
    changes = {
        rate: change_by_seed(swept, "documents", {"method": "full", "rate": rate}, lora)
        for rate in (3e-4, 1e-3)
    }
    assert changes[3e-4][1][0] > 0 > changes[1e-3][1][1]


@pytest.mark.base
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_gives_what_was_recorded(method):
    """Rounding differs between processors and grows over the steps: so a step may be missed."""
    (recorded,) = runs(NAME, method=method, seed=0)
    model, tokenizer = fresh(method, 0)
    steps = train_to(model, tokenizer, BEST[method], 0, targets=(0.3,))
    there = recorded["at"]["0.3"]
    assert steps[0.3] == pytest.approx(there["step"], abs=1)
    found = measure(model, tokenizer)
    assert found["nll"] == pytest.approx(there["nll"], rel=0.25)
    assert found["documents"] == pytest.approx(there["documents"], rel=0.1)
