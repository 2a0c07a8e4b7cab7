"""LoRA on one base whose linear layers are stored in several ways: does the adapter train as well?

Every arm trains PEFT's LoRA (r = 8, α = 16, every linear layer but the output head) for 24 steps on the
32 pairs of a seed, in the same order, from the same A, with AdamW at a constant learning rate. Products
with the base are computed in float32, and so is all that belongs to A and B, but for the arms that say
otherwise:

``16 bits``   weights in bfloat16, as they come
``4 bits``    NF4 with double quantization, by transformers' BitsAndBytesConfig
``HALF``      4 bits; A and B are stored in bfloat16, so PEFT computes their products in it as well, and
              their gradients and moments have this dtype, too
``MOMENTS``   control of ``HALF``: all of this in bfloat16 but the moments, which are in float32
``PRODUCTS``  control of ``HALF``: A, B and moments in float32, and only their products in bfloat16
``3 bits``, ``2 bits``  plain layers, rounded to 8 or 4 evenly spaced values per block of 64: fewer bits
              than NF4, and another code

Measured, in nats per token: ``validation`` and ``test``, the loss on the answers to held-out questions;
``documents``, that on documents like those of pretraining, and ``before``, the same before training.
For ``16 bits`` also ``moved``: the test loss of the same adapter on each other base, where it was never
trained. The questions are the same for all seeds. The learning rate is chosen on the validation questions;
two arms have a low one, too, and the two controls no other. ``16 bits`` and ``4 bits`` have twice the seeds of the
other arms. This takes about half an hour on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sftlab._internal.paths import MODELS
from sftlab.classroom.peft_compat import peft
from sftlab.exercises.ex18_lora_with_peft.experiment import adapted
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import fact_questions
from sftlab.exercises.trade_off import base_documents, batches, examples
from sftlab.masking import Example
from sftlab.memory.shapes import linear_layers
from sftlab.models import cast, load
from sftlab.quant import BLOCK_SIZE, dequantize_block, quantize_block
from sftlab.quantized_layers import keep_weights_in_place
from sftlab.train import train_step

RECORD = "qlora"  # data/results/qlora.json

FULL, FOUR = "16 bits", "4 bits"
HALF = "4 bits; A, B, their products, gradients and moments in bfloat16"
MOMENTS = "4 bits; A, B, their products and gradients in bfloat16"
PRODUCTS = "4 bits; products of A and B in bfloat16"
THREE, TWO = "3 bits", "2 bits"
RATES = (8e-4, 1.6e-3, 2.3e-3, 3.2e-3, 6.4e-3)
LOW = 1e-4  # far below the best: steps that 16 bits may be too coarse for
R, ALPHA, SEEDS, QUESTIONS = 8, 16, 5, 60
MORE = 2 * SEEDS  # seeds of the two arms that are compared most closely


def four_bit_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings of QLoRA, with products in this dtype."""
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
    HALF: by_the_library,
    MOMENTS: by_the_library,
    PRODUCTS: by_the_library,
    THREE: partial(rounded, 3),
    TWO: partial(rounded, 2),
}


def with_adapters(model: nn.Module, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Add LoRA to every linear layer but the output head; A and B are stored in this dtype."""
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    wrapped = adapted(model, config, seed)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return wrapped


def multiply_in_bfloat16(model: nn.Module) -> None:
    """Compute the products of A and B in bfloat16; their weights and gradients stay in float32."""

    def forward(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.bfloat16(), layer.weight.bfloat16())

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and "lora_" in name:
            layer.forward = partial(forward, layer)


def adamw(
    parameters: Sequence[torch.Tensor], learning_rate: float, moments_in_float32: bool = False
) -> torch.optim.Optimizer:
    """Return AdamW without weight decay, with moments in the dtype of the parameters or in float32.

    With moments in float32 a step is computed in float32; the new weights are rounded to their dtype.
    """
    if not moments_in_float32:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    copies = [parameter.detach().float() for parameter in parameters]
    optimizer = torch.optim.AdamW(copies, lr=learning_rate, weight_decay=0.0)

    def before_step(*_: object) -> None:
        for stored, copied in zip(parameters, copies, strict=True):
            copied.grad, stored.grad = stored.grad.float(), None

    def after_step(*_: object) -> None:
        for stored, copied in zip(parameters, copies, strict=True):
            stored.data.copy_(copied)
            copied.copy_(stored.data)  # nothing finer than its dtype is kept

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
    return optimizer


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


def trained_on(base: str, learning_rate: float, seed: int) -> nn.Module:
    """Return a base after training LoRA on it at one learning rate."""
    _, tokenizer = load("almanac")
    dtype = torch.bfloat16 if base in (HALF, MOMENTS) else torch.float32
    model = with_adapters(BASES[base](), seed, dtype).train()
    if base == PRODUCTS:
        multiply_in_bfloat16(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = adamw(trained, learning_rate, moments_in_float32=base == MOMENTS)
    for batch in batches(tokenizer, seed):
        train_step(model, batch, optimizer, max_grad_norm=None)
    return model


def run(base: str, learning_rate: float, seed: int) -> dict:
    """Train LoRA on a base at one learning rate; return the measurements of the module docstring."""
    _, tokenizer = load("almanac")
    model = trained_on(base, learning_rate, seed)
    found = {**losses(model, tokenizer), "before": before(base)}
    if base == FULL:
        found["moved"] = {name: moved(model, name, tokenizer) for name in (FOUR, THREE, TWO)}
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    rates = {FOUR: (LOW, *RATES), HALF: (LOW, *RATES), MOMENTS: (LOW,), PRODUCTS: (LOW,)}
    first = [(base, rate) for base in BASES for rate in rates.get(base, RATES)]
    later = [(base, rate) for base in (FULL, FOUR) for rate in RATES]
    return [
        {"base": base, "learning_rate": rate, "seed": seed}
        for seed in range(MORE)
        for base, rate in (first if seed < SEEDS else later)
    ]
