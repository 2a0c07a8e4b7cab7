"""Right and wrong LoRA layers: what a test of such layers is tested on.

Each is made like ``LoRALinear``: ``layer_class(base, r, alpha)``. The wrong ones are ``Right`` with one
or two parts exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sftlab.lora import LoRALinear


class Right(nn.Module):
    """A right layer, whose parts the wrong ones exchange."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.base, self.r, self.alpha = self.kept(base), r, alpha
        self.freeze()
        self.A = nn.Parameter(self.first_A(r, base.in_features))
        self.B = nn.Parameter(self.first_B(base.out_features, r))

    def kept(self, base):
        return base

    def freeze(self):
        self.base.requires_grad_(False)

    def first_A(self, r, d_in):
        return torch.randn(r, d_in) / math.sqrt(d_in)

    def first_B(self, d_out, r):
        return torch.zeros(d_out, r)

    def factor(self, alpha, r):
        return alpha / r

    def correction(self, x):
        return self.factor(self.alpha, self.r) * (x @ self.A.T @ self.B.T)

    def forward(self, x):
        return self.base(x) + self.correction(x)


class OneProduct(Right):
    """Adds B·A to the weight in each call, so the sum is rounded in another order."""

    def forward(self, x):
        change = self.factor(self.alpha, self.r) * (self.B @ self.A)
        return F.linear(x, self.base.weight + change, self.base.bias)


class WithDropout(Right):
    """Drops half of the adapter's input, in training only."""

    def correction(self, x):
        return super().correction(F.dropout(x, 0.5, self.training))


class SmallStart(Right):
    """A starts from a narrow uniform distribution."""

    def first_A(self, r, d_in):
        return torch.empty(r, d_in).uniform_(-0.01, 0.01)


RIGHT = {
    "the formula": Right,
    "B·A added to the weight in each call": OneProduct,
    "dropout in training": WithDropout,
    "small numbers in A": SmallStart,
}

# What stands in place of alpha / r.
FACTORS: dict[str, Callable[[float, int], float]] = {
    "1": lambda alpha, r: 1.0,
    "α": lambda alpha, r: alpha,
    "r/α": lambda alpha, r: r / alpha,
    "(α/r)²": lambda alpha, r: (alpha / r) ** 2,
    "α/√r": lambda alpha, r: alpha / r**0.5,
    "√(α/r)": lambda alpha, r: (alpha / r) ** 0.5,
    "α//r": lambda alpha, r: alpha // r,
    "α·r": lambda alpha, r: alpha * r,
}


def _of(layer, A, B):
    """The correction of a layer's input by these two matrices, as a function."""
    return lambda x: layer.factor(layer.alpha, layer.r) * (x @ A.T @ B.T)


def _zeros(self, *shape):
    return torch.zeros(*shape)


def _random(self, *shape):
    return torch.randn(*shape)


def _into_the_base(self, x):
    with torch.no_grad():
        self.base.weight += self.factor(self.alpha, self.r) * (self.B @ self.A)
    return self.base(x)


def _kept_product(self, x):
    if self.product is None or (self.again_in_training and self.training):
        self.product = self.B @ self.A
    return self.base(x) + self.factor(self.alpha, self.r) * (x @ self.product.T)


def _bias_twice(self, x):
    return self.base(x) + self.correction(x) + (0 if self.base.bias is None else self.base.bias)


# The parts of other wrong classes, by place and name. Their factor is right.
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "start": {
        "B is random": {"first_B": _random},
        "A is zero, B random": {"first_A": _zeros, "first_B": _random},
        "A and B are zero": {"first_A": _zeros},
    },
    "trained": {
        "base is trained": {"freeze": lambda self: None},
        "bias is trained": {"freeze": lambda self: self.base.weight.requires_grad_(False)},
    },
    "gradient": {
        "no gradient for A": {"correction": lambda self, x: _of(self, self.A.detach(), self.B)(x)},
        "no gradient for B": {"correction": lambda self, x: _of(self, self.A, self.B.detach())(x)},
        "part of x's gradient": {"forward": lambda self, x: self.base(x) + self.correction(x.detach())},
    },
    "between calls": {
        "B·A kept from a call": {"forward": _kept_product, "product": None, "again_in_training": False},
        "weight grows in a call": {"forward": _into_the_base},
    },
    "bias": {
        "bias left out": {"forward": lambda self, x: F.linear(x, self.base.weight) + self.correction(x)},
        "bias added twice": {"forward": _bias_twice},
    },
    "dropout": {
        "dropout in eval mode": {"correction": lambda self, x: Right.correction(self, F.dropout(x, 0.5))},
    },
    "shape": {
        "d_in and d_out exchanged": {
            "first_A": lambda self, r, d_in: torch.randn(r, self.base.out_features),
            "first_B": lambda self, d_out, r: torch.zeros(self.base.in_features, r),
        },
    },
    "function": {
        "ReLU after A": {
            "correction": lambda self, x: self.factor(self.alpha, self.r) * (torch.relu(x @ self.A.T) @ self.B.T)
        },
    },
}  # fmt: skip


# Known to the check of the student's test; a test can be tried on the others as on unseen ones.
USED = (
    *RIGHT, "1", "α", "r/α", "(α/r)²", "B is random", "A and B are zero", "base is trained", "no gradient for A",
    "part of x's gradient", "B·A kept from a call", "bias left out", "bias added twice", "dropout in eval mode",
    "d_in and d_out exchanged",
)  # fmt: skip


# One right class and four wrong ones, for a reader who does not know which is which.
UNNAMED = {
    "A": "part of x's gradient",
    "B": "α",
    "C": "the formula",
    "D": "no gradient for A",
    "E": "B is random",
}


def with_factor(factor: Callable[[float, int], float]) -> dict[str, Any]:
    """Return the parts of a class with another factor."""
    return {"factor": lambda self, alpha, r: factor(alpha, r)}


def changed(name: str, **parts: Any) -> type[Right]:
    """Return a class of ``Right`` with some parts exchanged."""
    return type(name, (Right,), parts)


def zoo() -> dict[str, dict[str, type[Right]]]:
    """Return kind -> name -> class: the ``right`` ones, the wrong ones by ``factor`` and the ``others``."""
    return {
        "right": dict(RIGHT),
        "factor": {name: changed(name, **with_factor(factor)) for name, factor in FACTORS.items()},
        "others": {
            name: changed(name, **parts)
            for of_place in OTHERS.values()
            for name, parts in of_place.items()
        },
    }


def named(layer_class: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return a class whose layers have their matrices as ``A`` and ``B``, whatever it calls them.

    They are found by their shapes among the trained parameters. For a class that stores transposes,
    or something else, the workbook's stands in, and a note is printed.
    """

    def make(base: nn.Linear, r: int, alpha: float) -> nn.Module:
        layer = layer_class(base, r, alpha)
        trained = {tuple(p.shape): p for p in layer.parameters() if p.requires_grad}
        for name, shape in (("A", (r, base.in_features)), ("B", (base.out_features, r))):
            if not hasattr(layer, name) and shape in trained:
                setattr(layer, name, trained[shape])
        return layer

    layer = make(nn.Linear(7, 5), 3, 7.0)
    shapes = [tuple(getattr(getattr(layer, name, None), "shape", ())) for name in "AB"]
    if shapes == [(3, 7), (5, 3)]:
        return make
    print("Your class has no A (r, d_in) and B (d_out, r): where they are read, the workbook's class stands in.")  # fmt: skip
    return LoRALinear
