"""How many of its r directions does a trained LoRA layer use?

LoRA of rank r is trained on every linear layer, on 48 pairs for 24 steps (one setting for longer), with
α = 2r and AdamW at a constant learning rate: three for each rank, around its best. In one arm only B is
trained. The learning rate is chosen on validation questions, and the result reported on others.

Recorded of ΔW = (α/r)·BA, over all layers together:

``shares``    step -> share of ‖ΔW‖² in its 1st, 2nd, … singular direction (the first eight)
``shuffled``  a control: the same, with the entries of the trained A and of the trained B in random order
``top k``     the held-out loss with only the k largest singular directions of each ΔW
``rest k``    a control: with all but these
``part k``    a control: with the first k rows of A and columns of B, as they were trained
``short k``   a control: with the whole ΔW, shortened to the energy of the top k

This takes about seven minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from sftlab.almanac.pairs import pairs
from sftlab.data import conversation
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import Questions, endless_batches, fact_questions
from sftlab.lora import LoRALinear, inject_lora, lora_layers, lora_parameters
from sftlab.masking import Example, build_example
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_directions"  # data/results/lora_directions.json

R, ALPHA, RATE = 8, 16, 3e-3  # of the live training
RATES_B = (1e-3, 3e-3, 1e-2, 3e-2)  # at rank 8, if only B is trained
# Around the best learning rate of each rank.
RATES = {2: (3e-3, 1e-2, 3e-2), 8: (1e-3, 3e-3, 1e-2), 32: (3e-4, 1e-3, 3e-3)}
CUTS = (1, 2, 4, 8)
SEEDS, PAIRS, BATCH, STEPS, LONG, QUESTIONS, SHOWN = 5, 48, 16, 24, 96, 60, 8


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(7, QUESTIONS)


def examples(tokenizer, rows) -> list[Example]:
    """Return the rows as examples in which the answer is trained."""
    return [build_example(tokenizer, conversation(row)) for row in rows]


def batches(tokenizer, seed: int, steps: int = STEPS) -> Iterator[dict]:
    """Yield batches of 16 of a seed's 48 pairs, in an order that depends on the seed."""
    made = examples(tokenizer, pairs(PAIRS, seed, skills=()))
    yield from islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), steps)


def held_out(model, tokenizer) -> tuple[float, float]:
    """Return the loss on the answers of the validation questions and of the others (nats per token)."""
    validation, test = (
        response_nll(model, examples(tokenizer, some), tokenizer.pad_token_id)
        for some in questions()
    )
    return validation, test


@torch.no_grad()
def change_of(layer: nn.Module, base: nn.Linear) -> Tensor:
    """Return the ΔW (d_out, d_in) of a layer in eval mode, of any class, from what it computes.

    A unit vector as input gives a column of ΔW.
    """
    units = torch.eye(base.in_features)
    return (layer(units) - base(units)).T


def shuffled(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """Return the entries of a matrix in random order."""
    order = torch.randperm(matrix.numel(), generator=generator)
    return matrix.flatten()[order].view_as(matrix)


def decomposed(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the r singular directions of B @ A: (d_out, r), values (r), (r, d_in).

    Two thin QR decompositions leave an r × r matrix, so B @ A is not formed.
    """
    (left, of_B), (right, of_A) = torch.linalg.qr(B), torch.linalg.qr(A.T)
    u, s, vt = torch.linalg.svd(of_B @ of_A.T)
    return left @ u, s, vt @ right.T


def shares(energies: list[Tensor]) -> list[float]:
    """Return the share of the energy in the 1st, 2nd, … direction, over all layers together."""
    total = torch.stack(energies).sum(0)
    return (total / total.sum()).tolist()[:SHOWN]


@torch.no_grad()
def spectrum(model, change: Callable[[Tensor], Tensor] = lambda matrix: matrix) -> list[float]:
    """Return ``shares`` of the LoRA layers of a model, their matrices changed first."""
    layers = lora_layers(model).values()
    return shares([(layer.scale**2) * decomposed(change(layer.A), change(layer.B))[1].square() for layer in layers])  # fmt: skip


def kept(layer: LoRALinear, how: str, k: int) -> tuple[Tensor, Tensor]:
    """Return A and B of a part of a layer's ΔW: see the head of this file."""
    A, B = layer.A.detach(), layer.B.detach()
    if how == "part":
        keep = torch.arange(layer.r) < k
        return A * keep[:, None], B * keep
    u, s, vt = decomposed(A, B)
    if how == "short":
        s = s * (s[:k].square().sum() / s.square().sum()).sqrt()
    else:
        s = s * ((torch.arange(layer.r) < k) == (how == "top"))
    return vt, u * s


@contextmanager
def cut(model, how: str, k: int) -> Iterator[nn.Module]:
    """Replace each ΔW by a part of it, and take that back in the end."""
    layers = list(lora_layers(model).values())
    before = [(layer.A.data, layer.B.data) for layer in layers]
    try:
        for layer in layers:
            layer.A.data, layer.B.data = kept(layer, how, k)
        yield model
    finally:
        for layer, (A, B) in zip(layers, before, strict=True):
            layer.A.data, layer.B.data = A, B


def run(r: int, learning_rate: float, seed: int, steps: int = STEPS, only: str = "AB") -> dict:
    """Train LoRA of one rank, both matrices or only one.

    Returns:
        ``shares`` and ``shuffled``; ``validation`` and ``test``, losses on held-out answers (nats per
        token); by k as text, ``top``, ``rest``, ``part`` and ``short``, losses with a part of each ΔW,
        if both matrices are trained.
    """
    model, tokenizer = load("almanac")
    inject_lora(model, "all-linear", r=r, lora_alpha=2 * r, seed=seed)
    for layer in lora_layers(model).values():
        layer.A.requires_grad_("A" in only)
    weights = [p for p in lora_parameters(model) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    seen = {}
    for step, batch in enumerate(batches(tokenizer, seed, steps), 1):
        train_step(model, batch, optimizer)
        if step in (1, 3, 6, 12, 24, 48, 96):
            seen[str(step)] = spectrum(model)
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    found: dict = {"shares": seen, "shuffled": spectrum(model, lambda m: shuffled(m, generator))}
    found["validation"], found["test"] = held_out(model, tokenizer)
    for how in ("top", "rest", "part", "short"):
        found[how] = {}
        for k in CUTS:
            if k < r and only == "AB":
                with cut(model, how, k):
                    found[how][str(k)] = held_out(model, tokenizer)[1]
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        *({"r": r, "learning_rate": rate, "seed": seed} for seed in range(SEEDS) for r in RATES for rate in RATES[r]),
        *({"r": R, "learning_rate": RATE, "seed": seed, "steps": LONG} for seed in range(SEEDS)),
        *({"r": R, "learning_rate": rate, "seed": seed, "only": "B"} for seed in range(SEEDS) for rate in RATES_B),
    ]  # fmt: skip
