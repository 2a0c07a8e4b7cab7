"""Figures and tables of notebook 19: full fine-tuning and LoRA side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from sftlab.classroom.plots import BLUE, GREEN, ORANGE
from sftlab.exercises.ex06_why_peft.plots import size
from sftlab.memory.count import TrainingBytes
from sftlab.quant import bits_per_parameter

LABELS = {"full": "full fine-tuning", "lora": "LoRA"}
PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "peak")


def recorded_run(runs: Sequence[dict], **settings) -> dict:
    """The one recorded run with these settings."""
    (found,) = [run for run in runs if all(run.get(k) == v for k, v in settings.items())]
    return found


def beside(found: Mapping[str, tuple[TrainingBytes, TrainingBytes]]) -> list[list[str]]:
    """One row per part; for every name what was planned and what was measured, and how far apart."""
    lines = []
    for part in PARTS:
        line = [part]
        for planned, measured in found.values():
            told, held = getattr(planned, part), getattr(measured, part)
            off = f" ({told / held - 1:+.1%})".replace("-0.0%", "+0.0%") if held else ""
            line.append(f"{size(told)} / {size(held)}{off}" if held else "none")
        lines.append(line)
    return lines


def growth(
    planned: Mapping[str, Sequence[tuple[int, float]]],
    measured: Mapping[str, Sequence[tuple[int, float]]],
    title: str,
    xlabel: str,
):
    """Peaks over the length of the rows: lines as planned, crosses as the process was measured.

    Both: label -> (tokens, bytes) pairs.
    """
    figure, axis = plt.subplots(figsize=(7.6, 3.3))
    looks = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
    for (label, points), (colour, mark) in zip(planned.items(), looks, strict=False):
        lengths, peaks = zip(*points, strict=True)
        axis.plot(lengths, [p / 1e9 for p in peaks], color=colour, marker=mark, ms=5)
        axis.annotate(label, (lengths[-1], peaks[-1] / 1e9), xytext=(8, 0), textcoords="offset points", va="center", color=colour, weight="bold")  # fmt: skip
        there = measured.get(label, ())
        axis.plot([n for n, _ in there], [p / 1e9 for _, p in there], "x", color="black", ms=9, mew=2, ls="", zorder=5)  # fmt: skip
    longest = max(n for points in planned.values() for n, _ in points)
    axis.set(xlabel=xlabel, ylabel="peak (GB)", xlim=(0, 1.42 * longest), ylim=(0, None))
    axis.set_xticks([n for n, _ in next(iter(planned.values()))])
    axis.set_title(title)
    return figure


def with_interval(mean: float, interval: tuple[float, float]) -> str:
    """A score with its 95% interval."""
    return f"{mean:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def four_bit_weights(linears: int, others: int, other_bytes: int) -> float:
    """Bytes of a model whose linear layers are in NF4, double quantised, and the others are not."""
    return linears * bits_per_parameter(double=True) / 8 + others * other_bytes
