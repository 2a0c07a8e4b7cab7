"""One step of Adam at eight ranks: ΔW and what it does to the output, under three scaling rules.

B starts at zero and Adam divides its gradient by its own size, so one step gives the same A and B
whatever the factor is. Each rule's factor is put in front of them afterwards. Four changes of the
weights are measured:

``whole``    ΔW as it is
``along``    its part along the gradient of the loss with respect to W, layer by layer
``rest``     ΔW without that part
``turned``   a control: ΔW with the sign of each column of B drawn at random. All r terms of the sum
             keep their size; they no longer point the same way.

This takes about three minutes on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sftlab.exercises.ex09_lora_alpha_over_r.experiment import (
    RULES,
    alpha_of,
    asked,
    batches,
    output_change,
    size_of,
    with_lora,
)
from sftlab.exercises.ex09_lora_alpha_over_r.split import split_update
from sftlab.lora import effective_update, lora_layers, lora_parameters, lora_scale
from sftlab.loss import model_loss
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_first_step"  # data/results/lora_first_step.json

EVERY_RANK = (1, 2, 4, 8, 16, 32, 64, 128)
RATE, SEEDS = 1e-4, 8
PARTS = ("whole", "along", "rest", "turned")


def gradients(base, batch: dict) -> dict[str, Tensor]:
    """Return the gradient of the loss with respect to each weight: name of the layer -> (d_out, d_in)."""
    base.zero_grad()
    loss, count = model_loss(base, batch)
    (loss / count).backward()
    found = {
        name.removesuffix(".weight"): parameter.grad
        for name, parameter in base.named_parameters()
        if parameter.grad is not None
    }
    base.zero_grad()
    return found


def signs(r: int, seed: int) -> Tensor:
    """Return r random signs, +1 or −1."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, (r,), generator=generator) - 1


def run(r: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Take one step; return rule -> part -> [‖ΔW‖ / ‖W‖, change of the logits]."""
    base, tokenizer = load("almanac")
    batch = next(batches(tokenizer, seed))
    gradient, model = gradients(base, batch), with_lora(r, seed)
    optimizer = torch.optim.AdamW(lora_parameters(model), lr=RATE, weight_decay=0.0)
    train_step(model, batch, optimizer, max_grad_norm=None)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, layer in lora_layers(model).items():
        A, B = layer.A.detach(), layer.B.detach()
        whole = effective_update(A, B, 1.0, 1)
        along, rest = split_update(whole, gradient[name])
        turned = effective_update(A, B * signs(r, seed), 1.0, 1)
        for part, change in zip(PARTS, (whole, along, rest, turned), strict=True):
            parts[part][name] = change
    found: dict[str, dict[str, list[float]]] = {}
    for rule in RULES:
        factor = lora_scale(alpha_of(rule), r, rule)
        found[rule] = {}
        for part, changes in parts.items():
            scaled = {name: factor * change for name, change in changes.items()}
            sizes = size_of(scaled, base), output_change(scaled, base, asked(tokenizer))
            found[rule][part] = list(sizes)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [{"r": r, "seed": seed} for seed in range(SEEDS) for r in EVERY_RANK]
