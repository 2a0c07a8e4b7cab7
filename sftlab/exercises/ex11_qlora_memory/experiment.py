"""Six codes of 4 bits at equal bits per weight: how far weights move, and what that costs in loss.

A weight takes 4 bits for its index and its share of what its block stores: 16 bits for a scale, and
4 more for an offset where the code has one. The block size follows from the bits per weight, so a
code with an offset has larger blocks.

Every run packs all linear layers of a model with one code, and measures

``error``   layer -> size of the error ÷ size of the weights
``loss``    what that adds to the loss on each document, ÷ the mean loss of a document before

A run's ``draw`` says which columns of a layer lie side by side: 0 leaves them as they are, others mix
them before blocks are cut and put them back afterwards. The same code then rounds the same weights
in other blocks, which shows how much of a difference is chance. Three arms are controls of the loss,
with errors of the same size as NF4's: ``SPREAD`` is normal noise, ``RANDOM_WAY`` one random direction of
each layer, and ``LARGEST_WAY`` makes a layer's largest singular direction longer or shorter, by chance.

This takes about two minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice

import torch
from torch import Tensor

from sftlab.almanac.documents import documents
from sftlab.data import collate
from sftlab.exercises.recipes import response_nll, unmasked  # noqa: F401  the first is for the notebook
from sftlab.loss import token_nll
from sftlab.masking import Example
from sftlab.memory.shapes import linear_layers
from sftlab.models import load
from sftlab.quant import (
    dequantize_affine,
    dequantize_block,
    even_code,
    fp4_code,
    nf4_code,
    quantize_affine,
    quantize_block,
)

RECORD = "four_bit_codes"  # data/results/four_bit_codes.json

NF4, FP4, FP4_BNB, EVEN, OFFSET, LLOYD = (
    "NF4", "FP4 (E2M1)", "FP4, bitsandbytes", "INT4", "INT4 with offset", "Lloyd–Max",
)  # fmt: skip
CODES = (NF4, FP4, FP4_BNB, EVEN, OFFSET, LLOYD)
SPREAD = "noise, as large"  # as the error of NF4
RANDOM_WAY = "random direction, as large"
LARGEST_WAY = "largest direction, as large"
CONTROLS = (SPREAD, RANDOM_WAY, LARGEST_WAY)
BITS = (4.125, 4.25, 4.5, 5.0)  # per weight
SHOWN = 4.25  # bits per weight at which codes are compared, and the loss is measured
DRAWS = 5
DOCUMENTS = 80


# --- codes -----------------------------------------------------------------------------------


def block_size(code: str, bits: float) -> int:
    """Return how many weights share a scale, so that each takes ``bits`` in all."""
    stored = 20 if code == OFFSET else 16  # bits of each block
    return round(stored / (bits - 4))


def in_blocks(weight: Tensor, size: int) -> Tensor:
    """Return the numbers of a weight in rows of ``size``; zeros complete the last row."""
    flat = weight.flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % size)).view(-1, size)


def fp4_of_bitsandbytes() -> Tensor:
    """Return the values that bitsandbytes calls fp4: those of E2M1 but for the smallest (its functional.py)."""
    positive = torch.tensor([0, 1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1])
    return torch.cat([-positive.flip(0), positive])


@cache
def lloyd_max(size: int, steps: int = 60) -> Tensor:
    """Return the 16 values with the least squared error on normal numbers in blocks of this size.

    The least for a scale that is the block's largest magnitude.

    Each value moves to the mean of the numbers that are nearest to it, over and over (Lloyd, 1982;
    Max, 1960). A number counts with its block's scale squared, because that multiplies its error.
    """
    blocks = torch.randn(2**18 // size, size, generator=torch.Generator().manual_seed(11))
    scale = blocks.abs().amax(1, keepdim=True)
    scaled, counts = (blocks / scale).flatten(), scale.square().expand_as(blocks).flatten()
    code = nf4_code()
    for _ in range(steps):
        nearest = torch.bucketize(scaled, (code[1:] + code[:-1]) / 2)
        sums, totals = (
            torch.zeros(16).scatter_add_(0, nearest, x) for x in (scaled * counts, counts)
        )
        code = sums / totals
    return code


def values(code: str, size: int) -> Tensor:
    """Return the 16 values of a code without offset, in units of the block's scale."""
    made = {NF4: nf4_code, FP4: fp4_code, FP4_BNB: fp4_of_bitsandbytes, EVEN: even_code}
    return made[code]() if code in made else lloyd_max(size)


def restored(blocks: Tensor, code: str) -> Tensor:
    """Return what a code makes of blocks of weights. Scales are rounded to 16 bits."""
    if code == OFFSET:
        indices, scale, zero = quantize_affine(blocks)
        return dequantize_affine(indices, scale.half().float(), zero)
    sixteen = values(code, blocks.shape[-1])
    indices, scale = quantize_block(blocks, sixteen)
    return dequantize_block(indices, scale.half().float(), sixteen)


# --- models ----------------------------------------------------------------------------------


def packed(weight: Tensor, code: str, bits: float, draw: int = 0) -> Tensor:
    """Return a weight as a code stores it; a draw above 0 mixes the columns before blocks are cut."""
    width, generator = weight.shape[1], torch.Generator().manual_seed(draw)
    order = torch.randperm(width, generator=generator) if draw else torch.arange(width)
    blocks = in_blocks(weight[:, order], block_size(code, bits))
    found = torch.empty_like(weight)
    found[:, order] = restored(blocks, code).flatten()[: weight.numel()].view_as(weight)
    return found


def spread(weight: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Return the weight plus normal noise of this size."""
    noise = torch.randn(weight.shape, generator=generator)
    return weight + noise * size / noise.norm()


def random_way(weight: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Return the weight plus an error of rank 1 of this size, in a random direction."""
    left, right = (torch.randn(n, generator=generator) for n in weight.shape)
    return weight + size * torch.outer(left / left.norm(), right / right.norm())


def largest_way(weight: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Return the weight with its largest singular direction longer or shorter by this size."""
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    sign = 1 if torch.rand((), generator=generator) < 0.5 else -1
    return weight + sign * size * torch.outer(left[:, 0], right[0])


def moved(weight: Tensor, arm: str, bits: float, draw: int = 0, seed: int = 0) -> Tensor:
    """Return a weight packed with a code, or with an error of NF4's size that the seed decides."""
    if arm in CODES:
        return packed(weight, arm, bits, draw)
    size = (packed(weight, NF4, bits, draw) - weight).norm().item()
    generator = torch.Generator().manual_seed(seed)
    made = {SPREAD: spread, RANDOM_WAY: random_way, LARGEST_WAY: largest_way}
    return made[arm](weight, size, generator)


@contextmanager
def all_moved(model, arm: str, bits: float, draw: int = 0) -> Iterator[dict[str, float]]:
    """Move the linear layers, yield layer -> size of the error ÷ size of the weights, and undo it."""
    layers = {name: model.get_submodule(name) for name in linear_layers(model)}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    errors = {}
    try:
        for number, (name, weight) in enumerate(before.items()):
            now = moved(weight, arm, bits, draw, seed=1000 * draw + number)
            errors[name] = ((now - weight).norm() / weight.norm()).item()
            layers[name].weight.data.copy_(now)
        yield errors
    finally:
        for name, weight in before.items():
            layers[name].weight.data.copy_(weight)


def document_examples(tokenizer, count: int = DOCUMENTS) -> list[Example]:
    """Return documents like those of pretraining, all tokens trained but the first."""
    texts = islice(documents("four bits"), count)
    return [unmasked(Example(tokenizer.encode(t, add_special_tokens=False), [])) for t in texts]


@torch.no_grad()
def document_losses(model, rows: list[Example], pad_id: int) -> Tensor:
    """Return the loss of each document, summed over its tokens, in nats."""
    found = []
    for i in range(0, len(rows), 20):
        batch = collate(rows[i : i + 20], pad_id)
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        found.append(token_nll(logits, batch["labels"]).sum(1))
    return torch.cat(found)


@cache
def base() -> tuple:
    """Return the model, the documents as examples, the token that pads them, and their losses."""
    model, tokenizer = load("almanac")
    rows = document_examples(tokenizer)
    return model, rows, tokenizer.pad_token_id, document_losses(model, rows, tokenizer.pad_token_id)


def run(arm: str, bits: float, draw: int) -> dict:
    """Move the weights of the base model, and measure error and loss; see the module's text."""
    model, rows, pad_id, before = base()
    found: dict = {}
    with all_moved(model, arm, bits, draw) as errors:
        if bits == SHOWN:
            added = (document_losses(model, rows, pad_id) - before) / before.mean()
            found["loss"] = [round(value, 6) for value in added.tolist()]
    return {"error": {layer: round(error, 5) for layer, error in errors.items()}, **found}


def settings() -> list[dict]:
    """Return all settings, draw by draw."""
    return [
        {"arm": arm, "bits": bits, "draw": draw}
        for draw in range(DRAWS)
        for bits in (BITS if draw == 0 else (SHOWN,))
        for arm in (*CODES, *CONTROLS)
    ]
