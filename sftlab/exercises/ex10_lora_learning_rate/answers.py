"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
import statistics

import numpy as np
import torch
from scipy import stats
from scipy.interpolate import BarycentricInterpolator
from scipy.optimize import minimize_scalar

from sftlab.classroom.answers import refused, right
from sftlab.statistics import best_rate, mean_interval

BEST, RATIO = "10.best_rate", "10.rate_ratio"


def three_points(sweep):
    points = sorted((rate, loss) for rate, loss in sweep.items() if math.isfinite(loss))
    at = min(range(len(points)), key=lambda i: points[i][1])
    return points[at - 1 : at + 2]


@right(BEST)
def by_polyfit(sweep):
    rates, losses = zip(*three_points(sweep), strict=True)
    a, b, _ = np.polyfit(np.log10(rates), np.log10(losses), 2)
    return 10 ** (-b / (2 * a))


@right(BEST)
def by_divided_differences(sweep):
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(r), math.log(v)) for r, v in three_points(sweep)]
    first = (y1 - y0) / (x1 - x0)
    second = ((y2 - y1) / (x2 - x1) - first) / (x2 - x0)
    return math.exp((x0 + x1) / 2 - first / (2 * second))


@right(BEST)
def by_equations(sweep):
    rates, losses = (np.array(column) for column in zip(*three_points(sweep), strict=True))
    a, b, _ = np.linalg.solve(np.vander(np.log(rates), 3), np.log(losses))
    return np.exp(-b / 2 / a)


@right(BEST)
def by_derivative(sweep):
    x, y = np.log(three_points(sweep)).T
    return np.exp(np.polynomial.Polynomial.fit(x, y, 2).deriv().roots()[0].real)


@right(BEST)
def by_search(sweep):
    x, y = np.log(three_points(sweep)).T
    parabola = BarycentricInterpolator(x, y)
    return math.exp(minimize_scalar(parabola, bracket=tuple(x)).x)


@refused(BEST, "a run that broke down")
def nan_is_lowest(sweep):
    rates = np.array(sorted(sweep))
    losses = np.array([sweep[rate] for rate in rates])
    at = int(np.argmin(losses))
    x, y = np.log(rates[at - 1 : at + 2]), np.log(losses[at - 1 : at + 2])
    a, b, _ = np.polyfit(x, y, 2)
    return np.exp(-b / (2 * a))


@refused(BEST, "is a tensor, but a number is expected")
def a_tensor(sweep):
    return torch.tensor(by_polyfit(sweep))


@right(RATIO)
def usual(full, lora):
    logs = [math.log(best_rate(b) / best_rate(a)) for a, b in zip(full, lora, strict=True)]
    low, high = mean_interval(logs)
    return math.exp(sum(logs) / len(logs)), (math.exp(low), math.exp(high))


@right(RATIO)
def by_decades(full, lora):
    full, lora = (np.log10([best_rate(sweep) for sweep in sweeps]) for sweeps in (full, lora))
    found = lora - full
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return 10 ** found.mean(), (10 ** (found.mean() - half), 10 ** (found.mean() + half))


@right(RATIO)
def geometric(full, lora):
    ratios = [best_rate(b) / best_rate(a) for a, b in zip(full, lora, strict=True)]
    test = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    return statistics.geometric_mean(ratios), (math.exp(test.low), math.exp(test.high))


@right(RATIO)
def paired(full, lora):
    full, lora = (list(map(best_rate, sweeps)) for sweeps in (full, lora))
    interval = stats.ttest_rel(np.log(lora), np.log(full)).confidence_interval()
    return [stats.gmean(lora) / stats.gmean(full), np.exp(interval).tolist()]


@refused(RATIO, "has 3 entries, but 2 are expected")
def flat(full, lora):
    ratio, (low, high) = usual(full, lora)
    return ratio, low, high


@refused(RATIO, "is a NumPy array")
def ends_as_array(full, lora):
    ratio, ends = usual(full, lora)
    return ratio, np.array(ends)
