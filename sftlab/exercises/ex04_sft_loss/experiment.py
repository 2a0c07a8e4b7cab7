"""Train on micro-batches of unequal lengths, with the mean over tokens or the mean of the means.

Every step takes 8 short answers (6 to 19 tokens) and 8 long ones (19 to 49), in two micro-batches. They
are split by length, short answers in one and long answers in the other, or mixed, with half of each
in both. Three arms train with LoRA on the same examples in the same order:

``token mean``            ``accumulated_loss``; how the batch is split makes no difference
``mean of means``         ``mean_of_means``, split by length
``mean of means, mixed``  the control: the same loss, but both micro-batches train about as many tokens

The learning rate of an arm is chosen on validation questions and the result reported on others. No
pair has the subject of a question. This takes about six minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from random import Random

import torch

from sftlab.almanac.pairs import heldout, pairs
from sftlab.data import collate, conversation
from sftlab.exercises.recipes import response_nll
from sftlab.lora import inject_lora
from sftlab.loss import accumulated_loss, mean_of_means
from sftlab.masking import Example, build_example
from sftlab.models import load

RECORD = "accumulation"  # data/results/accumulation.json

TOKEN_MEAN, MEANS, MIXED = "token mean", "mean of means", "mean of means, mixed"
RATES = (1e-3, 3e-3, 1e-2)
CHECKPOINTS = (6, 12, 24)  # optimizer steps after which the held-out loss is measured
SEEDS = 5
EACH = 48  # short pairs, and as many long ones, that a run draws from
HALF = 8  # short answers in a step, and as many long ones
SHORT = 60  # short questions for validation, and as many others for the result

Batch = list[Example]


def is_long(row: dict) -> bool:
    """Whether the answer is a list of tips; the others are single sentences."""
    return row["kind"] == "tips"


@cache
def training_rows(seed: int) -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """Return pairs with short answers and pairs with long ones; each seed gives others."""
    found = pairs(400, seed)
    short = [row for row in found if row["kind"] not in ("tips", "one_tip")]
    return tuple(short[:EACH]), tuple(filter(is_long, found))[:EACH]


@cache
def questions() -> dict[str, tuple[dict, ...]]:
    """Return held-out questions: name of the set -> questions, with their answers as responses."""
    rng = Random(4)
    short = rng.sample([q for q in heldout() if not is_long(q)], 2 * SHORT)
    long = [q for q in heldout() if is_long(q)]
    return {
        "validation, short": tuple(short[:SHORT]), "validation, long": tuple(long[::2]),
        "short": tuple(short[SHORT:]), "long": tuple(long[1::2]),
    }  # fmt: skip


def examples(tokenizer, rows: Sequence[dict]) -> Batch:
    """Return the rows as examples in which the answer is trained."""
    return [build_example(tokenizer, conversation(row)) for row in rows]


def batches(tokenizer, seed: int, steps: int) -> Iterator[tuple[Batch, Batch]]:
    """Yield the 8 short and the 8 long examples of every step: the same in every arm."""
    short, long = (examples(tokenizer, rows) for rows in training_rows(seed))
    rng = Random(seed)
    for _ in range(steps):
        yield rng.sample(short, HALF), rng.sample(long, HALF)


def by_length(short: Batch, long: Batch) -> tuple[Batch, Batch]:
    """Split a batch into its short and its long examples."""
    return short, long


def mixed(short: Batch, long: Batch) -> tuple[Batch, Batch]:
    """Split a batch so that each part holds half of the short and half of the long examples."""
    half = len(short) // 2
    return short[:half] + long[:half], short[half:] + long[half:]


ARMS: dict[str, tuple[Callable, Callable]] = {
    TOKEN_MEAN: (accumulated_loss, by_length),
    MEANS: (mean_of_means, by_length),
    MIXED: (mean_of_means, mixed),
}


def with_lora(seed: int, model_name: str = "almanac"):
    """Return the base with fresh adapters, and its tokenizer."""
    model, tokenizer = load(model_name)
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    return model, tokenizer


def outputs(model, parts: Sequence[Batch], pad_id: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (logits, labels) of each micro-batch, as the losses take them."""
    found = (collate(part, pad_id) for part in parts)
    return [(model(b["input_ids"], attention_mask=b["attention_mask"]).logits, b["labels"]) for b in found]  # fmt: skip


def held_out(model, tokenizer, names: Sequence[str] = ("short", "long")) -> dict[str, float]:
    """Return the loss on the answers of some sets of questions, in nats per token."""
    sets = {name: examples(tokenizer, questions()[name]) for name in names}
    return {name: response_nll(model, rows, tokenizer.pad_token_id) for name, rows in sets.items()}


def run(arm: str, learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train one arm with AdamW at a constant learning rate.

    Returns:
        Set of questions -> its loss at each of ``CHECKPOINTS``, in nats per token.
    """
    loss, split = ARMS[arm]
    model, tokenizer = with_lora(seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
    found: dict[str, list[float]] = {name: [] for name in questions()}
    for step, halves in enumerate(batches(tokenizer, seed, CHECKPOINTS[-1]), 1):
        model.train()
        loss(outputs(model, split(*halves), tokenizer.pad_token_id)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in CHECKPOINTS:
            for name, value in held_out(model.eval(), tokenizer, list(questions())).items():
                found[name].append(value)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for rate in RATES
    ]
