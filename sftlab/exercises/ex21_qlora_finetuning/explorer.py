"""Notebook 21: plan a training step, of the loaded model and of larger ones, by precision."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex21_qlora_finetuning.plots import planned
from sftlab.memory.plan import EMBEDDED, Run, plan

SHAPES = (EMBEDDED, "smollm2-135m", "llama-3.2-1b", "llama-3-8b")


def plan_a_step() -> None:
    """Model, precision of the frozen base, rank, rows and tokens: the bytes of a step."""

    def run(shape: str, weights: str, r: int, batch: int, length: int) -> Run:
        return Run(shape, batch, length, trained_per_row=length // 2, r=r, weights=weights)

    def draw(**settings):
        parts = plan(run(**settings))
        title = f"{settings['shape']}, {settings['weights']}: {told(parts.peak)} at the most"
        return planned(parts, title, words(**settings))

    def words(**settings) -> str:
        parts = plan(run(**settings))
        each = ", ".join(f"{k} {told(v)}" for k, v in vars(parts).items() if k != "peak")
        return f"Bars of what a training step holds: {each}. Peak {told(parts.peak)}."

    slider = {"style": DESCRIBED, "layout": WIDE}
    controls = {
        "shape": widgets.Dropdown(options=SHAPES, description="model", style=DESCRIBED),
        "weights": widgets.ToggleButtons(options=["fp32", "bf16", "nf4"], value="nf4", description="base in"),
        "r": widgets.SelectionSlider(options=[1, 8, 64, 256], value=8, description="rank r", **slider),
        "batch": widgets.SelectionSlider(options=[1, 4, 16, 64], value=4, description="rows", **slider),
        "length": widgets.SelectionSlider(options=[32, 128, 512, 2048], value=128, description="tokens per row", **slider),
    }  # fmt: skip
    explorer(controls, draw, words)


def told(size: float) -> str:
    """Bytes in the unit that suits them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
