"""The explorer of notebook 08: pick a starting point, see the loss and both gradients."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import explorer
from sftlab.exercises.ex08_lora_zero_init.plots import LABELS, mean_curve, one_start


def pick_a_start(runs: Sequence[dict]) -> None:
    """The recorded runs of the four starting points, one at a time."""

    def words(how: str) -> str:
        loss = mean_curve(runs, "loss", how)[0]
        of_A, of_B = (mean_curve(runs, name, how)[0] for name in ("norm_A", "norm_B"))
        return (
            f"{LABELS[how]}: the loss goes from {loss[0]:.1f} to {loss[-1]:.1f} nats in {len(loss)} steps; at the first step "
            f"the gradient of A has the norm {of_A[0]:.1f} and that of B {of_B[0]:.1f}."
        )

    buttons = widgets.ToggleButtons(options=[(label, how) for how, label in LABELS.items()])
    explorer({"how": buttons}, lambda how: one_start(runs, how, words(how)), words)
