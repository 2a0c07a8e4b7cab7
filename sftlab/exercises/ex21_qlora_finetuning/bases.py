"""LoRA on one base whose linear layers are stored in several ways: does the adapter train as well?

Every arm trains PEFT's LoRA (r = 8, α = 16, every linear layer but the output head) for 24 steps on the
32 pairs of a seed, in the same order, from the same A, with AdamW at a constant learning rate. All
products are computed in float32, so the arms differ in nothing but this:

``16 bits``            weights in bfloat16, as they come
``4 bits``             NF4 with double quantization, by transformers' BitsAndBytesConfig
``4 bits, unpacked``   control: plain layers that hold the values of these 4 bits
``4 bits, A and B in bfloat16``   the adapters, their gradients and their moments have 16 bits
``3 bits``, ``2 bits`` dose: plain layers, rounded to 8 or 4 evenly spaced values per block of 64

Measured, in nats per token: ``validation`` and ``test``, the loss on the answers to held-out questions;
``documents``, that on documents like those of pretraining, and ``before``, the same before training.
For ``16 bits`` also ``moved``: the test loss of the same adapter on each other base, where it was never
trained. The learning rate is chosen on the validation questions; two arms have a low one, too. This takes
about twenty minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sftlab._internal.paths import MODELS
from sftlab.classroom.peft_compat import peft
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import fact_questions
from sftlab.exercises.trade_off import base_documents, batches, examples
from sftlab.masking import Example
from sftlab.memory.shapes import linear_layers
from sftlab.models import cast, load
from sftlab.quant import BLOCK_SIZE, dequantize_block, quantize_block
from sftlab.quantized_layers import (
    dequantize_model_linears,
    keep_weights_in_place,
    quantize_model_linears,
)
from sftlab.train import train_step

RECORD = "qlora"  # data/results/qlora.json

FULL, FOUR, UNPACKED = "16 bits", "4 bits", "4 bits, unpacked"
HALF = "4 bits, A and B in bfloat16"
THREE, TWO = "3 bits", "2 bits"
RATES = (8e-4, 1.6e-3, 3.2e-3, 6.4e-3)
LOW = 1e-4  # far below the best: steps that 16 bits may be too coarse for
R, ALPHA, SEEDS, QUESTIONS = 8, 16, 5, 60


def four_bit_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings of QLoRA; each of the last three has another default."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def plain() -> nn.Module:
    """Return the base in float32, with the values that bfloat16 holds."""
    return cast(load("almanac", dtype=torch.bfloat16)[0], torch.float32)


def by_the_library() -> nn.Module:
    """Return the base in 4 bits as transformers, bitsandbytes and PEFT make it ready for training."""
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / "almanac-base",
        dtype=torch.bfloat16,
        quantization_config=four_bit_config(torch.float32),
    )
    keep_weights_in_place(model)
    return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


@torch.no_grad()
def rounded(bits: int) -> nn.Module:
    """Return the base with linear layers rounded to 2**bits evenly spaced values in each block."""
    model, code = plain(), torch.linspace(-1, 1, 2**bits)
    for name in linear_layers(model):
        weight = model.get_submodule(name).weight
        blocks = weight.view(-1, BLOCK_SIZE)
        weight.copy_(dequantize_block(*quantize_block(blocks, code), code).view_as(weight))
    return model


BASES: dict[str, Callable[[], nn.Module]] = {
    FULL: plain,
    FOUR: by_the_library,
    UNPACKED: lambda: dequantize_model_linears(quantize_model_linears(plain())),
    HALF: by_the_library,
    THREE: partial(rounded, 3),
    TWO: partial(rounded, 2),
}


def with_adapters(model: nn.Module, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Add LoRA to every linear layer but the output head; A and B are stored in this dtype."""
    torch.manual_seed(seed)  # A is drawn from it
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return wrapped


@cache
def held_out(tokenizer) -> dict[str, list[Example]]:
    """Return what is measured, by the name of its loss."""
    validation, test = (examples(tokenizer, some) for some in fact_questions(21, QUESTIONS))
    return {
        "validation": validation,
        "test": test,
        "documents": base_documents(tokenizer)[1],
    }


def losses(model: nn.Module, tokenizer) -> dict[str, float]:
    """Return the losses of the module docstring."""
    return {
        name: response_nll(model.eval(), rows, tokenizer.pad_token_id)
        for name, rows in held_out(tokenizer).items()
    }


@cache
def before(base: str) -> dict[str, float]:
    """Return the losses of a base before training."""
    return losses(BASES[base](), load("almanac")[1])


def moved(model: nn.Module, base: str, tokenizer) -> float:
    """Return the test loss of a model's adapter on another base."""
    other = with_adapters(BASES[base](), seed=0)
    adapter = {n: p for n, p in model.state_dict().items() if "lora_" in n}
    other.load_state_dict(adapter, strict=False)
    return response_nll(other.eval(), held_out(tokenizer)["test"], tokenizer.pad_token_id)


def run(base: str, learning_rate: float, seed: int) -> dict:
    """Train LoRA on a base at one learning rate; return the measurements of the module docstring."""
    _, tokenizer = load("almanac")
    dtype = torch.bfloat16 if base == HALF else torch.float32
    model = with_adapters(BASES[base](), seed, dtype).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    for batch in batches(tokenizer, seed):
        train_step(model, batch, optimizer, max_grad_norm=None)
    found = {**losses(model, tokenizer), "before": before(base)}
    if base == FULL:
        found["moved"] = {name: moved(model, name, tokenizer) for name in (FOUR, THREE, TWO)}
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"base": base, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for base in BASES
        for rate in (RATES if base not in (FOUR, HALF) else (LOW, *RATES))
    ]
