"""What a merge changes: weights, logits and answers in 16 bits, speed, and the choice of the base.

``merge``  an adapter is trained at a high or at a low learning rate until the validation loss reaches a
           target, and merged. The answers and logits of each version are compared with those of the
           adapter that is not merged, in float32: merged or not, rounded to bfloat16 or not, computed
           in float32 or bfloat16
``bases``  an adapter is trained on the full base or on the same base in 4 bits (NF4, computed in
           float32), then merged into the full base and into what the 4 bits stand for
``speed``  base, adapter and merged model take turns; each round gives two ratios of times

All bases have weights of bfloat16 (SmolLM2's are rounded first), so the base itself loses nothing. All
adapters: r = 8, α = 16, every linear layer. Each seed has its own pairs, order and A. The validation
questions decide when to stop; everything else is measured on other questions. It takes about twenty
minutes on one core; fetch SmolLM2 first (``python -m sftlab fetch smollm2-instruct``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sftlab.almanac.pairs import heldout, pairs
from sftlab.chat import CHATML, user
from sftlab.data import collate, conversation
from sftlab.exercises.short_runs import endless_batches
from sftlab.generate import answer
from sftlab.lora import inject_lora, lora_layers, lora_parameters, merge_lora
from sftlab.lora_statistics import relative_update
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example
from sftlab.merging import relative_error, rounding_loss
from sftlab.models import cast, load
from sftlab.quantized_layers import dequantize_model_linears, quantize_model_linears
from sftlab.scoring import score_answer
from sftlab.train import train_step

RECORD = "merged"  # data/results/merged.json

EMBEDDED, SMOL = "almanac", "smollm2-instruct"
HIGH, LOW = "high", "low"


class Recipe(NamedTuple):
    """How adapters of a model are trained and tested."""

    rates: dict[str, float]  # adapter -> learning rate
    target: float  # validation loss at which training stops (nats per token)
    most: int  # steps
    batch: int
    questions: tuple[int, int]  # for validation, and for the result
    limit: int  # new tokens of an answer
    lengths: tuple[int, ...]  # tokens that are read at once, for the times
    rounds: int  # of the times
    seeds: int


RECIPES = {
    EMBEDDED: Recipe({HIGH: 3e-3, LOW: 2e-4}, 0.15, 480, 16, (60, 100), 32, (1, 256), 200, 5),
    SMOL: Recipe({HIGH: 1e-3, LOW: 2e-4}, 0.8, 64, 4, (20, 20), 10, (1,), 20, 3),
}
R, ALPHA, PAIRS = 8, 16, 64
EVERY = 8  # steps between two validations
BF16 = torch.bfloat16

# Versions of a model: merged or not, weights rounded or not, and what is computed in.
REFERENCE = "not merged, float32"
MERGED = "merged, float32"
ARITHMETIC = "not merged, bfloat16"
ROUNDED = "merged, rounded to bfloat16, float32"
BOTH = "merged, bfloat16"
VERSIONS = (MERGED, ARITHMETIC, ROUNDED, BOTH)
SIXTEEN, FOUR = "full base", "4-bit base"


def recipe(name: str) -> Recipe:
    """Return the recipe of a model; those that have none get SmolLM2's."""
    return RECIPES.get(name, RECIPES[SMOL])


def load_base(name: str):
    """Return a base in float32 whose weights bfloat16 holds exactly, and its tokenizer with ChatML."""
    model, tokenizer = load(name, dtype=BF16)
    if name == SMOL:
        tokenizer.chat_template = CHATML
    return cast(model, torch.float32), tokenizer


@cache
def questions(name: str) -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """Return held-out questions for a model: some for validation, and others for the result."""
    validation, test = recipe(name).questions
    found = Random(20).sample(heldout(), validation + test)
    return tuple(found[:validation]), tuple(found[validation:])


def examples(tokenizer, some: Sequence[dict]) -> list[Example]:
    """Return questions or pairs as examples in which the answer is trained."""
    return [build_example(tokenizer, conversation(row)) for row in some]


def batches(tokenizer, seed: int, size: int) -> Iterator[dict]:
    """Yield batches of a seed's 64 pairs without end."""
    made = examples(tokenizer, pairs(PAIRS, seed))
    return endless_batches(made, size, seed, tokenizer.pad_token_id)


@torch.no_grad()
def answer_logits(model, rows: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return the logits for each token of the answers, (tokens, vocabulary), and these tokens."""
    batch = collate(rows, pad_id)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    trained = labels != IGNORE_INDEX
    return logits[trained].float(), labels[trained]


def loss_on(model, tokenizer, some: Sequence[dict]) -> float:
    """Return the loss on the answers of some questions, in nats per token."""
    logits, ids = answer_logits(model, examples(tokenizer, some), tokenizer.pad_token_id)
    return nn.functional.cross_entropy(logits, ids).item()


def train(model, tokenizer, name: str, adapter: str, seed: int) -> int:
    """Add an adapter and train it until its validation loss is reached; return the number of steps."""
    inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=seed)
    chosen, validation = recipe(name), questions(name)[0]
    optimizer = torch.optim.AdamW(
        lora_parameters(model), lr=chosen.rates[adapter], weight_decay=0.0
    )
    for step, batch in enumerate(islice(batches(tokenizer, seed, chosen.batch), chosen.most), 1):
        train_step(model, batch, optimizer)
        if step % EVERY == 0 and loss_on(model, tokenizer, validation) <= chosen.target:
            break
    optimizer.zero_grad()
    model.eval()
    return step


def rounded(model, dtype: torch.dtype = BF16):
    """Return a copy that stores and computes in another dtype; A and B keep theirs."""
    made = cast(copy.deepcopy(model), dtype)
    originals = lora_layers(model)
    for name, layer in lora_layers(made).items():
        layer.A.data, layer.B.data = originals[name].A.data, originals[name].B.data
    return made


def versions(model) -> dict[str, Callable[[], nn.Module]]:
    """Return how each version of a model with adapters is made, by name."""
    return {
        MERGED: lambda: merge_lora(copy.deepcopy(model)),
        ARITHMETIC: lambda: rounded(model),
        ROUNDED: lambda: cast(merge_lora(rounded(model)), torch.float32),
        BOTH: lambda: merge_lora(rounded(model)),
    }


def see(model, tokenizer, asked: Sequence[dict], limit: int) -> tuple[Tensor, Tensor, list[str]]:
    """Return logits on the right answers, their tokens, and what the model answers by itself."""
    rows = examples(tokenizer, asked)
    replies = answer(model, tokenizer, [user(q["prompt"]) for q in asked], max_new_tokens=limit)
    return *answer_logits(model, rows, tokenizer.pad_token_id), [g.text for g in replies]


def divergence(wanted: Tensor, found: Tensor) -> float:
    """Return the mean KL divergence of the next-token distributions, in nats per token."""
    p, q = wanted.log_softmax(-1), found.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def compare(wanted: tuple, found: tuple, asked: Sequence[dict]) -> dict[str, float]:
    """Return how far a version is from the reference, and how good it is itself."""
    changed = [a != b for a, b in zip(wanted[2], found[2], strict=True)]
    right = [score_answer(q, text).correct for q, text in zip(asked, found[2], strict=True)]
    return {
        "logits": relative_error(found[0], wanted[0]),
        "kl": divergence(wanted[0], found[0]),
        "changed": sum(changed) / len(changed),
        "correct": sum(right) / len(right),
        "nll": nn.functional.cross_entropy(found[0], found[1]).item(),
    }


def merges(model: str, adapter: str, seed: int) -> dict:
    """Train an adapter, merge it, and compare each version with the adapter that is not merged."""
    network, tokenizer = load_base(model)
    asked, limit = questions(model)[1], recipe(model).limit
    plain = see(network, tokenizer, asked, limit)
    steps = train(network, tokenizer, model, adapter, seed)
    unchanged, error = rounding_loss(list(lora_layers(network).values()), BF16)
    wanted = see(network, tokenizer, asked, limit)
    found: dict = {
        "steps": steps,
        "moved": relative_update(network),
        "unchanged": unchanged,
        "error": error,
        "base": compare(wanted, plain, asked),
        REFERENCE: compare(wanted, wanted, asked),
    }
    for name, make in versions(network).items():
        found[name] = compare(wanted, see(make(), tokenizer, asked, limit), asked)
    return found


def in_four_bits(name: str):
    """Return the base with its linear layers in 4 bits."""
    return quantize_model_linears(load_base(name)[0])


def moved_to(base, network):
    """Return the base with the adapter of another model, merged into it."""
    inject_lora(base, "all-linear", r=R, lora_alpha=ALPHA)
    theirs = lora_layers(network)
    for name, layer in lora_layers(base).items():
        layer.A.data, layer.B.data = theirs[name].A.data.clone(), theirs[name].B.data.clone()
    return merge_lora(base).eval()


def bases(model: str, trained_on: str, seed: int) -> dict:
    """Train an adapter on a base, merge it into both, and measure the loss and the distance."""
    network, tokenizer = load_base(model)
    if trained_on == FOUR:
        network = in_four_bits(model)
    asked, limit = questions(model)[1], recipe(model).limit
    found: dict = {"base": loss_on(network, tokenizer, asked)}
    found["steps"] = train(network, tokenizer, model, HIGH, seed)
    wanted = see(network, tokenizer, asked, limit)
    found["not merged"] = compare(wanted, wanted, asked)
    for name, make in (
        (SIXTEEN, lambda: load_base(model)[0]),
        (FOUR, lambda: dequantize_model_linears(in_four_bits(model))),
    ):
        merged = moved_to(make(), network)
        found[name] = compare(wanted, see(merged, tokenizer, asked, limit), asked)
    return found


@torch.no_grad()
def seconds_each(
    models: Mapping[str, nn.Module], ids: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds that each model takes to read the tokens, round by round, taking turns."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model(ids)
            found[name].append(time.perf_counter() - began)
    return {name: seconds[1:] for name, seconds in found.items()}  # the first round warms up


def speed(model: str, tokens: int, seed: int) -> dict:
    """Measure base, adapter and merged model in one run: tokens/s, and quartiles of the ratios."""
    network = load_base(model)[0].eval()
    adapted = load_base(model)[0]
    inject_lora(adapted, "all-linear", r=R, lora_alpha=ALPHA, seed=seed)
    merged = merge_lora(copy.deepcopy(adapted)).eval()
    ids = torch.arange(tokens)[None] + 10
    found = seconds_each(
        {"base": network, "adapter": adapted.eval(), "merged": merged}, ids, recipe(model).rounds
    )
    base = torch.tensor(found["base"])
    quartiles = torch.tensor([0.25, 0.5, 0.75])
    ratios = {
        name: (torch.tensor(found[name]) / base).quantile(quartiles).tolist()
        for name in ("adapter", "merged")
    }
    speeds = {name: tokens / sorted(one)[len(one) // 2] for name, one in found.items()}
    return {"ratios of seconds": ratios, "tokens in seconds": speeds}


KINDS: dict[str, Callable[..., dict]] = {"merge": merges, "bases": bases, "speed": speed}


def run(kind: str, model: str, **chosen) -> dict:
    """Run one measurement; ``chosen`` are its other settings."""
    return KINDS[kind](model, **chosen)


def settings() -> list[dict]:
    """Return the settings of all runs, those of the embedded model first."""
    found: list[dict] = []
    for model, chosen in RECIPES.items():
        for seed in range(chosen.seeds):
            common = {"model": model, "seed": seed}
            found += [{"kind": "merge", "adapter": a, **common} for a in chosen.rates]
            on = (SIXTEEN, FOUR) if model == EMBEDDED else (FOUR,)
            found += [{"kind": "bases", "trained_on": b, **common} for b in on]
            found += [{"kind": "speed", "tokens": n, **common} for n in chosen.lengths]
    return found
