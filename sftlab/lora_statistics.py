"""Norms of an adapter's gradients and update, which show whether it trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sftlab.lora import effective_update, lora_layers


def gradient_norms(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Return (norm of A's gradient, norm of B's gradient) of each LoRA layer; 0 for no gradient."""

    def norm(parameter: nn.Parameter) -> float:
        return 0.0 if parameter.grad is None else parameter.grad.norm().item()

    return {name: (norm(layer.A), norm(layer.B)) for name, layer in lora_layers(model).items()}


def which_is_stuck(grad_norms: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the LoRA layers that can never change, in the given order.

    The gradient of B is (α/r)·G·(xAᵀ) and that of A is (α/r)·Bᵀ·G·x, so each contains the other
    matrix. One zero gradient is normal at the start of LoRA: the matrix with a gradient changes,
    and then the other one gets a gradient too. A layer is stuck if *both* gradients are exactly
    zero.

    Args:
        grad_norms: layer name -> (norm of A's gradient, norm of B's gradient), as
            ``gradient_norms`` returns them after a backward pass.
    """
    return [name for name, (of_A, of_B) in grad_norms.items() if of_A == 0 and of_B == 0]


@torch.no_grad()
def updates(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return ΔW (d_out, d_in) of each LoRA layer by name, scaled by the layer's own rule."""
    return {
        name: effective_update(layer.A, layer.B, layer.scale, 1)
        for name, layer in lora_layers(model).items()
    }


def relative_update(model: nn.Module) -> float:
    """Return ‖ΔW‖ / ‖W‖, Frobenius norms over all LoRA layers of the model together."""
    layers = lora_layers(model)
    change = sum(delta.square().sum().item() for delta in updates(model).values())
    base = sum(layer.base.weight.detach().square().sum().item() for layer in layers.values())
    return (change / base) ** 0.5
