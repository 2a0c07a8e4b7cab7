"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from sftlab.classroom.answers import refused, right

LAYER, INJECT = "17.LoRALinear", "17.inject_lora"


@right(LAYER)
class Usual(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = self.keep(base)
        self.freeze()
        self.scale = self.factor(alpha, r)
        self.A = nn.Parameter(self.start_A(r, base.in_features))
        self.B = nn.Parameter(self.start_B(base.out_features, r))

    def keep(self, base):
        return base

    def freeze(self):
        self.base.weight.requires_grad = False
        if self.base.bias is not None:
            self.base.bias.requires_grad = False

    def factor(self, alpha, r):
        return alpha / r

    def start_A(self, r, d_in):
        return torch.randn(r, d_in) / math.sqrt(d_in)

    def start_B(self, d_out, r):
        return torch.zeros(d_out, r)

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


@right(LAYER)
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


@right(LAYER)
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


@right(LAYER)
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


@right(LAYER)
class Inherited(nn.Linear):
    """A linear layer itself, which takes over the base's weight."""

    def __init__(self, base, r, alpha):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.requires_grad_(False)
        self.adapter = nn.ParameterDict(
            {"A": torch.empty(r, base.in_features), "B": torch.zeros(base.out_features, r)}
        )
        nn.init.kaiming_uniform_(self.adapter["A"], a=math.sqrt(5))
        self.scaling = alpha / r

    def forward(self, x):
        down = torch.einsum("...i,ri->...r", x, self.adapter["A"])
        return super().forward(x) + self.scaling * F.linear(down, self.adapter["B"])


@refused(LAYER, "without dividing by r")
class AlphaAlone(Usual):
    def factor(self, alpha, r):
        return alpha


@refused(LAYER, "without the factor")
class NoFactor(Usual):
    def factor(self, alpha, r):
        return 1


@refused(LAYER, "upside down")
class UpsideDown(Usual):
    def factor(self, alpha, r):
        return r / alpha


@refused(LAYER, "rank-stabilised")
class RankStabilised(Usual):
    def factor(self, alpha, r):
        return alpha / r**0.5


@refused(LAYER, "applied twice")
class ScaledTwice(Usual):
    def factor(self, alpha, r):
        return (alpha / r) ** 2


@refused(LAYER, "subtracted")
class Subtracted(Usual):
    def factor(self, alpha, r):
        return -alpha / r


@refused(LAYER, "both start at zero")
class BothZero(Usual):
    def start_A(self, r, d_in):
        return torch.zeros(r, d_in)


@refused(LAYER, "other way round")
class BRandomAZero(BothZero):
    def start_B(self, d_out, r):
        return torch.randn(d_out, r)


@refused(LAYER, "B does not start at zero")
class BothRandom(Usual):
    def start_B(self, d_out, r):
        return torch.randn(d_out, r)


@refused(LAYER, "All numbers in A are equal")
class Ones(Usual):
    def start_A(self, r, d_in):
        return torch.ones(r, d_in)


@refused(LAYER, "frozen weight would be trained")
class NotFrozen(Usual):
    def freeze(self):
        pass


@refused(LAYER, "bias would be trained")
class BiasNotFrozen(Usual):
    def freeze(self):
        self.base.weight.requires_grad = False


@refused(LAYER, "plain tensor is not found")
class PlainTensors(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = torch.randn(r, base.in_features)
        self.B = torch.zeros(base.out_features, r)
        self.s = alpha / r

    def forward(self, x):
        return self.base(x) + self.s * (x @ self.A.T @ self.B.T)


@refused(LAYER, "The trained parameters have the shapes")
class SquareMatrices(Usual):
    def start_A(self, r, d_in):
        return torch.randn(d_in, d_in)

    def start_B(self, d_out, r):
        return torch.zeros(d_out, self.base.in_features)


@refused(LAYER, "is to make an nn.Module")
def not_a_module(base, r, alpha):
    return lambda x: base(x)


@refused(LAYER, "once more")
class IntoTheBaseAtEachCall(Usual):
    def forward(self, x):
        with torch.no_grad():
            self.base.weight += self.scale * (self.B @ self.A)
        return self.base(x) + 0 * (x @ self.A.T @ self.B.T)


@refused(LAYER, "added twice")
class MergedAndBeside(Usual):
    def forward(self, x):
        weight = self.base.weight + self.scale * (self.B @ self.A)
        return F.linear(x, weight, self.base.bias) + self.scale * (x @ self.A.T @ self.B.T)


@refused(LAYER, "bias is added twice")
class BiasTwice(Usual):
    def forward(self, x):
        out = super().forward(x)
        return out if self.base.bias is None or not self.B.any() else out + self.base.bias


@refused(LAYER, "no gradient reaches")
class Detached(Usual):
    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.detach().T @ self.B.detach().T)


@refused(LAYER, "A and B change nothing")
class ProductOnce(Usual):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        self.update = self.scale * (self.B @ self.A)

    def forward(self, x):
        return self.base(x) + x @ self.update.T


@refused(LAYER, "dropout is on")
class DropoutAlwaysOn(Usual):
    def forward(self, x):
        return self.base(x) + self.scale * (F.dropout(x, 0.5) @ self.A.T @ self.B.T)


@refused(LAYER, "frozen layer's exactly")
class CorrectionAlone(Usual):
    def forward(self, x):
        return self.scale * (x @ self.A.T @ self.B.T)


@refused(LAYER, "frozen layer's exactly")
class NewBase(Usual):
    def keep(self, base):
        return nn.Linear(base.in_features, base.out_features, base.bias is not None)


@refused(LAYER, "is not base(x)")
class Nonlinear(Usual):
    def forward(self, x):
        return self.base(x) + self.scale * (torch.relu(x @ self.A.T) @ self.B.T)


@refused(LAYER, "expected is (3, 4")
class FirstToken(Usual):
    def forward(self, x):
        return super().forward(x)[:, 0]


@refused(LAYER, "frozen layer's output as well")
class EverythingScaled(Usual):
    def forward(self, x):
        if not self.B.any():
            return self.base(x)
        return self.scale * (self.base(x) + x @ self.A.T @ self.B.T)


# --- Injection --------------------------------------------------------------------------------
def linears(model):
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]


def matching(model, target_modules):
    return [n for n in linears(model) if any(n == t or n.endswith("." + t) for t in target_modules)]


def put(model, names, r, lora_alpha, make=Usual):
    for name in names:
        model.set_submodule(name, make(model.get_submodule(name), r, lora_alpha))
    return model


def frozen(model):
    for p in model.parameters():
        p.requires_grad = False
    return model


@right(INJECT)
def by_the_end_of_the_name(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, target_modules), r, lora_alpha)


@right(INJECT)
def with_setattr(model, target_modules, r, lora_alpha):
    frozen(model)
    for name, module in list(model.named_modules()):
        asked = any(("." + name).endswith("." + t) for t in target_modules)
        if isinstance(module, nn.Linear) and asked:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, Transposed(module, r, lora_alpha))
    return model


@right(INJECT)
def recursive(model, target_modules, r, lora_alpha, path=""):
    if not path:
        model.requires_grad_(False)
    for name, child in list(model.named_children()):
        full = f"{path}.{name}"
        if isinstance(child, nn.Linear) and any(full.endswith("." + t) for t in target_modules):
            setattr(model, name, Sequential(child, r, lora_alpha).eval())
        else:
            recursive(child, target_modules, r, lora_alpha, full)
    return model


@right(INJECT)
def frozen_by_name_afterwards(model, target_modules, r, lora_alpha):
    wanted = [t.split(".") for t in target_modules]
    for name, module in dict(model.named_modules()).items():
        path = name.split(".")
        if type(module) is nn.Linear and any(path[-len(t) :] == t for t in wanted):
            model.set_submodule(name, Inherited(module, r, lora_alpha))
    for name, p in model.named_parameters():
        p.requires_grad = ".adapter." in name
    return model


@refused(INJECT, "would still be trained")
def not_frozen(model, target_modules, r, lora_alpha):
    return put(model, matching(model, target_modules), r, lora_alpha)


@refused(INJECT, "frozen *after*")
def frozen_too_late(model, target_modules, r, lora_alpha):
    return frozen(put(model, matching(model, target_modules), r, lora_alpha))


@refused(INJECT, "returns nothing")
def nothing_returned(model, target_modules, r, lora_alpha):
    put(frozen(model), matching(model, target_modules), r, lora_alpha)


@refused(INJECT, "another model")
def a_copy(model, target_modules, r, lora_alpha):
    model = copy.deepcopy(model)
    return put(frozen(model), matching(model, target_modules), r, lora_alpha)


@refused(INJECT, "this is a list")
def a_list(model, target_modules, r, lora_alpha):
    return list(model.parameters())


@refused(INJECT, "ends in up and is another layer")
def substrings(model, target_modules, r, lora_alpha):
    names = [n for n in linears(model) if any(t in n for t in target_modules)]
    return put(frozen(model), names, r, lora_alpha)


@refused(INJECT, "the output head too")
def every_linear(model, target_modules, r, lora_alpha):
    return put(frozen(model), linears(model), r, lora_alpha)


@refused(INJECT, "PEFT's default for Llama")
def pefts_default(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, ["q_proj", "v_proj"]), r, lora_alpha)


@refused(INJECT, "got no adapter, such as")
def first_block(model, target_modules, r, lora_alpha):
    names = [n for n in matching(model, target_modules) if "layers.0" in n]
    return put(frozen(model), names, r, lora_alpha)


@refused(INJECT, "lie inside blocks")
def top_level(model, target_modules, r, lora_alpha):
    frozen(model)
    for name, child in model.named_children():
        if isinstance(child, nn.Linear) and name in target_modules:
            setattr(model, name, Usual(child, r, lora_alpha))
    return model


@refused(INJECT, "No layer got an adapter")
def exact_names(model, target_modules, r, lora_alpha):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name in target_modules:
            model.set_submodule(name, Usual(module, r, lora_alpha))
    return model


@refused(INJECT, "share one A and B")
def shared(model, target_modules, r, lora_alpha):
    A, B = {}, {}

    def make(base, r, alpha):
        made = Usual(base, r, alpha)
        made.A = A.setdefault(made.A.shape, made.A)
        made.B = B.setdefault(made.B.shape, made.B)
        return made

    return put(frozen(model), matching(model, target_modules), r, lora_alpha, make)


@refused(INJECT, "differs from the base's")
def new_base(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, target_modules), r, lora_alpha, NewBase)


@refused(INJECT, "another size than")
def swapped(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, target_modules), r, lora_alpha, UpsideDown)


@refused(INJECT, "the adapter has the shapes")
def rank_fixed(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, target_modules), 1, lora_alpha)
