"""Figures of notebook 01: what two models would write first, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import bars, tokens
from sftlab.classroom.views import visible


def first_tokens(found: Mapping[str, Sequence[tuple[str, float]]]):
    """The likeliest first tokens, one panel per model. ``found``: label -> (token, probability) pairs."""
    panels = {label: {visible(token): p for token, p in pairs} for label, pairs in found.items()}
    lead = {label: next(iter(chances.items())) for label, chances in panels.items()}
    title = "The likeliest first token: " + ", ".join(
        f"{token} ({p:.0%})" for token, p in lead.values()
    )
    told = "; ".join(f"{label}, {token} with {p:.2f}" for label, (token, p) in lead.items())
    alt = f"Bar charts of first-token probabilities. The likeliest: {told}."
    return bars(panels, title, alt, panels=True, fmt=lambda p: "<0.01" if p < 0.005 else f"{p:.2f}",
                xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="probability", figsize=(4.2 * len(panels), 2.6))  # fmt: skip


def divergence(names: Sequence[str], kl: Sequence[float]):
    """The KL divergence of two models at each token of an answer."""
    most = sorted(range(len(kl)), key=lambda i: -kl[i])[:3]
    part = sum(kl[i] for i in most) / sum(kl)
    told = ", ".join(f"{visible(names[i])} {kl[i]:.1f}" for i in most)
    title = f"Three of {len(kl)} tokens carry {part:.0%} of the difference"
    return tokens(names, kl, title, f"Bar chart of KL divergence per answer token. {title}: {told} nats.", ylabel="KL (nats)")  # fmt: skip
