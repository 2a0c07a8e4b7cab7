"""Notebook 11: its figures and planner, and the recorded price of a packed base."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from sftlab.exercises.ex11_qlora_memory import experiment
from sftlab.exercises.ex11_qlora_memory import explorer as explorers
from sftlab.exercises.ex11_qlora_memory.plots import CARDS, against_cards, codes, errors, parts_of
from sftlab.exercises.record import runs
from sftlab.memory.plan import Run, plan
from sftlab.quant import int4_code, nf4_code

SMALL = Run(batch=1, length=8, trained_per_row=4, r=2)


@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_parts_of_a_bar_add_up_to_the_peak(weights, recompute):
    planned = plan(replace(SMALL, weights=weights, recompute=recompute))
    parts = parts_of(planned)
    assert sum(parts.values()) == planned.peak
    assert min(parts.values()) >= 0


def test_the_smallest_card_that_holds_it():
    assert [explorers.smallest(int(gb * 1e9)) for gb in (1, 16, 16.1, 80)] == [
        f"fits a card of {card} GB" for card in (16, 16, 24, 80)
    ]
    assert str(CARDS[-1]) in explorers.smallest(int(80.1e9))


def test_the_figures_draw_without_a_complaint(capfd):
    for figure in (
        codes({"NF4": nf4_code().tolist(), "INT4": int4_code().tolist()}),
        errors({"NF4": {32: 0.08, 64: 0.09}, "INT4": {32: 0.1, 64: 0.11}}),
        against_cards(plan(SMALL), "cards", "words"),
    ):
        figure.draw_without_rendering()
        plt.close(figure)
    assert capfd.readouterr().err == ""


def test_the_planner_draws_its_extremes(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        explorers, "explorer", lambda controls, draw, alt: seen.update(draw=draw, alt=alt)
    )
    explorers.plan_memory()
    least = {"shape": "smollm2-135m", "weights": "nf4", "r": 1, "targets": "q and v",
             "batch": 1, "length": 128, "recompute": True}  # fmt: skip
    most = {"shape": "llama-3-70b", "weights": "fp32", "r": 256, "targets": "every linear layer",
            "batch": 16, "length": 8192, "recompute": False}  # fmt: skip
    for settings, words in ((least, "fits a card of 16 GB"), (most, "no card of up to 80 GB")):
        figure = seen["draw"](**settings)
        figure.draw_without_rendering()
        assert words in seen["alt"](**settings)
        assert words in figure.get_suptitle()
        plt.close(figure)


@pytest.mark.base
def test_the_recorded_losses_before_training_are_measured_again():
    recorded = {(run["base"], run["seed"]): run for run in runs("four_bits")}
    assert len(recorded) == len(experiment.settings())
    for base in experiment.BASES:
        again = experiment.run(base, seed=0, epochs=1)
        assert again["before"] == pytest.approx(recorded[base, 0]["before"], abs=0.01)
        assert recorded[base, 0]["after"] < again["after"] < again["before"]  # 2 steps, not 24
