"""The check of 17.inject_lora: LoRA layers into a model, by what is replaced, frozen and computed."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex17_lora_linear.matrices import fill, find_adapter, seeded, shapes_of
from sftlab.exercises.ex17_lora_linear.zoo import Right
from sftlab.lora import inject_lora

INJECT = "17.inject_lora"


# --- mistakes -------------------------------------------------------------------------
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


def _by_name(model, targets, r, alpha):
    _put(model, _matching(model, targets), r, alpha)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("A", "B")))
    return model


_declared("An old parameter is trained because its name ends like that of a new one. Freeze all old ones before the new layers are put in.", _by_name)  # fmt: skip
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


# --- what is compared -----------------------------------------------------------------
class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(5, 7)
        self.v_proj = nn.Linear(5, 3, bias=False)
        self.up = nn.Linear(5, 11)
        self.group = nn.Linear(11, 5)  # "group" ends in "up", and is not called "up"
        self.upper = nn.Linear(5, 13)  # contains "up" in its name, as another layer
        self.mix = nn.Linear(5, 19)
        # An old parameter, with a name like a new one's.
        self.table_A = nn.Parameter(torch.zeros(3))

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
    names = [n for n, m in seeded(_Model).named_modules() if hasattr(m, "weight")]
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
    old, fresh = {id(p) for p in given[0].originals.values()}, seeded(_Model)

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
    fresh, found = seeded(_Model), sorted(_new_matrices(model, given[0]).items())
    for number, (name, matrices) in enumerate(found):
        linear = fresh.get_submodule(name)
        fill(find_adapter(matrices, linear.in_features, linear.out_features, given[2]), seed=number)
    return {
        "shapes of A and B": {name: shapes_of(matrices) for name, matrices in found},
        "output with known numbers in every A and B": model.eval()(IDS),
    }


def _model_case(
    rule: str, observe: Callable, remark: str, targets: list[str], r: int = 2, alpha: float = 5.0
) -> Case:
    return Case(
        f"`inject_lora(model, {targets}, r={r}, lora_alpha={alpha:g})`: {remark}",
        lambda: (seeded(_Model), list(targets), r, alpha),
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

INJECTION = Exercise(
        INJECT,
        "LoRA layers into a model",
        inject_lora,
        MODEL_CASES,
        asks="Put a LoRALinear around each linear layer that target_modules names; return the model.\n\n"
        'target_modules: a list of names, such as ["q_proj", "layers.1.up"].',
        rules={
            "place": 'Named: the name is the target or ends in ".target" ("up" for "layers.0.up").',
            "once": "A layer that several targets name gets one LoRALinear. Modules that are not nn.Linear are left alone.",
            "frozen": "All parameters that the model had before are frozen.",
            "start": "Each new layer holds the old one, no copy; the model's output does not change.",
            "settings": "Each new layer has its own A and B, of rank r, and the factor lora_alpha / r.",
            "same": "Change and return the given model, no copy.",
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
    )  # fmt: skip
