"""The ratio of two best learning rates, with an interval over the seeds and over the learning rates tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from scipy import stats

from sftlab.exercises.estimates import Estimate
from sftlab.statistics import best_rate, rate_ratio

Sweep = dict[float, float]  # learning rate -> loss, of one seed
DRAWS = 100_000


def over_grids(first: Sequence[Sweep], second: Sequence[Sweep]) -> Estimate:
    """Return the ratio of the best learning rates, second over first, with a 95% bootstrap interval.

    Every draw takes as many seeds as there are, with replacement, and one of the grids of ``by_grid`` for
    either method. The quantiles are those of the expanded percentile interval: with few seeds the usual ones
    would be too near (Hesterberg, 2015, arXiv:1411.5279).

    Raises:
        ValueError: a lowest loss is at the end of its whole grid, or there are fewer than two seeds.
    """
    whole, _ = rate_ratio(first, second)
    a, b = by_grid(first), by_grid(second)
    rng, seeds = np.random.default_rng(0), len(first)
    drawn = rng.integers(seeds, size=(DRAWS, seeds))
    one, other = (some[rng.integers(len(some), size=(DRAWS, 1)), drawn].mean(1) for some in (a, b))
    low, high = np.exp(np.quantile(other - one, [tail(seeds), 1 - tail(seeds)]))
    return whole, (float(low), float(high))


def by_grid(sweeps: Sequence[Sweep]) -> np.ndarray:
    """Return the logarithm of every seed's best learning rate, a row per grid and a column per seed.

    The first row is the whole grid. In the others one of more than four learning rates is left out; a grid
    with some seed's lowest loss at its end has no row.
    """
    rows = []
    for out in (None, *(sweeps[0] if len(sweeps[0]) > 4 else ())):
        kept = [{rate: loss for rate, loss in sweep.items() if rate != out} for sweep in sweeps]
        with suppress(ValueError):
            rows.append(np.log([best_rate(sweep) for sweep in kept]))
    return np.array(rows)


def tail(seeds: int) -> float:
    """Return the quantile at which an expanded percentile interval of 95% begins, 2.5% for many seeds."""
    return float(stats.norm.cdf(math.sqrt(seeds / (seeds - 1)) * stats.t.ppf(0.025, seeds - 1)))
