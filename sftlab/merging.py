"""What merging an adapter costs: the rounding of weights and of the update."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sftlab.lora import LoRALinear, effective_update, merge


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return ‖found − wanted‖ / ‖wanted‖ over all numbers: 0 if equal, 1 if ``found`` is zero."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def rounding_loss(layers: Sequence[LoRALinear], dtype: torch.dtype) -> tuple[float, float]:
    """Measure what is lost if the layers' weights are stored and merged in `dtype`.

    Returns:
        The share of weights that the merge leaves unchanged, and the relative error of the stored
        update, ‖realized − intended‖ / ‖intended‖ (NaN if there is no update). Both are over all
        layers together.
    """
    same = count = 0
    error = size = 0.0  # squared norms, summed layer by layer
    with torch.no_grad():
        for layer in layers:
            W = layer.weight.to(dtype)
            merged = merge(W, layer.A, layer.B, _alpha(layer), layer.r)
            same += int((merged == W).sum())
            count += W.numel()
            intended = effective_update(layer.A, layer.B, _alpha(layer), layer.r).double()
            realised = (merged.float() - W.float()).double()
            error += (realised - intended).square().sum().item()
            size += intended.square().sum().item()
    return same / count, math.sqrt(error / size) if size else math.nan


def _alpha(layer: LoRALinear) -> float:
    """Return the α that, divided by r, gives the factor of the layer under any scaling rule."""
    return layer.scale * layer.r
