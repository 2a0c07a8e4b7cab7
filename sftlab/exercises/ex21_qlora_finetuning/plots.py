"""Notebook 21: what the weights take in 16 and in 4 bits, and two runs under one limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.memory.count import TrainingBytes

LOOKS = {
    "weights": (BLUE, ""),
    "adapters": (GREEN, ".."),
    "gradients": (ORANGE, "//"),
    "optimizer": (RED, "xx"),
    "activations": (GREY, "--"),
}
UNITS = ((1e9, "GB"), (1e6, "MB"))


def by_kind(reports: Mapping[str, Mapping[str, tuple[int, int]]], title: str):
    """Megabytes of linear layers, embedding and the rest: one stacked bar for each report."""
    figure, axis = plt.subplots(figsize=(7.4, 0.7 * len(reports) + 1.3))
    for place, report in enumerate(reports.values()):
        left = 0.0
        for kind, colour, hatch in (("linear", BLUE, ""), ("embedding", ORANGE, "//"), ("other", GREY, "")):  # fmt: skip
            size = report[kind][1] / 1e6
            axis.barh(place, size, left=left, color=colour, hatch=hatch, edgecolor="white",
                      height=0.6, label=kind if place == 0 else None)  # fmt: skip
            left += size
        axis.text(left, place, f" {left:.2f} MB", va="center")
    longest = max(report["whole"][1] for report in reports.values()) / 1e6
    axis.set(yticks=range(len(reports)), yticklabels=list(reports), xlabel="MB", xlim=(0, 1.18 * longest), title=title)  # fmt: skip
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def under_a_limit(found: Mapping[str, dict], allowed: int, title: str):
    """Each attempt's peak, beside the limit, and what became of it."""
    figure, axis = plt.subplots(figsize=(7.4, 2.6))
    for place, one in enumerate(found.values()):
        colour, hatch = (BLUE, "") if one["fits"] else (RED, "xx")
        peak = one["peak"] / 1e9
        axis.barh(place, peak, color=colour, hatch=hatch, edgecolor="white", height=0.55)
        word = "loads and trains" if one["fits"] else "refused while loading"
        axis.text(0.03, place + 0.42, f"{peak:.1f} GB, {word}", va="center", fontsize=9.5)
    axis.axvline(allowed / 1e9, color="black", ls="--", lw=1.4)
    axis.text(allowed / 1e9, -0.55, f" limit {allowed / 1e9:.1f} GB", va="center")
    axis.set(yticks=range(len(found)), yticklabels=list(found), ylim=(len(found) - 0.4, -0.75),
             xlim=(0, 1.25 * allowed / 1e9), xlabel="most that the process held, beyond its libraries (GB)")  # fmt: skip
    axis.set_title(title)
    return figure


def planned(parts: TrainingBytes, title: str):
    """The parts of one planned training step as bars, and its peak as a line."""
    names = list(LOOKS)
    largest = max(parts.peak, *(getattr(parts, name) for name in names))
    scale, unit = next((u for u in UNITS if largest >= u[0]), UNITS[-1])
    figure, axis = plt.subplots(figsize=(7.4, 3))
    for place, name in enumerate(names):
        size = getattr(parts, name) / scale
        colour, hatch = LOOKS[name]
        axis.barh(place, size, color=colour, hatch=hatch, edgecolor="white", height=0.65)
        axis.text(size, place, f" {size:.3g}", va="center", fontsize=9.5)
    axis.axvline(parts.peak / scale, color="black", ls="--", lw=1.4)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel=f"{unit}; dashed: the most held at one moment",
             xlim=(0, 1.15 * largest / scale), title=title)  # fmt: skip
    axis.invert_yaxis()
    return figure


def real_rows(recorded: Sequence[dict]) -> list[list[str]]:
    """One row per model and way to store its base: what shrinks, the held-out loss, what is kept."""
    rows = []
    for model in dict.fromkeys(run["model"] for run in recorded):
        for stored in ("bf16", "nf4"):
            runs = [r for r in recorded if (r["model"], r["stored"]) == (model, stored)]
            smaller = [one / other for one, other in runs[0]["bytes"].values()]
            losses = [f"{np.mean([r[name] for r in runs]):.2f}" for name in ("untuned", "nll")]
            kept = all(run["gradients_kept"] and run["logits_kept"] for run in runs)
            rows.append([model, stored, *(f"{x:.1f}×" for x in smaller), *losses, "yes" if kept else "no"])  # fmt: skip
    return rows
