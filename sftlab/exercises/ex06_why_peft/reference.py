"""The functions that students write in notebook 06: bytes of a training, and a value at a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def training_bytes(model: nn.Module) -> dict[str, int]:
    """Return the bytes of weights, gradients and AdamW's state in training, and of the file to store.

    They follow from the parameters and their dtypes, before any step is taken. Activations are not
    among them.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.nbytes for p in trained)
    return {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": size,
        "optimizer": 2 * size + 4 * len(trained),
        "file": size,
    }


def value_at(held_out: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """Return what a measurement was when the held-out loss first fell to a target; None if it never did.

    The value is interpolated between two checkpoints, over the logarithm of the loss.
    """
    for (before, old), (now, new) in pairwise(zip(held_out, values, strict=True)):
        if now <= target:
            part = math.log(before / target) / math.log(before / now)
            return old + part * (new - old)
    return None
