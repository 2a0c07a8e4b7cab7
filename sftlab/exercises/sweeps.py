"""The ratio of two best learning rates, and how far the learning rates that were tried can move it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import product

from sftlab.exercises.estimates import Estimate
from sftlab.statistics import rate_ratio

Sweep = dict[float, float]  # learning rate -> loss, of one seed


def over_grids(first: Sequence[Sweep], second: Sequence[Sweep]) -> Estimate:
    """Return the ratio of the best learning rates, second over first, and how far the grids can move it.

    One learning rate at a time is left out of either grid that has more than four. The ends are the lowest and
    the highest of the 95% t intervals over seeds, of the whole grids and of all that keep a minimum inside.

    Raises:
        ValueError: a lowest loss is at the end of its whole grid.
    """
    whole, ends = rate_ratio(first, second)
    lows, highs = zip(ends, *left_out(first, second), strict=True)
    return whole, (min(lows), max(highs))


def left_out(first: Sequence[Sweep], second: Sequence[Sweep]) -> list[tuple[float, float]]:
    """Return the intervals of ``over_grids`` with one learning rate of either grid left out."""
    grids = [list(some[0]) if len(some[0]) > 4 else [0.0] for some in (first, second)]
    found = []
    for out in product(*grids):
        thinned = [
            [{r: v for r, v in sweep.items() if r != rate} for sweep in some]
            for some, rate in zip((first, second), out, strict=True)
        ]
        with suppress(ValueError):  # a minimum at the end of a thinned grid
            found.append(rate_ratio(*thinned)[1])
    return found
