"""Figures and tables of notebook 25. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, percent, points, verdict
from sftlab.exercises.ex25_tools_and_thoughts import thoughts, tools
from sftlab.exercises.ex25_tools_and_thoughts.thoughts import (
    ANOTHER,
    AT_ONCE,
    DOTS,
    THOUGHT,
    UNTRAINED,
)
from sftlab.exercises.ex25_tools_and_thoughts.tools import (
    ALL,
    ANY,
    BRACED,
    EMBEDDINGS,
    GROUPS,
    KNOWN,
    UNKNOWN,
)
from sftlab.statistics import chosen

TRACED, NEVER, ONCE, OFTEN = GROUPS
NAMES = {"call": "looks it up", "right": "right at once", "used": "names the true result", "believed": "names a false result"}  # fmt: skip
WHY = {
    "a": "Names of both groups are in no pair and no trace, so the difference comes from what the base has read before. Whether it can go on with a capital shows in its hidden states, and the traces tie this to a call.",
    "b": "The first addition gives a sum that stands in the context when the second one is written. Each step is then a fact that the base has read. At once, it would have to do both additions inside of one forward pass.",
    "c": "The dots give the model as many forward passes, and no result to go on with.",
}  # fmt: skip


# --- calls ---------------------------------------------------------------------------------


def best_calls(runs: Sequence[dict], arm: str) -> list[dict]:
    """Return the runs of an arm at the learning rate with most right calls and answers about other countries.

    It is chosen by the traced countries and by those read often, and reported on those never read.
    """
    return estimates.tuned(
        chosen(runs, arm=arm), lambda run: -run[TRACED]["call"] - run[OFTEN]["right"]
    )


def shares(runs: Sequence[dict], arm: str, group: str, name: str) -> list[float]:
    """Return a share of an arm, seed by seed."""
    return [run[group][name] for run in best_calls(runs, arm)]


def gap(runs: Sequence[dict], arm: str = UNKNOWN) -> Estimate:
    """Return calls about countries never read minus calls about those read often, seed by seed."""
    return estimates.change(shares(runs, arm, OFTEN, "call"), shares(runs, arm, NEVER, "call"))


def calls_table(runs: Sequence[dict], name: str = "call") -> pd.DataFrame:
    """Return a share of every arm and group of countries, with its interval over seeds."""
    rows = {
        arm: {"learning rate": f"{best_calls(runs, arm)[0]['learning_rate']:g}"}
        | {group: percent(estimates.mean(shares(runs, arm, group, name))) for group in GROUPS}
        for arm in tools.ARMS
    }
    return pd.DataFrame(rows).T.rename_axis(f"share that {NAMES[name]}")


def calls_figure(runs: Sequence[dict]):
    """Draw the share of calls of each group of countries and seed, for traces on unknown and known ones."""
    found = {
        f"traces on {arm} capitals": {group: shares(runs, arm, group, "call") for group in GROUPS}
        for arm in (UNKNOWN, KNOWN)
    }
    told = "; ".join(
        f"{panel}, {group}: {np.mean(each):.0%}"
        for panel, by in found.items()
        for group, each in by.items()
    )
    words = verdict(
        gap(runs),
        "calls more often where it never read the capital",
        "calls less often where it never read the capital",
    )
    return dots(found, f"Traces on unknown capitals: the model {words}", f"Dots, one for each seed. Mean share of exact calls: {told}.", panels=True,
                fmt=".0%", xlabel="share of questions answered by the exact call", xlim=(-0.05, 1.12), figsize=(9.4, 2.8))  # fmt: skip


def results_table(runs: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return how often the answer names the result, a true or a false one, for both models."""
    rows = {}
    for arm in (UNKNOWN, ANY):
        for group in (NEVER, OFTEN):
            rows[f"embedded base, {arm}: {group}"] = {
                NAMES[name]: percent(estimates.mean(shares(runs, arm, group, name)))
                for name in ("used", "believed")
            }
    for trained in (False, True):
        rows[f"SmolLM2, {'trained on traces' if trained else 'not trained'}"] = {
            NAMES[name]: percent(
                estimates.mean([run[name] for run in chosen(real, trained=trained)])
            )
            for name in ("used", "believed")
        }
    return pd.DataFrame(rows).T


# --- thoughts ------------------------------------------------------------------------------


def best_thoughts(runs: Sequence[dict], arm: str) -> list[dict]:
    """Return the runs of an arm at the learning rate with most right validation sums, seed by seed."""
    return estimates.tuned(chosen(runs, arm=arm), lambda run: -run["validation"])


def of_sums(runs: Sequence[dict], arm: str, name: str = "test") -> list[float]:
    return [run[name] for run in best_thoughts(runs, arm)]


def gain(runs: Sequence[dict], arm: str) -> Estimate:
    """Return right sums of an arm minus those answered at once, seed by seed."""
    return estimates.change(of_sums(runs, AT_ONCE), of_sums(runs, arm))


def gain_points(runs: Sequence[dict], arm: str) -> tuple[float, tuple[float, float]]:
    value, (low, high) = gain(runs, arm)
    return 100 * value, (100 * low, 100 * high)


def thoughts_figure(runs: Sequence[dict]):
    """Draw the share of right sums of every arm and seed."""
    found = {arm: of_sums(runs, arm) for arm in thoughts.ARMS}
    words = "; ".join(f"{arm} {points(gain(runs, arm)).split(' (')[0]}" for arm in (THOUGHT, DOTS))
    told = "; ".join(f"{arm}: {np.mean(each):.0%}" for arm, each in found.items())
    return dots(found, f"Right sums, against the answer alone: {words}", f"Dots, one for each seed. Mean share of right sums: {told}.",
                fmt=".0%", xlabel="share of right sums, 120 sums in no training set", xlim=(-0.05, 1.12), figsize=(8.8, 3.0))  # fmt: skip


def thoughts_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the shares of every arm, with intervals over seeds."""
    rows = {}
    for arm in thoughts.ARMS:
        rows[arm] = {
            "learning rate": f"{best_thoughts(runs, arm)[0]['learning_rate']:g}",
            "right": percent(estimates.mean(of_sums(runs, arm))),
            "− answer alone": points(gain(runs, arm)) if arm != AT_ONCE else "–",
            "thought right": f"{np.mean(of_sums(runs, arm, 'thoughts')):.0%}" if arm != AT_ONCE else "–",
            "tokens": f"{np.mean(of_sums(runs, arm, 'tokens')):.0f}",
            "four numbers": percent(estimates.mean(of_sums(runs, arm, "longer"))),
        }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis("the answer holds")


def followed(runs: Sequence[dict]) -> Estimate:
    """Return the share of answers that follow from a wrong step put into the thought."""
    return estimates.mean(of_sums(runs, THOUGHT, "followed"))


# --- the claims ----------------------------------------------------------------------------


def claims(calls: Sequence[dict], real: Sequence[dict], sums: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    never, known = (estimates.mean(shares(calls, arm, NEVER, "call")) for arm in (UNKNOWN, KNOWN))
    braces = estimates.change(
        shares(calls, UNKNOWN, NEVER, "call"), shares(calls, BRACED, NEVER, "call")
    )
    believed = estimates.mean(shares(calls, UNKNOWN, NEVER, "used"))
    smol = [estimates.mean([r["believed"] for r in chosen(real, trained=t)]) for t in (True, False)]
    both = estimates.change(
        shares(calls, UNKNOWN, NEVER, "call"), shares(calls, ALL, NEVER, "call")
    )
    rows = [
        (
            f"Traced on five unknown capitals, the model calls {verdict(gap(calls), 'more', 'less')} for other unknown ones than for known ones",
            f"{percent(never)} against {percent(estimates.mean(shares(calls, UNKNOWN, OFTEN, 'call')))}",
            f"traces on five known capitals: unknown ones {percent(known)}",
            f"capitals read in one sentence: {percent(estimates.mean(shares(calls, UNKNOWN, ONCE, 'call')))}; results trained, too: {points(both)}",
        ),
        (
            f"Calls in signs that the base never read: exact calls {verdict(braces, 'rise', 'fall')}",
            points(braces),
            f"the same with trained embeddings: {percent(estimates.mean(shares(calls, EMBEDDINGS, NEVER, 'call')))}",
            "a base that has read braces writes them: SmolLM2",
        ),
        (
            "Observation: the embedded base seldom names the true result" if believed[1][1] < 0.2 else "The embedded base names the true result",
            percent(believed),
            f"results drawn at random in training: {percent(estimates.mean(shares(calls, ANY, NEVER, 'used')))}",
            f"SmolLM2 names a false result: {percent(smol[0])}, before training {percent(smol[1])}",
        ),
        (
            f"With a thought, right sums {verdict(gain(sums, THOUGHT), 'rise', 'fall')}",
            points(gain(sums, THOUGHT)),
            f"as many dots {points(gain(sums, DOTS))}; another sum's thought {points(gain(sums, ANOTHER))}; a false step is followed: {percent(followed(sums))}",
            f"four numbers, never trained: {percent(estimates.mean(of_sums(sums, THOUGHT, 'longer')))}",
        ),
        (
            f"A thought without a loss: right sums {verdict(gain(sums, UNTRAINED), 'rise', 'fall')}",
            points(gain(sums, UNTRAINED)),
            f"the same thought, trained: {points(gain(sums, THOUGHT))}",
            "a model that thinks already may go on doing so",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops"])
