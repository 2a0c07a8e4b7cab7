"""Learning rates half a decade apart for full fine-tuning and LoRA: what is learned and forgotten.

Both methods train on the same pairs in the same order, with the same number of steps, warm-up and
cosine schedule. Each seed has its own pairs and adapter initialization. The measurements are the
same for all runs:

``nll``         loss on the responses to held-out questions, in nats per token
``exact``       share of held-out questions that are answered exactly right
``documents``   loss on documents like those of pretraining, in nats per token: 0.59 before tuning
``recall``      share of known facts of kinds without pairs that the model still completes
``train_loss``  loss on the pairs, mean of the last four steps

This takes about eight minutes on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import islice
from random import Random

import torch
from torch import nn

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.documents import documents
from sftlab.almanac.facts import Item, kinds
from sftlab.almanac.pairs import pairs
from sftlab.almanac.report import recall
from sftlab.almanac.skills import usable
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.recipes import response_nll, unmasked
from sftlab.generate import answer
from sftlab.lora import effective_update, inject_lora, lora_layers
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import History, TrainConfig, sft_train

RECORD = "learning_rate"  # data/results/learning_rate.json

METHODS = ("full", "lora")
RATES = {
    "full": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lora": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}
SEEDS = 5
PAIRS, EPOCHS, BATCH = 32, 12, 16
LIMIT = 48  # new tokens; more than the longest right answer has


# --- measurements, the same for every run ----------------------------------------------------


def questions(count: int = 100) -> list[dict]:
    """Return held-out questions; their subjects are in no pair."""
    return Random(0).sample(read_jsonl(INSTRUCTIONS / "heldout.jsonl"), count)


def untouched_facts(count: int = 100) -> list[Item]:
    """Return known facts of the kinds that no pair asks about."""
    known = [item for kind, spec in kinds().items() if not spec["asked"] for item in usable(kind)]
    return Random(0).sample(known, count)


@cache
def _documents(count: int) -> tuple[str, ...]:
    return tuple(islice(documents("forgetting"), count))


def document_rows(tokenizer, count: int = 100) -> list[Example]:
    """Return documents like those of pretraining, between two separators, all tokens trained."""
    mark = tokenizer.bos_token_id
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in _documents(count)]
    return [unmasked(Example([mark, *ids, mark], [])) for ids in encoded]


def document_nll(model, tokenizer, count: int = 100) -> float:
    """Return the loss on documents like those of pretraining, in nats per token.

    It rises as the model forgets what it learned in pretraining.
    """
    return response_nll(model, document_rows(tokenizer, count), tokenizer.pad_token_id)


def heldout_nll(model, tokenizer, count: int = 100) -> float:
    """Return the loss on the right responses to held-out questions, in nats per token."""
    asked = questions(count)
    rows = tokenize_conversations(
        tokenizer, [conversation(question) for question in asked]
    ).examples
    return response_nll(model, rows, tokenizer.pad_token_id)


def exact_share(model, tokenizer, count: int = 100) -> float:
    """Return the share of held-out questions that are answered exactly right."""
    asked = questions(count)
    replies = answer(model, tokenizer, [q["prompt"] for q in asked], max_new_tokens=LIMIT)
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    return sum(score.correct for score in scores) / count


def measure(model, tokenizer, count: int = 100) -> dict[str, float]:
    """Return all measurements of the module docstring except the training loss."""
    return {
        "nll": heldout_nll(model, tokenizer, count),
        "exact": exact_share(model, tokenizer, count),
        "documents": document_nll(model, tokenizer, count),
        "recall": sum(recall(model, tokenizer, untouched_facts(count))) / count,
    }


@torch.no_grad()
def weights_moved(model, base) -> float:
    """Return how far training moved the weights of the linear layers: ‖W′ − W‖ / ‖W‖ over all.

    For a LoRA layer, W′ − W is (α/r)·B·A. The output head is left out because it is tied to the
    embeddings.
    """
    before = {
        name: module.weight
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith("lm_head")
    }
    adapters = lora_layers(model)
    moved = 0.0
    for name, weight in before.items():
        if layer := adapters.get(name):
            change = effective_update(layer.A, layer.B, layer.alpha, layer.r)
        else:
            change = model.get_submodule(name).weight - weight
        moved += change.square().sum().item()
    return math.sqrt(moved / sum(weight.square().sum().item() for weight in before.values()))


# --- training --------------------------------------------------------------------------------


def training_rows(tokenizer, seed: int) -> list[Example]:
    """Return the examples of a seed, the same for both methods and all learning rates."""
    return tokenize_conversations(
        tokenizer, [conversation(row) for row in pairs(PAIRS, seed)]
    ).examples


def fresh(method: str, seed: int, name: str = "almanac"):
    """Return the base model, fully trainable or frozen with adapters, and its tokenizer."""
    model, tokenizer = load(name)
    if method == "lora":
        inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    return model, tokenizer


def tune(
    model,
    tokenizer,
    rate: float,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    max_steps: int | None = None,
) -> History:
    """Train for twelve epochs of 32 pairs: 24 steps of 16 examples, or at most ``max_steps``."""
    config = TrainConfig(
        learning_rate=rate,
        num_train_epochs=EPOCHS,
        batch_size=BATCH,
        seed=seed,
        max_steps=max_steps,
    )
    rows = training_rows(tokenizer, seed)
    return sft_train(model, rows, config, tokenizer.pad_token_id, on_step=on_step, progress=False)


def run(method: str, rate: float, seed: int) -> dict[str, float]:
    """Fine-tune the base model by one method at one learning rate, and measure it."""
    model, tokenizer = fresh(method, seed)
    history = tune(model, tokenizer, rate, seed)
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    losses = history.losses
    return {**measure(model, tokenizer), "train_loss": sum(losses[-4:]) / 4}


def settings() -> list[dict]:
    """Return every learning rate of both methods, seed by seed."""
    return [
        {"method": method, "rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for method in METHODS
        for rate in RATES[method]
    ]
