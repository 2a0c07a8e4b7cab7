"""What merging an adapter keeps and what it loses: rounding, strength, and what it saves in time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sftlab.lora import LoRALinear, effective_update, lora_layers, merge


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖, over all numbers: 0 is equal, 1 as wrong as nothing at all."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def rounding_loss(layers: Sequence[LoRALinear], dtype: torch.dtype) -> tuple[float, float]:
    """What is lost if the layers' weights are stored in `dtype` and merged there.

    Returns the share of weights that the merge leaves exactly as they were, and the relative error
    of the update that arrives: ‖realised − intended‖ / ‖intended‖, both over all layers together.
    """
    same = count = 0
    realised, intended = [], []
    with torch.no_grad():
        for layer in layers:
            W = layer.base.weight.to(dtype)
            merged = merge(W, layer.A, layer.B, layer.alpha, layer.r)
            same += int((merged == W).sum())
            count += W.numel()
            realised.append((merged.float() - W.float()).flatten())
            intended.append(effective_update(layer.A, layer.B, layer.alpha, layer.r).flatten())
    return same / count, relative_error(torch.cat(realised), torch.cat(intended))


@contextmanager
def merged_at(model: nn.Module, strength: float):
    """Inside the ``with`` block the model is merged with α·strength: W + strength·(α/r)·B·A.

    Strength 0 is the base, 1 what was trained. Afterwards the weights are what they were, exactly.
    """
    layers = lora_layers(model).values()
    before = [layer.base.weight.detach().clone() for layer in layers]
    try:
        with torch.no_grad():
            for layer, W in zip(layers, before, strict=True):
                alpha = strength * layer.alpha
                layer.base.weight.copy_(merge(W, layer.A, layer.B, alpha, layer.r))
                layer.merged = True
        yield model
    finally:
        with torch.no_grad():
            for layer, W in zip(layers, before, strict=True):
                layer.base.weight.copy_(W)
                layer.merged = False


@torch.inference_mode()
def tokens_per_second(
    models: Mapping[str, nn.Module], ids: Tensor, rounds: int = 15
) -> dict[str, float]:
    """Tokens that each model reads in a second, by name; the best of `rounds` interleaved rounds.

    In every round each model takes its turn, so that whatever else the machine does meets all of
    them. Figures of two calls should not be compared, ratios within one may be.
    """
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model(ids)
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: ids.numel() / seconds for name, seconds in best.items()}
