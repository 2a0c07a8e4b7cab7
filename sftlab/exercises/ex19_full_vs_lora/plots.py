"""Figures and tables of notebook 19: full fine-tuning and LoRA side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import curves
from sftlab.exercises.sizes import size
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
):
    """Peaks over the length of the rows: lines as planned, crosses as the process was measured.

    Both: label -> (tokens, bytes) pairs.
    """
    lines = {label: {n: peak / 1e9 for n, peak in points} for label, points in planned.items()}
    first, last = (end(n for points in planned.values() for n, _ in points) for end in (min, max))
    ends = ", ".join(f"{label} {points[-1][1] / 1e9:.1f} GB" for label, points in planned.items())
    off = max(abs(peak / dict(planned[label])[n] - 1) for label, points in measured.items() for n, peak in points)  # fmt: skip
    return curves(
        lines,
        f"At {last} tokens a row: {ends}",
        f"Peak memory over rows of {first} to {last} tokens, at the end {ends}. Crosses mark measured peaks, at most "
        f"{off:.0%} away from the planned lines.",
        marked={(n, peak / 1e9): "" for points in measured.values() for n, peak in points},
        xticks=sorted({n for points in planned.values() for n, _ in points}), ylim=(0, None),
        xlabel="tokens per row (4 rows); lines planned, crosses measured", ylabel="peak (GB)", figsize=(7.6, 3.4),
    )  # fmt: skip


def with_interval(mean: float, interval: tuple[float, float]) -> str:
    """A score with its 95% interval."""
    return f"{mean:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def four_bit_weights(linears: int, others: int, other_bytes: int) -> float:
    """Bytes of a model whose linear layers are in NF4, double quantised, and the others are not."""
    return linears * bits_per_parameter(double=True) / 8 + others * other_bytes
