"""Figures and a table of notebook 16: a whole training run, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from sftlab.classroom.plots import BLUE, GREY, ORANGE, RED
from sftlab.classroom.views import View, table
from sftlab.statistics import mcnemar, paired_difference


def loss_and_rate(losses: Sequence[float], rates: Sequence[float], pause: int, title: str):
    """Loss and learning rate over the steps of a run, with a mark where it will be paused later."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 3.8), sharex=True, height_ratios=(2.2, 1)
    )
    steps = range(1, len(losses) + 1)
    above.plot(steps, losses, color=BLUE, lw=2, marker="o", ms=2.5)
    above.axvline(pause + 0.5, color=GREY, lw=1, ls=":")
    above.annotate(
        f"paused here below,\nafter step {pause}", (pause + 0.5, max(losses) * 0.8),
        xytext=(6, 0), textcoords="offset points", fontsize=9,
    )  # fmt: skip
    above.set(ylabel="loss (nats per\ntrained token)", ylim=(0, None), title=title)
    below.plot(steps, [1000 * rate for rate in rates], color=ORANGE, lw=2)
    below.axvline(pause + 0.5, color=GREY, lw=1, ls=":")
    below.set(ylabel="rate (×0.001)", xlabel="optimiser step", ylim=(0, None))
    return figure


def differences(
    found: Mapping[str, tuple[float, tuple[float, float]]],
    title: str,
    xlabel: str,
    counts: Mapping[str, int] | None = None,
):
    """Differences of two shares with their intervals, one line each, and 0 marked.

    Args:
        found: label -> (difference, (low, high)), all in shares from -1 to 1.
        counts: how many questions are behind each label.
    """
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(found) + 1.3))
    for place, (difference, (low, high)) in enumerate(found.values()):
        clear = low > 0 or high < 0
        axis.plot([low, high], [place, place], color=BLUE if clear else GREY, lw=2, ls="-")
        axis.plot(difference, place, "o" if clear else "D", color=BLUE if clear else GREY, ms=6)
        axis.text(1.08, place, f"{100 * difference:+.0f}", va="center", ha="right", fontsize=9,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.axvline(0, color=RED, lw=1.2, ls="--")
    names = [f"{label} ({counts[label]})" if counts else label for label in found]
    axis.set(yticks=range(len(found)), yticklabels=names, xlabel=xlabel, title=title)
    axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}" if x else "0")
    axis.invert_yaxis()
    return figure


def paired_table(pairs: Mapping[str, tuple[Sequence[bool], Sequence[bool]]], seed: int = 0) -> View:
    """What tuning changed, question by question. ``pairs``: the base's name -> (its, the tuned)."""
    rows = []
    for name, (before, after) in pairs.items():
        difference, (low, high) = paired_difference(before, after, seed=seed)
        won, lost, p = mcnemar(before, after)
        change = f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        shares = [f"{sum(right) / len(right):.1%}" for right in (before, after)]
        told = "< 0.001" if p < 0.001 else f"{p:.3f}"
        rows.append([name, len(before), *shares, change, won, lost, told])
    return table(
        rows,
        ["against", "questions", "base", "tuned", "tuned − base, points [95%]", "won", "lost", "McNemar p"],
    )  # fmt: skip


def curve(losses: Sequence[float], steps: int, width: int = 420, height: int = 90) -> str:
    """The loss so far as a small SVG: quick enough to be drawn at every step."""
    top = max(losses, default=1.0)
    points = " ".join(
        f"{4 + (width - 8) * n / max(steps - 1, 1):.1f},{height - 4 - (height - 12) * loss / top:.1f}"
        for n, loss in enumerate(losses)
    )
    label = f"loss curve, {len(losses)} of {steps} steps"
    return (
        f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" '
        'style="background:rgba(128,128,128,.08)">'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/></svg>'
    )
