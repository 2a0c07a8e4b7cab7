"""Bytes as people read them, and the memory of training steps as a figure."""

from __future__ import annotations

from collections.abc import Mapping

from sftlab.classroom.figures import stacked
from sftlab.memory.count import TrainingBytes

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations")


def size(value: float) -> str:
    """Bytes as people read them: three digits and a unit."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"


def memory(
    found: Mapping[str, TrainingBytes], title: str = "", alt: str = "", told: str = "measured peak"
):
    """The parts of a training step's memory, full fine-tuning's above LoRA's, with the allocator's peak.

    ``told``: what the peak is.
    """
    full, lora = found.values()
    same, saved = lora.activations / full.activations, 1 - lora.peak / full.peak
    each = "; ".join(
        f"{name}: "
        + ", ".join(f"{part} {size(getattr(held, part))}" for part in PARTS)
        + f", {told} {size(held.peak)}"
        for name, held in found.items()
    )
    return stacked(
        {name: {part: getattr(held, part) / 1e6 for part in PARTS} for name, held in found.items()},
        title or f"LoRA's activations are {same:.0%} of full fine-tuning's; the peak falls by {saved:.0%}",
        alt or f"Stacked bars of memory. {each}.",
        peaks={name: held.peak / 1e6 for name, held in found.items()}, total=lambda peak: f"peak {peak:.0f} MB",
        xlabel=f"MB; the upright mark is the {told}", figsize=(8.4, 2.8),
    )  # fmt: skip
