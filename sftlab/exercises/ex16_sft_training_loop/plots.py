"""Figures and a table of notebook 16: a whole training run, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import BLUE, curves, dots
from sftlab.classroom.views import View, table
from sftlab.statistics import mcnemar, paired_difference


def loss_and_rate(losses: Sequence[float], rates: Sequence[float], pause: int):
    """Loss and learning rate over the steps of a run, with a mark where it will be paused later."""
    ends = [sum(part) / len(part) for part in (losses[:5], losses[-5:])]
    title = f"The loss falls from {ends[0]:.1f} to {ends[1]:.2f} (means of five steps)"
    if ends[1] >= ends[0]:
        title = title.replace("falls", "goes")
    top = max(range(len(rates)), key=lambda step: rates[step]) + 1
    return curves(
        {"loss": dict(enumerate(losses, 1)), "rate": {n: 1000 * rate for n, rate in enumerate(rates, 1)}},
        title,
        f"Two line charts over {len(losses)} steps. Loss: {title}. Rate: up to {max(rates):g} at step {top}, at last {rates[-1]:.2g}.",
        panels=True, columns=1, sharex=True, gridspec_kw={"height_ratios": (2.2, 1)}, ylim=(0, None), figsize=(7, 4.2),
        each={
            "loss": {"ylabel": "loss (nats per\ntrained token)", "axvline": {pause + 0.5: f"paused here below, after step {pause}"}},
            "rate": {"ylabel": "rate (×0.001)", "xlabel": "optimiser step", "axvline": {pause + 0.5: ""}},
        },
    )  # fmt: skip


def differences(found: Mapping[str, tuple[float, tuple[float, float]]], counts: Mapping[str, int]):
    """Tuned − base for each kind of question, with intervals. ``counts``: how many questions each has."""
    points = {
        f"{kind} ({counts[kind]})": (100 * value, (100 * low, 100 * high))
        for kind, (value, (low, high)) in found.items()
    }
    gained = sum(low > 0 for _, (low, _) in found.values()) or "none"
    lost = sum(high < 0 for _, (_, high) in found.values()) or "none"
    title = f"Of {len(found)} kinds of question {gained} gained clearly, {lost} lost"
    told = ", ".join(f"{kind} {100 * value:+.0f}" for kind, (value, _) in found.items())
    return dots(points, title, f"{title}. {told} points.", zero=True, fmt="+.0f",
                xlabel="exactly right: tuned − base with two examples (points)")  # fmt: skip


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
