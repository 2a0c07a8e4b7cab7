"""The explorer of notebook 09: a learning rate tuned at rank 8, used at another rank under a rule."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, explorer
from sftlab.exercises.estimates import times
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import MEETING_RANK, RANKS
from sftlab.exercises.ex09_lora_alpha_over_r.plots import (
    LABELS,
    carried_rate,
    cost,
    moved_rate,
    one_sweep,
)


def carry_over(runs: Sequence[dict]) -> None:
    """Choose a rule and a rank; see its recorded sweep beside that of rank 8."""

    def words(rule: str, r: int) -> str:
        found = moved_rate(runs, rule, r)
        told = f"is {times(found)} that at rank {MEETING_RANK}" if found else "is at an end of its grid for some seeds"  # fmt: skip
        return (
            f"Factor {LABELS[rule]}, rank {r}: the best learning rate {told}. The carried one is {carried_rate(runs):g}. "
            f"Test loss, carried ÷ tuned: {cost(runs, rule, r)}."
        )

    def buttons(options: list[tuple], description: str) -> widgets.ToggleButtons:
        return widgets.ToggleButtons(options=options, description=description, style=DESCRIBED)

    controls = {
        "rule": buttons([(label, rule) for rule, label in LABELS.items()], "factor"),
        "r": buttons([(f"{r}", r) for r in RANKS if r != MEETING_RANK], "rank"),
    }
    explorer(controls, lambda rule, r: one_sweep(runs, rule, r, words(rule, r)), words)
