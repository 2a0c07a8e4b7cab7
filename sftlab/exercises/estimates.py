"""Estimates over seeds or kinds with their intervals, and the words and tables' texts that follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sftlab.statistics import chosen, mean_interval

Estimate = tuple[float, tuple[float, float]]  # a value and its 95% interval
OPEN = "not settled here"


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds and its 95% t interval, which for one value has no width."""
    one = float(values[0])
    return (float(np.mean(values)), mean_interval(values)) if len(values) > 1 else (one, (one, one))


def over_kinds(kinds: Sequence[str], values: Sequence[float]) -> Estimate:
    """Return the mean of the kinds' means and its 95% t interval.

    Questions of one kind are alike, so the kinds are the unit.
    """
    groups: dict[str, list[float]] = {}
    for kind, value in zip(kinds, values, strict=True):
        groups.setdefault(kind, []).append(value)
    return mean([float(np.mean(group)) for group in groups.values()])


def change(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return the mean of after − before, seed by seed, and its 95% t interval."""
    return mean(np.subtract(after, before).tolist())


def ratio(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return the geometric mean of after ÷ before, with the 95% t interval of the logarithms."""
    value, (low, high) = change(np.log(before).tolist(), np.log(after).tolist())
    return float(np.exp(value)), (float(np.exp(low)), float(np.exp(high)))


def crossed(values: Sequence[Sequence[float]] | np.ndarray) -> Estimate:
    """Return the mean of a table, such as seeds × kinds, and its 95% interval over both.

    Its half-width is that of the t interval over the rows' means and that of the one over the
    columns' means, added in squares: each side keeps its own number of degrees of freedom (as in
    MOVER, Zou and Donner, 2008). What varies with row and column together is counted twice, so it
    errs on the wide side. One row or one column alone adds no error.
    """
    table = np.asarray(values, dtype=float)
    sides = [mean_interval(side) for side in (table.mean(1), table.mean(0)) if len(side) > 1]
    reach = float(np.hypot.reduce([(high - low) / 2 for low, high in sides])) if sides else 0.0
    return float(table.mean()), (float(table.mean()) - reach, float(table.mean()) + reach)


def tuned(runs: Sequence[dict], loss: Callable[[dict], float]) -> list[dict]:
    """Return the runs of the learning rate with the lowest mean loss over the seeds."""
    rates = [
        chosen(runs, learning_rate=r) for r in dict.fromkeys(run["learning_rate"] for run in runs)
    ]
    return min(rates, key=lambda found: np.mean([loss(run) for run in found]))


def settled(estimate: Estimate) -> bool:
    """Whether the interval leaves out zero."""
    low, high = estimate[1]
    return low > 0 or high < 0


# --- in words --------------------------------------------------------------------------------


def verdict(
    estimate: Estimate, more: str, less: str, open_: str = OPEN, neutral: float = 0.0
) -> str:
    """Return which statement an interval supports: neither if it holds the neutral value."""
    low, high = estimate[1]
    return more if low > neutral else less if high < neutral else open_


def compared(estimate: Estimate, close: float = 0.05) -> str:
    """Return what a ratio says: higher, lower, the same within a share, or not settled."""
    low, high = estimate[1]
    if low > 1 - close and high < 1 + close:
        return f"the same within {close:.0%}"
    return verdict(estimate, "higher", "lower", neutral=1.0)


def percent(estimate: Estimate) -> str:
    """Return a share with its interval as text; a t interval may reach beyond 0 or 1."""
    value, (low, high) = estimate
    return f"{value:.0%} ({max(0, low):.0%} to {min(1, high):.0%})"


def points(estimate: Estimate) -> str:
    """Return a difference of shares with its interval as text, in points of a hundred."""
    value, (low, high) = (100 * np.array(part) for part in estimate)
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def in_100(estimate: Estimate) -> Estimate:
    """Return a share, or a difference of shares, in points of a hundred, as predictions ask for it."""
    value, (low, high) = estimate
    return 100 * value, (100 * low, 100 * high)


def times(estimate: Estimate) -> str:
    """Return a ratio with its interval as text."""
    value, (low, high) = estimate
    return f"×{value:.2f} ({low:.2f} to {high:.2f})"
