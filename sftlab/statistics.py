"""Confidence intervals, paired differences and best learning rates over questions or seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sftlab.errors import WorkbookError


def share_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share, computed by SciPy."""
    found = stats.binomtest(int(successes), int(total)).proportion_ci(confidence, method="wilson")
    return found.low, found.high


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of a mean over a few seeds; of width 0 if all values are equal.

    Raises:
        ValueError: fewer than two values.
    """
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
    """Return the mean of after − before over the same questions, and its confidence interval.

    The interval is ``scipy.stats.bootstrap`` (percentile, 5,000 resamples) of the *differences*. A
    question that is hard for both models then adds nothing to the uncertainty; two separate
    intervals would count it twice.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # all resamples are equal
        return mean, (mean, mean)
    found = stats.bootstrap(
        (differences,), np.mean, confidence_level=confidence, n_resamples=5000,
        method="percentile", batch=500, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return mean, (float(found.low), float(found.high))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, float]:
    """Run McNemar's exact test; return questions won, questions lost and the p-value.

    Only questions on which the two models differ show which model is better. If the models were
    equally good, each of these would be a fair coin toss; the p-value is that of the two-sided
    binomial test (McNemar, 1947).
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
    """Like `paired_difference`, for questions in clusters, such as kinds of question.

    Questions of one kind tend to fail together, so they are not independent. This function
    resamples whole clusters: it bootstraps the mean differences of the clusters, with equal weights
    (Miller, 2024, arXiv:2411.00640, on clustered errors of evaluations).
    """
    names = np.asarray(clusters)
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    means = [differences[names == name].mean() for name in sorted(set(clusters))]
    return paired_difference([0.0] * len(means), means, confidence, seed)


def best_rate(sweep: Mapping[float, float]) -> float:
    """Return the learning rate of the lowest loss, interpolated between the grid points.

    The function fits a parabola through the lowest point and its two neighbors, log loss over log
    learning rate, and returns its minimum. Logarithms fit because learning rates act by their
    ratios, and a smooth curve is close to a parabola near its minimum. Other points are ignored:
    where training diverges, the loss rises steeply and would shift the minimum. The *log* of the
    loss limits this effect for the neighbors.

    Args:
        sweep: learning rate -> loss, both above 0, in any order. Learning rates whose loss is not
            finite are skipped.

    Raises:
        ValueError: the lowest loss is at an end of the sweep, so the minimum may lie beyond it.
    """
    rates = sorted(rate for rate, loss in sweep.items() if math.isfinite(loss))
    lowest = min(range(len(rates)), key=lambda i: sweep[rates[i]], default=0)
    if not 0 < lowest < len(rates) - 1:
        raise ValueError(
            f"the lowest loss of {len(rates)} finite ones is at the end of the sweep: add rates "
            "beyond it, until the loss rises on both sides"
        )
    three = rates[lowest - 1 : lowest + 2]
    x = np.log(three) - math.log(rates[lowest])  # centered at 0, so the fit loses no digits
    a, b, _ = np.polyfit(x, np.log([sweep[rate] for rate in three]), 2)
    return float(rates[lowest] * math.exp(-b / (2 * a)))


def rate_ratio(
    full: Sequence[Mapping[float, float]], lora: Sequence[Mapping[float, float]]
) -> tuple[float, tuple[float, float]]:
    """Return the best learning rate of LoRA over that of full fine-tuning, with a 95% interval.

    Each seed gives one ratio from two sweeps on the same data. The ratios are averaged as
    logarithms (×10 and ×0.1 cancel). The interval is Student's t over the seeds, transformed back
    from logarithms: its ends differ from the ratio by equal factors.

    Args:
        full, lora: one sweep (learning rate -> loss) per seed, in the same order of seeds.

    Raises:
        ValueError: fewer than two seeds, different numbers of seeds, or as in `best_rate`.
    """
    pairs = zip(full, lora, strict=True)
    logs = [math.log(best_rate(b) / best_rate(a)) for a, b in pairs]
    low, high = mean_interval(logs)
    return math.exp(np.mean(logs)), (math.exp(low), math.exp(high))


def chosen(runs: Sequence[dict], **settings: Any) -> list[dict]:
    """Return the runs with these settings, sorted by seed."""
    found = [run for run in runs if all(run[k] == v for k, v in settings.items())]
    return sorted(found, key=lambda run: run["seed"])


def mean_with_interval(
    runs: Sequence[dict], name: str, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """Return the mean of a measurement over the seeds, with its 95% t interval."""
    values = [run[name] for run in chosen(runs, **settings)]
    return float(np.mean(values)), mean_interval(values)


def change_by_seed(
    runs: Sequence[dict], name: str, first: dict, second: dict, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """Return the mean change, second − first, of two arms with the same seeds and its t interval.

    The interval is a 95% t interval of the changes.

    Args:
        first, second: the settings that distinguish the arms, such as ``{"loss": "response"}``.

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
