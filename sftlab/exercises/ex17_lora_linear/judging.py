"""A test of LoRA layers: what the student's test is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def is_lora_layer(layer_class: Callable[..., nn.Module]) -> bool:
    """Return whether a class makes right LoRA layers.

    Args:
        layer_class: called as ``layer_class(base, r, alpha)``; its layers have the matrices ``A``
            (r, d_in) and ``B`` (d_out, r).
    """
    try:
        return all(passes(layer_class, r, alpha) for r, alpha in ((3, 7.0), (4, 2.0)))
    except Exception:
        return False


def passes(layer_class: Callable[..., nn.Module], r: int, alpha: float) -> bool:
    """Return whether a layer starts, trains and computes as it should, at one rank and alpha."""
    base = nn.Linear(7, 5)
    W, bias = base.weight.detach().clone(), base.bias.detach().clone()
    layer = layer_class(base, r, alpha).eval()
    A, B = layer.A, layer.B
    trained = {id(p) for p in layer.parameters() if p.requires_grad}
    if trained != {id(A), id(B)} or not A.any() or B.any():
        return False
    for _ in range(2):  # in the second call A and B hold other numbers
        nn.init.normal_(A), nn.init.normal_(B)
        x = torch.randn(6, 7, requires_grad=True)
        outputs = layer(x), F.linear(x, W, bias) + alpha / r * (x @ A.T @ B.T)
        seen = [(y, *torch.autograd.grad(y.square().sum(), (A, B, x))) for y in outputs]
        if not all(torch.allclose(*pair, 1e-3, 1e-3) for pair in zip(*seen, strict=True)):
            return False
    return True
