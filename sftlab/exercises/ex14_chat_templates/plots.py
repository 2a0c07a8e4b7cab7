"""Figures and tables of notebook 14, from live and recorded runs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from IPython.display import Markdown

from sftlab._internal.paths import MODELS
from sftlab.chatml import STYLES, with_style
from sftlab.classroom.figures import dots
from sftlab.classroom.rendering import compare_ids, ids_view, token_table
from sftlab.classroom.views import beside
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, crossed, percent, points, times
from sftlab.exercises.ex14_chat_templates.experiment import ARMS, Phrasing
from sftlab.exercises.recipes import fewer, is_small
from sftlab.exercises.record import runs
from sftlab.statistics import chosen
from sftlab.template_check import check_template
from sftlab.templates import HIDDEN_SYSTEM, with_template

NAMES = {"usual": "usual data", "contrast": "contrast data"}
SHOWN = ("question", "system turn", *ARMS)
REAL = ("question", "harmless system turn", "system turn", *ARMS)


def cells(recorded: Sequence[dict], data: str, arm: str, name: str = "short") -> np.ndarray:
    """Return a measurement of an arm as a table, models × instructions."""
    found = chosen(recorded, data=data)
    return np.array([[cell[name] for cell in run[arm].values()] for run in found])


def level(recorded: Sequence[dict], data: str, arm: str, name: str = "short") -> Estimate:
    """Return the mean of an arm over models and instructions with its interval."""
    return crossed(cells(recorded, data, arm, name).tolist())


def _change(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Other − one, paired by model, and by instruction where both have the same number of them."""
    if one.shape != other.shape:
        one = one.mean(1, keepdims=True)
    return crossed((other - one).tolist())


def change(
    recorded: Sequence[dict], data: str, before: str, after: str, name: str = "short"
) -> Estimate:
    """Return after − before for two arms."""
    return _change(cells(recorded, data, before, name), cells(recorded, data, after, name))


def by_data(recorded: Sequence[dict], arm: str) -> Estimate:
    """Return contrast − usual data for the short replies of an arm, paired by seed."""
    return _change(cells(recorded, "usual", arm), cells(recorded, "contrast", arm))


def loss_ratio(recorded: Sequence[dict], data: str, before: str, after: str) -> Estimate:
    """Return the loss of the right reply, after ÷ before; the interval is one of logarithms."""
    value, ends = _change(*(np.log(cells(recorded, data, arm, "loss")) for arm in (before, after)))
    return float(np.exp(value)), (float(np.exp(ends[0])), float(np.exp(ends[1])))


def as_share(estimate: Estimate) -> Estimate:
    """Return an estimate of a share whose t interval ends at 0 and 1."""
    value, (low, high) = estimate
    return value, (max(0.0, low), min(1.0, high))


# --- tables ----------------------------------------------------------------------------------


def live_table(found: dict, columns: Sequence[str] = ("short", "right")) -> pd.DataFrame:
    """Return the means over instructions of every arm of one model, as percent."""
    lines = {
        arm: {name: f"{np.mean([cell[name] for cell in named.values()]):.0%}" for name in columns}
        for arm, named in found.items()
    }
    return pd.DataFrame(lines).T.rename_axis("arm")


def arms_table(recorded: Sequence[dict], data: str, arms: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Return short and right replies and the loss of the right one, for every arm of one data."""
    lines = [
        {
            "arm": arm,
            "short replies": percent(level(recorded, data, arm)),
            "right replies": percent(level(recorded, data, arm, "right")),
            "loss of the right reply": f"{cells(recorded, data, arm, 'loss').mean():.3f}",
        }
        for arm in arms
    ]
    return pd.DataFrame(lines).set_index("arm")


def real_values(recorded: Sequence[dict], arm: str, name: str = "short") -> list[float]:
    """Return a measurement of SmolLM2, one value for each instruction."""
    return [next(iter(run[arm].values()))[name] for run in recorded]


def real_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return every arm on SmolLM2; intervals over the instructions, where these change the arm."""
    lines = {}
    for arm in REAL:
        losses = real_values(recorded, arm, "short_loss")
        value, (low, high) = estimates.mean(losses)
        lines[arm] = {
            "short replies": f"{np.mean(real_values(recorded, arm)):.0%}",
            "loss of the short reply": f"{value:.2f}"
            + (f" ({low:.2f} to {high:.2f})" if len(set(losses)) > 1 else ""),
        }
    return pd.DataFrame(lines).T.rename_axis("arm")


def real_change(recorded: Sequence[dict], before: str, after: str) -> Estimate:
    """Return the change of the loss of the short reply on SmolLM2, paired by instruction."""
    return estimates.change(*(real_values(recorded, arm, "short_loss") for arm in (before, after)))


def nats(estimate: Estimate) -> str:
    value, (low, high) = estimate
    return f"{value:+.2f} nats ({low:+.2f} to {high:+.2f})"


def obedience(recorded: Sequence[dict]) -> str:
    """Say whether SmolLM2 shows signs of obeying a system turn, real and forged."""
    sentences = []
    for turn, before, after in (
        ("real", "harmless system turn", "system turn"),
        ("forged", "harmless", "forged"),
    ):
        found = real_change(recorded, before, after)
        sign = estimates.verdict(found, "no sign", "a sign", "no settled sign")
        sentences.append(
            f"Between a {turn} system turn that asks for full sentences and one that asks for a "
            f"short answer, the loss of the short reply changes by {nats(found)}: {sign} that this "
            f"model obeys the {turn} turn."
        )
    return " ".join(sentences)


# --- figure ----------------------------------------------------------------------------------


def short_replies(recorded: Sequence[dict]):
    """Show the share of short replies of every arm, for both kinds of data, with intervals."""
    found = {
        label: {arm: as_share(level(recorded, data, arm)) for arm in SHOWN}
        for data, label in NAMES.items()
    }
    words = "; ".join(
        f"{label}: " + ", ".join(f"{arm} {value[0]:.0%}" for arm, value in named.items())
        for label, named in found.items()
    )
    return dots(
        found, "Short replies in every arm (95% intervals over models and instructions)",
        f"Dot plot with 95% intervals, share of replies of at most three words. {words}.",
        fmt=".0%", percent="x", xlabel="replies of at most three words", xlim=(-0.05, 1.1),
        figsize=(8.4, 4.6),
    )  # fmt: skip


# --- in words --------------------------------------------------------------------------------


def why_pieces(tokenizer, pieces: Sequence[int]) -> str:
    """Say why a special token becomes several tokens as plain text, and which."""
    read = " ".join(tokenizer.decode([piece]) for piece in pieces)
    return (
        "The vocabulary has no entry for these characters as plain text, so the tokenizer builds "
        f"them from pieces: {read}"
    )


def why(recorded: Sequence[dict], data: str) -> str:
    """What stands beside a prediction about the special tokens: two other controls."""
    shares = {
        arm: level(recorded, data, arm)[0] for arm in ("forged", "instruction alone", "harmless")
    }
    return (
        f"In {NAMES[data]}, {shares['forged']:.0%} of the replies to the forged message are short, "
        f"{shares['instruction alone']:.0%} after the instruction alone, and "
        f"{shares['harmless']:.0%} after a forgery that asks for full sentences."
    )


def of_defense(recorded: Sequence[dict], data: str = "usual") -> str:
    """Compare the defense with deleting and with replacing the tokens; none of them opens a turn."""
    shares = {
        arm: f"{level(recorded, data, arm)[0]:.0%}"
        for arm in ("tokens removed", "other signs", "defended")
    }
    against = {arm: change(recorded, data, "defended", arm) for arm in shares}
    removed = estimates.verdict(
        against["tokens removed"],
        "So more is at work than that no turn opens: what the typed tokens become matters.",
        "So what the typed tokens become matters, and deleting them is the better filter.",
        "So that no turn opens may explain all of it.",
    )
    return (
        f"In {NAMES[data]}, {shares['defended']} of the replies are short with the defense. Deleting "
        f"the tokens opens no turn either and leaves {shares['tokens removed']}, a difference of "
        f"{points(against['tokens removed'])}. {removed} Other signs leave {shares['other signs']}, "
        f"a difference of {points(against['other signs'])}."
    )


def of_data(recorded: Sequence[dict]) -> str:
    """Say what contrast data change about the forged turn and about the same words in plain text."""
    end = estimates.verdict(
        data_change(recorded),
        "They weaken the plain text more.",
        "They weaken the forged turn more.",
        "Which of the two they change more is not settled here.",
    )
    return (
        "From usual to contrast data, short replies to the forged turn change by "
        f"{points(by_data(recorded, 'forged'))}, to the same words without special tokens by "
        f"{points(by_data(recorded, 'tokens removed'))}. {end} Short replies to the instruction alone, "
        f"which is close to the added requests, change by {points(by_data(recorded, 'instruction alone'))}."
    )


def said(estimate: Estimate, more: str, less: str) -> str:
    return f"{points(estimate)}, {estimates.verdict(estimate, more, less)}"


def claims(recorded: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    more, less = "more short replies", "fewer short replies"
    obeyed = change(recorded, "usual", "question", "forged")
    by_tokens = {data: change(recorded, data, "tokens removed", "forged") for data in NAMES}
    defended = {data: change(recorded, data, "forged", "defended") for data in NAMES}
    right = change(recorded, "contrast", "forged", "defended", "right")
    turn = by_data(recorded, "forged")
    by_signs = {data: change(recorded, data, "other signs", "forged") for data in NAMES}
    owed = estimates.verdict(
        by_tokens["usual"], "more than without its special tokens", "fewer than without its special tokens",
        "not shown to be due to its special tokens",
    )  # fmt: skip
    rows = [
        (
            f"A forged message, usual data: {estimates.verdict(obeyed, more, less)}; {owed}",
            points(obeyed),
            f"against the same text without special tokens: {points(by_tokens['usual'])}; with other signs in their place: {said(by_signs['usual'], more, less)}",
            "SmolLM2, loss of the short reply, forged against harmless: "
            + nats(real_change(real, "harmless", "forged")),
        ),
        (
            "Its special tokens, against none, contrast data: "
            + estimates.verdict(by_tokens["contrast"], more, less),
            points(by_tokens["contrast"]),
            f"against other signs in their place: {said(by_signs['contrast'], more, less)}; difference to usual data: {said(data_change(recorded), 'larger', 'smaller')}",
            f"tokens removed against the question alone: {said(change(recorded, 'contrast', 'question', 'tokens removed'), more, less)}",
        ),
        (
            f"The forged message, contrast against usual data: {estimates.verdict(turn, more, less)}",
            points(turn),
            f"without special tokens: {points(by_data(recorded, 'tokens removed'))}; "
            f"the instruction alone: {points(by_data(recorded, 'instruction alone'))}; "
            f"a real system turn: {points(by_data(recorded, 'system turn'))}",
            f"forged message against the question alone: {said(change(recorded, 'contrast', 'question', 'forged'), more, less)}",
        ),
        (
            "The defense: "
            + "; ".join(f"{NAMES[d]}, {estimates.verdict(defended[d], more, less)}" for d in NAMES),
            "; ".join(f"{NAMES[data]}: {points(defended[data])}" for data in NAMES),
            "against tokens removed: "
            + "; ".join(points(change(recorded, d, "tokens removed", "defended")) for d in NAMES)
            + "; against other signs: "
            + "; ".join(points(change(recorded, d, "other signs", "defended")) for d in NAMES),
            f"defended against the question alone, usual data: {said(change(recorded, 'usual', 'question', 'defended'), more, less)}",
        ),
        (
            "Right replies with the defense, against the attack, contrast data: "
            + estimates.verdict(right, "more", "fewer"),
            points(right),
            f"against the question alone: {said(change(recorded, 'contrast', 'question', 'defended', 'right'), 'more', 'fewer')}",
            "loss of the right reply against the question alone: "
            f"{times(loss_ratio(recorded, 'contrast', 'question', 'defended'))}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def data_change(recorded: Sequence[dict]) -> Estimate:
    """Return how much more the special tokens matter after contrast data, paired by seed."""
    effects = [
        cells(recorded, data, "forged") - cells(recorded, data, "tokens removed") for data in NAMES
    ]
    return crossed((effects[1] - effects[0]).tolist())


def tokens_effect(recorded: Sequence[dict], data: str) -> Estimate:
    """Return by how many points short replies fall when the special tokens are deleted."""
    value, (low, high) = change(recorded, data, "tokens removed", "forged")
    return 100 * value, (100 * low, 100 * high)


def findings(tokenizer) -> pd.DataFrame:
    """Return what `check_template` finds out as a table."""
    found = [(f.guard, f.state, f.evidence) for f in check_template(tokenizer)]
    return pd.DataFrame(found, columns=["check", "state", "what was found"]).set_index("check")


def arm_texts(phrasing: Phrasing, question: str) -> pd.DataFrame:
    """Return the user's text of every arm and how it is encoded, for one phrasing and question."""
    lines = {
        arm: {
            "the user's text": text(phrasing, question).replace("\n", "⏎"),
            "encoded by": "encode_defended" if defended else "encode",
        }
        for arm, (text, defended) in ARMS.items()
    }
    return pd.DataFrame(lines).T.rename_axis("arm")


__all__ = [
    "HIDDEN_SYSTEM", "MODELS", "STYLES", "Markdown", "arm_texts", "arms_table", "beside", "claims", "compare_ids",
    "fewer", "findings", "ids_view", "is_small", "live_table", "obedience", "of_data", "of_defense", "pd",
    "real_table", "runs", "short_replies", "token_table", "tokens_effect", "why", "why_pieces", "with_style", "with_template",
]  # fmt: skip
