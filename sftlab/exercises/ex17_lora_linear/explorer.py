"""The explorer of notebook 17: the right factor and eight wrong ones, at any rank and alpha."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import WIDE, explorer
from sftlab.exercises.ex17_lora_linear.plots import coincide, factors


def try_factors() -> None:
    """Choose r and alpha: which wrong factors are right there, so that a test accepts them?"""
    sliders = {"description_width": "60px"}
    controls = {
        "r": widgets.IntSlider(value=8, min=1, max=16, description="r", style=sliders, layout=WIDE),
        "alpha": widgets.IntSlider(
            value=8, min=1, max=32, description="α", style=sliders, layout=WIDE
        ),
    }

    def words(r: int, alpha: int) -> str:
        return (
            f"Dots: the wrong factors at r = {r} and α = {alpha}. The right one is {alpha / r:.3g}. The same number "
            f"comes from {', '.join(coincide(alpha, r)) or 'none of the wrong ones'}."
        )

    explorer(controls, lambda r, alpha: factors(alpha, r, words(r, alpha)), words)
