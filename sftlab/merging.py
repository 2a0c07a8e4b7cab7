"""What merging an adapter costs and saves: rounding errors, scaled merges, inference speed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sftlab.lora import LoRALinear, effective_update, lora_layers, merge


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


@contextmanager
def merged_at(model: nn.Module, strength: float):
    """Context manager in which the model is merged with α·strength: W + strength·(α/r)·B·A.

    Strength 0 is the base model, 1 the trained model. Afterwards the weights are exactly restored.
    """
    layers = lora_layers(model).values()
    before = [layer.weight.detach().clone() for layer in layers]
    try:
        with torch.no_grad():
            for layer, W in zip(layers, before, strict=True):
                alpha = strength * _alpha(layer)
                layer.weight.copy_(merge(W, layer.A, layer.B, alpha, layer.r))
                layer.merged = True
        yield model
    finally:
        with torch.no_grad():
            for layer, W in zip(layers, before, strict=True):
                layer.weight.copy_(W)
                layer.merged = False


@torch.inference_mode()
def tokens_per_second(
    models: Mapping[str, nn.Module], ids: Tensor, rounds: int = 15
) -> dict[str, float]:
    """Return how many tokens/s each model reads, by name: the best of `rounds` + 1 rounds.

    In every round each model runs once, so that other load on the machine affects all of them.
    Compare the ratios within one call, not numbers from different calls.
    """
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model(ids)
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: ids.numel() / seconds for name, seconds in best.items()}
