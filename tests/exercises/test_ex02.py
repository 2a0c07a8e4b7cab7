"""Notebook 02: its figures, views and explorers on made-up runs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from sftlab.exercises.ex02_superficial_alignment import explorer as explorers
from sftlab.exercises.ex02_superficial_alignment.experiment import SIZES
from sftlab.exercises.ex02_superficial_alignment.plots import (
    STRATA,
    by_place,
    class_shares,
    enough,
    memorised,
    n_table,
    over_n,
    rank_view,
    share,
    shares,
)
from sftlab.exercises.ex02_superficial_alignment.unknown_facts import MOMENTS


@pytest.fixture
def recorded():
    """Form with 8 pairs; known facts grow with n, and those never read stay at zero."""
    found = []
    for seed in range(3):
        for place, pairs in enumerate(SIZES):
            form = "1111" if pairs else "0000"
            run = {"pairs": pairs, "seed": seed}
            for stratum in [*STRATA, "lists"]:
                known = "0000" if stratum in ("single", "absent") else f"{'1' * place:0<4}"
                run[stratum] = {"correct": known, "content": known, "format": form, "stops": "1110",
                                "refuses": "0001", "answers": [f"{stratum} {pairs}"]}  # fmt: skip
            found.append(run)
    return found


def test_form_asks_for_an_end_too(recorded):
    assert share(recorded[1], "asked", "form") == 0.75
    assert shares(recorded, 8, "asked", "content") == [0.25] * 3


def test_enough_is_the_smallest_n_near_the_best(recorded):
    assert enough(recorded, "asked", "form") == 8
    assert enough(recorded, "asked", "content") == 500
    assert enough(recorded, "asked", "content", part=0.5) == 32


def test_class_shares_sum_to_one():
    assert class_shares([1, 1, 2, 9]) == {"unshifted": 0.5, "marginal": 0.25, "shifted": 0.25}


def test_the_figures_draw_without_a_complaint(recorded, capfd):
    curve = [0.1 * k for k in range(len(MOMENTS))]
    learned = [
        {"arm": arm, "seed": seed, "trained, content": curve, "held out, content": curve}
        for arm in ("known", "absent") for seed in range(3)
    ]  # fmt: skip
    for figure in (
        over_n(recorded),
        by_place({"all": [1, 2, 3, 4], "the first": [9]}),
        memorised(learned),
    ):
        figure.draw_without_rendering()
        plt.close(figure)
    assert capfd.readouterr().err == ""


def test_views_say_what_they_show(recorded):
    assert "never read" in n_table(recorded, 32).text and "3 seeds" in n_table(recorded, 32).text
    view = rank_view(["The", " frog"], [1, 9], "an answer", marked=1)
    assert "The(1) ·frog(9)" in view.text and 'title="rank 9 under the base"' in view.html


def test_the_slider_shows_every_n(recorded, monkeypatch):
    drawn = {}
    monkeypatch.setattr(explorers, "explorer", lambda _, draw, *a, **k: drawn.update(draw=draw))
    explorers.slide_n(recorded)
    for pairs in SIZES:
        assert f"absent {pairs}" in drawn["draw"](pairs).text


def test_any_token_can_be_chosen(tiny_model, tokenizer, monkeypatch):
    drawn = {}
    monkeypatch.setattr(explorers, "explorer", lambda _, draw, *a, **k: drawn.update(draw=draw))
    answers = {"Hi?": tokenizer.encode("The frog lives in ponds."), "Yes?": [9, 8]}
    explorers.token_ranks(tiny_model, tokenizer, answers)
    for token in (1, 2, 99):
        assert "token 2 of 2" in drawn["draw"]("Yes?", token).text or token == 1
    assert "the chat model’s" in drawn["draw"]("Hi?", 3).text
