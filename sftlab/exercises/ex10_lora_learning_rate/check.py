"""The checks of notebook 10: the best rate of a sweep, and the ratio of two methods' best rates."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from sftlab.classroom.checking import Case, Exercise
from sftlab.statistics import best_rate, mean_interval, rate_ratio

# Held-out losses as they come: not in order, unevenly spaced, and with a run that diverged.
SWEEP = {1e-3: 0.055, 1e-5: 2.2, 3e-4: 0.05, 1e-2: 4.8, 1e-4: 0.31, 3e-3: 0.6}
WALL = {1e-4: 2.5, 1e-3: 0.33, 3e-3: 0.09, 1e-2: 0.07, 3e-2: 6.2, 1e-1: math.nan}
UNEVEN = {2e-6: 1.4, 1e-5: 0.9, 1e-4: 0.2, 2e-4: 0.25, 4e-3: 1.9}


def _finite(sweep):
    return {rate: sweep[rate] for rate in sorted(sweep) if math.isfinite(sweep[rate])}


def _grid(sweep):
    kept = _finite(sweep)
    return min(kept, key=kept.get)


def _three(sweep):
    kept = _finite(sweep)
    rates = list(kept)
    at = rates.index(_grid(sweep))
    return rates[at - 1 : at + 2], [kept[rate] for rate in rates[at - 1 : at + 2]]


def _vertex(x, y):
    a, b, _ = np.polyfit(x, y, 2)
    return -b / (2 * a)


def _plain_loss(sweep):
    rates, losses = _three(sweep)
    return float(np.exp(_vertex(np.log(rates), losses)))


def _plain_rate(sweep):
    rates, losses = _three(sweep)
    return float(_vertex(rates, np.log(losses)))


def _plain_both(sweep):
    rates, losses = _three(sweep)
    return float(_vertex(rates, losses))


def _all_points(sweep):
    kept = _finite(sweep)
    return float(np.exp(_vertex(np.log(list(kept)), np.log(list(kept.values())))))


def _log10(sweep):
    return math.log10(best_rate(sweep))


def _ln(sweep):
    return math.log(best_rate(sweep))


def _loss(sweep):
    return min(_finite(sweep).values())


def _order_as_given(sweep):
    kept = {rate: loss for rate, loss in sweep.items() if math.isfinite(loss)}
    rates = list(kept)
    at = rates.index(min(kept, key=kept.get))
    three = rates[at - 1 : at + 2]
    if len(three) < 3:
        return None
    return float(np.exp(_vertex(np.log(three), np.log([kept[rate] for rate in three]))))


def _worst(sweep):
    kept = _finite(sweep)
    return max(kept, key=kept.get)


def _smallest(sweep):
    return min(sweep)


def _nan_is_lowest(sweep):
    """What argmin makes of a sweep with nan in it."""
    return math.nan if not all(map(math.isfinite, sweep.values())) else best_rate(sweep)


def _mean_of_neighbours(sweep):
    rates, _ = _three(sweep)
    return math.sqrt(rates[0] * rates[2])


BEST_MISTAKES = (
    (_grid, "That is the swept rate with the lowest loss. The minimum lies *between* swept rates, and on a half-decade grid that is a factor of up to 1.8: lay a parabola through it and its two neighbours."),
    (_plain_loss, "The parabola is laid over log rate, but through the losses themselves. Take their log too: else a neighbour that diverged pushes the minimum away like a wall."),
    (_plain_rate, "The parabola is laid over the rates themselves. Rates act by their ratios: from 1e-4 to 3e-4 is as long a step as from 3e-3 to 9e-3. Use their log, and turn the result back."),
    (_plain_both, "The parabola is laid over rates and losses as they are. Both span decades: take the log of both, and turn the rate back."),
    (_all_points, "The parabola goes through *all* points. The U-curve is a parabola only near its minimum; a run that diverged drags the fit along. Take the lowest point and its two neighbours."),
    (_log10, "That is the log10 of the rate. Turn it back: 10 to that power."),
    (_ln, "That is the natural log of the rate. Turn it back with exp."),
    (_loss, "That is the lowest loss. Asked for is the *rate* where it is reached."),
    (_order_as_given, "The neighbours are those in the order of the dictionary. A sweep can come in any order: sort by rate first."),
    (_worst, "That is the rate with the *highest* loss. A good rate has a low one."),
    (_smallest, "That is the smallest rate of the sweep, whatever its loss: `min` over a dictionary compares its keys."),
    (_nan_is_lowest, "It takes nan, the loss of a run that broke down, for a loss: `np.argmin` calls it the lowest. Leave out what is not finite before you look for the minimum."),
    (_mean_of_neighbours, "That is the middle between the two neighbours, whatever the losses. The parabola leans to the side where the loss is lower."),
)  # fmt: skip


def _best_case(describe: str, sweep: dict) -> Case:
    return Case(describe, lambda: (dict(sweep),), best_rate, BEST_MISTAKES, tolerance=1e-7)


# --- two methods -----------------------------------------------------------------------------

# Three seeds: full fine-tuning and LoRA on the same data. The rates overlap from 1e-4 on.
FULL = [
    {1e-5: 2.2, 1e-4: 0.3, 1e-3: 0.06, 1e-2: 4.0},
    {1e-5: 2.1, 1e-4: 0.2, 1e-3: 0.1, 1e-2: 5.0},
    {1e-5: 2.3, 1e-4: 0.1, 1e-3: 0.12, 1e-2: 3.0},
]
LORA = [
    {1e-4: 2.4, 1e-3: 0.3, 1e-2: 0.07, 1e-1: 6.3},
    {1e-4: 2.5, 1e-3: 0.16, 1e-2: 0.11, 1e-1: 6.1},
    {1e-4: 2.6, 1e-3: 0.9, 1e-2: 0.06, 1e-1: 0.5},
]


def _logs(full, lora):
    return [math.log(best_rate(b) / best_rate(a)) for a, b in zip(full, lora, strict=True)]


def _turned(logs):
    low, high = mean_interval(logs)
    return math.exp(np.mean(logs)), (math.exp(low), math.exp(high))


def _inverted(full, lora):
    return _turned([-log for log in _logs(full, lora)])


def _arithmetic(full, lora):
    ratios = np.exp(_logs(full, lora))
    return float(np.mean(ratios)), mean_interval(ratios)


def _means_first(full, lora):
    ratio = np.mean([best_rate(s) for s in lora]) / np.mean([best_rate(s) for s in full])
    return float(ratio), rate_ratio(full, lora)[1]


def _normal(full, lora):
    logs = _logs(full, lora)
    half = 1.96 * stats.sem(logs)
    mean = float(np.mean(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def _population(full, lora):
    logs = _logs(full, lora)
    half = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs) / math.sqrt(len(logs))
    mean = float(np.mean(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def _no_root(full, lora):
    logs = _logs(full, lora)
    half = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1)
    mean = float(np.mean(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def _still_logs(full, lora):
    logs = _logs(full, lora)
    return float(np.mean(logs)), mean_interval(logs)


def _interval_in_logs(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), mean_interval(logs)


def _range(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), (math.exp(min(logs)), math.exp(max(logs)))


def _grid_ratio(full, lora):
    return _turned([math.log(_grid(b) / _grid(a)) for a, b in zip(full, lora, strict=True)])


def _common_rates(full, lora):
    """LoRA looked at only where full fine-tuning was swept."""
    pairs = []
    for a, b in zip(full, lora, strict=True):
        shared = {rate: loss for rate, loss in b.items() if rate in a}
        pairs.append(math.log(min(shared, key=shared.get) / best_rate(a)))
    return _turned(pairs)


def _losses(full, lora):
    """Both at full fine-tuning's best rate: their losses compared."""
    return _turned([math.log(b[_grid(a)] / a[_grid(a)]) for a, b in zip(full, lora, strict=True)])


def _lowest_losses(full, lora):
    return _turned(
        [math.log(min(b.values()) / min(a.values())) for a, b in zip(full, lora, strict=True)]
    )


def _difference(full, lora):
    found = [best_rate(b) - best_rate(a) for a, b in zip(full, lora, strict=True)]
    return float(np.mean(found)), mean_interval(found)


def _ratio_alone(full, lora):
    return rate_ratio(full, lora)[0]


def _first_seed(full, lora):
    ratio = math.exp(_logs(full, lora)[0])
    return ratio, (ratio, ratio)


RATIO_MISTAKES = (
    (_inverted, "That is full fine-tuning's rate over LoRA's. Asked for is how many times *larger LoRA's* is."),
    (_arithmetic, "The ratios were averaged as they are. ×10 and ×0.1 should cancel: average their logs, take the interval there, and turn both back with exp."),
    (_means_first, "Rates were averaged first and divided after that. Each seed's two sweeps share their data: one ratio per seed, then the mean of their logs."),
    (_normal, "The interval uses 1.96, the normal distribution's. With so few seeds take Student's t with (seeds − 1) degrees of freedom, as `mean_interval` does."),
    (_population, "The spread was divided by the number of seeds, not by one less: `np.std` does so unless told `ddof=1`. `mean_interval` does it right."),
    (_no_root, "The interval is that of a single seed's ratio. For the mean, divide the spread by the square root of the number of seeds."),
    (_still_logs, "These are still logarithms. Turn the mean and both ends back with exp."),
    (_interval_in_logs, "The ratio is right, but the ends of the interval are still logarithms: turn them back with exp."),
    (_range, "Those ends are the smallest and the largest ratio of the seeds, not an interval for the mean. `mean_interval` of the logs gives one."),
    (_grid_ratio, "These are ratios of swept rates. Use `best_rate` for each sweep: it looks between them."),
    (_common_rates, "LoRA's rate was sought only among the rates at which full fine-tuning was swept. Its best one lies beyond them: this is how LoRA comes to look worse than it is. Give each method its own sweep."),
    (_losses, "Those are losses at *one* rate, full fine-tuning's best, which is far too small for LoRA. Compare rates: each method's own best."),
    (_lowest_losses, "That compares the lowest *losses*. Asked for are the rates at which they are reached."),
    (_difference, "You subtracted the rates. How many times larger is a quotient: a difference of logs."),
    (_ratio_alone, "The ratio is right, but it came alone. Return (ratio, (low, high))."),
    (_first_seed, "Only the first seed was used. One seed has no interval: take them all."),
)  # fmt: skip


def _ratio_case(describe: str, full: list, lora: list) -> Case:
    def arguments() -> tuple:
        return [dict(s) for s in full], [dict(s) for s in lora]

    return Case(describe, arguments, rate_ratio, RATIO_MISTAKES, tolerance=1e-6)


EXERCISES = {
    "10.best_rate": Exercise(
        id="10.best_rate",
        title="The best rate of a sweep",
        reference=best_rate,
        cases=[
            _best_case("six rates, not in order", SWEEP),
            _best_case("a neighbour that diverged, and a loss of nan", WALL),
            _best_case("unevenly spaced rates", UNEVEN),
        ],
        hints=[
            "Sort the rates, leave out losses that are not finite, find the lowest, and take its two neighbours: three points.",
            "With x = log rate and y = log loss, `np.polyfit(x, y, 2)` gives a, b, c of ax² + bx + c, whose lowest point is at −b / 2a.",
            "That point is a log rate. exp turns it into a rate.",
        ],
        why="Three points fix a parabola, so nothing is fitted away. Its minimum moves between the swept rates as the neighbours' losses say, and a run far out, "
        "diverged or not begun to learn, has no part in it. If the lowest loss is at an end of the sweep there is no minimum to find, and the package says so.",
        points=2,
    ),
    "10.rate_ratio": Exercise(
        id="10.rate_ratio",
        title="The ratio of two best rates, with its interval",
        reference=rate_ratio,
        cases=[
            _ratio_case("three seeds of both methods", FULL, LORA),
            _ratio_case("two seeds", FULL[1:], LORA[1:]),
        ],
        hints=[
            "One ratio per seed: `best_rate` of the seed's LoRA sweep over that of its full one. The lists are in the same order.",
            "A factor is a difference of logs. Take the mean of the log ratios, and `sftlab.statistics.mean_interval` of them.",
            "exp turns the mean and both ends of the interval back. Return (ratio, (low, high)).",
        ],
        why="A seed's two runs share their data, so what makes one sample easier than another drops out of the seed's ratio. In logs, ×10 and ×0.1 are equally far from 1, and the interval becomes a factor up and a factor down.",
        points=2,
    ),
}  # fmt: skip
