"""Figures and tables of notebook 15, computed from the labels, the live runs and the recorded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import OPEN, Estimate, mean, percent, points, tuned, verdict
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import (
    EVERY,
    LAST,
    PLACES,
    WRONG_0,
    WRONG_1,
)
from sftlab.exercises.ex15_multi_turn_masking.experiment import (
    ARMS,
    FIRST,
    IN,
    OUT,
)
from sftlab.exercises.ex15_multi_turn_masking.random_conversations import DAMAGES
from sftlab.statistics import chosen

pd.set_option("display.max_colwidth", None)  # claims are sentences; pandas would cut them
RESAMPLES, BOTH = 4000, "both"
ENDINGS = ("end of turn", "end of document")
# measure of a reply -> its name in tables
MEASURES = {
    "ends_turn": "ends its turn",
    "ends": "ends in any way",
    "begins": "begins rightly",
    "right": "exactly right",
}


# --- the end-of-turn token -------------------------------------------------------------------


def by_kind(runs: Sequence[dict], measure: str, start: str, arm: str) -> np.ndarray:
    """Return a share of the replies, (seeds, kinds of question)."""
    return np.array([list(r[measure].values()) for r in chosen(runs, start=start, arm=arm)])


def crossed(values: np.ndarray) -> Estimate:
    """Return the mean of (seeds, kinds) with equal weights, and a 95% bootstrap over both."""
    rng, (seeds, kinds) = np.random.default_rng(0), values.shape
    rows = rng.integers(0, seeds, (RESAMPLES, seeds, 1))
    columns = rng.integers(0, kinds, (RESAMPLES, 1, kinds))
    low, high = np.quantile(values[rows, columns].mean((1, 2)), (0.025, 0.975))
    return float(values.mean()), (float(low), float(high))


def share(runs: Sequence[dict], measure: str, start: str = "base", arm: str = OUT) -> Estimate:
    """Return a share of the replies of an arm."""
    return crossed(by_kind(runs, measure, start, arm))


def effect(runs: Sequence[dict], measure: str, start: str = "base", arm: str = OUT) -> Estimate:
    """Return what an arm changes against the end-of-turn token in the loss, paired by seed and kind."""
    return crossed(by_kind(runs, measure, start, arm) - by_kind(runs, measure, start, IN))


def end_of_turn_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the shares of the replies, by the model that was trained and by arm."""
    lines = {
        f"{start}, {arm}": {
            name: percent(share(runs, measure, start, arm)) for measure, name in MEASURES.items()
        }
        for start, arms in ARMS.items()
        for arm in arms
    }
    return pd.DataFrame(lines).T


def draw_effects(runs: Sequence[dict]):
    """What each arm changes in the three shares."""
    found = {
        f"{start}: {arm}": {name: effect(runs, m, start, arm) for m, name in MEASURES.items()}
        for start, arms in ARMS.items()
        for arm in arms
        if arm != IN
    }
    title = "Change against the end-of-turn token in the loss"
    words = "; ".join(
        f"{arm}: " + ", ".join(f"{name} {points(e)}" for name, e in of.items())
        for arm, of in found.items()
    )
    ends = [end for of in found.values() for _, interval in of.values() for end in interval]
    return dots(found, title, f"{title}. {words}.", panels=True, zero=True, percent="x",
                xlim=(min(ends) - 0.05, max(ends) + 0.05), xlabel="change of the share of replies",
                figsize=(9.6, 2.7))  # fmt: skip


def in_points(found: Estimate) -> Estimate:
    """Return a difference of shares in points of a hundred."""
    value, (low, high) = found
    return 100 * value, (100 * low, 100 * high)


def why_it_ends(runs: Sequence[dict]) -> str:
    """Explain how replies end without the end-of-turn token in the loss."""
    found = chosen(runs, start="base", arm=OUT)
    turn, document = (np.mean([r["after"][t] for r in found]) for t in ENDINGS)
    before = np.mean([r["before"][ENDINGS[1]] for r in found])
    return (
        f"Pretraining taught the base to end documents. After the right answer it gives `<|endoftext|>` a mean "
        f"probability of {before:.2f} before this training and {document:.2f} after it; `<|im_end|>` gets {turn:.2f}."
    )


def why_right(runs: Sequence[dict]) -> str:
    """Explain where the exactly right replies go without the end-of-turn token in the loss."""
    begins, right = effect(runs, "begins"), effect(runs, "right")
    return (
        f"The share of replies that *begin* with the right answer changes by {points(begins)}, that of exactly "
        f"right ones by {points(right)}. The difference are replies that go on after the answer. The masked label is "
        "the one that shows how long an answer is."
    )


def why_last(runs: Sequence[dict]) -> str:
    """Explain what only the last answer in the loss leaves out."""
    last, every = (np.mean([r["tokens"][0] for r in best(runs, a)]) for a in (LAST, EVERY))
    return (
        f"At equal steps the arm trains {last / every:.0%} of the tokens, and never the answer to a first question: "
        "each of these conversations has several."
    )


def endings(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the mean probability of both ending tokens after the right answer, before and after."""
    lines = {}
    for start, arms in ARMS.items():
        for when, arm in [("before", IN), *(("after", arm) for arm in arms)]:
            found = chosen(runs, start=start, arm=arm)
            name = f"{start}, before training" if when == "before" else f"{start}, {arm}"
            lines[name] = {
                token: f"{np.mean([r[when][token] for r in found]):.3f}" for token in found[0][when]
            }
    return pd.DataFrame(lines).T


# --- every answer, or the last one -----------------------------------------------------------


def best(runs: Sequence[dict], arm: str, at: int = 0) -> list[dict]:
    """Return the runs of an arm at its learning rate, chosen on the validation questions."""
    return tuned(chosen(runs, arm=arm), lambda run: run["validation"][at])


def losses(runs: Sequence[dict], arm: str, at: int = 0, place: str = BOTH) -> list[float]:
    """Return the held-out loss of every seed: of questions in one place, or the mean of both places."""
    places = PLACES if place == BOTH else (place,)
    return [float(np.mean([run[f"loss {p}"][at] for p in places])) for run in best(runs, arm, at)]


def loss_ratio(
    runs: Sequence[dict], arm: str, at: int = 0, place: str = BOTH, against: str = EVERY
) -> Estimate:
    """Return the held-out loss of an arm, divided by that of another, paired by seed."""
    return estimates.ratio(losses(runs, against, 0, place), losses(runs, arm, at, place))


def times(found: Estimate) -> str:
    """Return a ratio with its interval as text."""
    value, (low, high) = found
    return f"×{value:.2f} ({low:.2f} to {high:.2f})"


def worse(found: Estimate) -> str:
    """Return which side of 1 the interval of a ratio of losses lies on, in words."""
    return verdict(found, "worse", "better", neutral=1.0)


def answers_table(runs: Sequence[dict], arms: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Return, for arms at the first or second of their steps, what was trained and the result."""
    lines = {}
    for arm, at in arms:
        found = best(runs, arm, at)
        lines[f"{arm}, more steps" if at else arm] = {
            "learning rate": f"{found[0]['learning_rate']:g}",
            "steps": f"{np.mean([r['steps'][at] for r in found]):.0f}",
            "trained tokens": f"{np.mean([r['tokens'][at] for r in found]):.0f}",
            "loss, asked alone": f"{np.mean([r['loss alone'][at] for r in found]):.3f}",
            "loss, asked third": f"{np.mean([r['loss third'][at] for r in found]):.3f}",
            "right, alone": percent(mean([r["right alone"][at] for r in found])),
            "right, third": percent(mean([r["right third"][at] for r in found])),
        }
    return pd.DataFrame(lines).T


def draw_losses(runs: Sequence[dict]):
    """The held-out loss of the arms, divided by that of every answer."""
    arms = {
        "last only, equal steps": (LAST, 0), "last only, equal tokens": (LAST, 1),
        "earlier wrong, weight 0": (WRONG_0, 0), "earlier wrong, weight 1": (WRONG_1, 0),
    }  # fmt: skip
    found = {
        f"asked {place}": {
            name: loss_ratio(runs, arm, at, place) for name, (arm, at) in arms.items()
        }
        for place in PLACES
    }
    title = "Held-out loss, divided by that of every answer"
    words = "; ".join(
        f"{place}: " + ", ".join(f"{name} {times(e)}" for name, e in of.items())
        for place, of in found.items()
    )
    return dots(found, title, f"{title}. {words}.", fmt=".2f", axvline={1: "every answer"},
                xlabel="ratio of the losses", figsize=(7.6, 3.4))  # fmt: skip


# --- cutting ---------------------------------------------------------------------------------


def draw_damage(kinds: Mapping[int, Sequence[str]]):
    """The shares of what cutting at each length does to conversations; length -> one of DAMAGES each."""
    total = len(next(iter(kinds.values())))
    found = {
        str(n): {what: list(each).count(what) / total for what in DAMAGES}
        for n, each in kinds.items()
    }
    title = f"What is lost when {total} conversations are cut"
    words = "; ".join(
        f"at {n} tokens " + ", ".join(f"{part:.0%} {what}" for what, part in of.items() if part)
        for n, of in found.items()
    )
    return stacked(found, title, f"{title}: {words}.", vertical=True, percent="y",
                   xlabel="max_length (tokens)", ylabel="share of the conversations")  # fmt: skip


# --- claims ----------------------------------------------------------------------------------


def changes(found: Estimate) -> str:
    """Return in which direction a share moves, in words."""
    return verdict(found, "rises", "falls", OPEN)


def claims(ends: Sequence[dict], answers: Sequence[dict], equal: Mapping[str, int], talks: int) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        equal: way -> number of conversations in which its labels are those of the student.
    """
    stop, text = effect(ends, "ends_turn"), effect(ends, "right")
    steps, tokens = (loss_ratio(answers, LAST, at, "alone") for at in (0, 1))
    third = loss_ratio(answers, LAST, 0, "third")
    one, zero = loss_ratio(answers, WRONG_1), loss_ratio(answers, WRONG_0, against=LAST)
    ways = list(equal)
    same = [way for way in ways if equal[way] == talks]
    rows = [
        (
            f"Your labels are those of {', '.join(same) or 'no other way'}",
            "; ".join(f"{way}: {equal[way]} of {talks}" for way in same) or f"0 of {len(ways)}",
            "; ".join(f"{way}: {equal[way]}" for way in ways if way not in same),
            "templates without a generation block, or with the end of turn outside it",
        ),
        (
            f"Masked end-of-turn token: the share of ended turns {changes(stop)}",
            points(stop),
            f"first token masked: {points(effect(ends, 'ends_turn', arm=FIRST))}; "
            f"any ending token: {points(effect(ends, 'ends'))}",
            f"a model that ends its turns already: {points(effect(ends, 'ends_turn', 'chat'))}",
        ),
        (
            f"Masked end-of-turn token: the share of exactly right replies {changes(text)}",
            points(text),
            f"replies that begin with the right answer: {points(effect(ends, 'begins'))}",
            f"a model that ends its turns already: {points(effect(ends, 'right', 'chat'))}",
        ),
        (
            f"Last answer only, equal steps, questions asked alone: {worse(steps)}",
            f"loss {times(steps)}",
            f"equal trained tokens: {times(tokens)}, {worse(tokens)}",
            f"asked third: {times(third)}, {worse(third)}",
        ),
        (
            f"Wrong earlier answers with weight 1: {worse(one)}",
            f"loss {times(one)}",
            f"with weight 0, against right answers with weight 0: {times(zero)}, {worse(zero)}",
            "the last answers are right; one set of conversations, on facts that the base has read",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
