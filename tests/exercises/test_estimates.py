"""Estimates over seeds: paired changes and ratios, and words that follow the interval."""

from __future__ import annotations

import math

import pytest

from sftlab.exercises.estimates import (
    OPEN,
    change,
    compared,
    mean,
    over_kinds,
    percent,
    points,
    ratio,
    settled,
    times,
    tuned,
    verdict,
)
from sftlab.statistics import mean_interval

BEFORE, AFTER = [1.0, 2.0, 4.0], [2.0, 3.0, 12.0]


def test_a_change_is_paired_by_seed():
    assert change(BEFORE, AFTER) == (pytest.approx(10 / 3), mean_interval([1.0, 1.0, 8.0]))
    assert mean([0.25]) == (0.25, (0.25, 0.25))


def test_kinds_weigh_the_same_however_many_questions_they_have():
    found = over_kinds(["a", "a", "a", "b"], [0.0, 0.0, 0.75, 0.5])
    assert found == mean([0.25, 0.5])


def test_a_ratio_is_a_geometric_mean_and_turns_round_with_its_sides():
    value, (low, high) = ratio(BEFORE, AFTER)
    assert value == pytest.approx((2 * 1.5 * 3) ** (1 / 3)) and low < value < high
    back = ratio(AFTER, BEFORE)
    assert back == (pytest.approx(1 / value), (pytest.approx(1 / high), pytest.approx(1 / low)))
    assert ratio(BEFORE, [2 * x for x in BEFORE])[0] == pytest.approx(2)


@pytest.mark.parametrize(
    ("interval", "neutral", "said"),
    [((0.1, 0.2), 0.0, "more"), ((-0.2, -0.1), 0.0, "less"), ((-0.1, 0.1), 0.0, OPEN),
     ((0.0, 0.1), 0.0, OPEN), ((0.9, 1.1), 1.0, OPEN), ((1.1, 1.3), 1.0, "more")],
)  # fmt: skip
def test_a_verdict_follows_the_interval(interval, neutral, said):
    assert verdict((math.nan, interval), "more", "less", neutral=neutral) == said
    assert settled((0.0, interval)) is (interval[0] > 0 or interval[1] < 0)


def test_estimates_in_words():
    assert percent((0.96, (0.9, 1.02))) == "96% (90% to 100%)"
    assert points((-0.128, (-0.185, 0.071))) == "-12.8 points (-18.5 to +7.1)"


def test_one_learning_rate_is_chosen_for_all_seeds():
    runs = [
        {"learning_rate": rate, "seed": seed, "loss": loss}
        for rate, losses in {1e-3: (0.1, 0.9), 3e-3: (0.4, 0.4)}.items()
        for seed, loss in enumerate(losses)
    ]
    found = tuned(runs, lambda run: run["loss"])
    assert [run["learning_rate"] for run in found] == [3e-3, 3e-3]
    assert [run["seed"] for run in found] == [0, 1]


def test_a_ratio_as_text():
    assert times((0.5, (0.25, 1.0))) == "×0.50 (0.25 to 1.00)"


@pytest.mark.parametrize(
    ("interval", "said"),
    [((0.97, 1.03), "the same within 5%"), ((0.9, 1.03), OPEN), ((1.01, 1.2), "higher"), ((0.5, 0.9), "lower")],
)  # fmt: skip
def test_a_ratio_near_one_with_a_tight_interval_is_the_same(interval, said):
    assert compared((1.0, interval)) == said
