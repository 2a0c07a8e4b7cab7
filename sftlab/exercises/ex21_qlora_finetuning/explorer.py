"""Notebook 21: choose how each part of a QLoRA run is stored, and read what it costs."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex21_qlora_finetuning.plots import STORED, choices, step_bytes

NAMES = ("llama-3.2-1b", "llama-3-8b", "llama-3-70b")


def choose_dtypes() -> None:
    """Model, storage of linear layers, embedding and adapters, and rank: the bytes that stay."""

    def draw(**chosen):
        parts = step_bytes(**chosen)
        total = sum(parts.values()) / 1e9
        return choices(parts, f"{chosen['shape']}: {total:.2f} GB stay in memory", words(**chosen))

    def words(**chosen) -> str:
        parts = step_bytes(**chosen)
        each = ", ".join(f"{name} {held / 1e9:.2f} GB" for name, held in parts.items())
        return f"Bars: {each}. Together {sum(parts.values()) / 1e9:.2f} GB."

    bits = [("16 bits", 16), ("32 bits", 32)]
    look = {"style": DESCRIBED}
    controls = {
        "shape": widgets.Dropdown(options=NAMES, value="llama-3-8b", description="model", **look),
        "stored": widgets.ToggleButtons(options=list(STORED), value="16 bits", description="linear layers", **look),
        "embedding": widgets.ToggleButtons(options=bits, value=32, description="embedding, head", **look),
        "adapters": widgets.ToggleButtons(options=bits, value=32, description="A, B, moments", **look),
        "r": widgets.SelectionSlider(options=[8, 16, 32, 64, 128, 256], value=64, description="rank r", layout=WIDE, **look),
    }  # fmt: skip
    explorer(controls, draw, words)
