"""Notebook 20: what rounding takes from a merge, and what another α does to the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from sftlab.classroom.plots import BLUE, GREY, ORANGE
from sftlab.statistics import share_interval


def rounding(sizes: Sequence[float], lost: Sequence[tuple[float, float]], title: str):
    """Share of weights unchanged, and error of the update, over the size of the update.

    ``sizes``: ‖ΔW‖/‖W‖, the largest first. ``lost``: what ``merging.rounding_loss`` gives for each.
    """
    figure, axis = plt.subplots(figsize=(7.4, 3.6))
    labels = ("weights that do not move", "error of the update that arrives")
    for which, (label, colour, line) in enumerate(zip(labels, (BLUE, ORANGE), ("-", "--"), strict=True)):  # fmt: skip
        values = [100 * pair[which] for pair in lost]
        axis.plot(
            [100 * s for s in sizes], values, line, marker="o", ms=5, color=colour, label=label
        )
    axis.set_xscale("log", base=2)
    axis.set_xlim(100 * min(sizes) / 1.3, 100 * max(sizes) * 1.5)
    axis.legend(loc="upper right")
    axis.set_xticks([100 * s for s in sizes], [f"{100 * s:.2g}" for s in sizes])
    axis.annotate("as trained", (100 * sizes[0], 100 * lost[0][0]), xytext=(0, 14), ha="center",
                  textcoords="offset points", color=GREY)  # fmt: skip
    axis.set(xlabel="size of the update, % of the weight's norm", ylabel="%", ylim=(0, None))
    axis.set_title(title)
    axis.minorticks_off()
    return figure


def strength_curve(counts: Mapping[float, int], total: int, title: str):
    """Exact answers over the merge strength, with 95% intervals; 1 is the trained α."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    shares = [100 * n / total for n in counts.values()]
    spans = [share_interval(n, total) for n in counts.values()]
    low = [max(0, s - 100 * a) for s, (a, _) in zip(shares, spans, strict=True)]
    high = [max(0, 100 * b - s) for s, (_, b) in zip(shares, spans, strict=True)]
    axis.axvline(1, color=GREY, lw=1, ls=":")
    axis.annotate("as trained", (1, 4), xytext=(5, 0), textcoords="offset points", color=GREY)
    axis.errorbar(list(counts), shares, yerr=[low, high], fmt="-o", color=BLUE, capsize=3, ms=5)
    axis.set(
        xlabel="merge strength (times the trained α)", ylabel="exactly right, %", ylim=(0, 105),
        title=title,
    )  # fmt: skip
    return figure
