"""The explorer of notebook 03: move the ratio of prompt to response, and the number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex03_response_only_loss.experiment import SHAPES, SIZES
from sftlab.exercises.ex03_response_only_loss.plots import one_cell, ratio
from sftlab.statistics import mean_with_interval


def ratio_slider(runs: Sequence[dict]) -> None:
    """Recorded runs by the ratio of prompt to response tokens and by the number of pairs."""
    ratios = [(f"{ratio(runs, shape):.1f} : 1  ({shape})", shape) for shape in SHAPES]

    def words(shape: str, size: int) -> str:
        found = {
            loss: mean_with_interval(runs, "exact", shape=shape, pairs=size, loss=loss)[0]
            for loss in ("response", "all")
        }
        return (
            f"{shape}, {size} pairs: {found['response']:.0%} exactly right after training on the response only, "
            f"{found['all']:.0%} after training on every token."
        )

    controls = {
        "shape": widgets.SelectionSlider(
            options=ratios, value=SHAPES[1], description="prompt : response", style=DESCRIBED, layout=WIDE
        ),
        "size": widgets.ToggleButtons(options=[(f"{s} pairs", s) for s in SIZES], description="trained on", style=DESCRIBED),
    }  # fmt: skip
    explorer(controls, lambda shape, size: one_cell(runs, shape, size, words(shape, size)), words)
