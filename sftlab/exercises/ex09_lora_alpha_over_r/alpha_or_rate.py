"""Is doubling α the same as raising the learning rate? Under SGD, and under Adam.

With s = α/r and ΔW = s·BA, write B̂ = cB for Adam, or B̂ = √c·B, Â = √c·A for SGD. Then training
with cα is, step for step,

    under SGD    training with α at c times the rate, from A scaled by √c
    under Adam   training with α at c times the rate *of B alone* (but for Adam's ε)

because SGD's step follows the size of the gradient and Adam's does not. Here c = 2. Each variant
starts from the same A and sees the same batches; ΔW is compared after 1, 2, 4 … steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sftlab.exercises.pairs_files import batches, rows_of
from sftlab.lora import inject_lora, lora_layers
from sftlab.lora_statistics import updates
from sftlab.models import load
from sftlab.train import train_step

RECORD = "alpha_or_rate"  # data/results/alpha_or_rate.json

R, ALPHA, SEEDS = 8, 16, 3
STOPS = (1, 2, 4, 8, 16)  # steps after which ΔW is looked at
# A gentle rate and a usual one. Much above, SGD becomes unstable.
RATES = {"sgd": (0.01, 0.1), "adam": (1e-4, 2e-3)}
# name -> factors of: α, the rate of A, the rate of B, the start of A
VARIANTS = {
    "as it is": (1, 1, 1, 1),
    "α × 2": (2, 1, 1, 1),
    "rate × 2": (1, 2, 2, 1),
    "rate × 4": (1, 4, 4, 1),
    "rate of B × 2": (1, 1, 2, 1),
    "rate × 2, A × √2": (1, 2, 2, math.sqrt(2)),
}


def trained_updates(
    optimizer: str,
    rate: float,
    variant: str,
    seed: int,
    stops: Sequence[int],
    name: str = "almanac",
) -> dict[int, torch.Tensor]:
    """ΔW of all layers in one long vector, after each of these numbers of steps."""
    alpha, rate_A, rate_B, start_A = VARIANTS[variant]
    model, tokenizer = load(name)
    rows = rows_of(tokenizer, "handful")
    inject_lora(model, "all-linear", r=R, lora_alpha=alpha * ALPHA, seed=seed)
    layers = lora_layers(model).values()
    with torch.no_grad():
        for layer in layers:
            layer.A.mul_(start_A)
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    groups = [
        {"params": [layer.A for layer in layers], "lr": rate_A * rate},
        {"params": [layer.B for layer in layers], "lr": rate_B * rate},
    ]
    stepper, found = kind(groups), {}
    plan = batches(rows, max(stops), seed, tokenizer.pad_token_id)
    for step, batch in enumerate(plan, 1):
        train_step(model, batch, stepper, max_grad_norm=math.inf)
        if step in stops:
            found[step] = torch.cat([delta.flatten() for delta in updates(model).values()])
    return found


def apart(delta: torch.Tensor, other: torch.Tensor) -> float:
    """‖delta − other‖ / ‖other‖: 0 if they are equal."""
    return ((delta - other).norm() / other.norm()).item()


def compare(
    optimizer: str, rate: float, seed: int, stops: Sequence[int], name: str = "almanac"
) -> dict[str, dict[str, list[float]]]:
    """For each variant, after each number of steps: ``size``, ‖ΔW‖ as a multiple of that of the
    run as it is, and ``apart``, how far its ΔW lies from that of α × 2.
    """
    found = {
        variant: trained_updates(optimizer, rate, variant, seed, stops, name)
        for variant in VARIANTS
    }
    plain, doubled = found["as it is"], found["α × 2"]
    return {
        variant: {
            "size": [(delta[stop].norm() / plain[stop].norm()).item() for stop in stops],
            "apart": [apart(delta[stop], doubled[stop]) for stop in stops],
        }
        for variant, delta in found.items()
    }


def run(optimizer: str, rate: float, seed: int) -> dict:
    """All variants, compared after 1, 2, 4, 8 and 16 steps."""
    return compare(optimizer, rate, seed, STOPS)


def settings() -> list[dict]:
    """Both optimisers at two rates each, three seeds."""
    return [
        {"optimizer": optimizer, "rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for optimizer, rates in RATES.items()
        for rate in rates
    ]
