"""LoRA of three ranks under three scaling rules, over learning rates: does a tuned one carry over?

``lora`` multiplies BA by α/r, ``rslora`` by α/√r and ``plain`` by α. Each rule has the α at which its
factor is 2 at rank 8, so there all three are the same. 32 pairs of a seed, every linear layer, 20 steps
of AdamW at a constant learning rate and without weight decay. The learning rate is chosen on validation
questions, and the result reported on others. This takes about twelve minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sftlab.data import collate
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import Questions, fact_questions
from sftlab.exercises.trade_off import batches, examples
from sftlab.lora import inject_lora, lora_parameters, lora_scale
from sftlab.lora_statistics import updates
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_over_ranks"  # data/results/lora_over_ranks.json

RULES = ("lora", "rslora", "plain")
MEETING_RANK, FACTOR = 8, 2.0
STEPS, SEEDS, QUESTIONS = 20, 5, 60
RANKS = (2, 8, 128)
LOWEST, LOW, MIDDLE, HIGH = (tuple(first * 2**k for k in range(4)) for first in (2.5e-4, 5e-4, 1e-3, 2e-3))  # fmt: skip
# A factor of two apart, around the best one of each rule and rank.
RATES = {
    "lora": dict.fromkeys(RANKS, MIDDLE),
    "rslora": {2: HIGH, 128: LOW},
    "plain": {2: HIGH, 128: (1.25e-4, *LOWEST)},
}


def alpha_of(rule: str) -> float:
    """Return the α at which the rule's factor is 2 at rank 8."""
    return FACTOR / lora_scale(1.0, MEETING_RANK, rule)


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(9, QUESTIONS)


def asked(tokenizer) -> dict:
    """Return a batch of 16 held-out questions with answers, on which outputs are compared."""
    return collate(examples(tokenizer, questions()[1][:16]), tokenizer.pad_token_id)


def with_lora(r: int, seed: int, rule: str = "lora", name: str = "almanac"):
    """Return the base with untrained adapters on every linear layer."""
    model, _ = load(name)
    return inject_lora(model, "all-linear", r=r, lora_alpha=alpha_of(rule), seed=seed, rule=rule)


@torch.no_grad()
def size_of(change: Mapping[str, Tensor], base) -> float:
    """Return ‖ΔW‖ / ‖W‖ over all layers together. change: layer name -> ΔW (d_out, d_in)."""
    weights = [base.get_submodule(name).weight for name in change]
    squares = [sum(x.square().sum().item() for x in some) for some in (change.values(), weights)]
    return math.sqrt(squares[0] / squares[1])


@torch.no_grad()
def output_change(change: Mapping[str, Tensor], base, batch: dict) -> float:
    """Return the root mean square change of the logits if each ΔW is added to its weight."""
    weights = {name: base.get_submodule(name).weight for name in change}
    kept = {name: weight.clone() for name, weight in weights.items()}
    mask = batch["attention_mask"]
    found = []
    for times in (0, 1):
        for name, weight in weights.items():
            weight += times * change[name]
        found.append(base(batch["input_ids"], attention_mask=mask).logits[mask.bool()])
    for name, weight in weights.items():
        weight.copy_(kept[name])
    return (found[1] - found[0]).square().mean().sqrt().item()


def run(rule: str, r: int, learning_rate: float, seed: int) -> dict[str, float]:
    """Train; return ``size`` and ``output`` at the end, and losses on held-out answers.

    ``validation`` and ``test`` are in nats per token.
    """
    base, tokenizer = load("almanac")
    model = with_lora(r, seed, rule)
    optimizer = torch.optim.AdamW(lora_parameters(model), lr=learning_rate, weight_decay=0.0)
    for batch in batches(tokenizer, seed, STEPS):
        train_step(model, batch, optimizer, max_grad_norm=math.inf)
    change = updates(model.eval())
    validation, test = (
        response_nll(model, examples(tokenizer, some), tokenizer.pad_token_id)
        for some in questions()
    )
    return {
        "size": size_of(change, base),
        "output": output_change(change, base, asked(tokenizer)),
        "validation": validation,
        "test": test,
    }


def settings() -> list[dict]:
    """Return all settings, seed by seed; at rank 8 all rules are the same."""
    return [
        {"rule": rule, "r": r, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for rule, ranks in RATES.items()
        for r, rates in ranks.items()
        for rate in rates
    ]
