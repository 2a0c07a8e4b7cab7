"""Full fine-tuning and LoRA over learning rates and steps: what is learned, and what is lost of the base.

All arms train on the same 32 pairs of a seed in the same order, with AdamW at a constant learning rate
and without weight decay. The last two are controls, which change one thing at a time:

``full fine-tuning``  every weight
``LoRA``              A and B beside every linear layer but the output head, r = 8, α = 16
``linear layers``     the same layers as LoRA, but their whole weights: no low rank
``random entries``    as many entries of these weights as LoRA has parameters, drawn at random

Before training and at the checkpoints, these are measured, as lists over ``(0, *CHECKPOINTS)``:

``validation``, ``test``                        loss on the answers to held-out questions
``validation_documents``, ``test_documents``    loss on documents like those of pretraining
``exact``                                       share of the test questions answered exactly, but
                                                not of the controls
``moved``                                       ‖ΔW‖ / ‖W‖ over the linear layers but the output head

Losses are in nats per token. The learning rate of a comparison is chosen on the validation questions and
documents, and the result reported on the test ones. This takes about twenty minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import torch

from sftlab.almanac.documents import documents
from sftlab.almanac.pairs import pairs
from sftlab.chat import user
from sftlab.data import conversation
from sftlab.exercises.recipes import response_nll, unmasked
from sftlab.exercises.short_runs import Questions, endless_batches, fact_questions
from sftlab.generate import answer
from sftlab.lora import LoRALinear, effective_update, inject_lora, lora_parameter_count
from sftlab.masking import Example, build_example
from sftlab.memory.shapes import linear_layers
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import train_step

RECORD = "trade_off"  # data/results/trade_off.json

FULL, LORA, STRONG = "full fine-tuning", "LoRA", "LoRA, α = 64"
LINEAR, ENTRIES = "linear layers", "random entries"
RATES = {
    FULL: (5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
    LORA: (4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3),
    LINEAR: (1e-4, 2e-4, 4e-4),
    ENTRIES: (1.6e-3, 3.2e-3, 6.4e-3),
}
ALPHAS = {LORA: 16, STRONG: 64}  # the second is an arm of notebook 10 alone
R, PAIRS, BATCH, SEEDS, QUESTIONS, DOCUMENTS, LIMIT = 8, 32, 16, 5, 60, 24, 16
ASKED = 40  # test questions that are answered, too
LONGEST = 100  # tokens of a document
CHECKPOINTS = (3, 6, 9, 12, 18, 24)


# --- data ------------------------------------------------------------------------------------


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(6, QUESTIONS)


def examples(tokenizer, rows: Iterable[dict]) -> list[Example]:
    """Return the rows as examples in which the answer is trained."""
    return [build_example(tokenizer, conversation(row)) for row in rows]


@cache
def held_out(tokenizer) -> dict[str, list[Example]]:
    """Return what is measured, by the name of its loss."""
    asked, texts = (examples(tokenizer, some) for some in questions()), base_documents(tokenizer)
    found: dict[str, list[Example]] = {}
    for name, answers, documents_ in zip(("validation", "test"), asked, texts, strict=True):
        found |= {name: answers, f"{name}_documents": documents_}
    return found


def base_documents(tokenizer) -> tuple[list[Example], list[Example]]:
    """Return short documents like those of pretraining, for validation and for the result."""
    mark = tokenizer.bos_token_id
    texts = dict.fromkeys(islice(documents("forgetting"), 4 * DOCUMENTS))  # each once
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    found = [unmasked(Example([mark, *ids, mark], [])) for ids in encoded if len(ids) <= LONGEST]
    return found[:DOCUMENTS], found[DOCUMENTS : 2 * DOCUMENTS]


def batches(tokenizer, seed: int, steps: int = CHECKPOINTS[-1]) -> Iterator[dict]:
    """Yield batches of 16 of a seed's 32 pairs, in an order that depends on the seed."""
    made = examples(tokenizer, pairs(PAIRS, seed, skills=()))
    yield from islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), steps)


# --- arms ------------------------------------------------------------------------------------


def prepare(model, method: str, seed: int):
    """Freeze and add what a method asks for; return the model."""
    shapes = linear_layers(model)
    if method in ALPHAS:
        inject_lora(model, "all-linear", r=R, lora_alpha=ALPHAS[method], seed=seed)
    elif method != FULL:
        model.requires_grad_(False)
        added = sum(lora_parameter_count(*shape, R) for shape in shapes.values())
        share = added / sum(d_in * d_out for d_in, d_out in shapes.values())
        generator = torch.Generator().manual_seed(seed)
        for name in shapes:
            weight = model.get_submodule(name).weight.requires_grad_(True)
            if method == ENTRIES:  # without a gradient, AdamW leaves an entry as it is
                kept = torch.rand(weight.shape, generator=generator) < share
                weight.register_hook(lambda gradient, kept=kept: gradient * kept)
    return model


@torch.no_grad()
def moved(model, base) -> float:
    """Return ‖ΔW‖ / ‖W‖, Frobenius norms over the linear layers but the output head."""
    change = size = 0.0
    for name in linear_layers(base):
        weight, layer = base.get_submodule(name).weight, model.get_submodule(name)
        if isinstance(layer, LoRALinear):
            delta = effective_update(layer.A, layer.B, layer.scale, 1)
        else:
            delta = layer.weight - weight
        change += delta.square().sum().item()
        size += weight.square().sum().item()
    return math.sqrt(change / size)


# --- runs ------------------------------------------------------------------------------------


def measure(model, base, tokenizer, exact: bool = True) -> dict[str, float]:
    """Return the measurements of the module docstring."""
    found = {"moved": moved(model, base)}
    for name, rows in held_out(tokenizer).items():
        found[name] = response_nll(model, rows, tokenizer.pad_token_id, batch_size=8)
    if exact:
        found["exact"] = exact_share(model, tokenizer, questions()[1][:ASKED])
    return found


def exact_share(model, tokenizer, some: Sequence[dict]) -> float:
    """Return the share of questions that are answered exactly."""
    replies = answer(model, tokenizer, [user(q["prompt"]) for q in some], max_new_tokens=LIMIT)
    marks = [score_answer(q, g.text, g.stopped).correct for q, g in zip(some, replies, strict=True)]
    return sum(marks) / len(marks)


def follow(
    model, batches: Iterable[dict], learning_rate: float, measure: Callable[[], dict],
    checkpoints: Sequence[int] = CHECKPOINTS, precision: str = "fp32", before: dict | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Train what requires gradients; return each measurement before training and at the checkpoints.

    Args:
        before: the measurements before training, where they are known.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    found = [before or measure()]
    for step, batch in enumerate(batches, 1):
        train_step(model, batch, optimizer, max_grad_norm=None, precision=precision)
        if step in checkpoints:
            model.eval()
            found.append(measure())
    return {name: [at[name] for at in found] for name in found[0]}


def run(method: str, learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train by one method at one learning rate; return the measurements of the module docstring."""
    base, tokenizer = load("almanac")
    model = prepare(load("almanac")[0], method, seed)
    exact = method in (FULL, LORA)
    return follow(model, batches(tokenizer, seed), learning_rate,
                  lambda: measure(model, base, tokenizer, exact))  # fmt: skip


def settings() -> list[dict]:
    """Return all settings, arm by arm."""
    return [
        {"method": method, "learning_rate": rate, "seed": seed}
        for method, rates in RATES.items()
        for seed in range(SEEDS)
        for rate in rates
    ]
