"""Checks of notebook 17: a LoRA layer and its injection, by what they compute and what is trained.

A student's class may name its matrices as it likes: A and B are found by their shapes.
"""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sftlab._internal.random_state import own_random_state
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import LoRALinear, inject_lora

LAYER, INJECT = "17.LoRALinear", "17.inject_lora"


def _seeded(make: Callable[[], Any]) -> Any:
    with own_random_state(seed=1):
        return make()


# --- The layer -----------------------------------------------------------------------------------
class Right(nn.Module):
    """A right layer, whose parts the mistakes exchange."""

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


def _wrong(message: str, **parts: Callable) -> None:
    """Declare a layer of which some parts are wrong."""
    mistake(LAYER, message)(type(f"Wrong: {message[:60]}", (Right,), parts))


def _zeros(self, *shape):
    return torch.zeros(*shape)


def _random(self, *shape):
    return torch.randn(*shape)


_wrong("The base layer would be trained too, weight and bias. Freeze all of its parameters.", freeze=lambda self: None)  # fmt: skip
_wrong("The bias of the base layer would be trained. Freeze all of its parameters, not the weight alone.",
       freeze=lambda self: self.base.weight.requires_grad_(False))  # fmt: skip


@mistake(LAYER, "Nothing in the layer is trained. A and B have to be nn.Parameters that require a gradient; parameters() finds no plain tensors.")  # fmt: skip
class _PlainTensors(Right):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        A, B = self.A.data, self.B.data
        del self.A, self.B
        self.A, self.B = A, B


_wrong("A and B both start at zero. Then neither ever gets a gradient, and nothing is learned. A is random.", first_A=_zeros)  # fmt: skip
_wrong("Here A starts at zero and B at random. It is the other way round: A is random and B is zero.", first_A=_zeros, first_B=_random)  # fmt: skip
_wrong("B does not start at zero, so the first output differs from that of base: the model is changed before it is trained.", first_B=_random)  # fmt: skip
_wrong("All numbers in A are equal, so all its rows would learn the same. Draw them at random.",
       first_A=lambda self, *shape: torch.ones(*shape))  # fmt: skip

for _message, _factor in (
    ("The factor is alpha: it is not divided by r.", lambda alpha, r: alpha),
    ("The correction is added without the factor alpha / r. With alpha = r nobody would notice.", lambda alpha, r: 1.0),
    ("The factor is upside down: it is r / alpha, and should be alpha / r.", lambda alpha, r: r / alpha),
    ("The factor is alpha / sqrt(r), that of rank-stabilized LoRA. Here it is alpha / r.", lambda alpha, r: alpha / r**0.5),
    ("The factor is applied twice: the correction is multiplied by the square of alpha / r.", lambda alpha, r: (alpha / r) ** 2),
    ("The factor is 1 / r: alpha is missing.", lambda alpha, r: 1 / r),
    ("The factor is alpha * r. It is alpha / r.", lambda alpha, r: alpha * r),
    ("The factor is rounded down to a whole number. alpha / r need not be whole.", lambda alpha, r: alpha // r),
    ("The correction is added twice, perhaps once in the weight and once beside it.", lambda alpha, r: 2 * alpha / r),
    ("The correction is subtracted. It is added.", lambda alpha, r: -alpha / r),
):  # fmt: skip
    _wrong(_message, factor=lambda self, alpha, r, factor=_factor: factor(alpha, r))


_wrong("r and alpha are in each other's place: the matrices have the rank alpha.",
       __init__=lambda self, base, r, alpha: Right.__init__(self, base, int(alpha), r))  # fmt: skip

WITHOUT_THEM = "In eval mode the output is that of base, whatever A and B hold. Is the correction computed at every call, in eval mode too?"
KEPT = "The product of A and B is kept from an earlier call. Training changes A and B between two calls: compute it at each call."


def _kept_product(self, x):
    if self.product is None or (self.again_in_training and self.training):
        self.product = self.B @ self.A
    return self.base(x) + self.factor(self.alpha, self.r) * (x @ self.product.T)


for _again in (True, False):
    _wrong(KEPT, forward=_kept_product, product=None, again_in_training=_again)


@mistake(LAYER, WITHOUT_THEM)
class _ProductOnce(Right):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        self.update = self.factor(alpha, r) * (self.B @ self.A).detach()

    def forward(self, x):
        return self.base(x) + x @ self.update.T


def _into_the_base(self, x):
    with torch.no_grad():
        self.base.weight += self.factor(self.alpha, self.r) * (self.B @ self.A)
    return self.base(x)


_wrong("Each call adds the correction to the frozen weight once more. Add it to the output, and leave the weight as it is.", forward=_into_the_base)  # fmt: skip
_wrong("The bias of base is added twice: base(x) includes it.",
       forward=lambda self, x: self.base(x) + self.correction(x) + (0 if self.base.bias is None else self.base.bias))  # fmt: skip
_wrong("The bias of base is left out.", forward=lambda self, x: F.linear(x, self.base.weight) + self.correction(x))  # fmt: skip
_wrong("The output is the correction alone. It is added to base(x).", forward=lambda self, x: self.correction(x))  # fmt: skip
_wrong(WITHOUT_THEM, forward=lambda self, x: self.base(x))  # fmt: skip
_wrong("The factor is applied to the output of base as well. It belongs to the correction.",
       forward=lambda self, x: self.factor(self.alpha, self.r) * (self.base(x) + x @ self.A.T @ self.B.T))  # fmt: skip
_wrong("The correction is computed from the output of base. It is computed from x.",
       forward=lambda self, x: self.base(x) + self.factor(self.alpha, self.r) * F.pad(self.base(x), (0, 99))[..., : x.shape[-1]] @ self.A.T @ self.B.T)  # fmt: skip
_wrong("There is a nonlinear function between A and B. The correction is a product of matrices.",
       correction=lambda self, x: self.factor(self.alpha, self.r) * (torch.relu(x @ self.A.T) @ self.B.T))  # fmt: skip
_wrong("The base is a new layer with numbers of its own. Keep the layer that is given.",
       kept=lambda self, base: nn.Linear(base.in_features, base.out_features, base.bias is not None))  # fmt: skip

CUT = "The output is right, but no gradient reaches {}. Something cuts the graph: detach(), .data or no_grad()."
_wrong(CUT.format("A"), correction=lambda self, x: self.factor(self.alpha, self.r) * (x @ self.A.detach().T @ self.B.T))  # fmt: skip
_wrong(CUT.format("B"), correction=lambda self, x: self.factor(self.alpha, self.r) * (x @ self.A.T @ self.B.detach().T))  # fmt: skip
_wrong(CUT.format("A and B"), correction=lambda self, x: self.factor(self.alpha, self.r) * (x @ self.A.detach().T @ self.B.detach().T))  # fmt: skip
_wrong(CUT.format("A, B and x"), forward=lambda self, x: (self.base(x) + self.correction(x)).detach())  # fmt: skip
_wrong("The gradient of x is incomplete: the part that passes through A and B is cut off by detach() or .data.",
       forward=lambda self, x: self.base(x) + self.correction(x.detach()))  # fmt: skip
_wrong("The gradient of x is incomplete: the part that passes through the frozen base is cut off, so no layer below would learn from it.",
       forward=lambda self, x: self.base(x).detach() + self.correction(x))  # fmt: skip


# --- The layer: what is compared -----------------------------------------------------------------
def _adapter(
    parameters: Iterable[Tensor], d_in: int, d_out: int, r: int, of=lambda p: p.data
) -> dict | None:
    """A as (r, d_in) and B as (d_out, r), views of whatever was written; None if they are not there."""
    found, named = {}, list(parameters)
    for p in named:
        for which, shape in (("A", (r, d_in)), ("B", (d_out, r))):
            if tuple(p.shape) in (shape, shape[::-1]) and which not in found:
                value = of(p)
                turned = value is not None and tuple(p.shape) != shape
                found[which] = value.T if turned else value
                break
    return found if len(found) == len(named) == 2 else None


def _fill(adapter: dict[str, Tensor] | None, seed: int) -> None:
    """Write known numbers into A and B, through the views."""
    generator = torch.Generator().manual_seed(seed)
    for which in "AB" if adapter else "":
        adapter[which].copy_(torch.randn(adapter[which].shape, generator=generator))


def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _trained(layer: nn.Module) -> list[Tensor]:
    return [p for p in layer.parameters() if p.requires_grad]


def _shapes(parameters: Iterable[Tensor]) -> set[tuple[int, ...]]:
    """The shapes, the smaller dimension first, because a matrix may be stored as its transpose."""
    return {tuple(sorted(p.shape)) for p in parameters}


def _known(layer: Any, given: tuple) -> dict[str, Tensor] | None:
    """Put the layer into eval mode, and known numbers into its A and B."""
    base, r, _ = given
    layer.eval()
    adapter = _adapter(_trained(layer), base.in_features, base.out_features, r)
    _fill(adapter, seed=3)
    return adapter


def _see_trained(layer: Any, given: tuple) -> dict:
    return {"shapes of the trained parameters": _shapes(_trained(layer))}


def _see_start(layer: Any, given: tuple) -> dict:
    base, r, _ = given
    layer.eval()
    found = _adapter(_trained(layer), base.in_features, base.out_features, r) or {}
    A, B = found.get("A"), found.get("B")
    return {
        "first output": layer(_x(3, base.in_features)),
        "A is zero": A is not None and not A.any(),
        "A holds different numbers": A is not None and bool(A.unique().numel() > 1),
        "B is zero": B is not None and not B.any(),
    }


def _see_output(layer: Any, given: tuple) -> dict:
    _known(layer, given)
    return {"output": layer(_x(3, given[0].in_features))}


def _see_changed(layer: Any, given: tuple) -> dict:
    x = _x(3, given[0].in_features)
    layer.train()(x)
    layer.eval()(x)
    _known(layer, given)
    return {"output after A and B have changed": layer(x)}


def _see_shapes(layer: Any, given: tuple) -> dict:
    _known(layer, given)
    d_in = given[0].in_features
    return {
        f"output for x of shape {shape}": layer(_x(*shape)) for shape in ((d_in,), (2, 3, d_in))
    }


def _see_again(layer: Any, given: tuple) -> dict:
    _known(layer, given)
    x = _x(3, given[0].in_features)
    first, second = layer(x), layer(x)
    return {"two calls in eval mode give the same output": torch.equal(first, second)}


def _see_gradients(layer: Any, given: tuple) -> dict:
    base, r, _ = given
    _known(layer, given)
    x = _x(3, base.in_features).requires_grad_()
    out = layer(x)
    if out.requires_grad:
        out.square().sum().backward()
    sizes = (base.in_features, base.out_features, r)
    found = (_adapter(_trained(layer), *sizes, of=lambda p: p.grad) or {}) | {"x": x.grad}
    reached = {name: found[name] for name in "ABx" if found.get(name) is not None}
    return {"reached by a gradient": list(reached)} | {
        f"gradient of {n}": g for n, g in reached.items()
    }


def _layer_case(
    rule: str,
    observe: Callable,
    remark: str,
    d_in: int,
    d_out: int,
    r: int,
    alpha: float,
    bias=True,
) -> Case:
    def arguments() -> tuple:
        return _seeded(lambda: nn.Linear(d_in, d_out, bias=bias)), r, alpha

    ends = "with" if bias else "without"
    return Case(
        f"`LoRALinear(base, r={r}, alpha={alpha})`, base with {d_in} inputs, {d_out} outputs and {ends} a bias: {remark}",
        arguments, LoRALinear, 1e-5, in_place=(0,), rule=rule, observe=observe,
    )  # fmt: skip


LAYER_CASES = (
    _layer_case("trained", _see_trained, "what is trained", 7, 5, 3, 11),
    _layer_case("start", _see_start, "at the start", 7, 5, 3, 11),
    _layer_case("seed", _see_start, "two layers, one after the other", 7, 5, 3, 11),
    _layer_case("again", _see_again, "called twice in eval mode", 7, 5, 3, 11),
    _layer_case("formula", _see_output, "with known numbers in A and B", 7, 5, 3, 11),
    _layer_case("formula", _see_output, "with known numbers in A and B", 5, 11, 4, 1.0, bias=False),
    _layer_case(
        "formula", _see_changed, "called in both modes; A and B change; called again", 7, 5, 3, 11
    ),
    _layer_case("shape", _see_shapes, "x with one dimension and with three", 7, 5, 3, 11),
    _layer_case(
        "backward", _see_gradients, "the gradients of the sum of the squared outputs", 7, 5, 3, 11
    ),
)


# --- Injection: mistakes -------------------------------------------------------------------------
def _linears(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _matching(model: nn.Module, targets: list[str]) -> list[str]:
    return [n for n in _linears(model) if any(f".{n}".endswith(f".{t}") for t in targets)]


def _put(
    model: nn.Module, names: Iterable[str], r: int, alpha: float, layer: Callable = Right
) -> nn.Module:
    for name in names:
        model.set_submodule(name, layer(model.get_submodule(name), r, alpha))
    return model


def _declared(message: str, inject: Callable[..., Any]) -> None:
    mistake(INJECT, message)(inject)


def _choosing(message: str, choose: Callable[[nn.Module, list[str]], list[str]]) -> None:
    """Declare an injection into the wrong layers."""
    _declared(
        message,
        lambda model, t, r, alpha: _put(model.requires_grad_(False), choose(model, t), r, alpha),
    )


def _adapting(message: str, **parts: Callable) -> None:
    """Declare an injection of a layer of which some parts are wrong."""
    layer = type("Other", (Right,), parts)
    _declared(
        message,
        lambda model, t, r, alpha: _put(
            model.requires_grad_(False), _matching(model, t), r, alpha, layer
        ),
    )


_choosing("Layers are chosen because a target occurs somewhere in their names: `group` contains `up` and is another layer. Compare the end of the name, after a dot.",
          lambda model, targets: [n for n in _linears(model) if any(t in n for t in targets)])  # fmt: skip
_choosing("Layers are chosen because their names end in the letters of a target: `group` ends in `up` and is another layer. Before a target there is a dot or nothing.",
          lambda model, targets: [n for n in _linears(model) if n.endswith(tuple(targets))])  # fmt: skip
_choosing("A layer whose whole name is a target is left out: before it there is no dot.",
          lambda model, targets: [n for n in _linears(model) if n.endswith(tuple(f".{t}" for t in targets))])  # fmt: skip
_choosing("Only the last part of a name is compared. A target may have several, such as `layers.1.group`.",
          lambda model, targets: [n for n in _linears(model) if n.split(".")[-1] in targets])  # fmt: skip
_choosing("Every linear layer gets an adapter, whatever the targets are.", lambda model, targets: _linears(model))  # fmt: skip
_choosing("Only layers whose whole name is a target get an adapter. Most layers lie inside blocks: compare the end of the name.",
          lambda model, targets: [n for n in _linears(model) if n in targets])  # fmt: skip
_choosing("Only the first matching layer gets an adapter. Names repeat in every block.",
          lambda model, targets: _matching(model, targets)[:1])  # fmt: skip
_choosing("Only the first layer that each target names gets an adapter. Names repeat in every block.",
          lambda model, targets: list(dict.fromkeys(n for t in targets for n in _matching(model, [t])[:1])))  # fmt: skip
_choosing("Only direct children of the model are looked at. Most layers lie inside blocks: named_modules() gives them all.",
          lambda model, targets: [n for n in _matching(model, targets) if "." not in n])  # fmt: skip
_choosing("The dots of a target are taken for a pattern, in which a dot stands for any character. Compare texts, or escape them.",
          lambda model, targets: [n for n in _linears(model) if any(re.search(rf"(^|\.){t}$", n) for t in targets)])  # fmt: skip
_choosing("Only the first target is used.", lambda model, targets: _matching(model, targets[:1]))
_choosing("q_proj and v_proj get an adapter, PEFT's default for Llama models, whatever the targets are.",
          lambda model, targets: _matching(model, ["q_proj", "v_proj"]))  # fmt: skip

_declared("The model's other parameters would still be trained. Freeze all of them, not only those of the chosen layers.",
          lambda model, t, r, alpha: _put(model, _matching(model, t), r, alpha))  # fmt: skip
_declared("Nothing in the model is trained. Are the new layers put in, and is the model frozen before that, not after?",
          lambda model, t, r, alpha: _put(model, _matching(model, t), r, alpha).requires_grad_(False))  # fmt: skip
_declared("Nothing in the model is trained. Are the new layers put in, and is the model frozen before that, not after?",
          lambda model, t, r, alpha: model.requires_grad_(False))  # fmt: skip
_declared("It returns nothing. Return the model, although it is changed in place.",
          lambda model, t, r, alpha: _put(model.requires_grad_(False), _matching(model, t), r, alpha) and None)  # fmt: skip
_declared("A copy of the model is changed and returned. Two large models may not fit into memory: change the given one.",
          lambda model, t, r, alpha: _put(copy.deepcopy(model).requires_grad_(False), _matching(model, t), r, alpha))  # fmt: skip
_declared("A layer that two targets name is wrapped twice. Collect the names first, each once.",
          lambda model, t, r, alpha: _put(model.requires_grad_(False), [n for one in t for n in _matching(model, [one])], r, alpha,
                                          lambda base, r, alpha: _Nested(base, r, alpha)))  # fmt: skip
_declared("r and lora_alpha are handed to the layer in the wrong order.",
          lambda model, t, r, alpha: _put(model.requires_grad_(False), _matching(model, t), int(alpha), r))  # fmt: skip


class _Nested(Right):
    """A layer that can be wrapped in turn."""

    @property
    def in_features(self):
        return self.base.in_features

    @property
    def out_features(self):
        return self.base.out_features


def _shared(which: str, model, targets, r, alpha):
    made = {}

    def make(base, r, alpha):
        layer = Right(base, r, alpha)
        for name in which:
            matrix = getattr(layer, name)
            setattr(layer, name, made.setdefault((name, matrix.shape), matrix))
        return layer

    return _put(model.requires_grad_(False), _matching(model, targets), r, alpha, make)


for _which in ("AB", "A", "B"):
    _declared(f"Layers of the same size share one {' and '.join(_which)}. Each layer needs its own: make it inside the loop.",
              functools.partial(_shared, _which))  # fmt: skip


def _any_with_a_weight(model, targets, r, alpha):
    for name, module in list(model.requires_grad_(False).named_modules()):
        if hasattr(module, "weight") and any(f".{name}".endswith(f".{t}") for t in targets):
            module.in_features, module.out_features = (
                module.weight.shape[-1],
                module.weight.shape[0],
            )
            _put(model, [name], r, alpha)
    return model


_declared("A module that is no linear layer gets an adapter, because it has a weight and a target's name. Ask for nn.Linear.", _any_with_a_weight)  # fmt: skip
_adapting("The new layers contain copies of the old ones, which take the memory twice until the old are gone. Put in the old layers themselves.",
          kept=lambda self, base: copy.deepcopy(base))  # fmt: skip
_adapting("The new layers do not contain the old ones but linear layers with numbers of their own.",
          kept=lambda self, base: nn.Linear(base.in_features, base.out_features, base.bias is not None).requires_grad_(False))  # fmt: skip
for _factor in (lambda a, r: 1.0, lambda a, r: a, lambda a, r: 2, lambda a, r: a / r**2):
    _adapting("The new layers have another factor than lora_alpha / r.",
              factor=lambda self, alpha, r, factor=_factor: factor(alpha, r))  # fmt: skip


# --- Injection: what is compared -----------------------------------------------------------------
class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(5, 7)
        self.v_proj = nn.Linear(5, 3, bias=False)
        self.up = nn.Linear(5, 11)
        self.group = nn.Linear(11, 5)  # "group" ends in "up", and is not called "up"
        self.upper = nn.Linear(5, 13)  # contains "up" in its name, as another layer
        self.mix = nn.Linear(5, 19)

    def forward(self, x):
        mixed = torch.cat([self.q_proj(x), self.v_proj(x)], -1)
        return x + self.group(
            torch.relu(self.up(x))
            + F.pad(
                torch.tanh(mixed) + self.mix(x).sum(-1, True) * self.upper(x).mean(-1, True), (0, 1)
            )
        )


class _Model(nn.Module):
    """Two blocks between an embedding and a head. `originals` remembers its parameters by name."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(17, 5)
        self.layers = nn.ModuleList([_Block(), _Block()])
        self.mix = nn.LayerNorm(5)  # called like a linear layer of the blocks
        self.lm_head = nn.Linear(5, 17, bias=False)
        self.layers_1_group = nn.Linear(5, 3)  # unused; a pattern takes it for "layers.1.group"
        object.__setattr__(self, "originals", dict(self.named_parameters()))

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.mix(x))


def _new_matrices(model: nn.Module, given: _Model) -> dict[str, list[Tensor]]:
    """The new trained parameters by the layer of the given model that they were put into."""
    old = {id(p) for p in given.originals.values()}
    names = [n for n, m in _seeded(_Model).named_modules() if hasattr(m, "weight")]
    found: dict[str, list[Tensor]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        place = next((n for n in names if name.startswith(f"{n}.")), None)
        if place and p.requires_grad and id(p) not in old:
            found.setdefault(place, []).append(p)
    return found


def _see_places(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    found = _new_matrices(model, given[0])
    old, fresh = {id(p) for p in given[0].originals.values()}, _seeded(_Model)

    def count(name: str) -> int:
        own = sorted(fresh.get_submodule(name).weight.shape)
        new = [p for p in model.get_submodule(name).parameters() if id(p) not in old]
        return sum(p.dim() == 2 and sorted(p.shape) != own for p in new)

    return {
        "layers with an adapter": set(found),
        "number of matrices A and B in each": {name: count(name) for name in sorted(found)},
    }


def _see_frozen(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    own = [name for name, p in given[0].originals.items() if p.requires_grad]
    old = {id(p) for p in given[0].originals.values()}
    named = model.named_parameters(remove_duplicate=False)
    new = [name for name, p in named if p.requires_grad and id(p) not in old]
    return {"parameters of the model that are trained": own, "number of the new ones": len(new)}


def _see_same(model: Any, given: tuple) -> dict | None:
    return None if model is None else {"it is the given model": model is given[0]}


IDS = torch.arange(12).reshape(2, 6)


def _see_first_output(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    there = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    lost = [name for name, p in given[0].originals.items() if p.data_ptr() not in there]
    return {"old weights no longer in the model": lost, "output": model.eval()(IDS)}


def _see_known_output(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    fresh, found = _seeded(_Model), sorted(_new_matrices(model, given[0]).items())
    for number, (name, matrices) in enumerate(found):
        linear = fresh.get_submodule(name)
        _fill(_adapter(matrices, linear.in_features, linear.out_features, given[2]), seed=number)
    return {
        "shapes of A and B": {name: _shapes(matrices) for name, matrices in found},
        "output with known numbers in every A and B": model.eval()(IDS),
    }


def _model_case(
    rule: str, observe: Callable, remark: str, targets: list[str], r: int = 2, alpha: float = 5.0
) -> Case:
    return Case(
        f"`inject_lora(model, {targets}, r={r}, lora_alpha={alpha:g})`: {remark}",
        lambda: (_seeded(_Model), list(targets), r, alpha),
        inject_lora, 1e-5, in_place=(0,), rule=rule, observe=observe,
    )  # fmt: skip


MODEL_CASES = (
    _model_case("place", _see_places, "which layers get an adapter", ["v_proj"]),
    _model_case("place", _see_places, "which layers get an adapter", ["q_proj", "up"]),
    _model_case("place", _see_places, "which layers get an adapter", ["layers.1.group"]),
    _model_case("place", _see_places, "which layers get an adapter", ["lm_head"]),
    _model_case(
        "once", _see_places, "the second target names a layer again", ["q_proj", "layers.0.q_proj"]
    ),
    _model_case("once", _see_places, "the model has a LayerNorm of this name as well", ["mix"]),
    _model_case("same", _see_same, "what is returned", ["v_proj"]),
    _model_case("frozen", _see_frozen, "what is trained", ["v_proj"]),
    _model_case("start", _see_first_output, "the output at the start", ["q_proj", "group"]),
    _model_case(
        "settings", _see_known_output, "with known numbers in every A and B", ["q_proj", "v_proj"]
    ),
    _model_case(
        "settings", _see_known_output, "with known numbers in every A and B", ["group"], 4, 3.0
    ),
)

EXERCISES = {
    LAYER: Exercise(
        LAYER,
        "A LoRA layer",
        LoRALinear,
        LAYER_CASES,
        asks="A linear layer with a low-rank correction. Only its two small matrices A and B are trained.\n\n"
        "base: an nn.Linear with d_in inputs and d_out outputs. r: the rank. alpha: a number.",
        rules={
            "formula": "The output is base(x) + (alpha / r) · x Aᵀ Bᵀ, with the numbers that A and B have when it is called.",
            "shape": "A is (r, d_in) and B is (d_out, r), or their transposes; their names are free. x may have any number of dimensions before the last.",
            "trained": "A and B are the only parameters that require a gradient: weight and bias of base do not.",
            "start": "A starts with random numbers and B with zeros, so the first output is that of base.",
            "seed": "Set no random seed: with one, all layers would start with the same A.",
            "again": "A call changes no number, and in eval mode nothing is random.",
            "backward": "Gradients reach A, B and x.",
        },
        hints=(
            "What does the class have to keep from __init__, and which parts of it are trained?",
            ("formula", "In the order x Aᵀ first, nothing larger than the output is made. B A would be as large as the weight."),
            "The places to look are the four lines of __init__: base kept, base frozen, A made, B made. forward adds two terms.",
        ),
        path="Begin with forward: write the formula with the names you want to have. It tells what __init__ must keep: base, A, B and the factor. Then "
        "decide for each of them whether it is trained, and with which numbers it starts. The usual wrong turns are a bias that is not frozen and "
        "a factor that a test with alpha = r cannot tell from the right one.",
        why="The package's version keeps A and B in float32 whatever the base is stored in, can be switched off, and can be merged (notebook 20). "
        "`init_lora_` is the start of notebook 08, `lora_scale` the factor of notebook 09. Note the order of the products: x Aᵀ first, so that nothing larger than the output is made.",
        points=3,
    ),
    INJECT: Exercise(
        INJECT,
        "LoRA layers into a model",
        inject_lora,
        MODEL_CASES,
        asks="Put a LoRALinear, yours or the workbook's, around each layer that target_modules names, in place, and return the model.\n\n"
        'target_modules: a list of names, such as ["q_proj", "layers.1.up"].',
        rules={
            "place": 'A target names every linear layer whose full name is the target, or ends in a dot and the target: "up" names "layers.0.up", not "layers.0.group".',
            "once": "A layer that several targets name gets one LoRALinear. Modules that are no nn.Linear get none.",
            "frozen": "All parameters that the model had before are frozen; only the new A and B are trained.",
            "start": "Each new layer contains the old one itself, no copy, so the model's first output does not change.",
            "settings": "Each new layer has an A and a B of its own, of rank r, and the factor lora_alpha / r.",
            "same": "The given model is changed and returned; a copy might not fit into memory.",
            "unchanged": "target_modules stays as it is.",
        },
        hints=(
            "Three things are to be done: freeze the model, find the layers, replace them. Which has to come first?",
            ("place", "named_modules() gives the full names. Collect those that match before you replace the first: otherwise you walk through what you have put in."),
            "The place to look is the comparison of a name with a target. Try it on `up`, `layers.0.up`, `layers.0.group`.",
        ),
        path="Freeze everything first: what is put in afterwards is trained. Then list the names of the layers to replace, before anything is replaced, each once. "
        "Last, replace them one by one. The usual wrong turn is to look for the target anywhere in the name.",
        why="Freezing comes first: after it, only what is put in is trained. The package's version refuses targets that match nothing (a run would train nothing, without a word) "
        "and layers that share their weight with another one: merging into a tied head would change the embedding.",
        points=2,
    ),
}  # fmt: skip
