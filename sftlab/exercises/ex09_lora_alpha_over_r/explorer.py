"""The explorer of notebook 09: α, the rank and the rule, and how strong the adapter is."""

from __future__ import annotations

import ipywidgets as widgets
import torch

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex09_lora_alpha_over_r.plots import LABELS, factors
from sftlab.lora import lora_scale

ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


def products_of(weight: torch.Tensor, seed: int = 0) -> dict[int, float]:
    """‖BA‖/‖W‖ at each rank, A and B uniform within ±1/√d_in."""
    d_out, d_in = weight.shape
    generator = torch.Generator().manual_seed(seed)
    A = torch.empty(RANKS[-1], d_in).uniform_(-1, 1, generator=generator) / d_in**0.5
    B = torch.empty(d_out, RANKS[-1]).uniform_(-1, 1, generator=generator) / d_in**0.5
    return {r: ((B[:, :r] @ A[:r]).norm() / weight.detach().norm()).item() for r in RANKS}


def scale_and_rank(weight: torch.Tensor) -> None:
    """α, r and the rule, for one weight (d_out, d_in) of the model."""
    products = products_of(weight)

    def words(alpha: float, r: int, rule: str) -> str:
        scale = lora_scale(alpha, r, rule)
        return (
            f"With the rule {LABELS[rule]}, α = {alpha:g} and r = {r} the factor is {scale:.3g}; with random A and B the "
            f"norm of ΔW is then {scale * products[r]:.2g} times that of W. Lines show both over the ranks."
        )

    def slider(options: tuple[int, ...], value: int, description: str) -> widgets.SelectionSlider:
        return widgets.SelectionSlider(
            options=options, value=value, description=description, style=DESCRIBED, layout=WIDE
        )

    controls = {
        "alpha": slider(ALPHAS, 16, "α"),
        "r": slider(RANKS, 8, "rank r"),
        "rule": widgets.ToggleButtons(options=[(label, rule) for rule, label in LABELS.items()], description="factor"),
    }  # fmt: skip

    def draw(alpha: float, r: int, rule: str):
        return factors(alpha, r, rule, products, words(alpha, r, rule))

    explorer(controls, draw, words, continuous=True)
