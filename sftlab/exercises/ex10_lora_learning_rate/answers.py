"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
import statistics

import numpy as np
import torch
from scipy import stats
from scipy.interpolate import BarycentricInterpolator
from scipy.optimize import minimize_scalar

from sftlab.classroom.answers import equivalent, refused, right
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


@right(BEST)
def on_a_fine_grid(sweep):
    x, y = np.log(three_points(sweep)).T
    tried = np.linspace(x[0], x[-1], 100_001)
    at = np.argmin(np.polyval(np.polyfit(x, y, 2), tried))
    return np.exp(tried[at])


@right(BEST)
def in_tensors(sweep):
    x, y = torch.tensor(three_points(sweep), dtype=torch.float64).log().T
    a, b, _ = torch.linalg.solve(torch.stack([x * x, x, torch.ones_like(x)], dim=1), y)
    return torch.exp(-b / (2 * a))


def unguarded(points):
    """The usual computation, on points that are taken as they are."""
    points = sorted(points)
    at = int(np.argmin([loss for _, loss in points]))
    x, y = np.log(points[at - 1 : at + 2]).T
    a, b, _ = np.polyfit(x, y, 2)
    return np.exp(-b / (2 * a))


@refused(BEST, "nan or inf, and no others, are left out")
def nan_is_lowest(sweep):
    return unguarded(sweep.items())


@refused(BEST, "nan or inf, and no others, are left out")
def inf_is_kept(sweep):
    return unguarded((rate, loss) for rate, loss in sweep.items() if not math.isnan(loss))


@refused(BEST, "nan or inf, and no others, are left out")
def large_in_place_of_inf(sweep):
    return by_polyfit({rate: min(loss, 100) for rate, loss in sweep.items()})


@refused(BEST, "changes its own input")
def cleaned_in_place(sweep):
    for rate in [rate for rate in sweep if not math.isfinite(sweep[rate])]:
        del sweep[rate]
    return by_polyfit(sweep)


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


@right(RATIO)
def ends_as_array(full, lora):
    ratio, ends = usual(full, lora)
    return ratio, np.array(ends)


@refused(RATIO, "mean_interval of the log ratios")
def by_bootstrap(full, lora):
    logs = np.log([best_rate(b) / best_rate(a) for a, b in zip(full, lora, strict=True)])
    means = np.random.default_rng(0).choice(logs, (999, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return math.exp(logs.mean()), (low, high)


@refused(RATIO, "changes its own input")
def emptied(full, lora):
    found = usual(full, lora)
    full.clear()
    return found


equivalent(
    BEST,
    "A sweep is never empty.",
    "`0` becomes `1`",
    "without `default=` in `min(range(len(rates)), key=lambda i: sweep[rates[i]], default=0)`",
)
equivalent(
    RATIO,
    "Both methods have the same number of seeds.",
    "`True` becomes `False`",
    "without `strict=` in `zip(full, lora, strict=True)`",
)
