"""LoRA with four times the α over learning rates: does the best one fall to a quarter?

Everything else is as in the arm LoRA of ``trade_off``: rank, pairs, order, steps, measurements. This takes
about two minutes on one core.
"""

from __future__ import annotations

from sftlab.exercises.trade_off import (
    CHECKPOINTS,
    SEEDS,
    STRONG,
    batches,
    follow,
    load,
    measure,
    prepare,
)

RECORD = "lora_rate_alpha"  # data/results/lora_rate_alpha.json

RATES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)


def run(learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train at one learning rate; return what ``trade_off`` measures before training and after the last step."""
    base, tokenizer = load("almanac")
    model = prepare(load("almanac")[0], STRONG, seed)
    return follow(model, batches(tokenizer, seed), learning_rate,
                  lambda: measure(model, base, tokenizer, exact=False), CHECKPOINTS[-1:])  # fmt: skip


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [{"learning_rate": rate, "seed": seed} for seed in range(SEEDS) for rate in RATES]
