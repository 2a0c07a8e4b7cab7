"""Notebook 21: what the weights take in 16 and in 4 bits, and two runs under one limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import bars, stacked
from sftlab.memory.count import TrainingBytes

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations")
UNITS = ((1e9, "GB"), (1e6, "MB"))


def by_kind(reports: Mapping[str, Mapping[str, tuple[int, int]]]):
    """Megabytes of linear layers, embedding and the rest: one stacked bar for each report."""
    found = {name: {kind: report[kind][1] / 1e6 for kind in ("linear", "embedding", "other")} for name, report in reports.items()}  # fmt: skip
    first, *_, last = reports.values()
    linear, whole = (first[part][1] / last[part][1] for part in ("linear", "whole"))
    told = "; ".join(
        f"{name}: {sum(parts.values()):.2f} MB, of which linear layers {parts['linear']:.2f}, embedding {parts['embedding']:.2f}"
        for name, parts in found.items()
    )
    title = f"Linear layers shrink {linear:.1f} times, the whole model {whole:.1f} times"
    return stacked(
        found, title, f"Stacked bars. {told}.", total=lambda size: f"{size:.2f} MB", xlabel="MB"
    )


def under_a_limit(found: Mapping[str, dict], allowed: int):
    """Each attempt's peak, beside the limit, and what became of it."""
    words = {True: "trains", False: "is refused"}
    rows = {
        f"{name}:\n{'loads and trains' if one['fits'] else 'refused while loading'}": one["peak"]
        / 1e9
        for name, one in found.items()
    }
    told = "; ".join(f"{name} {words[one['fits']]} at {one['peak'] / 1e9:.1f} GB" for name, one in found.items())  # fmt: skip
    limit = allowed / 1e9
    return bars(
        rows,
        "Under one limit " + ", ".join(f"{name} {words[one['fits']]}" for name, one in found.items()),
        f"Bars beside a dotted line, the limit of {limit:.1f} GB: {told}.",
        fmt=lambda peak: f"{peak:.1f} GB", axvline={limit: f"limit {limit:.1f} GB"}, xlim=(0, 1.25 * limit),
        xlabel="most that the process held, beyond its libraries (GB)", figsize=(7.4, 2.6),
    )  # fmt: skip


def planned(parts: TrainingBytes, title: str, alt: str):
    """The parts of one planned training step as bars, and its peak as a line."""
    held = {name: getattr(parts, name) for name in PARTS}
    largest = max(parts.peak, *held.values())
    scale, unit = next((u for u in UNITS if largest >= u[0]), UNITS[-1])
    return bars(
        {name: size / scale for name, size in held.items()}, title, alt, fmt=".3g",
        axvline={parts.peak / scale: f"peak {parts.peak / scale:.3g}"}, xlim=(0, 1.15 * largest / scale),
        xlabel=f"{unit}; dotted: the most held at one moment", figsize=(7.4, 3.1),
    )  # fmt: skip


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
