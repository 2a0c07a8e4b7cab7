"""Paired differences: their intervals against theory, McNemar's test against counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sftlab.statistics import clustered_difference, mcnemar, paired_difference


def test_the_interval_is_that_of_the_mean_of_the_differences():
    rng = np.random.default_rng(0)
    before = rng.random(400) < 0.4
    after = before | (rng.random(400) < 0.3)
    mean, (low, high) = paired_difference(before, after)
    differences = after.astype(float) - before
    assert mean == differences.mean()
    normal = stats.norm.interval(0.95, differences.mean(), stats.sem(differences))
    assert (low, high) == pytest.approx(normal, abs=0.01)


def test_pairing_is_narrower_than_two_samples_when_the_models_agree_mostly():
    before = np.arange(200) < 100
    after = np.arange(200) < 110
    _, (low, high) = paired_difference(before, after)
    separate = 1.96 * np.sqrt(before.var() / 200 + after.var() / 200)
    assert high - low < separate


def test_without_any_difference_the_interval_has_no_width():
    assert paired_difference([1, 0, 1], [1, 0, 1]) == (0.0, (0.0, 0.0))
    assert paired_difference([0, 0], [1, 1]) == (1.0, (1.0, 1.0))


def test_is_the_same_every_time():
    before, after = [0, 1, 0, 0, 1], [1, 1, 0, 1, 0]
    assert paired_difference(before, after) == paired_difference(before, after)


def test_mcnemar_counts_the_questions_on_which_they_differ():
    before = [True, True, False, False, False, False, False]
    after = [True, False, True, True, True, True, True]
    won, lost, p = mcnemar(before, after)
    assert (won, lost) == (5, 1)
    assert p == pytest.approx(2 * (6 + 1) / 2**6)


def test_mcnemar_without_a_difference_proves_nothing():
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)


def test_clusters_that_fail_together_widen_the_interval():
    kinds = [kind for kind in "abcdefghij" for _ in range(20)]
    before = [1] * 200
    after = [0 if kind in "ab" else 1 for kind in kinds]  # two kinds fail as a whole
    alone, together = paired_difference(before, after), clustered_difference(before, after, kinds)
    assert alone[0] == pytest.approx(together[0]) == pytest.approx(-0.2)
    width = [high - low for _, (low, high) in (alone, together)]
    assert width[1] > 2 * width[0]


def test_every_cluster_counts_the_same():
    after = [1, 0, 0, 0, 0, 0]
    difference, (low, high) = clustered_difference([0] * 6, after, ["a", *"bbbbb"])
    assert difference == 0.5
    assert (low, high) == (0, 1)


def test_the_same_change_in_every_cluster_leaves_no_doubt():
    assert clustered_difference([0, 0], [1, 1], ["a", "b"]) == (1.0, (1.0, 1.0))
