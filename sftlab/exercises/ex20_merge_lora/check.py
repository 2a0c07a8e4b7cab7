"""Checks of notebook 20: merging an adapter into a weight, taking it out again, and merging a model.

The numbers of the cases in 16 bits have so few digits that float32 computes with them exactly.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import adapter, tensor
from sftlab.lora import LoRALinear, lora_layers, merge, merge_lora, unmerge

MERGE, UNMERGE, MODEL = "20.merge", "20.unmerge", "20.merge_lora"


def _both_ways(ID: str, sign: int) -> None:
    """Declare the mistakes that are made in merging (sign 1) as in unmerging (sign −1)."""

    @mistake(ID, "A and B are rounded to the dtype of W before they are multiplied. Keep them in float32, and round once, at the end.")  # fmt: skip
    def _rounded_factors(W, A, B, alpha, r):
        return W + sign * (alpha / r) * (B.to(W.dtype) @ A.to(W.dtype))

    @mistake(ID, "The update is rounded to the dtype of W before it is added or subtracted, and the result is rounded again. Round once, at the end.")  # fmt: skip
    def _rounded_update(W, A, B, alpha, r):
        return W + sign * (alpha / r * (B @ A)).to(W.dtype)

    @mistake(
        ID, "The result is in float32 even where W takes 16 bits, so it needs twice the memory."
    )
    def _in_float32(W, A, B, alpha, r):
        return W + sign * alpha / r * (B @ A)

    @mistake(ID, "The result is in bfloat16, whatever the dtype of W is.")
    def _in_bfloat16(W, A, B, alpha, r):
        return (W + sign * alpha / r * (B @ A)).bfloat16()

    @mistake(ID, "The product is multiplied by α, but not divided by r.")
    def _not_divided_by_r(W, A, B, alpha, r):
        return (W + sign * alpha * (B @ A)).to(W.dtype)

    @mistake(ID, "The product is divided by r, but not multiplied by α.")
    def _no_alpha(W, A, B, alpha, r):
        return (W + sign * (B @ A) / r).to(W.dtype)

    @mistake(ID, "The factor α/r is missing. With α = r nobody would notice.")
    def _no_factor(W, A, B, alpha, r):
        return (W + sign * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor is upside down: r/α in place of α/r.")
    def _upside_down(W, A, B, alpha, r):
        return (W + sign * r / alpha * (B @ A)).to(W.dtype)

    @mistake(
        ID, "The factor is α/√r, that of rank-stabilized LoRA. This adapter was trained with α/r."
    )
    def _rank_stabilized(W, A, B, alpha, r):
        return (W + sign * alpha / math.sqrt(r) * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor α/r is applied twice, for example to A or B and to their product.")
    def _factor_twice(W, A, B, alpha, r):
        return (W + sign * (alpha / r) ** 2 * (B @ A)).to(W.dtype)

    @mistake(ID, "The update is applied twice.")
    def _update_twice(W, A, B, alpha, r):
        return (W + sign * 2 * alpha / r * (B @ A)).to(W.dtype)

    @mistake(
        ID, "The factor is cut down to a whole number, as by `//` or `int`. It is 0 where α < r."
    )
    def _floored(W, A, B, alpha, r):
        return (W + sign * (alpha // r) * (B @ A)).to(W.dtype)

    @mistake(ID, "α is divided by d_out. The rank r is the number of columns of B.")
    def _by_d_out(W, A, B, alpha, r):
        return (W + sign * alpha / B.shape[0] * (B @ A)).to(W.dtype)

    @mistake(ID, "Only the last r - 1 of the r terms are there: the first column of B and the first row of A are left out.")  # fmt: skip
    def _first_rank_missing(W, A, B, alpha, r):
        return (W + sign * alpha / r * (B[:, 1:] @ A[1:])).to(W.dtype)

    @mistake(ID, "The result is rounded to bfloat16, even where W has more digits.")
    def _through_bfloat16(W, A, B, alpha, r):
        return (W + sign * alpha / r * (B @ A)).bfloat16().to(W.dtype)

    @mistake(ID, "α is cut down to a whole number. It may be a fraction.")
    def _whole_alpha(W, A, B, alpha, r):
        return (W + sign * int(alpha) / r * (B @ A)).to(W.dtype)

    @mistake(ID, "α is divided by d_in. The rank r is the number of rows of A.")
    def _by_d_in(W, A, B, alpha, r):
        return (W + sign * alpha / A.shape[1] * (B @ A)).to(W.dtype)

    @mistake(
        ID, "W is multiplied by the factor as well: a pair of parentheses is in the wrong place."
    )
    def _weight_scaled(W, A, B, alpha, r):
        return ((W + sign * (B @ A)) * alpha / r).to(W.dtype)

    @mistake(ID, "The update is transposed. It has the shape (d_out, d_in) of W.")
    def _transposed(W, A, B, alpha, r):
        return (W + sign * alpha / r * (A.T @ B.T)).to(W.dtype)

    @mistake(ID, "The product is A·B. It has the shape (r, r), not the shape (d_out, d_in) of W.")
    def _wrong_order(W, A, B, alpha, r):
        return (W + sign * alpha / r * (A @ B)).to(W.dtype)

    @mistake(ID, "A and B are multiplied entry by entry, by `*`. The update is a matrix product.")
    def _elementwise(W, A, B, alpha, r):
        return (W + sign * alpha / r * (B * A)).to(W.dtype)


_both_ways(MERGE, 1)
_both_ways(UNMERGE, -1)


@mistake(MERGE, "Nothing is merged: the result is W.")
@mistake(UNMERGE, "Nothing is taken out: the result is the merged weight.")
def _unchanged(W, A, B, alpha, r):
    return W


@mistake(MERGE, "The update is subtracted. That takes an adapter out.")
def _subtracted(W, A, B, alpha, r):
    return unmerge(W, A, B, alpha, r)


@mistake(UNMERGE, "The update is added once more.")
def _added(W, A, B, alpha, r):
    return merge(W, A, B, alpha, r)


ALONE = "The result is the update alone. The weight is missing."


@mistake(UNMERGE, ALONE)
def _negative_update_alone(W, A, B, alpha, r):
    return (-alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, ALONE)
@mistake(UNMERGE, ALONE)
def _update_alone(W, A, B, alpha, r):
    return (alpha / r * (B @ A)).to(W.dtype)


@mistake(UNMERGE, "The sign is turned round: the merged weight is subtracted from the update.")
def _difference_reversed(W, A, B, alpha, r):
    return (alpha / r * (B @ A) - W).to(W.dtype)


SEED = 91


def _arguments(r: int, d_in: int, d_out: int, alpha: float, dtype: torch.dtype):
    """Numbers of a few binary digits; the update is about as large as the rounding of W."""

    def draw(generator, rows: int, columns: int, limit: int, step: float) -> Tensor:
        return torch.randint(-limit, limit, (rows, columns), generator=generator) * step

    def make() -> tuple:
        generator = torch.Generator().manual_seed(d_in)
        W = draw(generator, d_out, d_in, 255, 2.0**-6).to(dtype)
        if dtype == torch.float32:
            return (
                W,
                draw(generator, r, d_in, 9, 0.25),
                draw(generator, d_out, r, 9, 0.25),
                alpha,
                r,
            )
        smaller = 2.0**-13 if dtype == torch.bfloat16 else 2.0**-16
        A = draw(generator, r, d_in, 1023, 2.0**-10)
        return W, A, draw(generator, d_out, r, 1023, smaller), alpha, r

    return make


def _cases(reference) -> list[Case]:
    def case(rule: str, dtype: torch.dtype, r: int, d_in: int, d_out: int, alpha: float) -> Case:
        told = f"`{reference.__name__}(W, A, B, {alpha:g}, {r})`: W in {str(dtype)[6:]}, d_in = {d_in}, d_out = {d_out}"
        tolerance = 1e-6 if dtype == torch.float32 else 0
        make = _arguments(r, d_in, d_out, alpha, dtype)
        return Case(told, make, reference, tolerance=tolerance, rule=rule)

    def third(dtype: torch.dtype) -> Case:
        """The factor 1/3. No exact result is near the middle between two numbers of 16 bits."""

        def make() -> tuple:
            generator = torch.Generator().manual_seed(SEED)
            A, B = (torch.randn(*shape, generator=generator) for shape in ((3, 5), (7, 3)))
            return torch.randn(7, 5, generator=generator).to(dtype), 4 * A, B, 1, 3

        told = f"`{reference.__name__}(W, A, B, 1, 3)`: W in {str(dtype)[6:]}, d_in = 5, d_out = 7"
        return Case(told, make, reference, rule="rounding")

    return [
        case("update", torch.float32, 3, 4, 2, 12.0),
        case("update", torch.float32, 5, 2, 7, 2.5),
        case("update", torch.float32, 1, 5, 3, 3.0),
        case("update", torch.float32, 3, 3, 3, 7.0),
        case("rounding", torch.bfloat16, 4, 32, 40, 2.0),
        case("rounding", torch.float16, 3, 33, 41, 6.0),
        third(torch.bfloat16),
    ]


def _draw(rng: random.Random, *_: object) -> tuple:
    A, B, alpha, r = adapter(rng)
    return tensor(rng, B.shape[0], A.shape[1]), A, B, alpha, r


# --- merge_lora ----------------------------------------------------------------------------------
def _layer(d_in: int, d_out: int, r: int, alpha: float, bias: bool, rule: str, seed: int):
    """A LoRA layer with known numbers; A and B have a few binary digits, as in the cases above."""
    generator = torch.Generator().manual_seed(seed)
    layer = LoRALinear(nn.Linear(d_in, d_out, bias), r, alpha, rule=rule)

    def draw(rows: int, columns: int, step: float) -> Tensor:
        return torch.randint(-127, 127, (rows, columns), generator=generator) * step

    with torch.no_grad():
        layer.base.weight.copy_(draw(d_out, d_in, 2.0**-7))
        layer.A.copy_(draw(r, d_in, 2.0**-7))
        layer.B.copy_(draw(d_out, r, 2.0**-9))
        if bias:
            layer.base.bias.copy_(draw(d_out, 1, 2.0**-6)[:, 0])
    return layer.eval()


class _Block(nn.Module):
    def __init__(self, seed: int, rule: str, bias: bool):
        super().__init__()
        self.up = _layer(5, 11, 3, 7.5, bias, rule, seed)
        self.down = _layer(11, 5, 4, 2.0, False, rule, seed + 1)
        self.skip = nn.Linear(5, 5, bias=False)
        nn.init.eye_(self.skip.weight)

    def forward(self, x):
        return self.skip(x) + self.down(torch.tanh(self.up(x)))


class _Model(nn.Module):
    """Two blocks and a head, with LoRA layers inside and outside of the blocks."""

    def __init__(self, rule: str, bias: bool, dtype: torch.dtype):
        super().__init__()
        self.blocks = nn.ModuleList([_Block(3, rule, bias), _Block(13, rule, bias)])
        self.norm = nn.LayerNorm(5)
        self.head = _layer(5, 7, 2, 3.0, bias, rule, 23)
        for name, parameter in self.named_parameters():
            if not name.endswith((".A", ".B")):
                parameter.data = parameter.data.to(dtype)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def _put(model: nn.Module, make: Callable[[LoRALinear], nn.Module], names: Any = None) -> nn.Module:
    """Replace LoRA layers by what ``make`` returns."""
    for name, layer in lora_layers(model).items():
        if names is None or name in names:
            model.set_submodule(name, make(layer))
    return model


def _plain(W: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(W.shape[1], W.shape[0], bias is not None).requires_grad_(False)
    linear.weight.data = W.detach()
    if bias is not None:
        linear.bias.data = bias.detach().clone()
    return linear


def _with(scale: Callable[[LoRALinear], float]) -> Callable[[nn.Module], nn.Module]:
    """Return a way to merge with another factor."""

    def merged(layer: LoRALinear) -> nn.Linear:
        return _plain(merge(layer.weight, layer.A, layer.B, scale(layer), 1), layer.base.bias)

    return lambda model: _put(model, merged)


def _declared(message: str, answer: Callable[[nn.Module], Any]) -> None:
    mistake(MODEL, message)(answer)


_declared("The factor is alpha / r. For a layer with rank-stabilized scaling it is α/√r: layer.scale holds the right one for either.",
          _with(lambda layer: layer.alpha / layer.r))  # fmt: skip
_declared("The scale is divided by r, but it holds this division already.", _with(lambda layer: layer.scale / layer.r))  # fmt: skip
_declared("The product B A is added without any factor.", _with(lambda layer: 1.0))


def _with_new_bias(layer: LoRALinear) -> nn.Linear:
    new = nn.Linear(layer.base.in_features, layer.base.out_features)
    new.weight.data = merge(layer.weight, layer.A, layer.B, layer.scale, 1).detach()
    if layer.base.bias is not None:
        new.bias.data = layer.base.bias.detach().clone()
    return new


_declared("A layer whose base has no bias has one now, with random numbers. Pass bias=base.bias is not None.",
          lambda model: _put(model, _with_new_bias))  # fmt: skip
_declared("The update is subtracted. That takes an adapter out.", _with(lambda layer: -layer.scale))
_declared("The update is added twice.", _with(lambda layer: 2 * layer.scale))
_declared("The adapters are gone, but nothing was merged: each new layer has the weight of the base.", _with(lambda layer: 0.0))  # fmt: skip
_declared("The bias of the base is lost.",
          lambda model: _put(model, lambda m: _plain(merge(m.weight, m.A, m.B, m.scale, 1), None)))  # fmt: skip
_declared("The new weights are in float32, although the base is in bfloat16.",
          lambda model: _put(model, lambda m: _plain(m.weight + m.scale * (m.B @ m.A), m.base.bias)))  # fmt: skip
_declared("The update is rounded to bfloat16 before it is added. Add in float32, and round once, at the end.",
          lambda model: _put(model, lambda m: _plain(m.weight + (m.scale * (m.B @ m.A)).to(m.weight.dtype), m.base.bias)))  # fmt: skip
_declared("A bias is in float32, although the base is in bfloat16. Take over the bias of the base as it is.",
          lambda model: _put(model, lambda m: _plain(merge(m.weight, m.A, m.B, m.scale, 1), _wide(m.base.bias))))  # fmt: skip
_declared("The LoRA layers are still in the model. Put a plain nn.Linear in the place of each.",
          lambda model: [layer.merge() for layer in lora_layers(model).values()] and model)  # fmt: skip
_declared("Only LoRA layers that are direct children of the model are replaced. Most lie inside blocks: named_modules() gives them all.",
          lambda model: _put(_only(model, lambda name: "." not in name), lambda m: m.base, _direct(model)))  # fmt: skip
_declared("Only the first LoRA layer is replaced.",
          lambda model: _put(_only(model, lambda name: name == "blocks.0.up"), lambda m: m.base, ["blocks.0.up"]))  # fmt: skip
_declared("A copy is merged and returned. Two large models may not fit into memory: change the given one.",
          lambda model: merge_lora(copy.deepcopy(model)))  # fmt: skip
_declared("It returns nothing. Return the model, although it is changed in place.", lambda model: merge_lora(model) and None)  # fmt: skip


def _wide(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()


def _direct(model: nn.Module) -> list[str]:
    return [name for name in lora_layers(model) if "." not in name]


def _only(model: nn.Module, which: Callable[[str], bool]) -> nn.Module:
    """Merge some of the LoRA layers, which stay where they are."""
    for name, layer in lora_layers(model).items():
        if which(name):
            layer.merge()
    return model


X = torch.linspace(-2, 2, 30).view(6, 5)


def _see_modules(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    found = {name: module for name, module in model.named_modules() if name}
    return {
        "LoRA layers": [name for name, m in found.items() if isinstance(m, LoRALinear)],
        "linear layers": sorted(name for name, m in found.items() if isinstance(m, nn.Linear) and not name.endswith(".base")),
        "other modules": sorted(name for name, m in found.items() if isinstance(m, (_Block, nn.LayerNorm, nn.ModuleList))),
    }  # fmt: skip


def _see_output(model: Any, given: tuple) -> Any:
    return None if model is None else model(X.to(next(model.parameters()).dtype))


def _see_weights(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return {
        f"{name}.{part}": [str(p.dtype), p.float().tolist()]
        for name, m in found.items()
        for part, p in m.named_parameters(recurse=False)
    }


def _see_same(model: Any, given: tuple) -> dict | None:
    return None if model is None else {"it is the given model": model is given[0]}


def _model_case(
    rule: str, observe: Callable, remark: str, tolerance: float = 0.0, scaling: str = "lora",
    bias: bool = True, dtype: torch.dtype = torch.float32,
) -> Case:  # fmt: skip
    return Case(
        f"`merge_lora(model)`: {remark}", lambda: (_Model(scaling, bias, dtype),),
        merge_lora, tolerance, in_place=(0,), rule=rule, observe=observe,
    )  # fmt: skip


MODEL_CASES = (
    _model_case("plain", _see_modules, "the modules by name; LoRA layers lie inside and outside of blocks"),
    _model_case("output", _see_output, "the output, without biases", 1e-5, bias=False),
    _model_case("output", _see_output, "the output, with biases", 1e-5),
    _model_case("scale", _see_output, "the output; the scaling is rank-stabilized", 1e-5, "rslora"),
    _model_case("rounding", _see_weights, "weights and biases of a base in bfloat16", dtype=torch.bfloat16),
    _model_case("same", _see_same, "what is returned"),
)  # fmt: skip


SHAPES = "W: (d_out, d_in). A: (r, d_in). B: (d_out, r). alpha: a number. r: the rank."
ROUNDING = "W has 32 or 16 bits, A and B 32. Compute in float32, and round once, at the end."
EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            MERGE,
            "Merge an adapter into its weight",
            merge,
            _cases(merge),
            asks=f"Return the merged weight: W with the adapter's update added.\n\n{SHAPES}",
            rules={
                "update": "The result W' computes, for every x: x W'ᵀ = x Wᵀ + (α/r) · x Aᵀ Bᵀ.",
                "rounding": ROUNDING,
                "dtype": "The result is a tensor of the dtype of W.",
                "unchanged": "W, A and B stay as they are.",
            },
            draw=_draw,
            hints=(
                "The update is added to W, so it has the shape of W. Which product of A and B has this shape?",
                ("rounding", "Which dtype does PyTorch give the sum of a bfloat16 and a float32 tensor?"),
                "The conversion to W's dtype belongs around the whole sum, not around one of its parts.",
            ),
            path="Begin with the shapes: W is (d_out, d_in), and only one product of A and B has this shape. Multiply by α/r, add to W, and leave PyTorch to compute the sum "
            "in the wider dtype. Round last, to the dtype of W. The usual wrong turns are a transposed product and rounding the update before it is added.",
            why="One line has four places for a mistake: the factor, the order, the dtype, a second application. Compare the logits before and after: "
            "a wrong factor or order shows. A second rounding is smaller than the error of bfloat16 arithmetic, so for this one compare the weights.",
        ),
        Exercise(
            UNMERGE,
            "Take an adapter out again",
            unmerge,
            _cases(unmerge),
            asks=f"Return the weight as it was before the adapter was merged into W, up to rounding.\n\n{SHAPES}",
            rules={
                "update": "W computes, for every x: x Wᵀ = x W₀ᵀ + (α/r) · x Aᵀ Bᵀ. The result is W₀.",
                "rounding": ROUNDING,
                "dtype": "The result is a tensor of the dtype of W.",
                "unchanged": "W, A and B stay as they are.",
            },
            draw=_draw,
            hints=(
                "It is the same update as in merging. What has to be done with it to undo a sum?",
                ("update", "Solve this equation for the base weight."),
                "Nothing but the sign differs from your merge; the conversion to W's dtype stands in the same place.",
            ),
            path="Write the equation of merging and solve it for the base weight: the update is the same, and it is subtracted. Keep the order of merging, "
            "compute in float32 and round once. The usual wrong turn is to divide W by something: merging added, so unmerging subtracts.",
            why="Subtracting is cheap and needs no copy of the base, so a server can use it to change adapters. "
            "What the rounding leaves behind is measured in the notebook.",
        ),
        Exercise(
            MODEL,
            "Merge a whole model",
            merge_lora,
            MODEL_CASES,
            asks="Merge every LoRA layer of a model into a plain nn.Linear, and return the model.\n\n"
            "`lora_layers(model)`: a dictionary, name -> layer. `model.set_submodule(name, new)` replaces.\n"
            "A LoRALinear has base (an nn.Linear), A, B, and scale, the factor of B A.",
            rules={
                "plain": "Each LoRALinear is replaced, in place, by an nn.Linear of the same name.",
                "output": "The model computes the same as before, up to rounding; biases stay.",
                "scale": "The factor is scale, which holds α/r, or α/√r with rank-stabilized LoRA.",
                "rounding": "Weights and biases keep base's dtype; sum in float32, then round once.",
                "same": "The given model is changed and returned; a copy may not fit into memory.",
            },
            hints=(
                "Three things for each layer: a merged weight, a plain layer that has it, and the name under which it goes into the model.",
                ("plain", "named_modules() gives names such as `blocks.0.up`. List the LoRA layers before you replace the first."),
                "base is an nn.Linear already, with the right bias and dtype: only its weight is not yet what it should be. set_submodule takes a full name.",
            ),
            path="Collect the LoRA layers with their names first: the walk must not meet what you put in. For each, your `merge` gives the weight; with r = 1 the scale takes "
            "the place of α. Write it into base, turn off the recording of gradients, and put base where the LoRA layer was. The usual wrong turn is to "
            "merge and leave the LoRA layer in place: the update then counts twice.",
            why="The old linear layer is used again, so bias, dtype and device need no care. Afterwards no part of the model knows of LoRA: any library can load it.",
            points=2,
        ),
    )
}  # fmt: skip
