"""Full fine-tuning and LoRA over learning rates and steps on SmolLM2-135M-Instruct.

The pairs and questions are those of ``trade_off``, in ChatML as SmolLM2 knows it, without the system turn
that its own template adds. Its pretraining documents are not at hand. Instead, texts are sampled from the
model before training, at temperature 1 from the start of a document. On these, the rise of the loss is an
estimate of the KL divergence of the tuned model from the base, in nats per token.

Weights are in float32, since bfloat16 would round small steps of full fine-tuning away; products are in
bfloat16. The model is a reconstruction of the published one from 4 bits. Fetch it first:
``python -m sftlab fetch smollm2-instruct``. This takes about twenty minutes on one core.
"""

from __future__ import annotations

import copy
from functools import cache
from itertools import islice

import torch

from sftlab.almanac.pairs import pairs
from sftlab.chat import CHATML
from sftlab.exercises.recipes import response_nll, unmasked
from sftlab.exercises.short_runs import endless_batches, fact_questions
from sftlab.exercises.trade_off import (
    FULL,
    LORA,
    PAIRS,
    examples,
    follow,
    moved,
    prepare,
)
from sftlab.generate import generate
from sftlab.masking import Example
from sftlab.models import load

RECORD = "trade_off_smollm2"  # data/results/trade_off_smollm2.json

RATES = {FULL: (3e-5, 1e-4, 3e-4), LORA: (3e-4, 1e-3, 3e-3, 1e-2)}
SEEDS, BATCH, QUESTIONS, TEXTS, LENGTH = 3, 4, 20, 12, 32
CHECKPOINTS = (4, 8, 12)


@cache
def base():
    """Return the model before training, its tokenizer, and texts sampled from it in two halves."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.float32)
    tokenizer.chat_template = CHATML
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        written = generate(model, tokenizer, [[start]] * 2 * TEXTS, LENGTH, temperature=1.0)
    texts = [unmasked(Example([start, *g.ids], [])) for g in written]
    return model, tokenizer, (texts[:TEXTS], texts[TEXTS:])


def measure(model) -> dict[str, float]:
    """Return the measurements of ``trade_off`` but ``exact``."""
    before, tokenizer, texts = base()
    found = {"moved": moved(model, before)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        asked = fact_questions(6, QUESTIONS)
        for name, some, written in zip(("validation", "test"), asked, texts, strict=True):
            rows = examples(tokenizer, some)
            found[name] = response_nll(model, rows, tokenizer.pad_token_id)
            found[f"{name}_documents"] = response_nll(model, written, tokenizer.pad_token_id)
    return found


@cache
def at_first() -> dict[str, float]:
    """Return the measurements before training, which are the same for every run."""
    return measure(base()[0])


def run(method: str, learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train by one method at one learning rate; return the measurements of ``measure``."""
    model, tokenizer = copy.deepcopy(base()[0]), base()[1]
    model = prepare(model, method, seed)
    made = examples(tokenizer, pairs(PAIRS, seed, skills=()))
    order = islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), CHECKPOINTS[-1])
    return follow(
        model, order, learning_rate, lambda: measure(model), CHECKPOINTS, "bf16", at_first()
    )


def settings() -> list[dict]:
    """Return all settings, the largest learning rate last."""
    found = [
        {"method": method, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for method, rates in RATES.items()
        for rate in rates
    ]
    return sorted(found, key=lambda setting: setting["learning_rate"] > 3e-3)
