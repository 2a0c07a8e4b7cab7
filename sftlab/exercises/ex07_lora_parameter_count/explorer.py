"""The explorer of notebook 07: the widths of a weight and a rank, and what A and B add up to."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex07_lora_parameter_count.plots import to_scale
from sftlab.lora import lora_parameter_count

WIDTHS = (192, 576, 1024, 2048, 4096, 8192, 14336)
RANKS = tuple(2**n for n in range(13))


def words(d_in: int, d_out: int, r: int) -> str:
    trained, weight = lora_parameter_count(d_in, d_out, r), d_in * d_out
    return (
        f"A weight of {d_out:,} by {d_in:,} ({weight:,} parameters) as a grey rectangle, A and B at "
        f"rank {r:,} as strips along its sides, to scale: {trained:,} parameters, {trained / weight:.2%}."
    )


def count_parameters() -> None:
    """Sliders for d_in, d_out and r over W, A and B to scale."""

    def slider(options: tuple[int, ...], value: int, description: str) -> widgets.SelectionSlider:
        return widgets.SelectionSlider(
            options=[(f"{option:,}", option) for option in options],
            value=value,
            description=description,
            style=DESCRIBED,
            layout=WIDE,
        )

    controls = {
        "d_in": slider(WIDTHS, 4096, "d_in (columns of W)"),
        "d_out": slider(WIDTHS, 4096, "d_out (rows of W)"),
        "r": slider(RANKS, 64, "rank r"),
    }
    explorer(controls, to_scale, words, continuous=True)
