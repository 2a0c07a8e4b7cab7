"""Figures, views and tables of notebook 02: form and facts over n, token ranks, unknown facts."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import curves, stacked
from sftlab.classroom.views import FONT, View, table, visible
from sftlab.exercises.ex02_superficial_alignment.experiment import SIZES
from sftlab.exercises.ex02_superficial_alignment.rank_shift import CLASSES, shift_class
from sftlab.exercises.ex02_superficial_alignment.unknown_facts import MOMENTS
from sftlab.statistics import chosen, mean_interval

STRATA = {
    "asked": "known, kind asked",
    "unasked": "known, kind never asked",
    "single": "read in one fixed sentence",
    "absent": "never read",
}
LOOKS = {
    CLASSES[0]: "background:rgba(128,128,128,.14);border-bottom:2px solid transparent;",
    CLASSES[1]: "background:rgba(230,159,0,.28);border-bottom:2px dashed #E69F00;",
    CLASSES[2]: "background:rgba(213,94,0,.30);border-bottom:2px solid #D55E00;font-weight:bold;",
}


def share(run: Mapping, stratum: str, line: str) -> float:
    """The share of a stratum's questions on which a line holds; "form": right form, and it stops."""
    marks = run[stratum]
    if line == "form":
        both = zip(marks["format"], marks["stops"], strict=True)
        return sum(pair == ("1", "1") for pair in both) / len(marks["format"])
    return marks[line].count("1") / len(marks[line])


def shares(runs: Sequence[dict], pairs: int, stratum: str, line: str) -> list[float]:
    """One share for each seed."""
    return [share(run, stratum, line) for run in chosen(runs, pairs=pairs)]


def enough(runs: Sequence[dict], stratum: str, line: str, part: float = 0.95) -> int:
    """The smallest n whose mean reaches ``part`` of the best mean of all n."""
    means = {n: np.mean(shares(runs, n, stratum, line)) for n in SIZES}
    return next(n for n in SIZES if means[n] >= part * max(means.values()))


def over_n(runs: Sequence[dict]):
    """Form on the left, right content on the right, one line per stratum; small dots are seeds."""
    found = {
        label: {name: {k: shares(runs, n, stratum, line) for k, n in enumerate(SIZES)} for stratum, name in STRATA.items()}
        for line, label in (("form", "right form"), ("content", "right content"))
    }  # fmt: skip
    form, facts = (enough(runs, "asked", line) for line in ("form", "content"))
    most = {name: max(map(np.mean, points.values())) for name, points in found["right content"].items()}  # fmt: skip
    told = ", ".join(f"{name} {share:.0%}" for name, share in most.items())
    return curves(
        found,
        f"Form is there with {form} pairs, known facts with {facts}; facts never read: {most[STRATA['absent']]:.0%} at most",
        f"Two panels over the number of pairs. Right form is near its height from {form} pairs on, right content of known "
        f"facts from {facts}. The most that is right in content: {told}.",
        panels=True, spread="dots", sharey=True, percent="y", ylim=(-0.04, 1.06), xticks=range(len(SIZES)),
        xticklabels=SIZES, xlabel="training pairs (n)", ylabel="share of the questions", figsize=(9.4, 3.7),
    )  # fmt: skip


def n_table(runs: Sequence[dict], pairs: int) -> View:
    """Every stratum at one n: form, exact answers, content, and "I do not know", over the seeds."""
    names = STRATA | {"lists": "lists of tips"}
    rows = [
        [name, *(f"{np.mean(shares(runs, pairs, stratum, line)):.0%}"
                 for line in ("form", "correct", "content", "refuses"))]
        for stratum, name in names.items()
    ]  # fmt: skip
    heads = [
        "questions on facts",
        "right form",
        "exactly right",
        "right content",
        "“I do not know”",
    ]
    return table(rows, heads, f"n = {pairs}, means over {len(chosen(runs, pairs=pairs))} seeds")


def class_shares(ranks: Sequence[int]) -> dict[str, float]:
    """Shares of unshifted, marginal and shifted tokens."""
    counts = Counter(map(shift_class, ranks))
    return {name: counts[name] / len(ranks) for name in CLASSES}


def by_place(places: Mapping[str, Sequence[int]]):
    """The three classes of tokens, one bar for each group of them; ``places``: label -> ranks."""
    found = {f"{label} ({len(ranks)})": class_shares(ranks) for label, ranks in places.items()}
    first, *_ = found.values()
    told = "; ".join(f"{name} {parts[CLASSES[2]]:.0%}" for name, parts in found.items())
    return stacked(
        found,
        f"{first[CLASSES[0]]:.0%} of the chat model’s tokens are the base’s own first choice",
        f"Stacked bars of unshifted, marginal and shifted tokens. Shifted are: {told}.",
        inside=".0%", percent="x", xlabel="share of the tokens",
    )  # fmt: skip


def rank_view(words: Sequence[str], ranks: Sequence[int], note: str, marked: int = -1) -> View:
    """The tuned model's tokens, the shifted ones coloured; pointing at one shows its rank."""
    spans = []
    for place, (word, rank) in enumerate(zip(words, ranks, strict=True)):
        frame = "outline:2px solid currentColor;" if place == marked else ""
        spans.append(
            f'<span title="rank {rank} under the base" style="{LOOKS[shift_class(rank)]}{frame}padding:1px 3px;margin:1px;'
            f'border-radius:3px;display:inline-block;{FONT}">{html.escape(visible(word))}</span>'
        )
    text = " ".join(f"{visible(w)}({r})" for w, r in zip(words, ranks, strict=True))
    legend = " · ".join(
        f'<span style="{LOOKS[name]}padding:1px 6px">{name}</span> {told}'
        for name, told in zip(CLASSES, ("rank 1", "rank 2 or 3", "beyond"), strict=True)
    )
    return View(
        f'<p style="margin:.3em 0"><b>{html.escape(note)}</b></p><div style="line-height:2">{"".join(spans)}</div>'
        f'<div style="margin:.4em 0">{legend}</div>',
        f"{note} (rank under the base in brackets)\n{text}",
    )


def memorised(runs: Sequence[dict]):
    """Exact answers over the steps of two trainings: on the 29 facts, and on known facts of no pair."""
    arms = {"known": "29 known facts among the pairs", "absent": "29 facts never read"}
    exams = {"trained": "the 29 facts themselves", "held out": "known facts of no pair"}
    found: dict[str, dict[str, dict]] = {}
    for exam, panel in exams.items():
        for arm, name in arms.items():
            each = np.array([run[f"{exam}, content"] for run in chosen(runs, arm=arm)]).T
            points = {k: (v.mean(), mean_interval(v)) for k, v in zip(MOMENTS, each, strict=True)}
            found.setdefault(panel, {})[name] = points
    known, never = found[exams["trained"]].values()
    kept, lost = (points[MOMENTS[-1]][0] for points in found[exams["held out"]].values())
    last = MOMENTS[-1]
    rows = ", ".join(f"{known[k][0]:.0%} and {never[k][0]:.0%} at {k}" for k in MOMENTS)
    return curves(
        found,
        f"Facts never read: {never[40][0]:.0%} after 40 steps, {never[last][0]:.0%} after {last}",
        f"Two panels over training steps. Known facts and facts never read are told in {rows} steps. Known facts of no "
        f"pair end at {kept:.0%} beside the known ones, at {lost:.0%} beside those never read.",
        panels=True, sharey=True, percent="y", xscale="log", xticks=MOMENTS, xlabel="optimiser step",
        ylabel="right content", figsize=(9.2, 3.6),
    )  # fmt: skip
