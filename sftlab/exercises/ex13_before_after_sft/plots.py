"""Notebook 13 on a real base: the same figures for two models, before and after a few pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftlab.classroom.views import View, table

LINES = {
    "content": "right content",
    "correct": "exactly right",
    "format": "right form",
    "stops": "stops",
}


def share(runs: Sequence[dict], line: str) -> float:
    """The share of answers that meet a rubric line, over all seeds."""
    return float(np.mean([[int(mark) for mark in run[line]] for run in runs]))


def continues(runs: Sequence[dict]) -> float:
    """The share of bare questions that the base continues instead of answering them."""
    bare = runs[0]["bare"]
    return bare["continued"] / sum(bare.values())


def before_and_after(recorded: Sequence[dict]) -> View:
    """One row per model and number of pairs: shares of the answers in the template."""
    rows = []
    for model in dict.fromkeys(run["model"] for run in recorded):
        for count in sorted({run["count"] for run in recorded}):
            runs = [r for r in recorded if (r["model"], r["count"]) == (model, count)]
            shares = [f"{share(runs, line):.0%}" for line in LINES]
            rows.append([model, count or "none", len(runs), *shares])
    return table(rows, ["model", "pairs", "runs", *LINES.values()])
