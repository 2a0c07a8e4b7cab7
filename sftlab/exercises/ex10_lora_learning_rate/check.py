"""The checks of notebook 10: the best rate of a sweep, and the ratio of two methods' best rates."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.statistics import best_rate, mean_interval, rate_ratio

BEST, RATIO = "10.best_rate", "10.rate_ratio"

# Held-out losses as they come: not in order, unevenly spaced, and with a run that diverged.
SWEEP = {1e-3: 0.055, 1e-5: 2.2, 3e-4: 0.05, 1e-2: 4.8, 1e-4: 0.31, 3e-3: 0.6}
WALL = {1e-4: 2.5, 1e-3: 0.33, 3e-3: 0.09, 1e-2: 0.07, 3e-2: 6.2, 1e-1: math.nan}
UNEVEN = {2e-6: 1.4, 1e-5: 0.9, 1e-4: 0.2, 2e-4: 0.25, 4e-3: 1.9}


def _finite(sweep):
    return {rate: sweep[rate] for rate in sorted(sweep) if math.isfinite(sweep[rate])}


def _around(rates, at):
    return rates[at - 1 : at + 2]


def _three(sweep):
    """The lowest point and its two neighbours: their rates, and their losses."""
    kept = _finite(sweep)
    rates = _around(list(kept), list(kept).index(_swept(sweep)))
    return rates, [kept[rate] for rate in rates]


def _vertex(x, y):
    a, b, _ = np.polyfit(x, y, 2)
    return float(-b / (2 * a))


@mistake(BEST, "That is the swept rate with the lowest loss. The minimum lies *between* swept rates, and on a half-decade grid that is a factor of up to 1.8: lay a parabola through it and its two neighbours.")  # fmt: skip
def _swept(sweep):
    kept = _finite(sweep)
    return min(kept, key=kept.get)


@mistake(BEST, "The parabola is laid over log rate, but through the losses themselves. Take their log too: else a neighbour that diverged pushes the minimum away like a wall.")  # fmt: skip
def _losses_as_they_are(sweep):
    rates, losses = _three(sweep)
    return math.exp(_vertex(np.log(rates), losses))


@mistake(BEST, "The parabola is laid over the rates themselves. Rates act by their ratios: from 1e-4 to 3e-4 is as long a step as from 3e-3 to 9e-3. Use their log, and turn the result back.")  # fmt: skip
def _rates_as_they_are(sweep):
    rates, losses = _three(sweep)
    return _vertex(rates, np.log(losses))


@mistake(BEST, "The parabola is laid over rates and losses as they are. Both span decades: take the log of both, and turn the rate back.")  # fmt: skip
def _nothing_in_logs(sweep):
    rates, losses = _three(sweep)
    return _vertex(rates, losses)


@mistake(BEST, "The parabola goes through *all* points. The U-curve is a parabola only near its minimum; a run that diverged drags the fit along. Take the lowest point and its two neighbours.")  # fmt: skip
def _every_point(sweep):
    kept = _finite(sweep)
    return math.exp(_vertex(np.log(list(kept)), np.log(list(kept.values()))))


@mistake(BEST, "That is the log10 of the rate. Turn it back: 10 to that power.")
def _log10_left(sweep):
    return math.log10(best_rate(sweep))


@mistake(BEST, "That is the natural log of the rate. Turn it back with exp.")
def _ln_left(sweep):
    return math.log(best_rate(sweep))


@mistake(BEST, "That is the lowest loss. Asked for is the *rate* where it is reached.")
def _the_loss(sweep):
    return min(_finite(sweep).values())


@mistake(BEST, "The neighbours are those in the order of the dictionary. A sweep can come in any order: sort by rate first.")  # fmt: skip
def _unsorted(sweep):
    rates = [rate for rate in sweep if math.isfinite(sweep[rate])]
    three = _around(rates, rates.index(_swept(sweep)))
    return math.exp(_vertex(np.log(three), np.log([sweep[rate] for rate in three])))


@mistake(BEST, "That is the rate with the *highest* loss. A good rate has a low one.")
def _highest(sweep):
    kept = _finite(sweep)
    return max(kept, key=kept.get)


@mistake(BEST, "That is the smallest rate of the sweep, whatever its loss: `min` over a dictionary compares its keys.")  # fmt: skip
def _smallest_key(sweep):
    return min(sweep)


@mistake(BEST, "It takes nan, the loss of a run that broke down, for a loss: `np.argmin` calls it the lowest. Leave out what is not finite before you look for the minimum.")  # fmt: skip
def _nan_is_lowest(sweep):
    return best_rate(sweep) if np.isfinite(list(sweep.values())).all() else math.nan


@mistake(BEST, "That is the middle between the two neighbours, whatever the losses. The parabola leans to the side where the loss is lower.")  # fmt: skip
def _middle(sweep):
    rates, _ = _three(sweep)
    return math.sqrt(rates[0] * rates[2])


def _best_case(describe: str, sweep: dict) -> Case:
    return Case(describe, lambda: (dict(sweep),), best_rate, tolerance=1e-7)


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


def _within(logs, half):
    mean = np.mean(logs)
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def _student(logs):
    return stats.t.ppf(0.975, len(logs) - 1)


@mistake(RATIO, "That is full fine-tuning's rate over LoRA's. Asked for is how many times *larger LoRA's* is.")  # fmt: skip
def _upside_down(full, lora):
    return rate_ratio(lora, full)


@mistake(RATIO, "The ratios were averaged as they are. ×10 and ×0.1 should cancel: average their logs, take the interval there, and turn both back with exp.")  # fmt: skip
def _plain_mean(full, lora):
    ratios = np.exp(_logs(full, lora))
    return float(np.mean(ratios)), mean_interval(ratios)


@mistake(RATIO, "Rates were averaged first and divided after that. Each seed's two sweeps share their data: one ratio per seed, then the mean of their logs.")  # fmt: skip
def _rates_averaged_first(full, lora):
    ratio = np.mean([best_rate(s) for s in lora]) / np.mean([best_rate(s) for s in full])
    return float(ratio), rate_ratio(full, lora)[1]


@mistake(RATIO, "The interval uses 1.96, the normal distribution's. With so few seeds take Student's t with (seeds − 1) degrees of freedom, as `mean_interval` does.")  # fmt: skip
def _normal_quantile(full, lora):
    logs = _logs(full, lora)
    return _within(logs, 1.96 * stats.sem(logs))


@mistake(RATIO, "The spread was divided by the number of seeds, not by one less: `np.std` does so unless told `ddof=1`. `mean_interval` does it right.")  # fmt: skip
def _numpys_std(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs) * np.std(logs) / math.sqrt(len(logs)))


@mistake(RATIO, "The interval is that of a single seed's ratio. For the mean, divide the spread by the square root of the number of seeds.")  # fmt: skip
def _of_one_seed(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs) * np.std(logs, ddof=1))


@mistake(RATIO, "These are still logarithms. Turn the mean and both ends back with exp.")
def _logs_left(full, lora):
    logs = _logs(full, lora)
    return float(np.mean(logs)), mean_interval(logs)


@mistake(RATIO, "The ratio is right, but the ends of the interval are still logarithms: turn them back with exp.")  # fmt: skip
def _half_turned(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), mean_interval(logs)


@mistake(RATIO, "Those ends are the smallest and the largest ratio of the seeds, not an interval for the mean. `mean_interval` of the logs gives one.")  # fmt: skip
def _smallest_and_largest(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), (math.exp(min(logs)), math.exp(max(logs)))


@mistake(RATIO, "These are ratios of swept rates. Use `best_rate` for each sweep: it looks between them.")  # fmt: skip
def _swept_only(full, lora):
    return _turned([math.log(_swept(b) / _swept(a)) for a, b in zip(full, lora, strict=True)])


@mistake(RATIO, "LoRA's rate was sought only among the rates at which full fine-tuning was swept. Its best one lies beyond them: this is how LoRA comes to look worse than it is. Give each method its own sweep.")  # fmt: skip
def _fulls_rates_reused(full, lora):
    logs = []
    for a, b in zip(full, lora, strict=True):
        common = {rate: b[rate] for rate in b if rate in a}
        logs.append(math.log(_swept(common) / best_rate(a)))
    return _turned(logs)


@mistake(RATIO, "Those are losses at *one* rate, full fine-tuning's best, which is far too small for LoRA. Compare rates: each method's own best.")  # fmt: skip
def _losses_at_fulls_rate(full, lora):
    return _turned([math.log(b[_swept(a)] / a[_swept(a)]) for a, b in zip(full, lora, strict=True)])


@mistake(RATIO, "That compares the lowest *losses*. Asked for are the rates at which they are reached.")  # fmt: skip
def _lowest_losses(full, lora):
    return _turned(
        [math.log(min(b.values()) / min(a.values())) for a, b in zip(full, lora, strict=True)]
    )


@mistake(RATIO, "You subtracted the rates. How many times larger is a quotient: a difference of logs.")  # fmt: skip
def _subtracted(full, lora):
    found = [best_rate(b) - best_rate(a) for a, b in zip(full, lora, strict=True)]
    return float(np.mean(found)), mean_interval(found)


@mistake(RATIO, "The ratio is right, but it came alone. Return (ratio, (low, high)).")
def _alone(full, lora):
    return rate_ratio(full, lora)[0]


@mistake(RATIO, "Only the first seed was used. One seed has no interval: take them all.")
def _first_seed(full, lora):
    ratio = math.exp(_logs(full, lora)[0])
    return ratio, (ratio, ratio)


def _ratio_case(describe: str, full: list, lora: list) -> Case:
    def arguments() -> tuple:
        return [dict(s) for s in full], [dict(s) for s in lora]

    return Case(describe, arguments, rate_ratio, tolerance=1e-6)


EXERCISES = {
    BEST: Exercise(
        id=BEST,
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
    RATIO: Exercise(
        id=RATIO,
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
