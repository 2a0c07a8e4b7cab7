"""Learning rates half a decade apart for full fine-tuning and for LoRA: what is learned, what is lost.

Both train on the same pairs in the same order, with as many steps, the same warm-up and cosine.
Each seed draws pairs and an adapter of its own; what is measured is the same for all runs:

``nll``         loss on the responses to held-out questions, in nats per token
``exact``       share of held-out questions that are answered exactly right
``documents``   loss on documents of the base's own kind, in nats per token: 0.59 before any tuning
``recall``      share of known facts of kinds that no pair asks for which the model still completes
``train_loss``  loss on the pairs, mean of the last four steps

A long run: about eight minutes on two cores.
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
from sftlab.exercises.ex03_response_only_loss.experiment import response_nll, unmasked
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
LIMIT = 48  # new tokens; the longest right answer has fewer


# --- what is measured, the same for every run ------------------------------------------------


def questions(count: int = 100) -> list[dict]:
    """Held-out questions: their subjects are in no pair."""
    return Random(0).sample(read_jsonl(INSTRUCTIONS / "heldout.jsonl"), count)


def untouched_facts(count: int = 100) -> list[Item]:
    """Known facts of the kinds that no pair asks for."""
    known = [item for kind, spec in kinds().items() if not spec["asked"] for item in usable(kind)]
    return Random(0).sample(known, count)


@cache
def _documents(count: int) -> tuple[str, ...]:
    return tuple(islice(documents("forgetting"), count))


def document_rows(tokenizer, count: int = 100) -> list[Example]:
    """Documents of the base's own kind, between two separators as in pretraining, all trained."""
    mark = tokenizer.bos_token_id
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in _documents(count)]
    return [unmasked(Example([mark, *ids, mark], [])) for ids in encoded]


def document_nll(model, tokenizer, count: int = 100) -> float:
    """Loss on documents of the base's own kind, in nats per token: it rises as the base is lost."""
    return response_nll(model, document_rows(tokenizer, count), tokenizer.pad_token_id)


def heldout_nll(model, tokenizer, count: int = 100) -> float:
    """Loss on the right responses to held-out questions, in nats per token."""
    asked = questions(count)
    rows = tokenize_conversations(
        tokenizer, [conversation(question) for question in asked]
    ).examples
    return response_nll(model, rows, tokenizer.pad_token_id)


def exact_share(model, tokenizer, count: int = 100) -> float:
    """Share of the held-out questions that are answered exactly right."""
    asked = questions(count)
    replies = answer(model, tokenizer, [q["prompt"] for q in asked], max_new_tokens=LIMIT)
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    return sum(score.correct for score in scores) / count


def measure(model, tokenizer, count: int = 100) -> dict[str, float]:
    """Everything in the module's head but the training loss."""
    return {
        "nll": heldout_nll(model, tokenizer, count),
        "exact": exact_share(model, tokenizer, count),
        "documents": document_nll(model, tokenizer, count),
        "recall": sum(recall(model, tokenizer, untouched_facts(count))) / count,
    }


@torch.no_grad()
def weights_moved(model, base) -> float:
    """How far training moved the weights of the linear layers: ‖W′ − W‖ / ‖W‖ over all of them.

    For a LoRA layer W′ − W is (α/r)·B·A. The output head is left out: it is tied to the embeddings.
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
    """The rows of a seed: pairs of its own, the same for both methods and all rates."""
    return tokenize_conversations(
        tokenizer, [conversation(row) for row in pairs(PAIRS, seed)]
    ).examples


def fresh(method: str, seed: int, name: str = "almanac"):
    """The base, all of it trainable or frozen with adapters beside it, and its tokenizer."""
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
    """Twelve passes over 32 pairs: 24 steps of 16 rows, or fewer."""
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
    """Tune the base by one method at one rate, and measure it."""
    model, tokenizer = fresh(method, seed)
    history = tune(model, tokenizer, rate, seed)
    if not history.finished:
        raise KeyboardInterrupt  # half a run is not measured
    losses = history.losses
    return {**measure(model, tokenizer), "train_loss": sum(losses[-4:]) / 4}


def settings() -> list[dict]:
    """Seed by seed, every rate of both methods."""
    return [
        {"method": method, "rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for method in METHODS
        for rate in RATES[method]
    ]
