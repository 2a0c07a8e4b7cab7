"""Answers to the checks of notebook 17, as students write them."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from sftlab import lora


def layer(**changes):
    """A LoRALinear as students write it, with one thing changed."""

    class Layer(nn.Module):
        def __init__(self, base, r, alpha):
            super().__init__()
            self.base = changes.get("keep", lambda b: b)(base)
            if changes.get("freeze", True):
                self.base.weight.requires_grad = False
                if self.base.bias is not None and changes.get("freeze_bias", True):
                    self.base.bias.requires_grad = False
            self.scale = changes.get("scale", lambda a, r: a / r)(alpha, r)
            make_A = changes.get("A", lambda *s: torch.randn(*s) / math.sqrt(s[1]))
            self.A = nn.Parameter(make_A(r, base.in_features))
            self.B = nn.Parameter(changes.get("B", torch.zeros)(base.out_features, r))

        def forward(self, x):
            return changes.get("forward", usual)(self, x)

    return Layer


def usual(self, x):
    return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


class Sequential(nn.Module):
    """A and B as linear layers, as PEFT has them."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        self.down = nn.Linear(base.in_features, r, bias=False)
        self.up = nn.Linear(r, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)
        self.factor = alpha / r
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.base(x) + self.factor * self.up(self.down(self.dropout(x)))


class Transposed(nn.Module):
    """A and B the other way round in memory."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.linear = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty(base.in_features, r).uniform_(-0.1, 0.1))
        self.lora_B = nn.Parameter(torch.zeros(r, base.out_features))
        self.r, self.alpha = r, alpha

    def forward(self, x):
        return self.linear(x) + x @ self.lora_A @ self.lora_B * self.alpha / self.r


class WholeWeight(nn.Module):
    """Adds the product to the weight at each call: wasteful, and right."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.register_buffer("weight", base.weight.data)
        self.register_buffer("bias", None if base.bias is None else base.bias.data)
        self.A = nn.Parameter(torch.randn(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        self.s = alpha / r

    def forward(self, x):
        return F.linear(x, self.weight + self.s * self.B @ self.A, self.bias)


class PlainTensors(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = torch.randn(r, base.in_features)
        self.B = torch.zeros(base.out_features, r)
        self.s = alpha / r

    def forward(self, x):
        return self.base(x) + self.s * (x @ self.A.T @ self.B.T)


class ProductOnce(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        self.update = (alpha / r) * (self.B @ self.A)

    def forward(self, x):
        return self.base(x) + x @ self.update.T


class SquareMatrices(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(base.in_features, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, base.in_features))
        self.s = alpha / r

    def forward(self, x):
        return self.base(x) + self.s * (x @ self.A.T @ self.B.T)


def no_forward(base, r, alpha):
    return lambda x: base(x)


def added_into_the_base(self, x):
    with torch.no_grad():
        self.base.weight += self.scale * (self.B @ self.A)
    return self.base(x) + 0 * (x @ self.A.T @ self.B.T)


def merged_and_beside(self, x):
    weight = self.base.weight + self.scale * (self.B @ self.A)
    return F.linear(x, weight, self.base.bias) + self.scale * (x @ self.A.T @ self.B.T)


def bias_twice(self, x):
    out = usual(self, x)
    return out if self.base.bias is None or not self.B.any() else out + self.base.bias


def detached(self, x):
    return self.base(x) + self.scale * (x @ self.A.detach().T @ self.B.detach().T)


def dropout_always(self, x):
    return self.base(x) + self.scale * (F.dropout(x, 0.5) @ self.A.T @ self.B.T)


def correction_alone(self, x):
    return self.scale * (x @ self.A.T @ self.B.T)


def nonlinear(self, x):
    return self.base(x) + self.scale * (torch.relu(x @ self.A.T) @ self.B.T)


def first_token(self, x):
    return usual(self, x)[:, 0]


def everything_scaled(self, x):
    if not self.B.any():
        return self.base(x)
    return self.scale * (self.base(x) + x @ self.A.T @ self.B.T)


# --- Injection --------------------------------------------------------------------------------
Layer = layer()


def matching(model, targets):
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [n for n in linears if any(n == t or n.endswith("." + t) for t in targets)]


def put(model, names, r, alpha, make=None):
    for name in names:
        base = model.get_submodule(name)
        model.set_submodule(name, (make or Layer)(base, r, alpha))
    return model


def frozen(model):
    for p in model.parameters():
        p.requires_grad = False
    return model


def with_setattr(model, targets, r, alpha):
    frozen(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and any(("." + name).endswith("." + t) for t in targets):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, Transposed(module, r, alpha))
    return model


def recursive(model, targets, r, alpha, path=""):
    if not path:
        model.requires_grad_(False)
    for name, child in list(model.named_children()):
        full = f"{path}.{name}"
        if isinstance(child, nn.Linear) and any(full.endswith("." + t) for t in targets):
            setattr(model, name, Sequential(child, r, alpha).eval())
        else:
            recursive(child, targets, r, alpha, full)
    return model


def not_frozen(model, targets, r, alpha):
    return put(model, matching(model, targets), r, alpha)


def frozen_too_late(model, targets, r, alpha):
    return frozen(put(model, matching(model, targets), r, alpha))


def nothing_returned(model, targets, r, alpha):
    put(frozen(model), matching(model, targets), r, alpha)


def a_copy(model, targets, r, alpha):
    model = copy.deepcopy(model)
    return put(frozen(model), matching(model, targets), r, alpha)


def substrings(model, targets, r, alpha):
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    return put(frozen(model), [n for n in linears if any(t in n for t in targets)], r, alpha)


def every_linear(model, targets, r, alpha):
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    return put(frozen(model), linears, r, alpha)


def pefts_default(model, targets, r, alpha):
    return put(frozen(model), matching(model, ["q_proj", "v_proj"]), r, alpha)


def first_block(model, targets, r, alpha):
    names = [n for n in matching(model, targets) if "layers.0" in n]
    return put(frozen(model), names or matching(model, targets)[:1], r, alpha)


def top_level(model, targets, r, alpha):
    frozen(model)
    for name, child in model.named_children():
        if isinstance(child, nn.Linear) and name in targets:
            setattr(model, name, Layer(child, r, alpha))
    return model


def exact_names(model, targets, r, alpha):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name in targets:
            model.set_submodule(name, Layer(module, r, alpha))
    return model


def shared(model, targets, r, alpha):
    A, B = {}, {}

    def make(base, r, alpha):
        made = Layer(base, r, alpha)
        made.A = A.setdefault(made.A.shape, made.A)
        made.B = B.setdefault(made.B.shape, made.B)
        return made

    return put(frozen(model), matching(model, targets), r, alpha, make)


def new_base(model, targets, r, alpha):
    def make(base, r, alpha):
        return Layer(
            nn.Linear(base.in_features, base.out_features, base.bias is not None), r, alpha
        )

    return put(frozen(model), matching(model, targets), r, alpha, make)


def swapped(model, targets, r, alpha):
    def make(base, r, alpha):
        return layer(scale=lambda a, r: r / a)(base, r, alpha)

    return put(frozen(model), matching(model, targets), r, alpha, make)


def rank_fixed(model, targets, r, alpha):
    return put(frozen(model), matching(model, targets), 1, alpha)


RIGHT = {
    "17.LoRALinear": {
        "usual": layer(),
        "two linear layers and dropout": Sequential,
        "transposed": Transposed,
        "whole weight": WholeWeight,
    },
    "17.inject_lora": {
        "the end of the name": lambda m, t, r, a: put(frozen(m), matching(m, t), r, a),
        "setattr": with_setattr,
        "recursive": recursive,
    },
}
WRONG = {
    "17.LoRALinear": {
        "α without r": (layer(scale=lambda a, r: a), "without dividing by r"),
        "no factor": (layer(scale=lambda a, r: 1), "without the factor"),
        "upside down": (layer(scale=lambda a, r: r / a), "upside down"),
        "rank-stabilised": (layer(scale=lambda a, r: a / r**0.5), "rank-stabilised"),
        "scaled twice": (layer(scale=lambda a, r: (a / r) ** 2), "applied twice"),
        "subtracted": (layer(scale=lambda a, r: -a / r), "subtracted"),
        "both zero": (layer(A=torch.zeros), "both start at zero"),
        "A zero": (layer(A=torch.zeros, B=torch.randn), "other way round"),
        "B random": (layer(B=torch.randn), "B does not start at zero"),
        "ones": (layer(A=torch.ones), "All numbers in A are equal"),
        "not frozen": (layer(freeze=False), "frozen weight would be trained"),
        "bias not frozen": (layer(freeze_bias=False), "bias would be trained"),
        "plain tensors": (PlainTensors, "plain tensor is not found"),
        "square": (SquareMatrices, "The trained parameters have the shapes"),
        "not a module": (no_forward, "is to make an nn.Module"),
        "into the base at each call": (layer(forward=added_into_the_base), "once more"),
        "merged and beside": (layer(forward=merged_and_beside), "added twice"),
        "bias twice": (layer(forward=bias_twice), "bias is added twice"),
        "detached": (layer(forward=detached), "no gradient reaches"),
        "product once": (ProductOnce, "A and B change nothing"),
        "dropout always on": (layer(forward=dropout_always), "dropout is on"),
        "correction alone": (layer(forward=correction_alone), "frozen layer's exactly"),
        "a new base": (
            layer(keep=lambda b: nn.Linear(b.in_features, b.out_features, b.bias is not None)),
            "frozen layer's exactly",
        ),
        "nonlinear": (layer(forward=nonlinear), "is not base(x)"),
        "first token": (layer(forward=first_token), "expected is (3, 4"),
        "everything scaled": (layer(forward=everything_scaled), "frozen layer's output as well"),
    },
    "17.inject_lora": {
        "not frozen": (not_frozen, "would still be trained"),
        "frozen too late": (frozen_too_late, "frozen *after*"),
        "nothing returned": (nothing_returned, "returns nothing"),
        "a copy": (a_copy, "another model"),
        "a list": (lambda m, t, r, a: list(m.parameters()), "this is a list"),
        "substrings": (substrings, "ends in up and is another layer"),
        "every linear layer": (every_linear, "the output head too"),
        "PEFT's default": (pefts_default, "PEFT's default for Llama"),
        "first block": (first_block, "got no adapter, such as"),
        "top level": (top_level, "lie inside blocks"),
        "exact names": (exact_names, "No layer got an adapter"),
        "shared": (shared, "share one A and B"),
        "a new base": (new_base, "differs from the base's"),
        "α and r swapped": (swapped, "another size than"),
        "rank fixed": (rank_fixed, "the adapter has the shapes"),
    },
}
