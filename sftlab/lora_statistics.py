"""How large an adapter's gradients and its update are: what tells a stuck adapter from a young one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sftlab.lora import effective_update, lora_layers


def gradient_norms(model: nn.Module) -> dict[str, tuple[float, float]]:
    """(norm of A's gradient, norm of B's) of each LoRA layer by name; 0 where there is none."""

    def norm(parameter: nn.Parameter) -> float:
        return 0.0 if parameter.grad is None else parameter.grad.norm().item()

    return {name: (norm(layer.A), norm(layer.B)) for name, layer in lora_layers(model).items()}


def which_is_stuck(grad_norms: Mapping[str, tuple[float, float]]) -> list[str]:
    """The LoRA layers that can never move, in the order given.

    `grad_norms` holds (norm of A's gradient, norm of B's) for each layer, as `gradient_norms` finds
    them after a backward pass. The gradient of B is (α/r)·G·(xAᵀ), that of A is (α/r)·Bᵀ·G·x:
    each passes through the other matrix. One zero alone is how every LoRA starts: the matrix that
    does get a gradient moves, and frees the other. Stuck is a layer whose gradients are *both*
    exactly zero.
    """
    return [name for name, (of_A, of_B) in grad_norms.items() if of_A == 0 and of_B == 0]


@torch.no_grad()
def updates(model: nn.Module) -> dict[str, torch.Tensor]:
    """ΔW of each LoRA layer by name, (d_out, d_in), as the layer's own scaling rule has it."""
    return {
        name: effective_update(layer.A, layer.B, layer.scale, 1)
        for name, layer in lora_layers(model).items()
    }


def relative_update(model: nn.Module) -> float:
    """‖ΔW‖ / ‖W‖, Frobenius norms over all LoRA layers of the model taken together."""
    layers = lora_layers(model)
    change = sum(delta.square().sum().item() for delta in updates(model).values())
    base = sum(layer.base.weight.detach().square().sum().item() for layer in layers.values())
    return (change / base) ** 0.5
