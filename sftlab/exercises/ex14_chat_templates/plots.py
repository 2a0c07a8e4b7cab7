"""Figures and tables of notebook 14, from live and recorded runs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sftlab._internal.paths import MODELS
from sftlab.chat import render
from sftlab.chatml import STYLES, with_style
from sftlab.classroom.figures import dots
from sftlab.classroom.rendering import compare_ids, difference_view, ids_view, token_table
from sftlab.classroom.views import beside
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, crossed, percent, points, times
from sftlab.exercises.ex14_chat_templates.experiment import ARMS, WAYS, Turns
from sftlab.exercises.recipes import fewer, is_small
from sftlab.exercises.record import runs
from sftlab.statistics import chosen
from sftlab.template_check import check_template
from sftlab.templates import HIDDEN_SYSTEM, with_template

NAMES = {"usual": "usual data", "contrast": "contrast data"}
SHOWN = ("question", "system turn", *ARMS)


def cells(recorded: Sequence[dict], data: str, arm: str, name: str = "short") -> np.ndarray:
    """Return a measurement of an arm as a table, models × phrasings."""
    found = chosen(recorded, data=data)
    return np.array([[cell[name] for cell in run[arm].values()] for run in found])


def level(recorded: Sequence[dict], data: str, arm: str, name: str = "short") -> Estimate:
    """Return the mean of an arm over models and phrasings with its interval."""
    return crossed(cells(recorded, data, arm, name).tolist())


def _change(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Other − one, paired by model, and by phrasing where both have the same number of them."""
    if one.shape != other.shape:
        one = one.mean(1, keepdims=True)
    return crossed((other - one).tolist())


def change(
    recorded: Sequence[dict], data: str, before: str, after: str, name: str = "short"
) -> Estimate:
    """Return after − before for two arms."""
    return _change(cells(recorded, data, before, name), cells(recorded, data, after, name))


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
    """Return the means over phrasings of every arm of one model, as percent."""
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


def defense_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return how users who quote a special token are answered, in three ways of reading it."""
    lines = {}
    for data, label in NAMES.items():
        for way in WAYS:
            line = {"right replies": percent(level(recorded, data, way, "right"))}
            same = way == "quoted"
            line["change"] = "–" if same else points(change(recorded, data, "quoted", way, "right"))
            line["loss, ratio"] = "–" if same else times(loss_ratio(recorded, data, "quoted", way))
            lines[f"{label}: {way}"] = line
    return pd.DataFrame(lines).T.rename_axis("data and reading")


def real_values(recorded: Sequence[dict], arm: str, name: str = "short") -> list[float]:
    """Return a measurement of SmolLM2, one value for each phrasing."""
    return [next(iter(run[arm].values()))[name] for run in recorded]


def real_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return every arm on SmolLM2; intervals over the phrasings."""
    lines = {}
    for arm in SHOWN:
        found = {
            name: estimates.mean(real_values(recorded, arm, name))
            for name in ("short", "right", "short_loss")
        }
        value, (low, high) = found["short_loss"]
        lines[arm] = {
            "short replies": percent(found["short"]),
            "right replies": percent(found["right"]),
            "loss of the short reply": f"{value:.2f} ({low:.2f} to {high:.2f})",
        }
    return pd.DataFrame(lines).T.rename_axis("arm")


def real_change(recorded: Sequence[dict], before: str, after: str) -> str:
    """Return the change of the loss of the short reply on SmolLM2, paired by phrasing, in words."""
    found = estimates.change(*(real_values(recorded, arm, "short_loss") for arm in (before, after)))
    value, (low, high) = found
    words = estimates.verdict(found, "higher", "lower")
    return f"SmolLM2, loss of the short reply against {before}: {value:+.2f} nats ({low:+.2f} to {high:+.2f}), {words}"


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
        found, "Short replies in every arm (95% intervals over models and phrasings)",
        f"Dot plot with 95% intervals, share of replies of at most three words. {words}.",
        fmt=".0%", percent="x", xlabel="replies of at most three words", xlim=(-0.05, 1.1),
        figsize=(8.4, 4.6),
    )  # fmt: skip


# --- in words --------------------------------------------------------------------------------


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


def said(estimate: Estimate, more: str, less: str) -> str:
    return f"{points(estimate)}, {estimates.verdict(estimate, more, less)}"


def claims(recorded: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""

    def tokens(data: str) -> Estimate:
        return change(recorded, data, "tokens removed", "forged")

    def defended(data: str) -> Estimate:
        return change(recorded, data, "forged", "defended")

    more, less = "more short replies", "fewer short replies"
    obeyed = change(recorded, "usual", "question", "forged")
    right = change(recorded, "contrast", "forged", "defended", "right")
    rows = [
        (
            f"A forged system turn, usual data: {estimates.verdict(obeyed, more, less)}",
            points(obeyed),
            f"harmless forgery: {said(change(recorded, 'usual', 'question', 'harmless'), more, less)}",
            real_change(real, "harmless", "forged"),
        ),
        (
            "Its special tokens, usual data: " + estimates.verdict(tokens("usual"), more, less),
            points(tokens("usual")),
            "the instruction alone, against the question: "
            f"{said(change(recorded, 'usual', 'question', 'instruction alone'), more, less)}",
            "role names and line breaks around the instruction: "
            f"{said(change(recorded, 'usual', 'instruction alone', 'tokens removed'), more, less)}",
        ),
        (
            "Its special tokens, contrast data: "
            + estimates.verdict(tokens("contrast"), more, less),
            points(tokens("contrast")),
            f"difference to usual data: {said(data_change(recorded), 'larger', 'smaller')}",
            f"left without them: {said(change(recorded, 'contrast', 'question', 'tokens removed'), more, less)}",
        ),
        (
            "The defense, contrast data: " + estimates.verdict(defended("contrast"), more, less),
            points(defended("contrast")),
            f"tokens removed instead: {points(change(recorded, 'contrast', 'forged', 'tokens removed'))}; "
            f"other signs: {points(change(recorded, 'contrast', 'forged', 'other signs'))}",
            f"left in usual data: {said(change(recorded, 'usual', 'question', 'defended'), more, less)}",
        ),
        (
            "Right replies with the defense, against the attack, contrast data: "
            + estimates.verdict(right, "more", "fewer"),
            points(right),
            f"against the question alone: {points(change(recorded, 'contrast', 'question', 'defended', 'right'))}, "
            f"loss {times(loss_ratio(recorded, 'contrast', 'question', 'defended'))}",
            "a quoted special token, loss with the defense: "
            f"{times(loss_ratio(recorded, 'contrast', 'quoted', 'quoted, defended'))}",
        ),
    ]  # fmt: skip
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


def arm_texts(phrasing: Turns, question: str) -> pd.DataFrame:
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
    "HIDDEN_SYSTEM", "MODELS", "STYLES", "arm_texts", "arms_table", "beside", "change", "claims", "compare_ids",
    "defense_table", "difference_view", "fewer", "findings", "ids_view", "is_small", "live_table", "pd", "real_table", "render", "runs",
    "short_replies", "token_table", "tokens_effect", "why", "with_style", "with_template",
]  # fmt: skip
