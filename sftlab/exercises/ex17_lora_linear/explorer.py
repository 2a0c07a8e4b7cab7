"""Notebook 17: one LoRA layer, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex17_lora_linear.plots import layer_diagram


def watch_layers(album: Mapping[int, Mapping[str, dict]]) -> None:
    """Choose a layer and a step: the diagram of its two paths, and its norms so far.

    Args:
        album: step -> name of the layer -> what ``plots.ex17.norms`` says of it.
    """
    steps = sorted(album)
    names = list(album[steps[0]])
    controls = {
        "name": widgets.Dropdown(options=names, value=names[-1], description="layer", style=DESCRIBED, layout=WIDE),
        "step": widgets.SelectionSlider(options=steps, value=steps[len(steps) // 4], description="after step", layout=WIDE),
    }  # fmt: skip

    def draw(name: str, step: int):
        return layer_diagram(name, album, step)

    def words(name: str, step: int) -> str:
        now = album[step][name]
        return (
            f"Diagram of {name} after {step} steps: x goes through the frozen W and, beside it, "
            f"through A (norm {now['A']:.2f}) and B (norm {now['B']:.2f}); the correction is "
            f"{now['update'] / now['weight']:.1%} of the weight."
        )

    explorer(controls, draw, words)
