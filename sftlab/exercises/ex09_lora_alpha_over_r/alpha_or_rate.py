"""Is doubling α the same as doubling a learning rate? Under SGD, and under Adam.

With s = α/r and ΔW = s·BA, training with cα is, step for step,

    under Adam   training with α from the same A and c times the learning rate *of B alone*

since B̂ = cB turns the formulas of one run into those of the other; only Adam's ε differs. Under SGD the
first step is that of c² times the learning rate: s is in B's gradient, and in front of BA. Here c = 2. All
runs start from the same A and see the same batches. Each ΔW is compared with that of doubled α after 1, 2,
4, 8 and 16 steps. This takes about five minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sftlab.exercises.ex09_lora_alpha_over_r.experiment import with_lora
from sftlab.exercises.trade_off import batches
from sftlab.lora import lora_layers
from sftlab.lora_statistics import updates
from sftlab.models import load
from sftlab.train import train_step

RECORD = "alpha_or_rate"  # data/results/alpha_or_rate.json

R, SEEDS = 8, 5
STOPS = (1, 2, 4, 8, 16)  # steps after which ΔW is compared
# For Adam a low learning rate and the one tuned at this rank in lora_over_ranks; for SGD a low one.
RATES = {"adam": (1e-4, 2e-3), "sgd": (0.01,)}
EPS, SMALL_EPS = 1e-8, 1e-16  # Adam's ε: the usual one, and a control
DOUBLED = "α × 2"
# optimizer -> name -> factors of: α, the learning rate of A, that of B
VARIANTS = {
    "adam": {
        DOUBLED: (2, 1, 1),
        "learning rate of B × 2": (1, 1, 2),
        "learning rate of A × 2": (1, 2, 1),
        "both learning rates × 2": (1, 2, 2),
    },
    "sgd": {
        DOUBLED: (2, 1, 1),
        "both learning rates × 2": (1, 2, 2),
        "both learning rates × 4": (1, 4, 4),
    },
}


def trained(
    optimizer: str, rate: float, variant: str, seed: int, stops: Sequence[int], eps: float = EPS
) -> list[torch.Tensor]:
    """Return ΔW of all layers in one long vector, after each of these numbers of steps."""
    alpha, rate_A, rate_B = VARIANTS[optimizer][variant]
    model, tokenizer = with_lora(R, seed), load("almanac")[1]
    layers = lora_layers(model).values()
    for layer in layers:
        layer.scale *= alpha
    groups = [
        {"params": [layer.A for layer in layers], "lr": rate_A * rate},
        {"params": [layer.B for layer in layers], "lr": rate_B * rate},
    ]
    stepper = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.Adam(groups, eps=eps)
    found = []
    for step, batch in enumerate(batches(tokenizer, seed, max(stops)), 1):
        train_step(model, batch, stepper, max_grad_norm=math.inf)
        if step in stops:
            found.append(torch.cat([change.flatten() for change in updates(model).values()]))
    return found


def apart(change: torch.Tensor, other: torch.Tensor) -> float:
    """Return ‖change − other‖ / ‖other‖: 0 if they are equal."""
    return ((change - other).norm() / other.norm()).item()


def run(optimizer: str, rate: float, seed: int, eps: float = EPS) -> dict[str, list[float]]:
    """Return variant -> distance of its ΔW from that of doubled α, after each number of steps."""
    found = {
        variant: trained(optimizer, rate, variant, seed, STOPS, eps)
        for variant in VARIANTS[optimizer]
    }
    return {
        variant: [apart(a, b) for a, b in zip(changes, found[DOUBLED], strict=True)]
        for variant, changes in found.items()
    }


def settings() -> list[dict]:
    """Return both optimizers at their learning rates, and the larger one of Adam with a smaller ε."""
    ways: list[dict] = [
        {"optimizer": optimizer, "rate": rate, "eps": EPS}
        for optimizer, rates in RATES.items()
        for rate in rates
    ]
    ways.append({"optimizer": "adam", "rate": RATES["adam"][-1], "eps": SMALL_EPS})
    return [{**way, "seed": seed} for seed in range(SEEDS) for way in ways]
