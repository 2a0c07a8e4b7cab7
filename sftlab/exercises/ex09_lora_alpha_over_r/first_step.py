"""One step of Adam at eight ranks: ΔW and what it does to the output, under three scaling rules.

B starts at zero and Adam divides its gradient by its own size, so one step gives the same A and B
whatever the factor is. Each rule's factor is put in front of them afterwards. Changes of the weights:

``whole``    ΔW as it is
``along``    its part along the gradient of the loss with respect to W, row by row
``rest``     ΔW without that part
``turned``   a control: ΔW with the sign of each column of B drawn at random, the same in all layers. All
             r terms of the sum keep their size; they no longer point the same way. Mean of four draws.
``equal``    a check: a step from an A whose rows are all equal, so that no term differs from another
``sgd``      ΔW after one step of SGD. B's gradient holds the factor, so the factor counts twice

This takes about four minutes on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sftlab.exercises.ex09_lora_alpha_over_r.experiment import (
    RULES,
    alpha_of,
    asked,
    output_change,
    size_of,
    with_lora,
)
from sftlab.exercises.ex09_lora_alpha_over_r.split import split_update
from sftlab.exercises.trade_off import batches
from sftlab.lora import effective_update, lora_layers, lora_parameters, lora_scale
from sftlab.loss import model_loss
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_first_step"  # data/results/lora_first_step.json

EVERY_RANK = (1, 2, 4, 8, 16, 32, 64, 128)
RATE, SGD_RATE, SEEDS, DRAWS = 1e-4, 1e-3, 8, 4
PARTS = ("whole", "along", "rest", "turned", "equal", "sgd")  # rules other than α/r: first and last


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


def signs(r: int, generator: torch.Generator) -> Tensor:
    """Return r random signs, +1 or −1."""
    return 2.0 * torch.randint(0, 2, (r,), generator=generator) - 1


@torch.no_grad()
def equal_rows(model) -> None:
    """Give all rows of each A the values of its first row."""
    for layer in lora_layers(model).values():
        layer.A.copy_(layer.A[:1].clone().expand_as(layer.A))


def products(
    r: int, seed: int, batch: dict, kind=torch.optim.Adam, prepare=None
) -> dict[str, tuple]:
    """Take one step with the factor α/r; return name of the layer -> (A, B). prepare: changes A first."""
    model = with_lora(r, seed)
    if prepare:
        prepare(model)
    optimizer = kind(lora_parameters(model), lr=SGD_RATE if kind is torch.optim.SGD else RATE)
    train_step(model, batch, optimizer, max_grad_norm=None)
    return {name: (x.A.detach(), x.B.detach()) for name, x in lora_layers(model).items()}


def run(r: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Take one step; return rule -> part -> [‖ΔW‖ / ‖W‖, change of the logits]."""
    base, tokenizer = load("almanac")
    batch, questions = next(batches(tokenizer, seed)), asked(tokenizer)
    gradient, generator = gradients(base, batch), torch.Generator().manual_seed(1000 * seed + r)
    adam, equal, sgd = (
        products(r, seed, batch, kind, prepare)
        for kind, prepare in (
            (torch.optim.Adam, None),
            (torch.optim.Adam, equal_rows),
            (torch.optim.SGD, None),
        )
    )

    def sizes(changes: dict[str, Tensor], factor: float = 1.0) -> list[float]:
        scaled = {name: factor * change for name, change in changes.items()}
        return [size_of(scaled, base), output_change(scaled, base, questions)]

    def updates(adapters: dict[str, tuple], turned: Tensor | float = 1.0) -> dict[str, Tensor]:
        return {
            name: effective_update(A, B * turned, alpha_of("lora"), r)
            for name, (A, B) in adapters.items()
        }

    whole, by_sgd = updates(adam), updates(sgd)
    split = {name: split_update(change, gradient[name]) for name, change in whole.items()}
    drawn = [sizes(updates(adam, signs(r, generator))) for _ in range(DRAWS)]
    found: dict[str, dict[str, list[float]]] = {}
    for rule in RULES:
        factor = lora_scale(alpha_of(rule), r, rule) / lora_scale(alpha_of("lora"), r)
        found[rule] = {"whole": sizes(whole, factor), "sgd": sizes(by_sgd, factor**2)}
    found["lora"] |= {
        "along": sizes({name: both[0] for name, both in split.items()}),
        "rest": sizes({name: both[1] for name, both in split.items()}),
        "turned": [sum(values) / DRAWS for values in zip(*drawn, strict=True)],
        "equal": sizes(updates(equal)),
    }
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [{"r": r, "seed": seed} for seed in range(SEEDS) for r in EVERY_RANK]
