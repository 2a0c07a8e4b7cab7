"""Other roundings of one base to NF4: what depends on which weights share a block?

The columns of each linear weight are put in a random order before its blocks of 64 are cut, and put back
after unpacking. Code, block size and double quantization stay, and so does the size of the error; but each
weight shares its scale with other weights, so it is rounded another way. Order 0 is the usual one.

Plain layers hold the unpacked values, which compute what packed layers do. Each adapter is trained as in the
record ``qlora``. ``test`` and ``documents`` are its losses on the base that it was trained on, in nats per
token, ``before`` those of the base, ``error`` the size of the rounding error over that of the weights. At
``SAME`` there is also ``moved``: the test loss of the adapter on 16 bits. Rounding ``NONE`` is the base in
16 bits; its ``moved`` has the test loss on each rounded base. This takes about ten minutes on one core.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from sftlab.exercises.ex21_qlora_finetuning.bases import MORE, adamw, held_out, plain, with_adapters
from sftlab.exercises.ex21_qlora_finetuning.moved_back import SAME
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.trade_off import batches
from sftlab.memory.shapes import linear_layers
from sftlab.models import load
from sftlab.quant import dequantize_nf4, quantize_nf4
from sftlab.train import train_step

RECORD = "roundings"  # data/results/roundings.json

NONE = -1
ORDERS = (1, 2, 3, 4)  # 0 is in the record "qlora"
RATES = (8e-4, SAME)  # the test losses on either side of the one at which arms are compared


@torch.no_grad()
def rounded(order: int) -> tuple[nn.Module, float]:
    """Return the base in one rounding to NF4, and the size of the error over that of the weights."""
    model = plain()
    if order == NONE:
        return model, 0.0
    generator = torch.Generator().manual_seed(order)
    wrong = whole = 0.0
    for name in linear_layers(model):
        weight = model.get_submodule(name).weight
        columns = torch.arange(weight.shape[1])
        if order:
            columns = torch.randperm(weight.shape[1], generator=generator)
        found = dequantize_nf4(quantize_nf4(weight[:, columns], double=True))
        found = found[:, columns.argsort()]
        wrong += (found - weight).square().sum().item()
        whole += weight.square().sum().item()
        weight.copy_(found)
    return model, (wrong / whole) ** 0.5


def nll(model: nn.Module, tokenizer, name: str) -> float:
    """Return a loss of a model, by the name that it has in ``held_out``."""
    return response_nll(model.eval(), held_out(tokenizer)[name], tokenizer.pad_token_id)


@cache
def before(order: int) -> dict[str, float]:
    """Return the losses of a base before training."""
    _, tokenizer = load("almanac")
    return {name: nll(rounded(order)[0], tokenizer, name) for name in ("test", "documents")}


def moved(model: nn.Module, order: int, tokenizer) -> float:
    """Return the test loss of a model's adapter on the base in another rounding."""
    other = with_adapters(rounded(order)[0], seed=0)
    adapter = {n: p for n, p in model.state_dict().items() if "lora_" in n}
    other.load_state_dict(adapter, strict=False)
    return nll(other, tokenizer, "test")


def run(order: int, learning_rate: float, seed: int) -> dict:
    """Train LoRA on a rounding of the base; return the measurements of the module docstring."""
    _, tokenizer = load("almanac")
    base, error = rounded(order)
    model = with_adapters(base, seed).train()
    optimizer = adamw([p for p in model.parameters() if p.requires_grad], learning_rate)
    for batch in batches(tokenizer, seed):
        train_step(model, batch, optimizer, max_grad_norm=None)
    found = {name: nll(model, tokenizer, name) for name in ("test", "documents")}
    found |= {"before": before(order), "error": error}
    others = ORDERS if order == NONE else (NONE,) if learning_rate == SAME else ()
    return found | {"moved": {str(other): moved(model, other, tokenizer) for other in others}}


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    arms = [(NONE, SAME), *((order, rate) for order in ORDERS for rate in RATES)]
    return [
        {"order": order, "learning_rate": rate, "seed": seed}
        for seed in range(MORE)
        for order, rate in arms
    ]
