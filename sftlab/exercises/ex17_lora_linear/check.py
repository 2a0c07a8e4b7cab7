"""Checks of notebook 17: a LoRA layer, by what it computes and what is trained, and a test of such layers.

The third, of ``inject_lora``, is in ``injection``.

A student's class may name its matrices as it likes: A and B are found by their shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex17_lora_linear.injection import INJECT, INJECTION
from sftlab.exercises.ex17_lora_linear.judging import is_lora_layer, passes
from sftlab.exercises.ex17_lora_linear.matrices import fill, find_adapter, seeded, shapes_of
from sftlab.exercises.ex17_lora_linear.zoo import FACTORS, OTHERS, RIGHT, Right, with_factor, zoo
from sftlab.lora import LoRALinear

LAYER, TEST = "17.LoRALinear", "17.is_lora_layer"


# --- The layer -----------------------------------------------------------------------------------
def alpha_over_r(layer: Right) -> float:
    return layer.alpha / layer.r


def _wrong(message: str, **parts: Callable) -> None:
    """Declare a layer of which some parts are wrong."""
    mistake(LAYER, message)(type(f"Wrong: {message[:60]}", (Right,), parts))


PARTS = {name: parts for of_place in OTHERS.values() for name, parts in of_place.items()}

_wrong("The base layer would be trained too, weight and bias. Freeze all of its parameters.", **PARTS["base is trained"])  # fmt: skip
_wrong("The bias of the base layer would be trained. Freeze all of its parameters, not the weight alone.", **PARTS["bias is trained"])  # fmt: skip


@mistake(LAYER, "Nothing in the layer is trained. A and B have to be nn.Parameters that require a gradient; parameters() finds no plain tensors.")  # fmt: skip
class _PlainTensors(Right):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        A, B = self.A.data, self.B.data
        del self.A, self.B
        self.A, self.B = A, B


@mistake(LAYER, "parameters() finds no plain tensors: A and B have to be nn.Parameters. And the bias of the base layer would be trained: freeze all of its parameters.")  # fmt: skip
class _PlainTensorsAndBias(_PlainTensors):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        if base.bias is not None:
            base.bias.requires_grad_(True)


_wrong("A and B both start at zero. Then neither ever gets a gradient, and nothing is learned. A is random.", **PARTS["A and B are zero"])  # fmt: skip
_wrong("Here A starts at zero and B at random. It is the other way round: A is random and B is zero.", **PARTS["A is zero, B random"])  # fmt: skip
_wrong("B does not start at zero, so the first output differs from that of base: the model is changed before it is trained.", **PARTS["B is random"])  # fmt: skip
_wrong("All numbers in A are equal, so all its rows would learn the same. Draw them at random.",
       first_A=lambda self, *shape: torch.ones(*shape))  # fmt: skip
_wrong("The rows of A are equal, or multiples of each other: they would all learn the same. Draw each row anew.",
       first_A=lambda self, r, d_in: torch.randn(1, d_in).repeat(r, 1))  # fmt: skip

for _message, _factor in (
    ("The factor is alpha: it is not divided by r.", FACTORS["α"]),
    ("The correction is added without the factor alpha / r. With alpha = r nobody would notice.", FACTORS["1"]),
    ("The factor is upside down: it is r / alpha, and should be alpha / r.", FACTORS["r/α"]),
    ("The factor is alpha / sqrt(r), that of rank-stabilized LoRA. Here it is alpha / r.", FACTORS["α/√r"]),
    ("The factor is applied twice: the correction is multiplied by the square of alpha / r.", FACTORS["(α/r)²"]),
    ("The factor is 1 / r: alpha is missing.", lambda alpha, r: 1 / r),
    ("The factor is alpha * r. It is alpha / r.", FACTORS["α·r"]),
    ("The factor is rounded down to a whole number. alpha / r need not be whole.", FACTORS["α//r"]),
    ("The factor is the square root of alpha / r.", FACTORS["√(α/r)"]),
    ("The correction is added twice, perhaps once in the weight and once beside it.", lambda alpha, r: 2 * alpha / r),
    ("The correction is subtracted. It is added.", lambda alpha, r: -alpha / r),
):  # fmt: skip
    _wrong(_message, **with_factor(_factor))


_wrong("r and alpha are in each other's place: the matrices have the rank alpha.",
       __init__=lambda self, base, r, alpha: Right.__init__(self, base, int(alpha), r))  # fmt: skip

WITHOUT_THEM = "In eval mode the output is that of base, whatever A and B hold. Is the correction computed at every call, in eval mode too?"
KEPT = "The product of A and B is kept from an earlier call. Training changes A and B between two calls: compute it at each call."


for _again in (True, False):
    _wrong(KEPT, **{**PARTS["B·A kept from a call"], "again_in_training": _again})


@mistake(LAYER, WITHOUT_THEM)
class _ProductOnce(Right):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        self.update = self.factor(alpha, r) * (self.B @ self.A).detach()

    def forward(self, x):
        return self.base(x) + x @ self.update.T


_wrong("Each call adds the correction to the frozen weight once more. Add it to the output, and leave the weight as it is.", **PARTS["weight grows in a call"])  # fmt: skip
_wrong("The bias of base is added twice: base(x) includes it.", **PARTS["bias added twice"])  # fmt: skip
_wrong("The bias of base is left out.", **PARTS["bias left out"])  # fmt: skip
_wrong("The output is the correction alone. It is added to base(x).", forward=lambda self, x: self.correction(x))  # fmt: skip
_wrong(WITHOUT_THEM, forward=lambda self, x: self.base(x))  # fmt: skip
_wrong("The factor is applied to the output of base as well. It belongs to the correction.",
       forward=lambda self, x: self.factor(self.alpha, self.r) * (self.base(x) + x @ self.A.T @ self.B.T))  # fmt: skip
_wrong("The correction is computed from the output of base. It is computed from x.",
       forward=lambda self, x: self.base(x) + self.factor(self.alpha, self.r) * F.pad(self.base(x), (0, 99))[..., : x.shape[-1]] @ self.A.T @ self.B.T)  # fmt: skip
_wrong("There is a nonlinear function between A and B. The correction is a product of matrices.", **PARTS["ReLU after A"])  # fmt: skip
_wrong("The base is a new layer with numbers of its own. Keep the layer that is given.",
       kept=lambda self, base: nn.Linear(base.in_features, base.out_features, base.bias is not None))  # fmt: skip

CUT = "The output is right, but no gradient reaches {}. Something cuts the graph: detach(), .data or no_grad()."
_wrong(CUT.format("A"), **PARTS["no gradient for A"])
_wrong(CUT.format("B"), **PARTS["no gradient for B"])
_wrong(CUT.format("A and B"), correction=lambda self, x: self.factor(self.alpha, self.r) * (x @ self.A.detach().T @ self.B.detach().T))  # fmt: skip
_wrong(CUT.format("A, B and x"), forward=lambda self, x: (self.base(x) + self.correction(x)).detach())  # fmt: skip
_wrong("The gradient of x is incomplete: the part that passes through A and B is cut off by detach() or .data.", **PARTS["part of x's gradient"])  # fmt: skip
_wrong("The gradient of x is incomplete: the part that passes through the frozen base is cut off, so no layer below would learn from it.",
       forward=lambda self, x: self.base(x).detach() + self.correction(x))  # fmt: skip

_wrong("In training mode the correction is left out, so A and B never get a gradient. It belongs to both modes.",
       forward=lambda self, x: self.base(x) + (0 if self.training else self.correction(x)))  # fmt: skip
_wrong("In training mode the correction is, on average, not that of eval mode. Is there another factor, or a dropout that does not scale what it keeps?",
       factor=lambda self, alpha, r: alpha if self.training else alpha / r)  # fmt: skip
_wrong("In training mode no gradient reaches A, although one does in eval mode.",
       correction=lambda self, x: alpha_over_r(self) * (x @ (self.A.detach() if self.training else self.A).T @ self.B.T))  # fmt: skip
_wrong("In training mode the output is random already at the start, where B is zero. Dropout belongs on the way to A, not on the way to base.",
       forward=lambda self, x: Right.forward(self, F.dropout(x, 0.3, self.training)))  # fmt: skip


# --- The layer: what is compared -----------------------------------------------------------------
def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _trained(layer: nn.Module) -> list[Tensor]:
    return [p for p in layer.parameters() if p.requires_grad]


def _known(layer: Any, given: tuple) -> dict[str, Tensor] | None:
    """Put the layer into eval mode, and known numbers into its A and B."""
    base, r, _ = given
    layer.eval()
    adapter = find_adapter(_trained(layer), base.in_features, base.out_features, r)
    fill(adapter, seed=3)
    return adapter


def _see_trained(layer: Any, given: tuple) -> dict:
    return {"shapes of the trained parameters": shapes_of(_trained(layer))}


def _see_start(layer: Any, given: tuple) -> dict:
    base, r, _ = given
    layer.eval()
    found = find_adapter(_trained(layer), base.in_features, base.out_features, r) or {}
    A, B = found.get("A"), found.get("B")
    return {
        "first output": layer(_x(3, base.in_features)),
        "A is zero": A is not None and not A.any(),
        "A holds different numbers": A is not None and bool(A.unique().numel() > 1),
        "A's rows are no multiples of each other": A is not None
        and bool(F.cosine_similarity(A[:1], A[1:]).abs().min() < 0.99),
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
    found = (find_adapter(_trained(layer), *sizes, of=lambda p: p.grad) or {}) | {"x": x.grad}
    reached = {name: found[name] for name in "ABx" if found.get(name) is not None}
    return {"reached by a gradient": list(reached)} | {
        f"gradient of {n}": g for n, g in reached.items()
    }


def _see_training(layer: Any, given: tuple) -> dict:
    """Look at one input many times, so that dropout is averaged out."""
    x = _x(1, given[0].in_features).repeat(4096, 1).requires_grad_()
    start = [layer.train(mode)(x).detach() for mode in (True, False)]
    adapter = _known(layer, given)
    out = layer.train()(x)
    if out.requires_grad:
        out.square().sum().backward()
    base, r, _ = given
    sizes = (base.in_features, base.out_features, r)
    grads = (find_adapter(_trained(layer), *sizes, of=lambda p: p.grad) or {}) | {"x": x.grad}
    calm = layer.eval()(x).detach()
    apart = (out.detach().mean(0) - calm.mean(0)).norm()
    return {
        "at the start, training mode gives the output of eval mode": torch.allclose(*start, 1e-4, 1e-4),
        "in training mode the average output is that of eval mode": bool(
            adapter and apart <= 0.25 * (calm - start[1]).mean(0).norm() + 1e-4
        ),
        "reached by a gradient in training mode": [n for n in "ABx" if grads.get(n) is not None],
    }  # fmt: skip


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
        return seeded(lambda: nn.Linear(d_in, d_out, bias=bias)), r, alpha

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
    _layer_case("backward", _see_training, "one x, 4,096 times, in training mode", 7, 5, 3, 11),
    _layer_case("shape", _see_shapes, "x with one dimension and with three", 7, 5, 3, 11),
    _layer_case(
        "backward", _see_gradients, "the gradients of the sum of the squared outputs", 7, 5, 3, 11
    ),
)


# --- The test of layers --------------------------------------------------------------------------
def _judge(
    layer_class, settings=((3, 7.0), (4, 2.0)), d_in=7, start=True, trained=True, fill=True, calls=2,
    gradients="ABx", bias=True, in_eval=True, close=1e-3, catch=True,
):  # fmt: skip
    """A test that looks at all of it, unless it is told to leave something out."""
    try:
        for r, alpha in settings:
            base = nn.Linear(d_in, 5, bias=bias)
            W, b = base.weight.detach().clone(), base.bias.detach().clone() if bias else None
            layer = layer_class(base, r, alpha)
            if in_eval:
                layer.eval()
            A, B = layer.A, layer.B
            if start and (B.any() or not A.any()):
                return False
            if trained and {id(p) for p in layer.parameters() if p.requires_grad} != {id(A), id(B)}:
                return False
            for _ in range(calls):
                if fill:
                    nn.init.normal_(A), nn.init.normal_(B)
                x = torch.randn(6, d_in, requires_grad=True)
                outputs = layer(x), F.linear(x, W, b) + alpha / r * (x @ A.T @ B.T)
                wanted = [{"A": A, "B": B, "x": x}[name] for name in gradients]
                seen = [[y, *(torch.autograd.grad(y.square().sum(), wanted) if wanted else ())] for y in outputs]  # fmt: skip
                if not all(torch.allclose(*pair, close, close) for pair in zip(*seen, strict=True)):
                    return False
    except Exception:
        if catch:
            return False
        raise
    return True


def _misses(message: str, **left_out: Any) -> None:
    """Declare a test that leaves something out."""
    mistake(TEST, message)(lambda layer_class: _judge(layer_class, **left_out))


_misses("It accepts three wrong factors, which are all 1 when alpha = r, as alpha / r is. Make layers with alpha ≠ r.", settings=((3, 3.0), (4, 4.0)))  # fmt: skip
_misses("It accepts classes that do not start at the base, and one that can never learn. Look at A and B before you put numbers in.", start=False)  # fmt: skip
_misses("It accepts a class that trains its base. Which parameters require a gradient?", trained=False)  # fmt: skip
_misses("It compares outputs only, and accepts classes that cut a gradient: the loss would not reach A, or a layer below.", gradients="")  # fmt: skip
_misses("It accepts a class in which x gets no gradient through A and B, so that layers below learn something else.", gradients="AB")  # fmt: skip
_misses("It accepts a class that keeps the product B·A from its first call. Change A and B and call it again.", calls=1)  # fmt: skip
_misses("The base has no bias, so a class that adds it twice passes, and so does one that leaves it out.", bias=False)  # fmt: skip
_misses("The layer is not put into eval mode. There dropout is off, so that a right class with dropout can be told from one that drops in eval mode.", in_eval=False)  # fmt: skip
_misses("It refuses right classes that add in another order, because it compares all digits. Allow a rounding error.", close=0.0)  # fmt: skip
_misses(
    "It accepts a class that confuses d_in with d_out. Are the layers not square, and are A and B filled in place, as by normal_? New tensors put in by .data give a wrong layer the right shape.",
    d_in=5,
)
_misses("It leaves B at zero, and B·A is zero then, whatever the factor is. Put other numbers into A and B.", fill=False, gradients="")  # fmt: skip
_misses("It stops with an error when a class does. That is a refusal too: return False.", catch=False)  # fmt: skip


@mistake(TEST, "It accepts every class.")
def _always(layer_class):
    return True


# So does a test that looks for a gradient of A at the start: no class has one and passes the rest.
@mistake(TEST, "It refuses every class, right ones too. Does it look for a gradient of A while B is zero? There it is zero in a right layer too: put numbers into B first.")  # fmt: skip
def _never(layer_class):
    return False


@mistake(TEST, "The answers are exchanged: True means that a class is right.")
def _exchanged(layer_class):
    return not is_lora_layer(layer_class)


ZOO = {name: layer for of_kind in zoo().values() for name, layer in of_kind.items()}


def _judged(rule: str, name: str, told: str) -> Case:
    right = name in RIGHT

    def verify(said: Any, given: tuple) -> str | None:
        if said is None or isinstance(said, str | list | tuple | dict):
            return f"It returns {said!r:.40}. Return True or False."
        if bool(said) == right:
            return None
        return f"It refuses a right class: {told}." if right else f"It accepts a wrong class: {told}."  # fmt: skip

    kind = "right" if right else "wrong"
    return Case(f"`is_lora_layer` of a {kind} class: {told}", lambda: (ZOO[name],), verify=verify, rule=rule)  # fmt: skip


TEST_CASES = (
    _judged("right", "the formula", "the formula, written as it stands"),
    _judged("right", "B·A added to the weight in each call", "it computes x (W + alpha / r · B·A)ᵀ, which rounds in another order: allow 1e-3"),
    _judged("right", "dropout in training", "half of x is dropped on the way to A in training mode"),
    _judged("right", "small numbers in A", "A starts between −0.01 and 0.01"),
    _judged("factor", "α", "its factor is alpha"),
    _judged("factor", "1", "its factor is 1"),
    _judged("factor", "r/α", "its factor is r / alpha"),
    _judged("factor", "(α/r)²", "its factor is (alpha / r)²"),
    _judged("start", "B is random", "A and B both start at random"),
    _judged("start", "A and B are zero", "A and B both start at zero"),
    _judged("trained", "base is trained", "its base is not frozen"),
    _judged("gradient", "no gradient for A", "A is detached in forward"),
    _judged("gradient", "part of x's gradient", "x is detached on its way to A"),
    _judged("output", "B·A kept from a call", "it computes B·A in its first call and keeps it"),
    _judged("output", "bias left out", "the bias of base is left out"),
    _judged("output", "bias added twice", "the bias of base is added twice"),
    _judged("output", "dropout in eval mode", "half of x is dropped in eval mode too"),
    _judged("error", "d_in and d_out exchanged", "A is (r, d_out) and B is (d_in, r), so only square layers can be called"),
)  # fmt: skip

EXERCISES = {
    LAYER: Exercise(
        LAYER,
        "A LoRA layer",
        LoRALinear,
        LAYER_CASES,
        asks="A linear layer with a low-rank correction, made of two small matrices A and B.\n\n"
        "base: nn.Linear(d_in, d_out), with or without a bias. r: the rank. alpha: a number.",
        rules={
            "formula": "The output is base(x) + (alpha / r) · x Aᵀ Bᵀ, with A and B as they are then.",
            "shape": "A is (r, d_in), B is (d_out, r), or transposed, named freely. x is (..., d_in).",
            "trained": "Only A and B require a gradient: weight and bias of base do not.",
            "start": "A starts random, no two rows alike, and B at zero: the first output is base's.",
            "seed": "Set no random seed: with one, all layers would start with the same A.",
            "again": "A call changes no number. Nothing is random but dropout before A, in training.",
            "backward": "Gradients reach A, B and x, also in training; its average output is the same.",
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
    TEST: Exercise(
        TEST,
        "A test of LoRA layers",
        is_lora_layer,
        TEST_CASES,
        asks="Return whether a class makes right LoRA layers: True or False.\n\n"
        "layer_class: a class or function, called as layer_class(base, r, alpha), like yours.\n"
        "Its layers have the matrices A (r, d_in) and B (d_out, r), under these names.\n"
        "You choose the base, an nn.Linear, and r and alpha.",
        rules={
            "right": "Accepted: a right class, also with dropout in training. Compare outputs and gradients to 1e-3, absolute and relative.",
            "factor": "Refused: in eval mode, any other factor than alpha / r.",
            "start": "Refused: at the start, B is not all zeros, or A is all zeros.",
            "trained": "Refused: anything but A and B is trained.",
            "gradient": "Refused: in eval mode, A, B or x gets another gradient than by the formula, or none.",
            "output": "Refused: in eval mode, another output than the formula's, in the first call or a later one.",
            "error": "Refused: a layer that stops with an error. Return False then.",
        },
        hints=(
            "A layer has a life: it is made, called, trained, called again. What can you look at in each part?",
            ("output", "You know what is right for any A and B: write the formula down, with the weight and bias as they were before the layer was made."),
            "Make the numbers unlike each other: d_in and d_out, r and alpha, and a base with a bias. Put random numbers into A and B before you compare.",
        ),
        path="Begin with the base that you hand over: not square, with a bias, and copies of both kept aside. Make the layer and look at it before it is called: what is "
        "trained, where A and B start. Then fill both with random numbers, because a B of zero hides every factor, and compare the output with the formula. The same comparison of "
        "gradients finds what is cut. Do it twice, with new numbers. The usual wrong turn is alpha = r.",
        why="Two settings are better than one: at r = 3 and alpha = 7 the factor is no whole number, and at r = 4 and alpha = 2 it is below 1. `passes` compares with the formula and with its "
        "gradients; autograd knows them, so they need not be derived. An exception counts as a refusal, because a wrong class must not end the test of the next one.",
        points=3,
        shows=(passes,),
    ),
    INJECT: INJECTION,
}  # fmt: skip
