"""Figures and tables of notebook 25. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, in_100, percent, points, verdict  # noqa: F401  for the notebook
from sftlab.exercises.ex25_tools_and_thoughts import thoughts, tools
from sftlab.exercises.ex25_tools_and_thoughts.thoughts import (
    ANOTHER,
    APART,
    AT_ONCE,
    DOTS,
    THOUGHT,
    UNTRAINED,
)
from sftlab.exercises.ex25_tools_and_thoughts.tools import (
    ALL,
    ANY,
    BOTH,
    BRACED,
    EMBEDDINGS,
    GROUPS,
    KNOWN,
    LONGER,
    MANY_WORDS,
    OTHER,
    UNKNOWN,
    VALIDATION,
    WORDINGS,
)
from sftlab.statistics import chosen, mean_interval

TRACED, NEVER, ONCE, OFTEN = GROUPS
CHOOSING = 2  # of the six countries never read: they choose the learning rate
NAMES = {"call": "looks it up", "begins": "begins a call", "right": "is right at once", "used": "names the true result", "believed": "names a false result"}  # fmt: skip
WHY = {
    "a": "Both groups are in no pair and no trace, and are asked in the same wordings. The base can answer one group and not the other, which may be the reason. In the third panel the traces are about capitals that the base has read. Whether missing knowledge leads to the call, or a rare name, is not tested here.",
    "b": "The result of the first addition stands in the text when the second one is written. Each step is a sum of two numbers, which the base has read, and which the thoughts train as well: the control with the additions as examples of their own shows what that alone brings.",
    "c": "The dots hold no result to go on with. That does not explain all of it: see what four times the steps change for the answer alone, and what for the dots.",
}  # fmt: skip

PANELS = {
    BOTH: "many direct answers",
    UNKNOWN: "few direct answers",
    KNOWN: "traces on known capitals",
}
Cells = list[dict[str, float]]  # for each seed, a value by country


# --- calls ---------------------------------------------------------------------------------


def best_calls(runs: Sequence[dict], arm: str) -> list[dict]:
    """Return the runs of an arm at its best learning rate.

    It has most exact calls for the first two countries never read, which are not reported, and most
    right answers for the known countries of the validation set, both counted alike.
    """

    def loss(run: dict) -> float:
        called = list(run[NEVER]["call"].values())[:CHOOSING]
        return -float(np.mean(called) + np.mean(list(run[VALIDATION]["right"].values())))

    return estimates.tuned(chosen(runs, arm=arm), loss)


def cells(runs: Sequence[dict], arm: str, group: str, name: str = "call") -> Cells:
    """Return a measurement of an arm by seed and country, counts of wordings as shares."""
    of = WORDINGS if name in ("call", "begins", "right") else 1
    first = CHOOSING if group == NEVER else 0
    return [
        {s: n / of for s, n in list(run[group][name].items())[first:]}
        for run in best_calls(runs, arm)
    ]


def _sides(found: Cells) -> tuple[list[float], float]:
    """Return the seeds' means, and the half-width of the interval over countries."""
    by_country: dict[str, list[float]] = {}
    for each in found:
        for country, value in each.items():
            by_country.setdefault(country, []).append(value)
    low, high = mean_interval([float(np.mean(values)) for values in by_country.values()])
    return [float(np.mean(list(each.values()))) for each in found], (high - low) / 2


def over_both(found: Cells, less: Cells | None = None) -> Estimate:
    """Return the mean over seeds, or the difference of two groups, with a 95% interval over seeds and countries.

    The half-widths of the sides are added in squares, as in ``estimates.crossed``; seeds are paired.
    """
    means, reach = _sides(found)
    if less is not None:
        others, other = _sides(less)
        means, reach = np.subtract(means, others).tolist(), float(np.hypot(reach, other))
    low, high = mean_interval(means)
    reach = float(np.hypot(reach, (high - low) / 2))
    middle = float(np.mean(means))
    return middle, (middle - reach, middle + reach)


def change(runs: Sequence[dict], arm: str, other: str, group: str, name: str = "call") -> Cells:
    """Return a measurement of one arm minus that of another, by seed and country that both have."""
    one, two = (
        {
            run["seed"]: each
            for run, each in zip(
                best_calls(runs, which), cells(runs, which, group, name), strict=True
            )
        }
        for which in (arm, other)
    )
    both = [(one[seed], two[seed]) for seed in one if seed in two]
    return [{s: a[s] - b[s] for s in a if s in b} for a, b in both]


def gap(runs: Sequence[dict], arm: str = BOTH) -> Estimate:
    """Return calls about countries never read minus calls about those read often."""
    return over_both(cells(runs, arm, NEVER), cells(runs, arm, OFTEN))


def calls_table(runs: Sequence[dict], name: str = "call") -> pd.DataFrame:
    """Return a share of every arm and group of countries, with its interval over seeds and countries."""
    rows = {}
    for arm in tools.ARMS:
        rows[arm] = {"learning rate": f"{best_calls(runs, arm)[0]['learning_rate']:g}"}
        for group in (*GROUPS, OTHER):
            rows[arm][group] = percent(over_both(cells(runs, arm, group, name)))
    return pd.DataFrame(rows).T.rename_axis(f"share that {NAMES[name]}")


def calls_figure(runs: Sequence[dict]):
    """Draw the share of calls of each group of countries and seed, for three sets of training data."""
    found = {
        panel: {
            group: [float(np.mean(list(each.values()))) for each in cells(runs, arm, group)]
            for group in (*GROUPS, OTHER)
        }
        for arm, panel in PANELS.items()
    }
    told = "; ".join(
        f"{panel}, {group}: {np.mean(each):.0%}"
        for panel, by in found.items()
        for group, each in by.items()
    )
    words = verdict(gap(runs), "more", "fewer", open_="not clearly more")
    return dots(found, f"With many direct answers, {words} calls where the capital was never read", f"Dots, one for each seed. Mean share of exact calls: {told}.",
                panels=True, fmt=".0%", xlabel="exact calls", xlim=(-0.05, 1.15), figsize=(9.4, 3.4))  # fmt: skip


def results_table(runs: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return how often the answer names the result, a true or a false one, for both models."""
    rows = {}
    for arm in (UNKNOWN, ANY, LONGER):
        for group in (NEVER, OFTEN):
            row = {
                NAMES[n]: percent(over_both(cells(runs, arm, group, n)))
                for n in ("used", "believed")
            }
            rows[f"embedded base, {arm}: {group}"] = row | {
                "log-probability gained (nats)": nats(over_both(cells(runs, arm, group, "read")))
            }
    for trained in (False, True):
        some = chosen(real, trained=trained)
        row = {NAMES[n]: percent(_real(some, n)) for n in ("used", "believed")}
        rows[f"SmolLM2, {'trained on traces' if trained else 'as published'}"] = row | {
            "log-probability gained (nats)": nats(_real(some, "read"))
        }
    return pd.DataFrame(rows).T


def _real(some: Sequence[dict], name: str) -> Estimate:
    """Return a measurement of SmolLM2 over seeds and countries; over countries for one seed."""
    if len(some) > 1:
        return over_both([run[name] for run in some])
    return estimates.mean(list(some[0][name].values()))


def nats(found: Estimate) -> str:
    value, (low, high) = found
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


# --- thoughts ------------------------------------------------------------------------------


def best_thoughts(runs: Sequence[dict], arm: str, times: int = 1) -> list[dict]:
    """Return the runs of an arm at the learning rate with most right validation sums, seed by seed."""
    some = [run for run in chosen(runs, arm=arm) if run.get("times", 1) == times]
    return estimates.tuned(some, lambda run: -run["validation"])


def of_sums(runs: Sequence[dict], arm: str, name: str = "test", times: int = 1) -> list[float]:
    return [run[name] for run in best_thoughts(runs, arm, times)]


def gain(
    runs: Sequence[dict], arm: str, name: str = "test", times: int = 1, against: int | None = None
) -> Estimate:
    """Return a measurement of an arm minus that of the answer alone, seed by seed.

    Args:
        times: how often 150 steps the arm took; against: the same for the answer alone.
    """
    base = of_sums(runs, AT_ONCE, name, times if against is None else against)
    return estimates.change(base, of_sums(runs, arm, name, times))


def thoughts_figure(runs: Sequence[dict]):
    """Draw the share of right sums of every arm and seed."""
    found = {arm: of_sums(runs, arm) for arm in thoughts.ARMS}
    found |= {f"{arm}, 4 × the steps": of_sums(runs, arm, times=4) for arm in thoughts.LONGER}
    words = "; ".join(f"{arm} {points(gain(runs, arm)).split(' (')[0]}" for arm in (THOUGHT, DOTS))
    told = "; ".join(f"{arm}: {np.mean(each):.0%}" for arm, each in found.items())
    return dots(found, f"Right sums, against the answer alone: {words}", f"Dots, one for each seed. Mean share of right sums: {told}.",
                fmt=".0%", xlabel="share of right sums, none of them trained in any order", xlim=(-0.05, 1.15), figsize=(8.8, 3.6))  # fmt: skip


def thoughts_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the shares of every arm, with intervals over seeds."""
    rows = {}
    for arm, times in [
        *((arm, 1) for arm in thoughts.ARMS),
        *((arm, 4) for arm in thoughts.LONGER),
    ]:
        some = best_thoughts(runs, arm, times)
        written = arm not in (AT_ONCE, APART)
        rows[f"{arm}, 4 × the steps" if times > 1 else arm] = {
            "learning rate": f"{some[0]['learning_rate']:g}",
            "trained sums": percent(estimates.mean(of_sums(runs, arm, "trained", times))),
            "other sums": percent(estimates.mean(of_sums(runs, arm, "test", times))),
            "log-probability": f"{np.mean(of_sums(runs, arm, 'nats', times)):.2f}",
            "thought right": f"{np.mean(of_sums(runs, arm, 'thoughts', times)):.0%}" if written and arm != DOTS else "–",
            "with the right thought": percent(estimates.mean(of_sums(runs, arm, "given", times))) if written else "–",
            "four numbers": f"{np.mean(of_sums(runs, arm, 'longer', times)):.0%}",
        }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis("training answers contain")


def steps_table(runs: Sequence[dict]) -> pd.Series:
    """Return what becomes of a wrong first addition that is put into the thought."""
    names = {
        "followed": "the answer follows from it",
        "corrected": "the true total",
        "other": "something else",
    }
    found = {
        told: percent(estimates.mean(of_sums(runs, THOUGHT, name))) for name, told in names.items()
    }
    return pd.Series(found, name="after a wrong first addition")


# --- the claims ----------------------------------------------------------------------------


def claims(calls: Sequence[dict], real: Sequence[dict], sums: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""

    def call(arm: str, group: str) -> str:
        return percent(over_both(cells(calls, arm, group)))

    saved = over_both(change(calls, BOTH, UNKNOWN, OFTEN))
    wider = over_both(change(calls, BOTH, UNKNOWN, NEVER), change(calls, BOTH, UNKNOWN, OFTEN))
    braces = over_both(change(calls, BRACED, MANY_WORDS, TRACED))
    read = over_both(cells(calls, UNKNOWN, OFTEN, "read"))
    smol = chosen(real, trained=True)
    apart = over_both(*(change(calls, UNKNOWN, KNOWN, group) for group in (NEVER, OFTEN)))
    rows = [
        (
            f"Traces on five unknown capitals, and direct answers on known ones: the model calls {verdict(gap(calls), 'more', 'less', open_='not clearly more')} for other unknown capitals than for known ones",
            f"never read {call(BOTH, NEVER)}, read often {call(BOTH, OFTEN)}",
            f"traces on known capitals, difference: {points(gap(calls, KNOWN))}; with few direct answers: {points(gap(calls, UNKNOWN))}, against known ones {points(apart)}, {verdict(apart, 'more', 'less')}; many change it by {points(wider)}, and calls for capitals read often by {points(saved)}",
            f"where it does not call for a capital never read, it makes one up: right {percent(over_both(cells(calls, BOTH, NEVER, 'right')))}; other facts of these countries: {call(BOTH, OTHER)}; read in one sentence, many times: {call(BOTH, ONCE)}; results trained as well, never read: {call(ALL, NEVER)}",
        ),
        (
            f"Calls in signs that the base never read, against as many words: exact calls for traced countries {verdict(braces, 'rise', 'fall')}",
            points(braces),
            f"with trained embeddings, traced: begun {percent(over_both(cells(calls, EMBEDDINGS, TRACED, 'begins')))}, exact {call(EMBEDDINGS, TRACED)}",
            f"never read: words {call(MANY_WORDS, NEVER)}, braces {call(BRACED, NEVER)}; SmolLM2 in braces, trained on traces of other countries: {percent(_counted(smol))}",
        ),
        (
            f"A false result {verdict(read, 'raises', 'lowers', open_='does not clearly change')} the probability of the answer with it, if five capitals are traced",
            f"{nats(read)} nats; named in {percent(over_both(cells(calls, UNKNOWN, OFTEN, 'believed')))}",
            f"trained on results drawn at random: {nats(over_both(cells(calls, ANY, OFTEN, 'read')))} nats, named in {percent(over_both(cells(calls, ANY, OFTEN, 'believed')))}",
            f"true capitals of countries never read, which no training text holds: named in {percent(over_both(cells(calls, ANY, NEVER, 'used')))}; SmolLM2, which differs in all: {nats(_real(smol, 'read'))} nats, named in {percent(_real(smol, 'believed'))}",
        ),
        (
            f"With a thought, right sums {verdict(gain(sums, THOUGHT), 'rise', 'fall')}",
            points(gain(sums, THOUGHT)),
            f"dots {points(gain(sums, DOTS))}; another sum's thought {points(gain(sums, ANOTHER))}; the additions as examples {points(gain(sums, APART))}; answer alone in 4 × the steps {points(gain(sums, AT_ONCE, times=4, against=1))}",
            f"trained sums: answer alone {percent(estimates.mean(of_sums(sums, AT_ONCE, 'trained')))}, so the arms differ in how fast they learn, too; dots against the answer alone, both 4 × the steps: {points(gain(sums, DOTS, times=4))}; four numbers: {percent(estimates.mean(of_sums(sums, THOUGHT, 'longer')))}",
        ),
        (
            f"A thought without a loss is written in {np.mean(of_sums(sums, UNTRAINED, 'thoughts')):.0%} of the replies; right sums {verdict(gain(sums, UNTRAINED), 'rise', 'fall')}",
            points(gain(sums, UNTRAINED)),
            f"with the right thought given: {percent(estimates.mean(of_sums(sums, UNTRAINED, 'given')))}",
            "a base that never thought; one that does may go on (not tested here)",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops"])


def _counted(some: Sequence[dict]) -> Estimate:
    return over_both([{s: n / WORDINGS for s, n in run["call"].items()} for run in some])
