"""Figures and tables of notebook 15, computed from the labels, the live runs and the recorded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import (
    Estimate,
    crossed,
    mean,
    percent,
    points,
    times,
    tuned,
    verdict,
)
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import (
    ARMS as ANSWER_ARMS,
)
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import (
    EVERY,
    LAST,
    PLACES,
    WRONG_0,
    WRONG_1,
    training_set,
)
from sftlab.exercises.ex15_multi_turn_masking.experiment import (
    ARMS,
    FIRST,
    IN,
    OUT,
    QUESTIONS,
)
from sftlab.statistics import chosen

pd.set_option("display.max_colwidth", None)  # claims are sentences; pandas would cut them
BOTH = "both"
ENDINGS = ("end of turn", "end of document")
# measure of a reply -> its name in tables
MEASURES = {
    "ends_turn": "ends its turn",
    "ends": "ends in any way",
    "begins": "begins rightly",
    "goes_on": "begins rightly, goes on",
}


# --- the end-of-turn token -------------------------------------------------------------------


def by_kind(runs: Sequence[dict], measure: str, start: str, arm: str) -> np.ndarray:
    """Return a share of the replies, (seeds, kinds of question)."""
    if measure == "goes_on":  # an exactly right reply begins rightly
        return by_kind(runs, "begins", start, arm) - by_kind(runs, "right", start, arm)
    found = sorted(chosen(runs, start=start, arm=arm), key=lambda run: run["seed"])
    return np.array([list(run[measure].values()) for run in found])


def share(runs: Sequence[dict], measure: str, start: str = "base", arm: str = OUT) -> Estimate:
    """Return a share of the replies of an arm, with an interval over seeds and kinds of question."""
    return crossed(by_kind(runs, measure, start, arm))


def effect(
    runs: Sequence[dict], measure: str, start: str = "base", arm: str = OUT, against: str = IN
) -> Estimate:
    """Return what an arm changes against another, paired by seed and kind, with an interval over both."""
    return crossed(by_kind(runs, measure, start, arm) - by_kind(runs, measure, start, against))


def told(runs: Sequence[dict], measure: str, start: str = "base", arm: str = OUT) -> str:
    """Return a share as text: a count if it holds for no reply or for every one."""
    values = by_kind(runs, measure, start, arm)
    if (all_of := values[0, 0]) in (0.0, 1.0) and (values == all_of).all():
        return f"{all_of * QUESTIONS * len(values):.0f} of {QUESTIONS * len(values)} replies"
    value, (low, high) = crossed(values)
    return f"{value:.1%} ({max(0, low):.1%} to {min(1, high):.1%})"


def end_of_turn_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the shares of the replies, by the model that was trained and by arm."""
    lines = {
        f"{start}, {arm}": {name: told(runs, m, start, arm) for m, name in MEASURES.items()}
        for start, arms in ARMS.items()
        for arm in arms
    }
    return pd.DataFrame(lines).T


def draw_effects(runs: Sequence[dict]):
    """What each arm changes in the shares."""
    found = {
        f"{start}: {arm}": {name: effect(runs, m, start, arm) for m, name in MEASURES.items()}
        for start, arms in ARMS.items()
        for arm in arms
        if arm != IN
    }
    title = "Change against the end-of-turn token in the loss"
    words = "; ".join(
        f"{arm}: " + ", ".join(f"{name} {in_words(e)}" for name, e in of.items())
        for arm, of in found.items()
    )
    ends = [end for of in found.values() for _, interval in of.values() for end in interval]
    return dots(found, title, f"{title}. {words}.", panels=True, zero=True, percent="x",
                xlim=(min(ends) - 0.05, max(ends) + 0.05), xlabel="change of the share of replies",
                figsize=(9.6, 2.7))  # fmt: skip


def in_words(found: Estimate) -> str:
    """Return a difference of shares as text, without an interval if all seeds and kinds have the same."""
    value, (low, high) = found
    return f"{100 * value:+.1f} points in every seed and kind" if low == high else points(found)


def why_it_ends(runs: Sequence[dict]) -> str:
    """Explain how replies end without the end-of-turn token in the loss."""
    found = chosen(runs, start="base", arm=OUT)
    turn, document = (np.mean([r["after"][t] for r in found]) for t in ENDINGS)
    before = np.mean([r["before"][ENDINGS[1]] for r in found])
    return (
        f"Pretraining taught the base to end documents. After the right answer it gives `<|endoftext|>` a mean "
        f"probability of {before:.2f} before this training and {document:.2f} after it; `<|im_end|>` gets {turn:.2f}. "
        f"`<|im_end|>` itself ends {told(runs, 'ends_turn')}. But {told(runs, 'goes_on')} begin with the right "
        "answer and go on. A program that stops at both tokens hides the first and not the second."
    )


def why_it_goes_on(runs: Sequence[dict]) -> str:
    """Explain which replies go on after the right answer."""
    over_seeds = mean(by_kind(runs, "goes_on", "base", OUT).mean(1).tolist())
    return (
        f"The share of replies that *begin* with the right answer is {told(runs, 'begins')}; not all end after it. "
        f"Over seeds alone the interval would be {percent(over_seeds)}. With the "
        f"first token masked instead, {told(runs, 'goes_on', arm=FIRST)} go on."
    )


# --- every answer, or the last one -----------------------------------------------------------


def best(runs: Sequence[dict], arm: str, at: int = 0) -> list[dict]:
    """Return the runs of an arm at its learning rate, chosen on the validation questions."""
    return tuned(chosen(runs, arm=arm), lambda run: run["validation"][at])


def loss(found: Sequence[dict], at: int = 0, place: str = BOTH) -> list[float]:
    """Return the held-out loss of every run: of questions in one place, or the mean of both places."""
    places = PLACES if place == BOTH else (place,)
    found = sorted(found, key=lambda run: run["seed"])
    return [float(np.mean([run[f"loss {p}"][at] for p in places])) for run in found]


def loss_ratio(
    runs: Sequence[dict], arm: str, at: int = 0, place: str = BOTH, against: str = EVERY
) -> Estimate:
    """Return the held-out loss of an arm, divided by that of another, each at its learning rate."""
    return estimates.ratio(
        loss(best(runs, against), 0, place), loss(best(runs, arm, at), at, place)
    )


def place_ratio(runs: Sequence[dict], arm: str = LAST, at: int = 0) -> Estimate:
    """Return by what factor an arm's loss, against that of every answer, is higher alone than third."""
    ratios = [
        np.divide(loss(best(runs, arm, at), at, place), loss(best(runs, EVERY), 0, place))
        for place in PLACES
    ]
    return estimates.ratio(ratios[1].tolist(), ratios[0].tolist())


def worse(found: Estimate) -> str:
    """Return which side of 1 the interval of a ratio of losses lies on, in words."""
    return verdict(found, "worse", "better", neutral=1.0)


def with_word(found: Estimate) -> str:
    """Return a ratio of losses with its interval and what it says."""
    return f"{times(found)}, {worse(found)}"


def wrong_share(seeds: int = 5) -> float:
    """Return the share of the earlier answers that the arms "wrong …" replace."""
    pairs = [
        (right["content"], other["content"])
        for seed in range(seeds)
        for talk, changed in zip(training_set(EVERY, seed), training_set(WRONG_1, seed), strict=True)
        for right, other in zip(talk[:-1], changed[:-1], strict=True)
        if right["role"] == "assistant"
    ]  # fmt: skip
    return float(np.mean([right != other for right, other in pairs]))


def why_last(runs: Sequence[dict]) -> str:
    """Explain what only the last answer in the loss leaves out."""
    last, every = (np.mean([r["tokens"][0] for r in best(runs, a)]) for a in (LAST, EVERY))
    alone, third = (loss_ratio(runs, LAST, 0, place) for place in PLACES)
    return (
        f"Alone the ratio of the losses is {times(alone)}, third {times(third)}. The arm trains {last / every:.0%} of "
        "the tokens, and never the answer to a first question, which may be the reason; we did not test it. "
        "We chose this comparison after seeing these five seeds: it is an observation, not a claim."
    )


def answers_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return what each arm trained, and its result, each at its learning rate."""
    lines = {}
    for arm, at in ((EVERY, 0), (LAST, 0), (LAST, 1), (WRONG_0, 0), (WRONG_1, 0)):
        found = best(runs, arm, at)
        lines[f"{arm}, more steps" if at else arm] = {
            "learning rate": f"{found[0]['learning_rate']:g}",
            "steps": f"{np.mean([r['steps'][at] for r in found]):.0f}",
            "trained tokens": f"{np.mean([r['tokens'][at] for r in found]):.0f}",
            **{f"loss, {p}": f"{np.mean(loss(found, at, p)):.3f}" for p in PLACES},
            **{f"right, {p}": f"{np.mean([r[f'right {p}'][at] for r in found]):.0%}" for p in PLACES},
        }  # fmt: skip
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
    ends = [end for of in found.values() for _, interval in of.values() for end in interval]
    return dots(found, title, f"{title}. {words}.", fmt=".2f", axvline={1: "every answer"},
                xlim=(min(ends) - 0.1, max(ends) + 0.25), xlabel="ratio of the losses", figsize=(7.6, 3.4))  # fmt: skip


# --- claims ----------------------------------------------------------------------------------


def stops_at(runs: Sequence[dict]) -> str:
    """Return the same comparison of weights at each learning rate that all seeds have."""
    grid = {
        arm: sorted({run["learning_rate"] for run in chosen(runs, arm=arm)}) for arm in ANSWER_ARMS
    }
    parts = []
    for rate in grid[WRONG_1]:
        one, zero = (chosen(runs, arm=arm, learning_rate=rate) for arm in (WRONG_1, WRONG_0))
        if len(one) == len(zero) == len(best(runs, EVERY)):
            parts.append(f"both at {rate:g}: {with_word(estimates.ratio(loss(zero), loss(one)))}")
    edge = [
        arm
        for arm, rates in grid.items()
        if best(runs, arm)[0]["learning_rate"] in (rates[0], rates[-1])
    ]
    if edge:
        parts.append(f"at the edge of the grid of learning rates: {', '.join(edge)}")
    return "; ".join(parts)


def claims(ends: Sequence[dict], answers: Sequence[dict], equal: Mapping[str, tuple[int, int]], talks: int) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        equal: way -> number of conversations in which its labels are those of the student, and the
            same without the last token of each.
    """
    at_first = partial(effect, ends, against=FIRST)
    stop, more = at_first("ends_turn"), at_first("goes_on")
    over_seeds = mean(by_kind(ends, "goes_on", "base", OUT).mean(1).tolist())
    last, tokens = (loss_ratio(answers, LAST, at) for at in (0, 1))
    wrong = loss_ratio(answers, WRONG_1, against=WRONG_0)
    right = loss_ratio(answers, EVERY, against=LAST)
    read = loss_ratio(answers, WRONG_0, against=LAST)
    same = [way for way, (whole, _) in equal.items() if whole == talks]
    bound = f"each differs from yours in fewer than {1 - 0.05 ** (1 / talks):.1%} of such conversations (95% bound)"
    rows = [
        (
            f"Your labels are those of {' and '.join(same) or 'no other way'}",
            f"0 of {talks} differ, so {bound}" if same else f"0 of {len(equal)} ways",
            "; ".join(
                f"{way}: {talks - whole} differ, {talks - but} without the last token"
                for way, (whole, but) in equal.items()
                if way not in same
            ),
            "other templates: see Go further",
        ),
        (
            "End-of-turn token masked instead of the first token: share of ended turns "
            + verdict(stop, "higher", "lower"),
            f"{told(ends, 'ends_turn')}; difference {in_words(stop)}",
            f"first token masked: {told(ends, 'ends_turn', arm=FIRST)}, "
            f"changed by {in_words(effect(ends, 'ends_turn', arm=FIRST))}",
            f"continuing a chat model: {told(ends, 'ends_turn', 'chat')}; "
            f"<|endoftext|> counted too: {told(ends, 'ends')}",
        ),
        (
            "End-of-turn token masked instead of the first token: share of replies that begin rightly "
            "and go on " + verdict(more, "higher", "lower"),
            f"{told(ends, 'goes_on')}; difference {in_words(more)}",
            f"first token masked: {told(ends, 'goes_on', arm=FIRST)}; "
            f"nothing masked: {told(ends, 'goes_on', arm=IN)}",
            f"continuing a chat model: {told(ends, 'goes_on', 'chat')}; over seeds alone: "
            f"{percent(over_seeds)}",
        ),
        (
            f"Last answer only against every answer, equal steps: {worse(last)}",
            f"loss {times(last)}",
            f"equal trained tokens: {with_word(tokens)}",
            "conversations whose questions don't depend on earlier turns",
        ),
        (
            f"Wrong earlier answers with weight 1 against weight 0: {worse(wrong)}",
            f"loss {times(wrong)}",
            f"right answers, weight 1 against weight 0: {with_word(right)}; "
            f"weight 0, wrong against right: {with_word(read)}",
            f"{wrong_share():.0%} of the earlier answers are wrong; {stops_at(answers)}",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
