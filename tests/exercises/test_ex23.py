"""Notebook 23: its figures, tables and explorer, and that its text is true of what was recorded."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from sftlab.classroom.plots import use_style
from sftlab.errors import WorkbookError
from sftlab.exercises.ex23_broken_runs_clinic import explorer as explorers
from sftlab.exercises.ex23_broken_runs_clinic.clinic import FAULTS, HEALTHY, Run, served, trained
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND
from sftlab.exercises.ex23_broken_runs_clinic.plots import (
    bench,
    cost,
    costs_nothing,
    falls,
    harm,
    loss_curves,
    told,
)
from sftlab.exercises.record import runs


def test_a_curve_that_falls_and_three_that_do_not():
    assert falls([3, 2, 1, 0.5, 0.4, 0.4])
    assert not falls([3, 3, 3, 3, 3, 3])
    assert not falls([3, 9, 1, 0.5, 0.4, 0.4])
    assert not falls([3, 3, 3, 1, 2.9, 2.9, 2.9])


@pytest.mark.parametrize("fault", FAULTS)
def test_every_recorded_curve_falls(fault):
    """The notebook says that none of the ten looks broken."""
    assert all(falls(run["losses"]) for run in runs("clinic", fault=fault))


def test_what_the_notebook_says_of_costs_is_what_was_recorded():
    recorded = runs("clinic")
    small = {"begin token doubled", "mean of means", "dropout in evaluation"}
    for fault in set(FAULTS) - {HEALTHY}:
        change, (low, high) = cost(recorded, fault)
        assert low <= change <= high
        assert (change > -0.1) == (fault in small), fault
        assert costs_nothing(recorded, fault) == (fault in small), fault
    change, (low, high) = cost(recorded, "dropout in evaluation")
    assert change < 0 and -low > high  # most of the interval lies below zero
    split = [r["figures"]["split moves gradient"] for r in runs("clinic", fault="mean of means")]
    assert min(split) > 0.5


def test_figures_are_written_so_that_rounding_moves_no_digit():
    assert [told(v) for v in (1.0, 0.0, 3e-7, 0.59012, 8.0, 0.05342)] == ["1", "0", "0", "0.59", "8", "0.05"]  # fmt: skip


def test_the_bench_shows_every_figure_beside_a_sound_runs():
    text = bench({"X": {**SOUND, "strength": 8.0}}, ["X"]).text
    assert all(name in text for name in SOUND)
    assert ["strength", "1", "8"] in [line.split() for line in text.split("\n")]


def test_figures_show_every_run():
    use_style()
    runs_of = {bed: Run([], None, None, None, "", [3.0, 1.0, 0.1]) for bed in "ABCDE"}
    figure = loss_curves(runs_of, "ABCD")
    drawn = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in drawn] == [f"run {bed}" for bed in "ABCDE"]
    found = [{"fault": f, "seed": s, "exact": 0.5, "stops": 1.0} for f in FAULTS for s in range(3)]
    labels = [text.get_text() for text in harm(found).axes[0].get_yticklabels()]
    assert sorted(labels) == sorted(FAULTS)
    plt.close("all")


@pytest.mark.base
def test_the_explorer_answers_with_every_instrument_on_sound_and_merged_runs(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    sound = trained(HEALTHY, steps=1)
    ward = {"A": sound, "B": served(sound, "wrong factor in the merge")}
    explorers.examine_a_run(ward, "Where does the frog live?")
    assert list(shown["bed"].options) == ["A", "B"]
    for bed in ward:
        for instrument in shown["instrument"].options:
            drawn = shown["draw"](bed, instrument, "Where does the frog live?")
            assert hasattr(drawn, "text") or hasattr(drawn, "savefig"), instrument
    assert "merged: none left" in shown["draw"]("B", "adapter", "").text
    assert "run B" in shown["words"]("B", "adapter", "").replace("Run", "run")
    plt.close("all")
    with pytest.raises(WorkbookError, match="type a question"):
        shown["draw"]("A", "prompt and answer", " ")
