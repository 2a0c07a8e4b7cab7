"""The explorer of notebook 03: the template, the length of the prompt, and the number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex03_response_only_loss.experiment import SETTINGS
from sftlab.exercises.ex03_response_only_loss.plots import (
    STEPS,
    draw_ratios,
    ratios,
    ratios_in_words,
)


def steps_slider(runs: Sequence[dict]) -> None:
    """What each arm changes in the recorded runs, over the training steps of a setting."""
    controls = {
        "setting": widgets.ToggleButtons(
            options=list(SETTINGS), description="setting", style=DESCRIBED
        ),
        "step": widgets.SelectionSlider(
            options=STEPS, value=24, description="training steps", style=DESCRIBED, layout=WIDE
        ),
    }  # fmt: skip
    explorer(
        controls,
        lambda setting, step: draw_ratios(runs, setting, step),
        lambda setting, step: ratios_in_words(ratios(runs, setting, step), setting, step)[1],
    )
