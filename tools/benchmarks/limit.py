"""What this machine could do: how fast it multiplies matrices of the model's own shapes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from sftlab._internal.random_state import own_random_state
from sftlab.loss import model_loss
from tools.benchmarks.contenders import DTYPES

ROUNDS = 5


def linear_shapes(model: torch.nn.Module) -> Counter[tuple[int, int]]:
    """(d_out, d_in) -> how many frozen or plain linear layers have it; adapters' own are left out."""
    linears = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    return Counter(tuple(m.weight.shape) for m in linears)


def product_rate(shapes: Counter[tuple[int, int]], tokens: int, precision: str) -> float:
    """Floating-point operations per second of x Wᵀ, over all layers of a model.

    Each shape is measured alone, the fastest of some rounds, and counts as often as the model has
    it: the rate that a forward pass would have if nothing else took time.
    """
    operations = seconds = 0.0
    for (d_out, d_in), times in shapes.items():
        with own_random_state():
            x = torch.randn(tokens, d_in, dtype=DTYPES[precision])
            weight = torch.randn(d_out, d_in, dtype=DTYPES[precision])
        torch.nn.functional.linear(x, weight)
        fastest = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            fastest = min(fastest, time.perf_counter() - began)
        operations += times * 2 * tokens * d_in * d_out
        seconds += times * fastest
    return operations / seconds


def operations_of_steps(model, batches: Sequence[dict[str, torch.Tensor]]) -> list[int]:
    """Floating-point operations of the products in one forward and backward pass of each batch."""
    found = []
    model_loss(model, batches[0])  # the first loss of a model makes a trial call
    for batch in batches:
        with FlopCounterMode(display=False) as counter:
            model_loss(model, batch)[0].backward()
        found.append(counter.get_total_flops())
        model.zero_grad()
    return found
