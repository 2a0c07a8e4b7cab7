"""Checks of notebook 08: how A and B start, and the gradients of a LoRA layer."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex08_lora_zero_init.gradients import lora_gradients
from sftlab.lora import init_lora_

START, GRADIENTS = "08.init_lora_", "08.lora_gradients"

# --- init_lora_ ----------------------------------------------------------------------------


def _case(
    rule: str, r: int, d_in: int, d_out: int, held: float, trained: bool = False, dtype: torch.dtype = torch.float32,
) -> Case:  # fmt: skip
    def make() -> tuple[Tensor, Tensor]:
        A, B = (torch.full(shape, held, dtype=dtype) for shape in ((r, d_in), (d_out, r)))
        return (nn.Parameter(A), nn.Parameter(B)) if trained else (A, B)

    def verify(_: object, given: tuple) -> str | None:
        return _refilled(given, make(), held) or _wrong_start(*(M.detach().float() for M in given))

    kind = "two parameters" if trained else "two tensors"
    kind += "" if dtype == torch.float32 else f" in {str(dtype).removeprefix('torch.')}"
    told = f"`init_lora_(A, B)`: {kind} full of {held:g}, r = {r}, d_in = {d_in}, d_out = {d_out}"
    return Case(told, make, verify=verify, in_place=True, rule=rule)


def _refilled(given: tuple, before: tuple, held: float) -> str | None:
    """Return what is wrong with the tensors themselves, whatever numbers they hold now."""
    for name, now, then in zip("AB", given, before, strict=True):
        if (now.shape, now.dtype) != (then.shape, then.dtype):
            return Broken(
                "in place",
                f"{name} was {then.dtype} of shape {tuple(then.shape)} and is now {now.dtype} of shape {tuple(now.shape)}.",
            )
        if math.isnan(held) and now.isnan().any():
            return Broken(
                "in place",
                f"{name} held NaN before the call and still holds NaN: multiplying NaN by 0, or subtracting it from itself, gives NaN again.",
            )
        if (now == held).all():
            return Broken(
                "in place",
                f"{name} still holds the value {held:g} that was there before the call. An assignment such as `{name} = …` only gives the name to a new tensor.",
            )
        if (left := int((now == held).sum())) > 1:
            return Broken(
                "in place",
                f"{left} of the {now.numel()} entries of {name} still hold the value {held:g} that was there before the call. Fill all of {name}.",
            )
        if abs(now.mean().item() - held) < 2:
            return Broken(
                "in place",
                f"The entries of {name} lie around {held:g}, the value that was there before the call: is something added to it? Fill {name} anew.",
            )
        if now.requires_grad != then.requires_grad:
            return Broken(
                "parameters",
                f"{name}.requires_grad was {then.requires_grad} and is now {now.requires_grad}.",
            )
    return None


def _wrong_start(A: Tensor, B: Tensor) -> str | None:
    for name, M in (("A", A), ("B", B)):
        if not M.isfinite().all():
            return Broken("in place", f"{name} has entries that are infinite or NaN.")
    if not A.any() and not B.any():
        return Broken(
            "random",
            "Both matrices are zero. The gradient of each passes through the other, so both gradients stay zero and the layer never learns.",
        )
    if not A.any():
        return Broken(
            "zero",
            "The roles are exchanged: A is zero and B is not. LoRA's usual start is A random, B zero.",
        )
    if B.any():
        return Broken(
            "zero",
            f"B is not zero everywhere (largest magnitude {B.abs().max():.2g}): B·A changes the model's output before the first training step.",
        )
    return _wrong_A(A)


def _wrong_A(A: Tensor) -> str | None:
    d_in = A.shape[1]
    if (A[:1, :1] == A).all():
        return Broken("random", "All entries of A are equal. Equal rows get equal gradients and stay equal, so r rows do the work of one.")  # fmt: skip
    if torch.cosine_similarity(A[:1], A[1:], dim=1).abs().min() > 0.99:
        return Broken("random", "The rows of A are equal, or multiples of each other, so that r rows do the work of one.")  # fmt: skip
    if (A == 0).float().mean() > 0.9:
        return Broken("random", "Most entries of A are zero. Draw every entry at random.")
    counts = A.abs().unique(return_counts=True)[1]
    often = int(counts.mode().values)
    if often > 1 and len(counts) >= 20 and (counts == often).float().mean() > 0.9:
        return Broken("random", f"The entries of A are not independent: nearly every number comes {often} times, if signs are left aside. Draw each entry apart.")  # fmt: skip
    spread = A.std().item()
    means = torch.cat([A.mean()[None] * math.sqrt(len(A)), A.mean(dim=1)]) * math.sqrt(d_in)
    if means.abs().max() > 6 * spread:  # 6 standard errors
        return Broken("random", f"The rows of A have the means {[float(f'{m:.2g}') for m in A.mean(dim=1)]}, with a standard deviation of {spread:.2g}: the entries are not 0 on average.")  # fmt: skip
    if (alike := _dependent(A)) is not None:
        return Broken("random", alike)
    size = spread * math.sqrt(d_in)
    if not 0.3 <= size <= 2:
        return Broken("size", f"With d_in = {d_in}, the sum over a row of A has a standard deviation of {size:.2g}; it must be between 0.3 and 2. How does it grow with d_in?")  # fmt: skip
    return None


def _dependent(A: Tensor) -> str | None:
    """Return which parts of A vary together by more than 6 standard errors of independent entries."""
    half = A.shape[1] // 2
    rows = F.normalize(A)
    between = (rows @ rows.T).fill_diagonal_(0).abs().max() * math.sqrt(A.shape[1])
    halves = F.cosine_similarity(A[:, :half], A[:, half : 2 * half]).abs().max() * math.sqrt(half)
    for what, score in (("two rows", between), ("the two halves of a row", halves)):
        if score > 6:
            return f"The entries of A are not independent: {what} go together, {score:.0f} standard errors from a correlation of 0. Draw each entry apart."
    return None


# Unequal sizes, far apart, so that no size fits all of them that depends on r or d_out or nothing.
START_CASES = (
    _case("zero", 3, 47, 5, held=7.0),
    _case("size", 2, 16411, 11, held=7.0),
    _case("in place", 3, 131, 7, held=math.nan),
    _case("parameters", 5, 211, 13, held=7.0, trained=True),
    _case("size", 61, 7, 5, held=7.0),
    _case("seed", 3, 53, 5, held=7.0),
    _case("in place", 3, 131, 7, held=7.0, dtype=torch.float64),
)


# --- lora_gradients ------------------------------------------------------------------------


@mistake(GRADIENTS, "The gradients of A and B are exchanged: the order is x, A, B.")
def _exchanged_gradients(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, of_B, of_A


@mistake(GRADIENTS, "The gradient of x comes last. The order is x, A, B.")
def _x_last(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_A, of_B, of_x


@mistake(GRADIENTS, "The gradient of x has only the part through the frozen W. x reaches y through A and B as well.")  # fmt: skip
def _through_W_alone(x, grad_output, W, A, B, scale):
    _, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return grad_output @ W, of_A, of_B


@mistake(GRADIENTS, "The gradient of x has only the part through A and B. W is frozen, but x reaches y through it as well.")  # fmt: skip
def _through_the_adapter_alone(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x - grad_output @ W, of_A, of_B


@mistake(GRADIENTS, "In the gradient of x the scale multiplies both parts. It stands before B A alone.")  # fmt: skip
def _scale_before_W(x, grad_output, W, A, B, scale):
    return lora_gradients(x, grad_output, scale * W, A, B, scale)


@mistake(GRADIENTS, "In the gradient of x the scale is missing before the part through A and B.")
def _x_unscaled(x, grad_output, W, A, B, scale):
    of_x, _, _ = lora_gradients(x, grad_output, W, A, B, 1.0)
    return of_x, *lora_gradients(x, grad_output, W, A, B, scale)[1:]


@mistake(GRADIENTS, "The gradient of x is added up over the tokens. Each token has a row of its own there.")  # fmt: skip
def _x_summed(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x.sum(0), of_A, of_B


@mistake(GRADIENTS, "The scale is missing: it multiplies the product of A and B, so it is in all three gradients.")  # fmt: skip
def _unscaled(x, grad_output, W, A, B, scale):
    return lora_gradients(x, grad_output, W, A, B, 1.0)


@mistake(GRADIENTS, "The scale is missing in B's gradient. It multiplies the product of A and B, so it is in all three gradients.")  # fmt: skip
def _B_unscaled(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, of_A, of_B / scale


@mistake(GRADIENTS, "The scale is missing in A's gradient. It multiplies the product of A and B, so it is in all three gradients.")  # fmt: skip
def _A_unscaled(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, of_A / scale, of_B


@mistake(GRADIENTS, "The scale is squared: it multiplies the product of A and B once.")
def _scale_squared(x, grad_output, W, A, B, scale):
    return lora_gradients(x, grad_output, W, A, B, scale**2)


@mistake(GRADIENTS, "The gradients of A and B are transposed: each has the shape of its matrix.")
def _transposed(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, of_A.T, of_B.T


@mistake(GRADIENTS, "Those of A and B are divided by the number of tokens. The mean, if there is one, is in grad_output already; here the tokens' parts are added up.")  # fmt: skip
def _mean_over_tokens(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, of_A / len(x), of_B / len(x)


@mistake(GRADIENTS, "The sign is turned: this is the step against the gradient, not the gradient.")
def _sign_turned(x, grad_output, W, A, B, scale):
    return lora_gradients(x, -grad_output, W, A, B, scale)


@mistake(GRADIENTS, "The gradients of A and B are that of the product ΔW, multiplied with their *own* matrix. The chain rule leads through the other one.")  # fmt: skip
def _own_matrix(x, grad_output, W, A, B, scale):
    of_x, _, _ = lora_gradients(x, grad_output, W, A, B, scale)
    whole = scale * grad_output.T @ x  # (d_out, d_in)
    return of_x, A @ whole.T @ whole / whole.norm(), whole @ whole.T @ B / whole.norm()


@mistake(GRADIENTS, "In those of A and B only the first token is in the result. The tokens' parts are added up.")  # fmt: skip
def _first_token(x, grad_output, W, A, B, scale):
    of_x, _, _ = lora_gradients(x, grad_output, W, A, B, scale)
    return of_x, *lora_gradients(x[:1], grad_output[:1], W, A, B, scale)[1:]


def _layer(rng: random.Random, tokens: int, d_in: int, d_out: int, r: int) -> tuple:
    sizes = ((tokens, d_in), (tokens, d_out), (d_out, d_in), (r, d_in), (d_out, r))
    return (*(tensor(rng, *size) for size in sizes), round(rng.uniform(1.2, 3), 2))


def _gradients(rule: str, told: str, *sizes: int, zero: str = "") -> Case:
    def make() -> tuple:
        x, grad_output, W, A, B, scale = _layer(random.Random(sum(sizes)), *sizes)
        return x, grad_output, W, A * (zero != "A"), B * (zero != "B"), scale

    said = (
        "`lora_gradients(x, grad_output, W, A, B, scale)` with {} tokens, d_in {}, d_out {}, r {}: "
    )
    return Case(said.format(*sizes) + told, make, lora_gradients, 1e-4, rule=rule)


GRADIENT_CASES = (
    _gradients("chain", "A and B random", 1, 7, 4, 3),
    _gradients("chain", "B is zero", 1, 5, 6, 2, zero="B"),
    _gradients("chain", "A is zero", 1, 5, 6, 2, zero="A"),
    _gradients("paths", "one token, A and B random", 1, 4, 9, 5),
    _gradients("sum", "four tokens", 4, 6, 3, 2),
    _gradients("sum", "many tokens", 23, 3, 8, 5),
)


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            START,
            "Start A and B",
            init_lora_,
            START_CASES,
            asks="Fill A and B in place with LoRA's usual start.\n\n"
            "A: tensor (r, d_in). B: tensor (d_out, r).",
            rules={
                "in place": "The tensors themselves are filled, whatever they hold, even NaN; shape and dtype stay.",
                "zero": "B is zero everywhere, so that the model starts as the base model.",
                "random": "A is random: its entries are independent of each other and 0 on average.",
                "size": "A·x has a standard deviation of 0.3 to 2 for x of standard deviation 1, for every d_in.",
                "parameters": "A and B may be nn.Parameter objects; requires_grad stays as it is.",
                "seed": "No random seed is set: the layers would all start with the same A.",
            },
            hints=(
                "One of the two is zero, so that B·A is zero; the other is random, so that a gradient gets through. Decide first which is which.",
                ("size", "The variance of a sum of independent terms is the sum of their variances."),
                "Methods whose name ends in an underscore fill a tensor in place; so do the functions of nn.init, which also turn off the recording of gradients.",
            ),
            path="Begin with the matrix that is easy: B, filled with zeros in place. Then choose the size of A's entries: a sum of d_in independent "
            "terms has d_in times the variance of one, so the standard deviation of an entry shrinks with the root of d_in. Last, turn off the recording "
            "of gradients, because PyTorch refuses to change a parameter in place while it records. The usual wrong turn is to assign new tensors to the "
            "names A and B, which leaves the layer's own tensors as they were.",
            why="B is zero, so the product is zero whatever A is. The bound 1/√d_in of A is that of PyTorch's own linear layers (Kaiming with a = √5) and of PEFT; "
            "the functions of `nn.init` turn off the recording of gradients themselves.",
        ),
        Exercise(
            GRADIENTS,
            "The gradients of x, A and B",
            lora_gradients,
            GRADIENT_CASES,
            asks="Return the gradients of x, A and B of a LoRA layer, y = W x + scale · B A x.\n\n"
            "x: (tokens, d_in). grad_output: (tokens, d_out), the loss's gradient with respect to y.\n"
            "W: (d_out, d_in), frozen. A: (r, d_in). B: (d_out, r). scale: a number.",
            rules={
                "chain": "The result is three gradients: of x, of A and of B, each of its shape.",
                "paths": "x reaches y by two paths, through W and through A and B; both count.",
                "sum": "Those of A and B are sums over the tokens, not means; x has a row for each token.",
                "unchanged": "The arguments stay as they are.",
            },
            draw=lambda rng, *_: _layer(rng, *(rng.randint(2, 9) for _ in range(4))),
            hints=(
                "Write y as two steps: h = A x, then y = W x + scale · B h. Begin at the end.",
                ("chain", "For a linear step y = M h, the gradient of M is grad_output.T @ h, and that of h is grad_output @ M."),
                "So B's gradient needs h, which A makes; A's needs what arrives at h through B; x's adds up what arrives through W and through h.",
            ),
            path="Name what lies between the two matrices: hidden = x @ A.T. B's gradient is that of any linear layer that reads hidden. For A's, first carry "
            "grad_output back through B, then do the same with x. The same product, carried on through A, is one part of x's gradient; the other comes through W. "
            "The scale stands in front of B A, so it multiplies what passes there. The usual wrong turn is a "
            "shape that fits by chance: check every product with tokens, d_in, d_out and r all different.",
            why="No gradient of W is formed, although W is needed for that of x: all results for A and B come from thin products over the tokens.",
        ),
    )
}  # fmt: skip
