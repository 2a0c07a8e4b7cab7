"""Answers to the checks of notebook 10, as students write them."""

import math
import statistics

import numpy as np
from scipy import stats

from sftlab.statistics import best_rate, mean_interval

# --- best_rate: right ------------------------------------------------------------------------


def three_points(sweep):
    points = sorted((rate, loss) for rate, loss in sweep.items() if math.isfinite(loss))
    at = min(range(len(points)), key=lambda i: points[i][1])
    return points[at - 1 : at + 2]


def by_polyfit(sweep):
    rates, losses = zip(*three_points(sweep))
    a, b, _ = np.polyfit(np.log10(rates), np.log10(losses), 2)
    return 10 ** (-b / (2 * a))


def by_differences(sweep):
    """Newton's divided differences; no fit."""
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(r), math.log(v)) for r, v in three_points(sweep)]
    first = (y1 - y0) / (x1 - x0)
    second = ((y2 - y1) / (x2 - x1) - first) / (x2 - x0)
    return math.exp((x0 + x1) / 2 - first / (2 * second))


def by_equations(sweep):
    rates, losses = (np.array(column) for column in zip(*three_points(sweep)))
    a, b, _ = np.linalg.solve(np.vander(np.log(rates), 3), np.log(losses))
    return np.exp(-b / 2 / a)


# --- best_rate: wrong ------------------------------------------------------------------------


def lowest_swept(sweep):
    return min((loss, rate) for rate, loss in sweep.items())[1]


def smallest_key(sweep):
    return min(sweep)


def losses_as_they_are(sweep):
    rates, losses = zip(*three_points(sweep))
    a, b, _ = np.polyfit(np.log(rates), losses, 2)
    return np.exp(-b / (2 * a))


def rates_as_they_are(sweep):
    rates, losses = zip(*three_points(sweep))
    a, b, _ = np.polyfit(rates, np.log(losses), 2)
    return -b / (2 * a)


def nothing_in_logs(sweep):
    rates, losses = zip(*three_points(sweep))
    a, b, _ = np.polyfit(rates, losses, 2)
    return -b / (2 * a)


def every_point(sweep):
    kept = {rate: loss for rate, loss in sweep.items() if math.isfinite(loss)}
    a, b, _ = np.polyfit(np.log(list(kept)), np.log(list(kept.values())), 2)
    return np.exp(-b / (2 * a))


def not_turned_back(sweep):
    return math.log10(by_polyfit(sweep))


def natural_log(sweep):
    return math.log(by_polyfit(sweep))


def the_loss(sweep):
    return min(loss for loss in sweep.values() if math.isfinite(loss))


def unsorted(sweep):
    rates = list(sweep)
    losses = [sweep[rate] for rate in rates]
    at = losses.index(min(losses))
    x, y = np.log(rates[at - 1 : at + 2]), np.log(losses[at - 1 : at + 2])
    a, b, _ = np.polyfit(x, y, 2)
    return np.exp(-b / (2 * a))


def highest(sweep):
    return max(sweep, key=sweep.get)


def middle(sweep):
    points = three_points(sweep)
    return math.sqrt(points[0][0] * points[2][0])


def nan_is_lowest(sweep):
    """Right while every loss is a number: argmin takes nan for the lowest."""
    rates = np.array(sorted(sweep))
    losses = np.array([sweep[rate] for rate in rates])
    at = int(np.argmin(losses))
    x, y = np.log(rates[at - 1 : at + 2]), np.log(losses[at - 1 : at + 2])
    a, b, _ = np.polyfit(x, y, 2)
    return np.exp(-b / (2 * a))


# --- rate_ratio: right -----------------------------------------------------------------------


def usual(full, lora):
    logs = [math.log(best_rate(b) / best_rate(a)) for a, b in zip(full, lora)]
    low, high = mean_interval(logs)
    return math.exp(sum(logs) / len(logs)), (math.exp(low), math.exp(high))


def by_decades(full, lora):
    """Base 10, the interval by hand."""
    full, lora = (np.log10([best_rate(sweep) for sweep in sweeps]) for sweeps in (full, lora))
    found = lora - full
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return 10 ** found.mean(), (10 ** (found.mean() - half), 10 ** (found.mean() + half))


def geometric(full, lora):
    ratios = [best_rate(b) / best_rate(a) for a, b in zip(full, lora)]
    test = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    return statistics.geometric_mean(ratios), (math.exp(test.low), math.exp(test.high))


# --- rate_ratio: wrong -----------------------------------------------------------------------


def ratios_of(full, lora):
    return [best_rate(b) / best_rate(a) for a, b in zip(full, lora)]


def turned(logs):
    low, high = mean_interval(logs)
    return math.exp(np.mean(logs)), (math.exp(low), math.exp(high))


def upside_down(full, lora):
    return usual(lora, full)


def plain_mean(full, lora):
    ratios = ratios_of(full, lora)
    return sum(ratios) / len(ratios), mean_interval(ratios)


def rates_averaged_first(full, lora):
    mean = statistics.mean
    return mean(map(best_rate, lora)) / mean(map(best_rate, full)), usual(full, lora)[1]


def normal_quantile(full, lora):
    logs = np.log(ratios_of(full, lora))
    half = 1.96 * logs.std(ddof=1) / math.sqrt(len(logs))
    return np.exp(logs.mean()), (np.exp(logs.mean() - half), np.exp(logs.mean() + half))


def numpys_std(full, lora):
    logs = np.log(ratios_of(full, lora))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std() / math.sqrt(len(logs))
    return np.exp(logs.mean()), (np.exp(logs.mean() - half), np.exp(logs.mean() + half))


def of_one_seed(full, lora):
    logs = np.log(ratios_of(full, lora))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1)
    return np.exp(logs.mean()), (np.exp(logs.mean() - half), np.exp(logs.mean() + half))


def logs_left(full, lora):
    logs = np.log(ratios_of(full, lora))
    return logs.mean(), mean_interval(logs)


def half_turned(full, lora):
    logs = np.log(ratios_of(full, lora))
    return np.exp(logs.mean()), mean_interval(logs)


def smallest_and_largest(full, lora):
    ratios = ratios_of(full, lora)
    return statistics.geometric_mean(ratios), (min(ratios), max(ratios))


def grid_only(full, lora):
    return turned([math.log(min(b, key=b.get) / min(a, key=a.get)) for a, b in zip(full, lora)])


def full_s_rates_reused(full, lora):
    """LoRA is looked at only where full fine-tuning was swept."""
    logs = []
    for a, b in zip(full, lora):
        common = {rate: b[rate] for rate in b if rate in a}
        logs.append(math.log(min(common, key=common.get) / best_rate(a)))
    return turned(logs)


def losses_at_full_s_rate(full, lora):
    logs = []
    for a, b in zip(full, lora):
        rate = min(a, key=a.get)
        logs.append(math.log(b[rate] / a[rate]))
    return turned(logs)


def best_losses(full, lora):
    return turned([math.log(min(b.values()) / min(a.values())) for a, b in zip(full, lora)])


def subtracted(full, lora):
    found = [best_rate(b) - best_rate(a) for a, b in zip(full, lora)]
    return np.mean(found), mean_interval(found)


def alone(full, lora):
    return usual(full, lora)[0]


def one_seed(full, lora):
    ratio = best_rate(lora[0]) / best_rate(full[0])
    return ratio, (ratio, ratio)


RIGHT = {
    "10.best_rate": {"polyfit": by_polyfit, "differences": by_differences, "solved": by_equations},
    "10.rate_ratio": {"usual": usual, "decades": by_decades, "geometric mean": geometric},
}

WRONG = {
    "10.best_rate": {
        "the lowest swept": (lowest_swept, "*between* swept rates"),
        "smallest key": (smallest_key, "compares its keys"),
        "losses as they are": (losses_as_they_are, "through the losses themselves"),
        "rates as they are": (rates_as_they_are, "over the rates themselves"),
        "nothing in logs": (nothing_in_logs, "log of both"),
        "every point": (every_point, "through *all* points"),
        "log10 left": (not_turned_back, "10 to that power"),
        "ln left": (natural_log, "Turn it back with exp"),
        "the loss": (the_loss, "the lowest loss"),
        "unsorted": (unsorted, "sort by rate"),
        "highest": (highest, "*highest* loss"),
        "middle": (middle, "whatever the losses"),
        "nan": (nan_is_lowest, "a run that broke down"),
    },
    "10.rate_ratio": {
        "upside down": (upside_down, "*larger LoRA's*"),
        "plain mean": (plain_mean, "should cancel"),
        "rates averaged first": (rates_averaged_first, "one ratio per seed"),
        "1.96": (normal_quantile, "1.96"),
        "numpy's std": (numpys_std, "ddof=1"),
        "of one seed": (of_one_seed, "square root"),
        "logs left": (logs_left, "still logarithms. Turn the mean"),
        "half turned": (half_turned, "ends of the interval are still"),
        "smallest and largest": (smallest_and_largest, "smallest and the largest"),
        "grid": (grid_only, "ratios of swept rates"),
        "full's rates reused": (full_s_rates_reused, "its own sweep"),
        "losses at full's rate": (losses_at_full_s_rate, "far too small for LoRA"),
        "best losses": (best_losses, "lowest *losses*"),
        "subtracted": (subtracted, "subtracted the rates"),
        "alone": (alone, "came alone"),
        "one seed": (one_seed, "Only the first seed"),
    },
}
