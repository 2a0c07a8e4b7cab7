"""The explorer of notebook 19: what LoRA's settings do to the memory of a step."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex19_full_vs_lora.experiment import SHAPE
from sftlab.exercises.sizes import memory, size
from sftlab.memory.count import TrainingBytes
from sftlab.memory.plan import Run, plan

TARGETS = {
    "q and v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all linear layers": "all-linear",
}
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (32, 64, 128, 256, 512, 1024)
BATCH = 4


def planned(r: int, target: str, length: int, recompute: bool) -> dict[str, TrainingBytes]:
    """Full fine-tuning and LoRA on sequences of this length, half of whose tokens are trained."""
    shared = {"batch": BATCH, "length": length, "trained_per_row": length // 2}
    return {
        name: plan(Run(SHAPE, **shared, r=rank, targets=TARGETS[target], recompute=recompute))
        for name, rank in (("full fine-tuning", None), (f"LoRA, r = {r}", r))
    }


def draw(r: int, target: str, length: int, recompute: bool):
    """The parts as bars; the title says what is saved."""
    found = planned(r, target, length, recompute)
    full, lora = found.values()
    change = lora.peak / full.peak - 1
    told = f"{-change:.0%} less" if change < 0 else f"{change:.0%} more"
    largest = max(("weights", "adapters", "gradients", "optimizer", "activations"), key=lambda part: getattr(lora, part))  # fmt: skip
    title = f"LoRA's peak: {told} than full fine-tuning's. Its largest part: {largest}"
    return memory(found, title, words(r, target, length, recompute), told="planned peak")


def words(r: int, target: str, length: int, recompute: bool) -> str:
    full, lora = planned(r, target, length, recompute).values()
    how = "with recomputation" if recompute else "without recomputation"
    return (
        f"Rank {r} on {target}, sequences of {length} tokens, {how}: full fine-tuning peaks at "
        f"{size(full.peak)}, LoRA at {size(lora.peak)}, of which activations {size(lora.activations)}."
    )


def memory_bars() -> None:
    """Sliders for rank and length, the layers that carry LoRA, and recomputation."""
    for length in LENGTHS:  # plans are kept: later only LoRA's own is made, a quarter of a second
        for recompute in (False, True):
            planned(8, "all linear layers", length, recompute)
    slider = {"style": DESCRIBED, "layout": WIDE}
    controls = {
        "r": widgets.SelectionSlider(options=RANKS, value=8, description="rank r", **slider),
        "target": widgets.Dropdown(
            options=list(TARGETS), value="all linear layers", description="LoRA on", style=DESCRIBED
        ),
        "length": widgets.SelectionSlider(
            options=LENGTHS, value=64, description="tokens per sequence", **slider
        ),
        "recompute": widgets.Checkbox(value=False, description="recompute activations"),
    }
    explorer(controls, draw, words)
