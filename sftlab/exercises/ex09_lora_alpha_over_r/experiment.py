"""LoRA's three scaling rules for ranks 1 to 128: size of ΔW, change of the output, loss.

Each rule uses the α at which its factor is 2 at r = 8, so that all three agree there (α = 16 for
α/r). The rest is fixed: 32 pairs, every linear layer, 20 steps of AdamW, one learning rate for all
ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sftlab.exercises.pairs_files import batches, logits_of, mean_nll, rows_of
from sftlab.lora import inject_lora, lora_layers, lora_parameters, lora_scale
from sftlab.lora_statistics import relative_update
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import train_loop

RECORD = "lora_over_ranks"  # data/results/lora_over_ranks.json

RULES = ("lora", "rslora", "plain")
RANKS = (1, 2, 8, 32, 128)
MEETING_RANK, FACTOR = 8, 2.0
RATE, STEPS, SEEDS = 2e-3, 20, 3


def alpha_of(rule: str) -> float:
    """Return the α at which the rule's factor is 2 at rank 8."""
    return FACTOR / lora_scale(1.0, MEETING_RANK, rule)


def with_lora(rule: str, r: int, seed: int, name: str = "almanac"):
    """Return the base model with untrained adapters on every linear layer, and its tokenizer."""
    model, tokenizer = load(name)
    inject_lora(model, "all-linear", r=r, lora_alpha=alpha_of(rule), seed=seed, rule=rule)
    return model, tokenizer


@torch.no_grad()
def randomise_B(model, seed: int) -> None:
    """Fill every B uniformly within ±1/√d_in, like its A: the same size for every rank."""
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        bound = layer.base.in_features**-0.5
        layer.B.copy_(torch.empty(layer.B.shape).uniform_(-bound, bound, generator=generator))


def sizes(model, rows: Sequence[Example], before: torch.Tensor, pad_id: int) -> dict[str, float]:
    """Return ‖ΔW‖/‖W‖ over all layers, and the root mean square of the change of the logits."""
    change = logits_of(model, rows, pad_id) - before
    return {
        "update": relative_update(model),
        "output": change.square().mean().sqrt().item(),
    }


def untrained(r: int, seed: int, name: str = "almanac") -> dict[str, dict[str, float]]:
    """Return the sizes under each rule with B random instead of zero, before any training."""
    model, tokenizer = with_lora("lora", r, seed, name)
    rows = rows_of(tokenizer, "heldout", 16)
    before = logits_of(model, rows, tokenizer.pad_token_id)  # B is zero: the base model's
    randomise_B(model, seed)
    found = {}
    for rule in RULES:
        for layer in lora_layers(model).values():
            layer.scale = lora_scale(alpha_of(rule), r, rule)
        found[rule] = sizes(model, rows, before, tokenizer.pad_token_id)
    return found


def run(rule: str, r: int, seed: int) -> dict[str, float]:
    """Train; return the sizes after the first step and at the end, and the held-out NLL."""
    model, tokenizer = with_lora(rule, r, seed)
    pad_id = tokenizer.pad_token_id
    rows, held_out = rows_of(tokenizer, "handful"), rows_of(tokenizer, "heldout", 32)
    before = logits_of(model, held_out, pad_id)
    found: dict[str, float] = {}

    def record(step: int, _: float) -> None:
        if step in (1, STEPS):
            when = "first" if step == 1 else "end"
            for what, value in sizes(model, held_out, before, pad_id).items():
                found[f"{what}_{when}"] = value

    optimizer = torch.optim.AdamW(lora_parameters(model), lr=RATE, weight_decay=0.0)
    plan = batches(rows, STEPS, seed, pad_id)
    train_loop(model, plan, optimizer, [RATE] * STEPS, record, max_grad_norm=math.inf)
    return {**found, "nll": mean_nll(model, held_out, pad_id)}


def settings() -> list[dict]:
    """Return three seeds of every rule at every rank; at rank 8 all rules are the same."""
    return [
        {"rule": rule, "r": r, "seed": seed}
        for seed in range(SEEDS)
        for r in RANKS
        for rule in RULES
        if r != MEETING_RANK or rule == "lora"
    ]
