"""Checks of notebook 10: the best learning rate of a sweep, and the ratio of two methods' best ones."""

from __future__ import annotations

import math
import random

import numpy as np
from scipy import stats

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.statistics import best_rate, mean_interval, rate_ratio

BEST, RATIO = "10.best_rate", "10.rate_ratio"

# --- best_rate -----------------------------------------------------------------------------


def _finite(sweep):
    return {rate: sweep[rate] for rate in sorted(sweep) if math.isfinite(sweep[rate])}


def _swept(sweep):
    kept = _finite(sweep)
    return min(kept, key=kept.get)


def _three(sweep):
    """The lowest point and its two neighbors: their learning rates and their losses."""
    kept = _finite(sweep)
    at = list(kept).index(_swept(sweep))
    return list(kept)[at - 1 : at + 2], list(kept.values())[at - 1 : at + 2]


def _fitted(rates, losses):
    """The coefficients of the parabola of log loss over log learning rate."""
    return np.polyfit(np.log(rates), np.log(losses), 2)


def _vertex(x, y):
    a, b, _ = np.polyfit(x, y, 2)
    return float(-b / (2 * a))


@mistake(BEST, "The result is the swept learning rate with the lowest loss. The lowest point of the parabola lies between the swept ones.")  # fmt: skip
def _lowest_swept(sweep):
    return _swept(sweep)


@mistake(BEST, "The parabola goes over log learning rate, but through the losses themselves. Take their logarithm too: otherwise one high neighbor pushes the minimum away.")  # fmt: skip
def _losses_as_they_are(sweep):
    rates, losses = _three(sweep)
    return math.exp(_vertex(np.log(rates), losses))


@mistake(BEST, "The parabola goes over the learning rates themselves. They act by their ratios: take their logarithm, and turn the result back.")  # fmt: skip
def _rates_as_they_are(sweep):
    rates, losses = _three(sweep)
    return _vertex(rates, np.log(losses))


@mistake(BEST, "The parabola goes over learning rates and losses as they are. Take the logarithm of both, and turn the result back.")  # fmt: skip
def _nothing_in_logs(sweep):
    return _vertex(*_three(sweep))


@mistake(BEST, "The parabola goes through all points. Points far from the minimum, where training diverges, drag it along: three points decide.")  # fmt: skip
def _every_point(sweep):
    kept = _finite(sweep)
    return math.exp(_vertex(np.log(list(kept)), np.log(list(kept.values()))))


@mistake(BEST, "The parabola goes through the three lowest points. The two neighbors of the lowest point are those beside it in learning rate, however high their loss is.")  # fmt: skip
def _three_lowest(sweep):
    rates = sorted(sorted(_finite(sweep), key=sweep.get)[:3])
    return math.exp(_vertex(np.log(rates), np.log([sweep[rate] for rate in rates])))


@mistake(BEST, "The result is log10 of the learning rate. Turn it back: 10 to that power.")
def _log10_left(sweep):
    return math.log10(best_rate(sweep))


@mistake(BEST, "The result is the natural logarithm of the learning rate. Turn it back with exp.")
def _ln_left(sweep):
    return math.log(best_rate(sweep))


OTHER_BASE = "The logarithm and the power that turns it back have different bases: exp belongs to log, 10 to that power to log10."  # fmt: skip


@mistake(BEST, OTHER_BASE)
def _exp_of_log10(sweep):
    return math.exp(math.log10(best_rate(sweep)))


@mistake(BEST, OTHER_BASE)
def _power_of_ln(sweep):
    return 10 ** math.log(best_rate(sweep))


VERTEX = "The parabola is right, but its lowest point is not: that of ax² + bx + c is at −b / (2a). Check sign, factor 2 and parentheses."  # fmt: skip


@mistake(BEST, VERTEX)
def _sign_lost(sweep):
    return 1 / best_rate(sweep)


@mistake(BEST, VERTEX)
def _two_lost(sweep):
    return best_rate(sweep) ** 2


@mistake(BEST, VERTEX)
def _sign_lost_beside_the_lowest(sweep):
    return _swept(sweep) ** 2 / best_rate(sweep)


@mistake(BEST, VERTEX)
def _two_lost_beside_the_lowest(sweep):
    return best_rate(sweep) ** 2 / _swept(sweep)


@mistake(BEST, "The formula for equally spaced points is used. The neighbors may be at unequal distances.")  # fmt: skip
def _even_spacing(sweep):
    rates, losses = _three(sweep)
    (left, middle, right), (a, b, c) = np.log(rates), np.log(losses)
    return float(np.exp(middle + (right - left) / 2 * (a - c) / (2 * (a - 2 * b + c))))


@mistake(BEST, "The sign of log loss is dropped. The logarithm of a loss below 1 is negative.")
def _absolute(sweep):
    rates, losses = _three(sweep)
    return math.exp(_vertex(np.log(rates), np.abs(np.log(losses))))


@mistake(BEST, "The result is the loss at the lowest point of the parabola. Return the learning rate there.")  # fmt: skip
def _loss_at_the_vertex(sweep):
    return float(np.exp(np.polyval(_fitted(*_three(sweep)), math.log(best_rate(sweep)))))


@mistake(BEST, "The three points are those in the middle of the sweep. Take those around the lowest loss.")  # fmt: skip
def _middle_of_the_sweep(sweep):
    kept = _finite(sweep)
    rates = list(kept)[len(kept) // 2 - 1 : len(kept) // 2 + 2]
    return math.exp(_vertex(np.log(rates), np.log([kept[rate] for rate in rates])))


def _to_decimals(decimals: int) -> None:
    @mistake(BEST, "The result is rounded to a few decimals. Return it as it is: learning rates are small.")  # fmt: skip
    def _few_decimals(sweep):
        return round(best_rate(sweep), decimals)


for _decimals in (3, 4, 5, 6):
    _to_decimals(_decimals)


@mistake(BEST, VERTEX)
def _times_a(sweep):
    a, b, _ = _fitted(*_three(sweep))
    return float(np.exp(-b / 2 * a))


@mistake(BEST, "The result is the lowest loss. Return the learning rate at which it is reached.")
def _the_loss(sweep):
    return min(_finite(sweep).values())


@mistake(BEST, "The neighbors are those in the order of the dictionary. The sweep comes in any order: sort it by learning rate first.")  # fmt: skip
def _unsorted(sweep):
    rates = [rate for rate in sweep if math.isfinite(sweep[rate])]
    three = rates[(at := rates.index(_swept(sweep))) - 1 : at + 2]
    return math.exp(_vertex(np.log(three), np.log([sweep[rate] for rate in three])))


@mistake(BEST, "The result is the learning rate with the highest loss.")
def _highest(sweep):
    kept = _finite(sweep)
    return max(kept, key=kept.get)


@mistake(BEST, "The result is the smallest learning rate, whatever its loss: `min` of a dictionary compares its keys.")  # fmt: skip
def _smallest_key(sweep):
    return min(sweep)


NAN = "A nan in the sweep makes the result nan: comparisons with nan are always false, and np.argmin takes it for the lowest. Leave out such runs first."  # fmt: skip


@mistake(BEST, NAN)
def _nan_is_lowest(sweep):
    return math.nan if any(map(math.isnan, sweep.values())) else best_rate(sweep)


MIDDLE = "The result is the middle between the two neighbors, whatever the losses are. The parabola leans to the side where the loss is lower."  # fmt: skip


@mistake(BEST, MIDDLE)
def _middle(sweep):
    rates, _ = _three(sweep)
    return math.sqrt(rates[0] * rates[2])


@mistake(BEST, MIDDLE)
def _plain_middle(sweep):
    rates, _ = _three(sweep)
    return (rates[0] + rates[2]) / 2


def _best_case(rule: str, remark: str, sweep: dict) -> Case:
    told = f"`best_rate({sweep})`: {remark}"
    return Case(told, lambda: (dict(sweep),), best_rate, tolerance=1e-7, rule=rule)


BEST_CASES = (
    _best_case("parabola", "three learning rates", {1e-3: 1.9, 3e-3: 0.2, 1e-2: 0.4}),
    _best_case("three", "six, in order", {1e-5: 0.61, 1e-4: 0.08, 3e-4: 0.05, 1e-3: 4.7, 3e-3: 5.2, 1e-2: 5.9}),
    _best_case("order", "in no order", {1e-3: 0.055, 1e-5: 2.2, 3e-4: 0.05, 1e-2: 4.8, 1e-4: 0.31, 3e-3: 0.6}),
    _best_case("order", "unequally spaced", {1e-5: 1.0, 1e-3: 0.1, 1.5e-3: 0.2, 2e-3: 0.35}),
    _best_case("finite", "all losses are high, and finite", {1e-3: 29.0, 3e-3: 13.0, 1e-2: 17.0}),
    _best_case("finite", "the last loss is nan", {1e-3: 0.9, 3e-3: 0.2, 1e-2: 0.4, 3e-2: math.nan}),
    _best_case("finite", "the first loss is nan", {1e-4: math.nan, 1e-3: 0.9, 3e-3: 0.2, 1e-2: 0.4}),
    _best_case("finite", "a neighbor is nan", {1e-3: 0.9, 3e-3: 0.2, 5e-3: math.nan, 1e-2: 0.4}),
    _best_case("finite", "a neighbor is inf", {1e-3: 0.9, 3e-3: 0.2, 5e-3: math.inf, 1e-2: 0.4}),
)  # fmt: skip


def _sweep(rng: random.Random, center: float) -> dict[float, float]:
    """Losses on a parabola around 10**center, at learning rates in no order."""
    width, floor = rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.5)
    powers = [center - 2.6 + 0.75 * k + rng.uniform(-0.1, 0.1) for k in range(8)]
    rng.shuffle(powers)
    # Not quite a parabola, so that three points and all of them give different results.
    return {10**p: floor * math.exp(width * (p - center) ** 2 + 0.1 * (p - center) ** 4) for p in powers}  # fmt: skip


def _draw_sweep(rng: random.Random, *_: object) -> tuple:
    return (_sweep(rng, rng.uniform(-2, -0.3)),)


# --- rate_ratio ----------------------------------------------------------------------------

# Five seeds: full fine-tuning and LoRA on the same data. The learning rates overlap from 1e-4 on.
FULL = [
    {1e-5: 2.2, 1e-4: 0.3, 1e-3: 0.06, 1e-2: 4.0},
    {1e-5: 2.1, 1e-4: 0.2, 1e-3: 0.1, 1e-2: 5.0},
    {1e-5: 2.3, 1e-4: 0.1, 1e-3: 0.12, 1e-2: 3.0},
    {1e-5: 2.0, 1e-4: 0.24, 1e-3: 0.08, 1e-2: 3.5},
    {1e-5: 2.4, 1e-4: 0.28, 1e-3: 0.05, 1e-2: 2.5},
]
LORA = [
    {1e-4: 2.4, 1e-3: 0.3, 1e-2: 0.07, 1e-1: 6.3},
    {1e-4: 2.5, 1e-3: 0.16, 1e-2: 0.11, 1e-1: 6.1},
    {1e-4: 2.6, 1e-3: 0.9, 1e-2: 0.06, 1e-1: 0.5},
    {1e-4: 2.3, 1e-3: 0.2, 1e-2: 0.09, 1e-1: 5.8},
    {1e-4: 2.2, 1e-3: 0.35, 1e-2: 0.08, 1e-1: 4.9},
]


def _logs(full, lora):
    return [math.log(best_rate(b) / best_rate(a)) for a, b in zip(full, lora, strict=True)]


def _turned(logs):
    low, high = mean_interval(logs)
    return math.exp(np.mean(logs)), (math.exp(low), math.exp(high))


def _within(logs, half):
    mean = np.mean(logs)
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def _student(logs, quantile=0.975):
    return stats.t.ppf(quantile, len(logs) - 1)


@mistake(RATIO, "The ratio is the learning rate of full fine-tuning over that of LoRA. Turn it round.")  # fmt: skip
def _upside_down(full, lora):
    return rate_ratio(lora, full)


PLAIN_MEAN = "The ratio is the plain mean of the seeds' ratios. ×10 and ×0.1 should cancel: take the mean of the logarithms, and turn it back with exp."  # fmt: skip


@mistake(RATIO, PLAIN_MEAN)
def _plain_mean(full, lora):
    ratios = np.exp(_logs(full, lora))
    return float(np.mean(ratios)), mean_interval(ratios)


@mistake(RATIO, PLAIN_MEAN)
def _plain_mean_alone(full, lora):
    return float(np.mean(np.exp(_logs(full, lora)))), rate_ratio(full, lora)[1]


@mistake(RATIO, "The ratio is the median of the seeds' ratios. Take the mean of their logarithms.")
def _median(full, lora):
    return float(np.exp(np.median(_logs(full, lora)))), rate_ratio(full, lora)[1]


@mistake(RATIO, "The learning rates are averaged over the seeds first and divided afterwards. Take one ratio per seed, then the mean of their logarithms.")  # fmt: skip
def _rates_averaged_first(full, lora):
    ratio = np.mean([best_rate(s) for s in lora]) / np.mean([best_rate(s) for s in full])
    return float(ratio), rate_ratio(full, lora)[1]


@mistake(RATIO, "The interval uses 1.96 of the normal distribution. With few seeds the standard deviation itself is uncertain: use Student's t.")  # fmt: skip
def _normal_quantile(full, lora):
    logs = _logs(full, lora)
    return _within(logs, 1.96 * stats.sem(logs))


@mistake(RATIO, "The interval is two standard errors wide on each side. With few seeds use Student's t.")  # fmt: skip
def _two_errors(full, lora):
    logs = _logs(full, lora)
    return _within(logs, 2 * stats.sem(logs))


@mistake(RATIO, "The interval is one standard error wide on each side. A 95% interval is wider, by the quantile of Student's t.")  # fmt: skip
def _one_error(full, lora):
    logs = _logs(full, lora)
    return _within(logs, stats.sem(logs))


@mistake(RATIO, "The interval covers 90%: the quantile 0.95 leaves 5% on *each* side. Two sides of 2.5% need 0.975.")  # fmt: skip
def _ninety_percent(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs, 0.95) * stats.sem(logs))


@mistake(RATIO, "The interval covers 99%: the quantile 0.995 leaves half a percent on each side. Two sides of 2.5% need 0.975.")  # fmt: skip
def _ninety_nine_percent(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs, 0.995) * stats.sem(logs))


@mistake(RATIO, "Student's t is taken with as many degrees of freedom as there are seeds. It has one less.")  # fmt: skip
def _degrees_of_freedom(full, lora):
    logs = _logs(full, lora)
    return _within(logs, stats.t.ppf(0.975, len(logs)) * stats.sem(logs))


@mistake(RATIO, "The standard deviation is divided by the number of seeds, not by one less, as `np.std` does without `ddof=1`.")  # fmt: skip
def _numpys_std(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs) * np.std(logs) / math.sqrt(len(logs)))


@mistake(RATIO, "The interval is that of a single seed's ratio. For the mean, divide the standard deviation by the square root of the number of seeds.")  # fmt: skip
def _of_one_seed(full, lora):
    logs = _logs(full, lora)
    return _within(logs, _student(logs) * np.std(logs, ddof=1))


@mistake(RATIO, "Each method has an interval of its own spread. The two sweeps of a seed share their data: take the interval of the seeds' log ratios.")  # fmt: skip
def _unpaired(full, lora):
    a, b = ([math.log(best_rate(s)) for s in sweeps] for sweeps in (full, lora))
    half = stats.t.ppf(0.975, 2 * len(a) - 2) * math.hypot(stats.sem(a), stats.sem(b))
    return _within(np.subtract(b, a), half)


@mistake(
    RATIO, "Ratio and interval are still logarithms. Turn the mean and both ends back with exp."
)
def _logs_left(full, lora):
    logs = _logs(full, lora)
    return float(np.mean(logs)), mean_interval(logs)


@mistake(RATIO, "The interval is right, but the ratio is still a logarithm. Turn it back with exp.")
def _ratio_left(full, lora):
    return float(np.mean(_logs(full, lora))), rate_ratio(full, lora)[1]


@mistake(RATIO, OTHER_BASE)
def _exp_of_log10_ratio(full, lora):
    return _turned([log / math.log(10) for log in _logs(full, lora)])


@mistake(RATIO, OTHER_BASE)
def _power_of_ln_ratio(full, lora):
    return _turned([log * math.log(10) for log in _logs(full, lora)])


@mistake(RATIO, "The ratio is right, but the interval is that of the plain ratios. Take it of their logarithms, and turn both ends back.")  # fmt: skip
def _plain_interval(full, lora):
    return rate_ratio(full, lora)[0], mean_interval(np.exp(_logs(full, lora)))


@mistake(RATIO, "The sign of the log ratios is dropped. The ratio of a seed may be below 1, and ×10 and ×0.1 must cancel.")  # fmt: skip
def _absolute_logs(full, lora):
    return _turned([abs(log) for log in _logs(full, lora)])


@mistake(RATIO, "Three numbers in a row are returned. Put the two ends into a pair of their own: (ratio, (low, high)).")  # fmt: skip
def _flat(full, lora):
    ratio, (low, high) = rate_ratio(full, lora)
    return ratio, low, high


@mistake(RATIO, "The interval comes first. Return (ratio, (low, high)).")
def _interval_first(full, lora):
    return rate_ratio(full, lora)[::-1]


PAIRS = "The ratio is right, but the pairs are mixed up: each LoRA sweep belongs to the full one of the same seed alone."  # fmt: skip


@mistake(RATIO, PAIRS)
def _all_pairs(full, lora):
    return _turned([math.log(best_rate(b) / best_rate(a)) for a in full for b in lora])


@mistake(RATIO, PAIRS)
def _sorted_apart(full, lora):
    a, b = (np.sort([math.log(best_rate(s)) for s in sweeps]) for sweeps in (full, lora))
    return _turned(b - a)


@mistake(RATIO, "The ratio is right, but the ends of the interval are still logarithms.")
def _half_turned(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), mean_interval(logs)


@mistake(RATIO, "The ends are the smallest and the largest ratio of the seeds. That is no 95% interval of the mean.")  # fmt: skip
def _smallest_and_largest(full, lora):
    logs = _logs(full, lora)
    return math.exp(np.mean(logs)), (math.exp(min(logs)), math.exp(max(logs)))


@mistake(RATIO, "The two ends of the interval are exchanged: the lower one comes first.")
def _ends_exchanged(full, lora):
    ratio, (low, high) = rate_ratio(full, lora)
    return ratio, (high, low)


@mistake(RATIO, "These are ratios of swept learning rates. `best_rate` looks between them.")
def _swept_only(full, lora):
    return _turned([math.log(_swept(b) / _swept(a)) for a, b in zip(full, lora, strict=True)])


@mistake(RATIO, "LoRA's learning rate is sought only among those at which full fine-tuning was swept. LoRA's best one lies beyond them: each method has its own sweep.")  # fmt: skip
def _fulls_rates_reused(full, lora):
    logs = []
    for a, b in zip(full, lora, strict=True):
        common = {rate: b[rate] for rate in b if rate in a}
        logs.append(math.log(_swept(common) / best_rate(a)))
    return _turned(logs)


@mistake(RATIO, "The lowest losses are compared. Compare the learning rates at which they are reached.")  # fmt: skip
def _lowest_losses(full, lora):
    return _turned(
        [math.log(min(b.values()) / min(a.values())) for a, b in zip(full, lora, strict=True)]
    )


@mistake(RATIO, "The learning rates are subtracted. “How many times larger” is a quotient, and a difference of logarithms.")  # fmt: skip
def _subtracted(full, lora):
    found = [best_rate(b) - best_rate(a) for a, b in zip(full, lora, strict=True)]
    return float(np.mean(found)), mean_interval(found)


@mistake(RATIO, "The ratio is right, but it comes alone. Return (ratio, (low, high)).")
def _alone(full, lora):
    return rate_ratio(full, lora)[0]


@mistake(RATIO, "Only the first seed is used. Take one ratio per seed, and all seeds.")
def _first_seed(full, lora):
    ratio = math.exp(_logs(full, lora)[0])
    return ratio, (ratio, ratio)


@mistake(
    RATIO, "The ratio is that of the first seed alone. Take one ratio per seed, and all seeds."
)
def _ratio_of_first_seed(full, lora):
    return math.exp(_logs(full, lora)[0]), rate_ratio(full, lora)[1]


def _ratio_alone(result: object, _: tuple) -> object:
    """Return the result without the interval, if it has the right form."""
    pair = isinstance(result, (tuple, list)) and len(result) == 2
    return (result[0], ()) if pair else result


def _ratio_case(
    rule: str, told: str, seeds: slice, observe=None, turned: int | None = None
) -> Case:
    def arguments() -> tuple:
        full, lora = [dict(s) for s in FULL[seeds]], [dict(s) for s in LORA[seeds]]
        if turned is not None:
            full[turned], lora[turned] = lora[turned], full[turned]
        return full, lora

    told = f"`rate_ratio(full, lora)`: {told}"
    return Case(told, arguments, rate_ratio, tolerance=1e-6, rule=rule, observe=observe)


RATIO_CASES = (
    _ratio_case("mean", "the ratio alone, two seeds", slice(1, 3), _ratio_alone),
    _ratio_case("mean", "the ratio alone, three seeds", slice(3), _ratio_alone),
    _ratio_case(
        "mean", "the ratio alone, one seed's is below 1", slice(0, 2), _ratio_alone, turned=1
    ),
    _ratio_case("interval", "the ratio and its interval, three seeds", slice(3)),
    _ratio_case("interval", "the ratio and its interval, two seeds", slice(1, 3)),
    _ratio_case("interval", "the ratio and its interval, five seeds", slice(5)),
)


def _draw_sweeps(rng: random.Random, *_: object) -> tuple:
    seeds = rng.randint(3, 5)
    full = [_sweep(rng, rng.uniform(-4.3, -3.9)) for _ in range(seeds)]
    return full, [_sweep(rng, rng.uniform(-3.2, -2.6)) for _ in range(seeds)]


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            BEST,
            "The best learning rate of a sweep",
            best_rate,
            BEST_CASES,
            asks="Return the learning rate at which the loss would be lowest, between the swept ones.\n\n"
            "sweep: {learning rate: held-out loss}, all above 0.",
            rules={
                "finite": "Runs whose loss is nan or inf, and no others, are left out first.",
                "order": "The learning rates come in any order and at any spacing.",
                "three": "Three points count: the lowest loss, which is never at an end here, and its neighbor on either side.",
                "parabola": "They fix a parabola of log loss over log learning rate; its lowest point is returned.",
                "unchanged": "sweep stays as it is.",
            },
            draw=_draw_sweep,
            hints=(
                "There are two tasks: find three points of the sweep, and find the lowest point of the parabola through them. Begin with the three points.",
                ("parabola", "`np.polyfit` with degree 2 gives a, b and c of ax² + bx + c, whose lowest point is at −b / (2a)."),
                "Sort what is left of the sweep before you look for the neighbors, and undo the logarithm at the very end.",
            ),
            path="Clean the sweep first: leave out what is not finite, then sort by learning rate. After that the lowest loss has a position, and its neighbors are the positions "
            "before and after it. Take logarithms of both columns, fit, and turn the lowest point back. The usual wrong turn is to look for the minimum first: nan compares "
            "false with everything.",
            why="Three points fix a parabola, so it passes through all of them. Its minimum moves between the swept learning rates as the neighbors' losses say, and a run far away, "
            "diverged or not yet learning, has no influence. If the lowest loss is at an end of the sweep there is no minimum to find, and the package says so.",
            points=2,
        ),
        Exercise(
            RATIO,
            "The ratio of two best learning rates, with its interval",
            rate_ratio,
            RATIO_CASES,
            asks="Return (ratio, (low, high)): LoRA's best learning rate over full's, and its interval.\n\n"
            "full, lora: lists of sweeps {learning rate: loss}, one per seed, in the same order.",
            rules={
                "mean": "A seed's ratio is that of its two `best_rate`s; ratio: exp of the mean of the log ratios.",
                "interval": "The interval is `sftlab.statistics.mean_interval` of the log ratios, a pair (low, high), turned back.",
                "unchanged": "full and lora stay as they are.",
            },
            draw=_draw_sweeps,
            hints=(
                "Make one number per seed first. What is done with these numbers is the same for any measurement over seeds.",
                ("mean", "A factor is a difference of logarithms, and it is averaged like one."),
                "Collect the logarithms of the ratios in one list; the mean and the interval both come from this list, and all three numbers are turned back.",
            ),
            path="Go seed by seed: two sweeps give one ratio, so the list has as many entries as there are seeds. Take logarithms, then the mean and the interval of that one list, "
            "then exp of three numbers. The usual wrong turn is to average the learning rates of each method first, which loses the pairing.",
            why="The two runs of a seed share their data, so what makes one sample easier than another drops out of the seed's ratio. In logarithms, ×10 and ×0.1 are equally far from 1, "
            "and the interval becomes a factor up and a factor down.",
            points=2,
        ),
    )
}  # fmt: skip
