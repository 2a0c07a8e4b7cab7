"""LoRA from four initializations: does training start at the base model, and does LoRA learn?

A and B are random or zero (``init_lora_``), everything else is the same: 32 pairs, r = 8, α = 16,
every linear layer, 20 steps of AdamW at a constant learning rate. Gradients are not clipped, so the
gradient norms are those of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import collate, conversation, read_jsonl, tokenize_conversations
from sftlab.lora import init_lora_, inject_lora, lora_layers, lora_parameters
from sftlab.lora_statistics import gradient_norms
from sftlab.loss import model_loss
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import TrainConfig, planned_batches, train_loop

RECORD = "lora_init"  # data/results/lora_init.json

INITS = ("A random", "B random", "both zero", "both random")
R, ALPHA, BATCH, STEPS, SEEDS = 8, 16, 16, 20, 5
RATE = 2e-3
RATES = (5e-4, RATE, 8e-3, 3.2e-2)  # for the initializations with one zero matrix, three seeds


def rows_of(tokenizer, name: str, count: int | None = None) -> list[Example]:
    """Return the first ``count`` pairs of a file (default all), tokenized and masked."""
    pairs = read_jsonl(INSTRUCTIONS / f"{name}.jsonl")[:count]
    return tokenize_conversations(tokenizer, [conversation(pair) for pair in pairs]).examples


def batches(rows: Sequence[Example], steps: int, seed: int, pad_id: int) -> Iterator[dict]:
    """Yield batches of 16 examples for ``steps`` steps, in an order that depends on the seed."""
    passes = math.ceil(steps * BATCH / len(rows))
    config = TrainConfig(num_train_epochs=passes, batch_size=BATCH, max_steps=steps, seed=seed)
    for chosen in planned_batches(rows, config):
        yield collate([rows[i] for i in chosen], pad_id)


@torch.no_grad()
def mean_nll(model, rows: Sequence[Example], pad_id: int) -> float:
    """Return the NLL of the examples' responses, in nats per trained token."""
    loss, count = model_loss(model, collate(rows, pad_id))
    return (loss / count).item()


@torch.no_grad()
def logits_of(model, rows: Sequence[Example], pad_id: int) -> torch.Tensor:
    """Return the logits at every token of the examples, without padding: (tokens, vocabulary)."""
    batch = collate(rows, pad_id)
    mask = batch["attention_mask"]
    return model(batch["input_ids"], attention_mask=mask).logits[mask.bool()]


def start_from(model, how: str, seed: int) -> None:
    """Add LoRA to the model with one of the four initializations."""
    inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            init_lora_(layer.A, layer.B, how, generator)


def run(how: str, seed: int, rate: float = RATE, steps: int = STEPS, name: str = "almanac") -> dict:
    """Train from one initialization.

    Returns:
        For each step: ``loss`` before the step, ``norm_A`` and ``norm_B``, the norms of the two
        gradients over all layers. Also ``difference``, the largest change of a logit before the
        first step; ``nll_base``, ``nll_start``, ``nll_end``, the loss on 64 held-out pairs.
    """
    model, tokenizer = load(name)
    pad_id = tokenizer.pad_token_id
    rows, held_out = rows_of(tokenizer, "handful"), rows_of(tokenizer, "heldout", 64)
    before, nll_base = logits_of(model, held_out, pad_id), mean_nll(model, held_out, pad_id)
    start_from(model, how, seed)
    found: dict = {"loss": [], "norm_A": [], "norm_B": []}
    found["difference"] = (logits_of(model, held_out, pad_id) - before).abs().max().item()
    found["nll_base"], found["nll_start"] = nll_base, mean_nll(model, held_out, pad_id)

    def record(_: int, loss: float) -> None:
        norms = list(gradient_norms(model).values())
        found["loss"].append(loss)
        found["norm_A"].append(math.hypot(*(of_A for of_A, _ in norms)))
        found["norm_B"].append(math.hypot(*(of_B for _, of_B in norms)))

    optimizer = torch.optim.AdamW(lora_parameters(model), lr=rate, weight_decay=0.0)
    plan = batches(rows, steps, seed, pad_id)
    train_loop(model, plan, optimizer, [rate] * steps, record, max_grad_norm=math.inf)
    return {**found, "nll_end": mean_nll(model, held_out, pad_id)}


def settings() -> list[dict]:
    """Return four initializations with five seeds, then two of them at other learning rates."""
    main = [{"how": how, "seed": seed, "rate": RATE} for seed in range(SEEDS) for how in INITS]
    others = [rate for rate in RATES if rate != RATE]
    return main + [
        {"how": how, "seed": seed, "rate": rate}
        for seed in range(3)
        for rate in others
        for how in INITS[:2]
    ]
