"""Intervals, paired differences and best learning rates: what a measurement over questions or seeds says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sftlab.errors import WorkbookError


def share_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share, as SciPy computes it."""
    found = stats.binomtest(int(successes), int(total)).proportion_ci(confidence, method="wilson")
    return found.low, found.high


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for a mean over few seeds; of width 0 if all values are equal."""
    found = np.asarray(values, dtype=float)
    if len(found) < 2:
        raise ValueError("an interval needs at least two values")
    if np.ptp(found) == 0:
        return float(found[0]), float(found[0])
    low, high = stats.t.interval(confidence, len(found) - 1, found.mean(), stats.sem(found))
    return float(low), float(high)


def paired_difference(
    before: Sequence[float], after: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The mean of after − before over the same questions, and its interval.

    The interval is ``scipy.stats.bootstrap``'s (percentile, 5,000 resamples) of the *differences*:
    a question that is hard for both models adds nothing to the uncertainty, which two separate
    intervals would count twice.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # every resample is the same
        return mean, (mean, mean)
    found = stats.bootstrap(
        (differences,), np.mean, confidence_level=confidence, n_resamples=5000,
        method="percentile", batch=500, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return mean, (float(found.low), float(found.high))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, float]:
    """McNemar's exact test: questions won, questions lost, and the p-value.

    Only questions on which the two differ say which is better. If neither were, each of them would
    be a fair coin: the p-value is the two-sided binomial one (McNemar, 1947).
    """
    pairs = list(zip(before, after, strict=True))
    won = sum(not b and a for b, a in pairs)
    lost = sum(b and not a for b, a in pairs)
    return won, lost, stats.binomtest(won, won + lost).pvalue if won + lost else 1.0


def clustered_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[str],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """As `paired_difference`, for questions that come in clusters: kinds of question, say.

    Questions of one kind fail together, so they are no independent evidence. Here whole clusters are
    resampled: SciPy's bootstrap of the clusters' mean differences, each counting the same (Miller,
    2024, arXiv:2411.00640, on clustered errors of evaluations).
    """
    names = np.asarray(clusters)
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    means = [differences[names == name].mean() for name in sorted(set(clusters))]
    return paired_difference([0.0] * len(means), means, confidence, seed)


def best_rate(sweep: Mapping[float, float]) -> float:
    """The rate at which the loss would be lowest: between the grid points, not on one of them.

    A parabola is laid through the lowest point and its two neighbours, log loss over log rate; its
    lowest point is the answer. Rates act by their ratios, and near its minimum a smooth curve is a
    parabola. Points further off are left out: where training diverges the curve is a wall, and
    would pull the minimum along. The *log* of the loss keeps a wall next to the minimum from doing
    the same.

    Args:
        sweep: rate -> loss, both above 0, in any order. Rates whose loss is not finite are skipped.

    Raises:
        ValueError: the lowest loss is at an end of the sweep: the minimum may lie beyond.
    """
    rates = sorted(rate for rate, loss in sweep.items() if math.isfinite(loss))
    lowest = min(range(len(rates)), key=lambda i: sweep[rates[i]], default=0)
    if not 0 < lowest < len(rates) - 1:
        raise ValueError(
            f"the lowest loss of {len(rates)} finite ones is at the end of the sweep: add rates "
            "beyond it, until the loss rises on both sides"
        )
    three = rates[lowest - 1 : lowest + 2]
    x = np.log(three) - math.log(rates[lowest])  # around 0: the fit loses no digits
    a, b, _ = np.polyfit(x, np.log([sweep[rate] for rate in three]), 2)
    return float(rates[lowest] * math.exp(-b / (2 * a)))


def rate_ratio(
    full: Sequence[Mapping[float, float]], lora: Sequence[Mapping[float, float]]
) -> tuple[float, tuple[float, float]]:
    """How many times larger LoRA's best rate is than full fine-tuning's, with its 95% interval.

    Each seed gives one ratio; the seed's two sweeps share their data. Ratios are averaged as
    logarithms (×10 and ×0.1 cancel), and the interval is Student's t over the seeds, turned back:
    it lies around the ratio by a factor, not by a sum.

    Args:
        full, lora: one sweep (rate -> loss) per seed, in the same order of seeds.

    Raises:
        ValueError: fewer than two seeds, unequal numbers of them, or as `best_rate`.
    """
    pairs = zip(full, lora, strict=True)
    logs = [math.log(best_rate(b) / best_rate(a)) for a, b in pairs]
    low, high = mean_interval(logs)
    return math.exp(np.mean(logs)), (math.exp(low), math.exp(high))


def chosen(runs: Sequence[dict], **settings: Any) -> list[dict]:
    """The runs with these settings, by seed."""
    found = [run for run in runs if all(run[k] == v for k, v in settings.items())]
    return sorted(found, key=lambda run: run["seed"])


def mean_with_interval(
    runs: Sequence[dict], name: str, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """The mean of a measurement over the seeds, with its 95% t interval."""
    values = [run[name] for run in chosen(runs, **settings)]
    return float(np.mean(values)), mean_interval(values)


def change_by_seed(
    runs: Sequence[dict], name: str, first: dict, second: dict, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """second − first of two arms that share their seeds: mean and 95% t interval of the changes.

    `first` and `second` are the settings that tell the arms apart: ``{"loss": "response"}``.

    Raises:
        WorkbookError: the arms have fewer than two seeds in common.
    """
    sides = [
        {run["seed"]: run[name] for run in chosen(runs, **settings, **arm)}
        for arm in (first, second)
    ]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    if len(seeds) < 2:
        raise WorkbookError(f"{first} and {second} have {len(seeds)} seeds in common; 2 are needed")
    values = [sides[1][seed] - sides[0][seed] for seed in seeds]
    return float(np.mean(values)), mean_interval(values)
