"""Figures of notebook 04: the terms of a loss, and what averaging averages does to a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import bars
from sftlab.classroom.figures import tokens as per_token
from sftlab.classroom.views import visible


def loss_terms(tokens: Sequence[str], probabilities: Sequence[float]):
    """Each token's term −log p, and the mean that is the loss."""
    terms = np.abs(np.log(probabilities))  # -log p, with 0 for p = 1 and not -0
    mean = terms.mean()
    told = ", ".join(f"{visible(t)} {x:.2f}" for t, x in zip(tokens, terms, strict=True))
    return per_token(
        tokens, terms,
        f"Loss {mean:.2f} nats per token: perplexity {np.exp(mean):.2f}",
        f"Bar chart of minus log p for each token: {told}. The mean, which is the loss, is {mean:.2f}.",
        fmt=lambda term: f"{term:.2f}\np={np.exp(-term):.2g}", axhline={mean: f"mean {mean:.2f}\n= the loss"}, ylabel="−log p  (nats)", ylim=(0, max(terms.max() * 1.35, 0.5)),
    )  # fmt: skip


def accumulation(found: Mapping[str, tuple[float, float]]):
    """How far the gradient of the mean of means lies from the right one: label -> L2 distance and cosine."""
    distance = {label: pair[0] for label, pair in found.items()}
    angle = {label: float(np.degrees(np.arccos(pair[1]))) for label, pair in found.items()}
    told = "; ".join(f"{label}: distance {distance[label]:.2f}, angle {angle[label]:.0f} degrees" for label in found)  # fmt: skip
    worst = max(angle, key=lambda label: angle[label])
    return bars(
        {"distance / length of the right gradient": distance, "angle to the right gradient (degrees)": angle},
        f"Averaging averages bends the gradient by up to {angle[worst]:.0f}° ({worst})",
        f"Two bar charts of the gradient of the mean of means against the right one. {told}.",
        panels=True, figsize=(8.8, 2.5),
    )  # fmt: skip
