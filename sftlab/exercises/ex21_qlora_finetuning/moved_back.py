"""Adapters that were trained on a rounded base, on that base and on the one in 16 bits.

The other direction, trained on 16 bits and used on a rounded base, is ``moved`` in the record ``qlora``.
Each adapter is trained as it is there. ``own`` is its test loss on the base that it was trained on, in nats
per token, and ``moved`` that on 16 bits. This takes about seven minutes on one core.
"""

from __future__ import annotations

from sftlab.exercises.ex21_qlora_finetuning.bases import (
    FOUR,
    FULL,
    MORE,
    SEEDS,
    THREE,
    TWO,
    held_out,
    moved,
    trained_on,
)
from sftlab.exercises.recipes import response_nll
from sftlab.models import load

RECORD = "moved_back"  # data/results/moved_back.json

SAME = 1.6e-3
RATES = {
    FOUR: (SAME, 2.3e-3),
    THREE: (SAME, 3.2e-3),
    TWO: (SAME, 2.3e-3),
}  # and the best of each arm


def run(base: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train LoRA on a rounded base; return the measurements of the module docstring."""
    _, tokenizer = load("almanac")
    model = trained_on(base, learning_rate, seed)
    back = moved(model, FULL, tokenizer)
    test = held_out(tokenizer)["test"]
    return {"own": response_nll(model.eval(), test, tokenizer.pad_token_id), "moved": back}


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"base": base, "learning_rate": rate, "seed": seed}
        for seed in range(MORE)
        for base, rates in RATES.items()
        for rate in rates
        if base == FOUR or seed < SEEDS
    ]
