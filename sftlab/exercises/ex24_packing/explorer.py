"""The explorer of notebook 24: lengths, a sequence's size and a rule; how full are the sequences?"""

from __future__ import annotations

from random import Random

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex24_packing.plots import amount, empty, filled, sequences_figure

EXAMPLES = 16
RULES = ("best fit, longest first", "as they come")


def lengths(longest: int, seed: int = 0) -> list[int]:
    """Return 16 lengths from 20 tokens up, most of them near the lower end."""
    rng = Random(seed)
    return [20 + round((longest - 20) * rng.random() ** 3) for _ in range(EXAMPLES)]


def fill_sequences() -> None:
    """Choose the longest example, the size of a sequence and a rule; see how full the sequences are."""

    def made(longest: int, size: int, rule: str) -> tuple[list[list[int]], int]:
        some = lengths(longest)
        size = max(size, *some)
        return filled(some, size, rule), size

    def words(longest: int, size: int, rule: str) -> str:
        sequences, width = made(longest, size, rule)
        return (
            f"{EXAMPLES} examples of 20 to {longest} tokens in sequences of {width}, {rule}: {amount(sequences)}, "
            f"{empty(sequences, width):.0%} of the positions empty."
        )

    controls = {
        "longest": widgets.IntSlider(
            value=200, min=20, max=400, step=10, description="longest example", style=DESCRIBED, layout=WIDE
        ),
        "size": widgets.IntSlider(
            value=256, min=64, max=512, step=16, description="tokens of a sequence", style=DESCRIBED, layout=WIDE
        ),
        "rule": widgets.ToggleButtons(options=RULES, value=RULES[1], description="rule", style=DESCRIBED),
    }  # fmt: skip
    explorer(controls, lambda **v: sequences_figure(*made(**v), words(**v)), words)
