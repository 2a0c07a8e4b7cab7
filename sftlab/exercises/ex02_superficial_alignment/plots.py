"""Figures, views and tables of notebook 02: form and facts over n, token ranks, unknown facts."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.classroom.views import FONT, View, table, visible
from sftlab.exercises.ex02_superficial_alignment.experiment import SIZES
from sftlab.exercises.ex02_superficial_alignment.rank_shift import CLASSES, shift_class
from sftlab.exercises.ex02_superficial_alignment.unknown_facts import MOMENTS
from sftlab.statistics import chosen, mean_interval

STRATA = {
    "asked": ("known, kind asked", BLUE, "o", "-"),
    "unasked": ("known, kind never asked", GREEN, "^", "--"),
    "single": ("read in one fixed sentence", ORANGE, "s", "-."),
    "absent": ("never read", RED, "D", ":"),
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


def over_n(runs: Sequence[dict], title: str):
    """Form on the left, right content on the right, one line per stratum; small dots are seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    for axis, line, label in zip(axes, ("form", "content"), ("right form", "right content"), strict=True):  # fmt: skip
        for stratum, (name, colour, shape, dashes) in STRATA.items():
            each = [shares(runs, n, stratum, line) for n in SIZES]
            axis.plot(range(len(SIZES)), [np.mean(v) for v in each], color=colour, marker=shape, ls=dashes, label=name)  # fmt: skip
            for place, values in enumerate(each):
                axis.plot([place] * len(values), values, shape, color=colour, ms=3, alpha=0.5)
        axis.set(xticks=range(len(SIZES)), xticklabels=SIZES, xlabel="training pairs (n)", ylim=(-0.04, 1.06))  # fmt: skip
        axis.set_title(label, fontsize=10.5, weight="normal")
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel("share of the questions")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def n_table(runs: Sequence[dict], pairs: int) -> View:
    """Every stratum at one n: form, exact answers, content, and "I do not know", over the seeds."""
    names = {key: name for key, (name, *_) in STRATA.items()} | {"lists": "lists of tips"}
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


def by_place(places: Mapping[str, Sequence[int]], title: str):
    """Stacked shares of the three classes, one bar for each group of tokens; ``places``: label -> ranks."""
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(places) + 1.4))
    looks = ((GREY, ""), (ORANGE, "//"), (RED, "xx"))
    left = np.zeros(len(places))
    for name, (colour, hatch) in zip(CLASSES, looks, strict=True):
        values = np.array([class_shares(ranks)[name] for ranks in places.values()])
        axis.barh(range(len(places)), values, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.66, label=name)  # fmt: skip
        for place, (start, value) in enumerate(zip(left, values, strict=True)):
            if value > 0.06:
                axis.text(start + value / 2, place, f"{value:.0%}", ha="center", va="center", fontsize=9,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85})  # fmt: skip
        left += values
    labels = [f"{label} ({len(ranks)})" for label, ranks in places.items()]
    axis.set(yticks=range(len(places)), yticklabels=labels, xlim=(0, 1), xlabel="share of the tokens", title=title)  # fmt: skip
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure


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


def memorised(runs: Sequence[dict], title: str):
    """Exact answers over the steps of two trainings: on the 29 facts, and on known facts of no pair."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True)
    arms = {"known": ("29 known facts among the pairs", BLUE, "o", "-"), "absent": ("29 facts never read", RED, "D", "--")}  # fmt: skip
    for axis, exam, label in zip(axes, ("trained", "held out"), ("the 29 facts themselves", "known facts of no pair"), strict=True):  # fmt: skip
        for arm, (name, colour, shape, dashes) in arms.items():
            each = np.array([run[f"{exam}, content"] for run in chosen(runs, arm=arm)])
            ends = np.array([mean_interval(values) for values in each.T])
            axis.errorbar(MOMENTS, each.mean(0), yerr=np.abs(ends.T - each.mean(0)), color=colour, marker=shape, ls=dashes, capsize=3, label=name)  # fmt: skip
        axis.set(xscale="log", xlabel="optimiser step", xticks=MOMENTS, xticklabels=MOMENTS)
        axis.minorticks_off()
        axis.set_title(label, fontsize=10.5, weight="normal")
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel("right content")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure
