"""Notebook 18: rank and targets, and the share that is trained."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex18_lora_with_peft.plots import SETS, shares_at, trained


def pick_rank(models: Mapping[str, Mapping]) -> None:
    """Choose a rank and which layers carry it: count and share for every model.

    Args:
        models: name -> what ``plots.sizes`` says of it.
    """
    controls = {
        "r": widgets.IntSlider(value=8, min=1, max=64, description="rank r", layout=WIDE),
        "target": widgets.Dropdown(options=list(SETS), value="all linear", description="LoRA on", style=DESCRIBED),
    }  # fmt: skip

    def draw(r: int, target: str):
        return shares_at(models, target, r, words(r, target))

    def words(r: int, target: str) -> str:
        shares = {name: trained(size, target, r) for name, size in models.items()}
        told = ", ".join(f"{name} {100 * s:.2g}% ({n:,})" for name, (n, s) in shares.items())
        return f"The trained share with rank {r} on {target}: {told}."

    explorer(controls, draw, words)
