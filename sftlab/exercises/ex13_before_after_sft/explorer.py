"""Notebook 13: watch an answer form over the training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import WIDE, explorer
from sftlab.classroom.views import View, table


def watch_training(
    losses: Sequence[float], album: Mapping[int, Sequence[str]], prompts: Sequence[str]
) -> None:
    """A slider over the training steps; the answers and the loss at that step."""

    def draw(step: int) -> View:
        loss = f"loss {losses[step - 1]:.2f}" if step else "before training"
        return table(
            list(zip(prompts, album[step], strict=True)),
            ["asked", "written"],
            f"after {step} steps: {loss}",
        )

    slider = widgets.SelectionSlider(
        options=sorted(album), value=sorted(album)[0], description="after step", layout=WIDE
    )
    explorer(
        {"step": slider},
        draw,
        lambda step: f"Answers after {step} training steps.",
        continuous=True,
    )
