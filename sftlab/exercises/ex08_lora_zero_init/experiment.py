"""LoRA from different initializations: which matrix is random, how large its entries are, and which is zero.

Seven arms, everything else the same: 32 pairs, r = 8, α = 16, every linear layer, 20 steps of AdamW at a
constant learning rate, gradients not clipped. The random matrix is uniform within one of two bounds:
``small`` is 1/√d_in, which LoRA uses for A, and ``large`` is 1/√r, which the same rule gives for B.

Four arms have one zero matrix: "A random" (small), "A random, large", "B random" (large) and "B random,
small". So the choice of the matrix and the size of its entries are apart. In "both random" B is large, in
"both random, small" it is small, as A is in both. The learning rates of the four and of the last are swept;
the best is chosen on validation questions and the result reported on others. ``both zero`` and ``both
random`` train at one learning rate.

Each seed has its own pairs, random matrices and order. This takes about 20 minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from sftlab.almanac.pairs import pairs
from sftlab.data import collate, conversation
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import Questions, endless_batches, fact_questions
from sftlab.lora import init_lora_, inject_lora, lora_layers, lora_parameters
from sftlab.lora_statistics import gradient_norms, relative_update
from sftlab.masking import Example, build_example
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_init"  # data/results/lora_init.json

SWEPT = ("A random", "A random, large", "B random", "B random, small")
BOTH_SMALL = "both random, small"
INITS = (*SWEPT, "both zero", "both random", BOTH_SMALL)
R, ALPHA, PAIRS, BATCH, STEPS, SEEDS, QUESTIONS = 8, 16, 32, 16, 20, 5, 60
RATE = 2e-3  # of the other two arms
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(8, QUESTIONS)


def examples(tokenizer, rows: Sequence[dict]) -> list[Example]:
    """Return the rows as examples in which the answer is trained."""
    return [build_example(tokenizer, conversation(row)) for row in rows]


def batches(tokenizer, seed: int, steps: int = STEPS) -> Iterator[dict]:
    """Yield batches of 16 of a seed's 32 pairs, in an order that depends on the seed."""
    made = examples(tokenizer, pairs(PAIRS, seed, skills=()))
    yield from islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), steps)


@torch.no_grad()
def logits_of(model, batch: dict) -> torch.Tensor:
    """Return the logits at every token of a batch, without padding: (tokens, vocabulary)."""
    mask = batch["attention_mask"]
    return model(batch["input_ids"], attention_mask=mask).logits[mask.bool()]


@torch.no_grad()
def initialize(A: torch.Tensor, B: torch.Tensor, how: str, generator=None) -> None:
    """Fill A (r, d_in) and B (d_out, r) in place, as an arm does."""
    which, _, size = how.partition(", ")
    init_lora_(A, B, which, generator)
    ratio = math.sqrt(A.shape[1] / A.shape[0])  # of the large bound to the small one
    if size == "large":
        A *= ratio
    elif size == "small":
        B /= ratio


def with_lora(how: str, seed: int, name: str = "almanac"):
    """Return the base with adapters as an arm begins, and its tokenizer."""
    model, tokenizer = load(name)
    inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        initialize(layer.A, layer.B, how, generator)
    return model, tokenizer


def norms(model) -> tuple[float, float]:
    """Return the norms of the gradients of all A and of all B."""
    of_A, of_B = zip(*gradient_norms(model).values(), strict=True)
    return math.hypot(*of_A), math.hypot(*of_B)


def held_out(model, tokenizer) -> tuple[float, float]:
    """Return the loss on the answers of the validation questions and of the others (nats per token)."""
    validation, test = (
        response_nll(model, examples(tokenizer, some), tokenizer.pad_token_id)
        for some in questions()
    )
    return validation, test


def run(how: str, seed: int, rate: float = RATE, steps: int = STEPS) -> dict:
    """Train from one initialization.

    Returns:
        For each step: ``loss`` before it, ``norm_A`` and ``norm_B``, the norms of the gradients. Also
        ``difference``, the largest change of a logit before the first step; ``first_update``,
        ‖ΔW‖ / ‖W‖ after it; ``nll_base``, ``nll_start``, and after the last step ``validation`` and
        ``nll_end``, held-out losses in nats per token.
    """
    base, tokenizer = load("almanac")
    asked = collate(examples(tokenizer, questions()[1][:16]), tokenizer.pad_token_id)
    model, _ = with_lora(how, seed)
    found: dict = {"loss": [], "norm_A": [], "norm_B": []}
    found["difference"] = (logits_of(model, asked) - logits_of(base, asked)).abs().max().item()
    found["nll_base"], found["nll_start"] = (held_out(m, tokenizer)[1] for m in (base, model))
    optimizer = torch.optim.AdamW(lora_parameters(model), lr=rate, weight_decay=0.0)
    for step, batch in enumerate(batches(tokenizer, seed, steps)):
        found["loss"].append(train_step(model, batch, optimizer, max_grad_norm=math.inf))
        for name, norm in zip(("norm_A", "norm_B"), norms(model), strict=True):
            found[name].append(norm)
        if step == 0:
            found["first_update"] = relative_update(model)
    found["validation"], found["nll_end"] = held_out(model.eval(), tokenizer)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"how": how, "seed": seed, "rate": rate}
        for seed in range(SEEDS)
        for how in INITS
        for rate in (RATES if how in (*SWEPT, BOTH_SMALL) else (RATE,))
    ]
