"""Notebook 11: plan a training step, and see which cards hold it."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex11_qlora_memory.plots import CARDS, against_cards, parts_of
from sftlab.memory.plan import Run, plan

SHAPES = ("smollm2-135m", "llama-3.2-1b", "llama-2-7b", "llama-3-8b", "llama-2-13b", "llama-3-70b")
TARGETS = {"every linear layer": "all-linear", "q and v": ("q_proj", "v_proj")}


def plan_memory() -> None:
    """Model, precision, rank, targets, sequences, tokens, recomputation: the step against four cards."""

    def planned(shape, weights, r, targets, batch, length, recompute):
        half = length // 2
        return plan(Run(shape, batch, length, half, r, TARGETS[targets], weights, recompute))

    def draw(**settings):
        found = planned(**settings)
        title = f"{settings['shape']}, {settings['weights']}: {found.peak / 1e9:.1f} GB; {smallest(found.peak)}"
        return against_cards(found, title, words(**settings))

    def words(**settings) -> str:
        found = planned(**settings)
        each = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in parts_of(found).items())
        return f"A stacked bar up to {found.peak / 1e9:.1f} GB ({each}); {smallest(found.peak)}."

    wide = {"style": DESCRIBED, "layout": WIDE}
    controls = {
        "shape": widgets.Dropdown(options=SHAPES, value="llama-3-70b", description="model", style=DESCRIBED),
        "weights": widgets.ToggleButtons(options=["fp32", "bf16", "nf4"], value="nf4", description="base in"),
        "r": widgets.SelectionSlider(options=[1, 8, 16, 64, 256], value=16, description="rank r", **wide),
        "targets": widgets.Dropdown(options=list(TARGETS), description="LoRA on", style=DESCRIBED),
        "batch": widgets.SelectionSlider(options=[1, 2, 4, 8, 16], value=1, description="sequences", **wide),
        "length": widgets.SelectionSlider(options=[128, 512, 2048, 8192], value=512, description="tokens per sequence", **wide),
        "recompute": widgets.Checkbox(value=True, description="recompute activations", style=DESCRIBED),
    }  # fmt: skip
    explorer(controls, draw, words)


def smallest(peak: int) -> str:
    """The smallest card with more memory than so many bytes; what else a process takes is not planned."""
    card = next((card for card in CARDS if peak <= card * 1e9), None)
    return f"the plan is below {card} GB" if card else f"the plan is above {CARDS[-1]} GB"
