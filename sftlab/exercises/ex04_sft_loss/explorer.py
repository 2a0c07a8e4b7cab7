"""Notebook 04: move a token's probability."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, explorer
from sftlab.exercises.ex04_sft_loss.plots import loss_terms


def edit_probabilities(tokens: Sequence[str], probabilities: Sequence[float]) -> None:
    """One slider per token; its term, the mean and the perplexity follow."""

    def draw(**chances: float):
        return loss_terms(tokens, list(chances.values()))

    controls = {
        f"p{i}": widgets.FloatLogSlider(
            value=p, base=10, min=-7, max=0, step=0.05, readout_format=".3f", description=f"P({token.strip() or '⏎'})",
            style=DESCRIBED, layout=widgets.Layout(width="28em"),
        )
        for i, (token, p) in enumerate(zip(tokens, probabilities, strict=True))
    }  # fmt: skip
    explorer(
        controls,
        draw,
        "Bar chart of minus log p for each token, with the mean, which is the loss.",
        continuous=True,
    )
