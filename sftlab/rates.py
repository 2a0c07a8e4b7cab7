"""The best learning rate of a sweep, and how two methods' best rates compare, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.judge import mean_interval


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
