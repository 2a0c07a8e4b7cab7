"""The explorer of notebook 08: pick an initialization, see the loss and both gradients."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import explorer
from sftlab.exercises.ex08_lora_zero_init.plots import LABELS, mean_curve, one_start


def pick_a_start(runs: Sequence[dict]) -> None:
    """The recorded runs of the seven initializations, one at a time."""

    def words(how: str) -> str:
        loss, of_A, of_B = (mean_curve(runs, name, how) for name in ("loss", "norm_A", "norm_B"))
        return (
            f"{LABELS[how]}: the loss goes from {loss[1]:.1f} to {loss[len(loss)]:.1f} nats in {len(loss)} steps; at the first step "
            f"the gradient of A has the norm {of_A[1]:.1f} and that of B {of_B[1]:.1f}."
        )

    buttons = widgets.ToggleButtons(options=[(label, how) for how, label in LABELS.items()])
    explorer({"how": buttons}, lambda how: one_start(runs, how, words(how)), words)
