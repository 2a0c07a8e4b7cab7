"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
import re
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex17_lora_linear.check import _judge
from sftlab.exercises.ex17_lora_linear.judging import is_lora_layer
from sftlab.exercises.ex17_lora_linear.zoo import Right

LAYER, TEST, INJECT = "17.LoRALinear", "17.is_lora_layer", "17.inject_lora"


right(LAYER)(Right)


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


class Update(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        self.A = nn.Parameter(torch.randn(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        self.scale = alpha / r

    def forward(self, weight):
        return torch.addmm(weight, self.B, self.A, alpha=self.scale)


@right(LAYER)
class Parametrized(nn.Module):
    """The weight of base is a parametrization, so its product with x is rounded in another order."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)
        nn.utils.parametrize.register_parametrization(base, "weight", Update(base, r, alpha))

    def forward(self, x):
        return self.base(x)


@right(LAYER)
def a_function(base, r, alpha):
    """Makes the layer without a class of its own."""
    return Sequential(base, r, alpha)


@right(LAYER)
class StrongDropout(Right):
    """Drops most of the adapter's input in training."""

    def correction(self, x):
        return super().correction(F.dropout(x, 0.8, self.training))


@refused(LAYER, "reached by a gradient in training mode")
class CutInTraining(Right):
    """Layers below do not learn."""

    def forward(self, x):
        return super().forward(x.detach() if self.training else x)


@refused(LAYER, "It sets the random seed itself")
class Seeded(Right):
    def first_A(self, r, d_in):
        torch.manual_seed(0)
        return torch.randn(r, d_in)


@refused(LAYER, "shapes of the trained parameters")
class SquareMatrices(Right):
    def first_A(self, r, d_in):
        return torch.randn(d_in, d_in)

    def first_B(self, d_out, r):
        return torch.zeros(d_out, self.base.in_features)


@refused(LAYER, "a `Tensor`, cannot be used")
def not_a_module(base, r, alpha):
    return base(torch.ones(base.in_features))


@refused(LAYER, "two calls in eval mode give the same output")
class CountingCalls(Right):
    calls = 0

    def correction(self, x):
        self.calls += 1
        return super().correction(x) * (1 if self.calls < 2 else 2)


@refused(LAYER, "two calls in eval mode give the same output")
class DropoutAlwaysOn(Right):
    def correction(self, x):
        return super().correction(F.dropout(x, 0.5))


@refused(LAYER, "x is (..., d_in)")
class LastDimensionAlone(Right):
    def forward(self, x):
        return F.linear(x, self.base.weight, self.base.bias) + self.correction(x).reshape(
            -1, self.base.out_features
        )


@refused(LAYER, "['first output'] is None")
class NoReturn(Right):
    def forward(self, x):
        self.base(x) + self.correction(x)


@refused(LAYER, "cannot be multiplied")
class NotTransposed(Right):
    def correction(self, x):
        return self.factor(self.alpha, self.r) * (x @ self.A @ self.B)


# --- The test of layers -------------------------------------------------------------------------
right(TEST)(_judge)


def formula(x, W, b, layer, r, alpha):
    return x @ W.T + b + (alpha / r) * (x @ layer.A.T @ layer.B.T)


@right(TEST)
def with_backward(layer_class):
    """Compares gradients after two backward passes, and counts what is trained by names."""
    try:
        base = nn.Linear(11, 6)
        W, b = base.weight.data.clone(), base.bias.data.clone()
        layer = layer_class(base, 2, 9)
        layer.eval()
        if sum(p.numel() for p in layer.parameters() if p.requires_grad) != 2 * 17:
            return False
        if torch.count_nonzero(layer.B) or not torch.count_nonzero(layer.A):
            return False
        layer(torch.ones(11))
        for seed in range(3):
            layer.A.data = torch.randn(2, 11)
            layer.B.data = torch.randn(6, 2) + seed
            found = []
            x = torch.randn(5, 3, 11)
            for out in (layer, lambda x: formula(x, W, b, layer, 2, 9)):
                layer.A.grad = layer.B.grad = None
                x = x.clone().detach().requires_grad_()
                y = out(x)
                y.pow(2).mean().backward()
                found.append([y, layer.A.grad, layer.B.grad, x.grad])
            if any(not torch.allclose(m, t, atol=1e-4) for m, t in zip(*found, strict=True)):
                return False
        return True
    except (RuntimeError, AttributeError, TypeError):
        return False


@right(TEST)
def by_gradients_of_known_numbers(layer_class):
    """Small numbers by hand instead of random ones; returns a tensor."""
    try:
        good = True
        for alpha in (1.5, 8.0):
            base = nn.Linear(3, 2)
            W, b = base.weight.data + 0, base.bias.data + 0
            layer = layer_class(base, 2, alpha).eval()
            good &= not base.weight.requires_grad and not base.bias.requires_grad
            good &= layer.A.requires_grad and layer.B.requires_grad
            good &= bool(layer.A.abs().sum() > 0) and bool(layer.B.abs().sum() == 0)
            for numbers in ([[1.0, 2.0, -1.0], [0.0, 1.0, 0.5]], [[0.5, -3.0, 2.0], [1.0, 1.0, 0]]):
                layer.A.data.copy_(torch.tensor(numbers))
                layer.B.data.copy_(torch.tensor([[0.7, 1.0], [-0.4, 2.0]]))
                for x in (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.3, 0.1])):
                    x.requires_grad_()
                    y, right_ = layer(x), formula(x, W, b, layer, 2, alpha)
                    parts = (layer.A, layer.B, x)
                    mine = torch.autograd.grad(y.sum(), parts, retain_graph=True)
                    theirs = torch.autograd.grad(right_.sum(), parts)
                    good &= bool((y - right_).abs().max() < 1e-4)
                    good &= all(
                        (m - t).abs().max() < 1e-4 for m, t in zip(mine, theirs, strict=True)
                    )
        return torch.tensor(good)
    except Exception:
        return torch.tensor(False)


@right(TEST)
def one_thing_after_the_other(layer_class):
    """Asserts, as in a test file."""
    try:
        base = nn.Linear(8, 13)
        W, b = base.weight.detach().clone(), base.bias.detach().clone()
        layer = layer_class(base, 5, 3.0)
        names = [p for p in layer.parameters() if p.requires_grad]
        assert len(names) == 2 and layer.A.shape == (5, 8) and layer.B.shape == (13, 5)
        assert not any(p.requires_grad for p in base.parameters())
        x = torch.randn(20, 8, requires_grad=True)
        torch.testing.assert_close(layer.eval()(x), F.linear(x, W, b))
        assert layer.A.std() > 0
        for _ in range(2):
            with torch.no_grad():
                layer.A.normal_()
                layer.B.normal_()
            target = torch.randn(20, 13)
            for mode in (layer.eval(), layer.eval()):
                mine = F.mse_loss(mode(x), target)
                right_ = F.mse_loss(formula(x, W, b, layer, 5, 3.0), target)
                torch.testing.assert_close(mine, right_, rtol=1e-3, atol=1e-3)
                both = [torch.autograd.grad(loss, (layer.A, layer.B, x)) for loss in (mine, right_)]
                torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)
    except Exception:
        return False
    return 1


@refused(TEST, "Return True or False")
def in_words(layer_class):
    return "right" if is_lora_layer(layer_class) else "wrong"


@refused(TEST, "There it is zero in a right layer too")
def gradient_at_the_start(layer_class):
    try:
        layer = layer_class(nn.Linear(7, 5), 3, 7.0)
        layer(torch.randn(6, 7)).sum().backward()
        return bool(layer.A.grad.any()) and _judge(layer_class)
    except Exception:
        return False


@refused(TEST, "its factor is alpha")
def rank_one(layer_class):
    """At r = 1 the factor alpha / r is alpha."""
    return _judge(layer_class, settings=((1, 7.0),))


def linears(model):
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]


def matching(model, target_modules):
    return [n for n in linears(model) if any(n == t or n.endswith("." + t) for t in target_modules)]


def put(model, names, r, lora_alpha, make=Right):
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


@right(INJECT)
def by_a_pattern(model, target_modules, r, lora_alpha):
    frozen(model)
    pattern = re.compile(r"(.*\.)?(" + "|".join(map(re.escape, target_modules)) + ")")
    found = {n: m for n, m in model.named_modules() if pattern.fullmatch(n)}
    for name, module in found.items():
        if isinstance(module, nn.Linear):
            *path, last = name.split(".")
            parent = reduce(getattr, path, model)
            parent.add_module(last, Parametrized(module, r, lora_alpha))
    return model


@refused(INJECT, "cannot be used")
def a_list(model, target_modules, r, lora_alpha):
    return list(model.parameters())


@refused(INJECT, "LayerNorm")
def whatever_the_kind(model, target_modules, r, lora_alpha):
    names = [
        n
        for n, _ in model.named_modules()
        if any(f".{n}".endswith(f".{t}") for t in target_modules)
    ]
    return put(frozen(model), names, r, lora_alpha)


@refused(INJECT, "layers.1.v_proj")
def first_block(model, target_modules, r, lora_alpha):
    names = [n for n in matching(model, target_modules) if "layers.1" not in n]
    return put(frozen(model), names, r, lora_alpha)


@refused(INJECT, "Each new layer has its own A and B, of rank r")
def rank_fixed(model, target_modules, r, lora_alpha):
    return put(frozen(model), matching(model, target_modules), 4, lora_alpha * 4 / r)


@refused(INJECT, "changes its own input (argument 2")
def targets_used_up(model, target_modules, r, lora_alpha):
    frozen(model)
    names = []
    while target_modules:
        names += [n for n in matching(model, [target_modules.pop()]) if n not in names]
    return put(model, names, r, lora_alpha)


equivalent(
    LAYER,
    "The stub has no merging, switching off, devices, dtypes or modes of its own.",
    "without `device=` in `torch.empty(r, base.in_features, device=device)`",
    "without `device=` in `torch.empty(base.out_features, r, device=device)`",
    "without `self.train(base.training)`",
    "without `if self.merged or not self.enabled:`",
    "`self.merged or not self.enabled` becomes `self.merged and (not self.enabled)`",
    "without `if not torch.is_autocast_enabled(x.device.type):`",
    "`not torch.is_autocast_enabled(x.device.type)` becomes `torch.is_autocast_enabled(x.device.type)`",
    "without `if not self.merged:`",
    "`not self.merged` becomes `self.merged`",
    "without `self._add_to_base(self.scale)`",
    "without `self.merged = True`",
    "`True` becomes `False` #2",
    "without `if self.merged:`",
    "without `self._add_to_base(-self.scale)`",
    "`-self.scale` becomes `self.scale`",
    "without `self.merged = False` #2",
    "`False` becomes `True` #3",
    "without `W.copy_((W + scale * (self.B @ self.A)).to(W.dtype))`",
    "`W + scale * (self.B @ self.A)` becomes `W - scale * (self.B @ self.A)`",
    "`scale * (self.B @ self.A)` becomes `scale / (self.B @ self.A)`",
)
equivalent(
    TEST,
    "The numbers of a test are free where they tell the factors apart.",
    *("`3` becomes `2`", "`3` becomes `4`", "`7.0` becomes `15.0`"),
    *("`4` becomes `3`", "`4` becomes `5`", "`2.0` becomes `5.0`"),
)
equivalent(
    INJECT,
    'The stub has no seed, no "all-linear" and no Conv1D, and the arguments of the cases are valid.',
    "`LoRALinear if isinstance(linears[name], nn.Linear) else LoRAConv1D` becomes `LoRALinear`",
    "without `check_lora_settings(target_modules, r, lora_alpha, lora_dropout, rule)`",
    "without `if seed is not None:`",
    "without `check_seed(seed)`",
    "`[target_modules] if isinstance(target_modules, str) else list(target_modules)` becomes `list(target_modules)`",
    "without `if target_modules == ['all-linear']:`",
    "`n not in unfit and n != output_head(model)` becomes `n not in unfit or n != output_head(model)`",
    "`n not in unfit` becomes `n in unfit`",
    "`n != output_head(model)` becomes `n == output_head(model)`",
    "without `if unmatched or not chosen:`",
    "`unmatched or not chosen` becomes `unmatched and (not chosen)`",
    "`', '.join(sorted({name.split('.')[-1] for name in linears})) or 'none'` becomes `', '.join(sorted({name.split('.')[-1] for name in linears})) and 'none'`",
    "`-1` becomes `1`",
    "`1` becomes `2`",
    "`1` becomes `0`",
    "`None if seed is None else torch.Generator().manual_seed(seed)` becomes `None`",
    "`generator is None` becomes `generator is not None`",
    "without `device=` in `own_random_state(device=linears[name].weight.device)`",
    "`kind(linears[name], r, lora_alpha, lora_dropout, rule)` becomes `kind(r, linears[name], lora_alpha, lora_dropout, rule)` #2",
    "without `init_lora_(A, B, generator=generator)`",
    "`init_lora_(A, B, generator=generator)` becomes `init_lora_(B, A, generator=generator)`",
    "without `generator=` in `init_lora_(A, B, generator=generator)`",
    "without `layer.A.data.copy_(A)`",
)
