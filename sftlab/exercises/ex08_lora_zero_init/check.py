"""Checks of notebook 08: how A and B start, their gradients, and which layers can never change."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex08_lora_zero_init.gradients import lora_gradients
from sftlab.lora import init_lora_
from sftlab.lora_statistics import which_is_stuck

START, GRADIENTS, STUCK = "08.init_lora_", "08.lora_gradients", "08.which_is_stuck"

# --- init_lora_ ----------------------------------------------------------------------------


def _case(rule: str, r: int, d_in: int, d_out: int, held: float, trained: bool = False) -> Case:
    def make() -> tuple[Tensor, Tensor]:
        A, B = torch.full((r, d_in), held), torch.full((d_out, r), held)
        return (nn.Parameter(A), nn.Parameter(B)) if trained else (A, B)

    def verify(_: object, given: tuple) -> str | None:
        return _refilled(given, make(), held) or _wrong_start(*(M.detach() for M in given))

    kind = "two parameters" if trained else "two tensors"
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
    size = spread * math.sqrt(d_in)
    if not 0.3 <= size <= 2:
        return Broken("size", f"With d_in = {d_in}, the sum over a row of A has a standard deviation of {size:.2g}; it must be between 0.3 and 2. How does it grow with d_in?")  # fmt: skip
    return None


# Unequal sizes, far apart, so that no size fits all of them that depends on r or d_out or nothing.
START_CASES = (
    _case("zero", 3, 47, 5, held=7.0),
    _case("size", 2, 16411, 11, held=7.0),
    _case("in place", 3, 131, 7, held=math.nan),
    _case("parameters", 5, 211, 13, held=7.0, trained=True),
    _case("size", 61, 7, 5, held=7.0),
    _case("seed", 3, 53, 5, held=7.0),
)


# --- lora_gradients ------------------------------------------------------------------------


@mistake(GRADIENTS, "The gradients are exchanged: A's comes first.")
def _exchanged_gradients(x, grad_output, A, B, scale):
    of_A, of_B = lora_gradients(x, grad_output, A, B, scale)
    return of_B, of_A


@mistake(GRADIENTS, "The scale is missing: it multiplies the product of A and B, so it is in both gradients.")  # fmt: skip
def _unscaled(x, grad_output, A, B, scale):
    return lora_gradients(x, grad_output, A, B, 1.0)


@mistake(GRADIENTS, "The scale is in A's gradient only. It multiplies the product of A and B, so it is in both gradients.")  # fmt: skip
def _scale_in_A_only(x, grad_output, A, B, scale):
    of_A, of_B = lora_gradients(x, grad_output, A, B, scale)
    return of_A, of_B / scale


@mistake(GRADIENTS, "The scale is in B's gradient only. It multiplies the product of A and B, so it is in both gradients.")  # fmt: skip
def _scale_in_B_only(x, grad_output, A, B, scale):
    of_A, of_B = lora_gradients(x, grad_output, A, B, scale)
    return of_A / scale, of_B


@mistake(GRADIENTS, "The scale is squared: it multiplies the product of A and B once.")
def _scale_squared(x, grad_output, A, B, scale):
    return lora_gradients(x, grad_output, A, B, scale**2)


@mistake(GRADIENTS, "The gradients are transposed: each has the shape of its matrix.")
def _transposed(x, grad_output, A, B, scale):
    of_A, of_B = lora_gradients(x, grad_output, A, B, scale)
    return of_A.T, of_B.T


@mistake(GRADIENTS, "They are divided by the number of tokens. The mean, if there is one, is in grad_output already; here the tokens' parts are added up.")  # fmt: skip
def _mean_over_tokens(x, grad_output, A, B, scale):
    return lora_gradients(x, grad_output / len(x), A, B, scale)


@mistake(GRADIENTS, "The sign is turned: this is the step against the gradient, not the gradient.")
def _sign_turned(x, grad_output, A, B, scale):
    return lora_gradients(x, -grad_output, A, B, scale)


@mistake(GRADIENTS, "Each gradient is that of the product ΔW, multiplied with its *own* matrix. The chain rule leads through the other one.")  # fmt: skip
def _own_matrix(x, grad_output, A, B, scale):
    whole = scale * grad_output.T @ x  # (d_out, d_in)
    return A @ whole.T @ whole / whole.norm(), whole @ whole.T @ B / whole.norm()


@mistake(GRADIENTS, "Only the first token is in the result. The tokens' parts are added up.")
def _first_token(x, grad_output, A, B, scale):
    return lora_gradients(x[:1], grad_output[:1], A, B, scale)


def _layer(rng: random.Random, tokens: int, d_in: int, d_out: int, r: int) -> tuple:
    sizes = ((tokens, d_in), (tokens, d_out), (r, d_in), (d_out, r))
    return (*(tensor(rng, *size) for size in sizes), round(rng.uniform(1.2, 3), 2))


def _gradients(rule: str, told: str, *sizes: int, zero: str = "") -> Case:
    def make() -> tuple:
        x, grad_output, A, B, scale = _layer(random.Random(sum(sizes)), *sizes)
        return x, grad_output, A * (zero != "A"), B * (zero != "B"), scale

    said = "`lora_gradients(x, grad_output, A, B, scale)` with {} tokens, d_in {}, d_out {}, r {}: "
    return Case(said.format(*sizes) + told, make, lora_gradients, 1e-4, rule=rule)


GRADIENT_CASES = (
    _gradients("chain", "both matrices random", 1, 7, 4, 3),
    _gradients("chain", "B is zero", 1, 5, 6, 2, zero="B"),
    _gradients("chain", "A is zero", 1, 5, 6, 2, zero="A"),
    _gradients("sum", "four tokens", 4, 6, 3, 2),
    _gradients("sum", "many tokens", 23, 3, 8, 5),
)


# --- which_is_stuck ------------------------------------------------------------------------


@mistake(STUCK, "Every layer whose A has no gradient is returned. That is how LoRA starts (B is zero): B has a gradient and moves, and then A gets one.")  # fmt: skip
def _of_A(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == 0]


@mistake(STUCK, "Every layer whose B has no gradient is returned. There A is zero, but A has a gradient and moves, and then B gets one.")  # fmt: skip
def _of_B(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if b == 0]


@mistake(STUCK, "A layer is returned as soon as one of its norms is 0. The matrix that has a gradient moves, and then the other one gets a gradient too.")  # fmt: skip
def _of_either(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == 0 or b == 0]


@mistake(STUCK, "Layers with exactly one zero norm are returned. In these, one matrix moves and frees the other.")  # fmt: skip
def _of_one(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if (a == 0) != (b == 0)]


@mistake(STUCK, "A gradient of 1e-15 is taken for none, by a threshold or by rounding. However small it is, it moves its matrix.")  # fmt: skip
def _tiny(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a < 1e-6 and b < 1e-6]


@mistake(STUCK, "A gradient of 1e-40 is taken for none, by a threshold or because its square is 0 in float32. However small it is, it moves its matrix.")  # fmt: skip
def _very_tiny(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a < 1e-30 and b < 1e-30]


@mistake(STUCK, "Only the first layer is looked at: does a `return` stand inside the loop?")
def _return_in_loop(grad_norms):
    return [name for name in which_is_stuck(grad_norms) if name == next(iter(grad_norms))]


@mistake(STUCK, "The layers that can change are returned. Return the others.")
def _moving(grad_norms):
    return [name for name, pair in grad_norms.items() if any(pair)]


@mistake(STUCK, "The layers whose matrices both have a gradient are returned. These change; return those that cannot.")  # fmt: skip
def _both_moving(grad_norms):
    return [name for name, pair in grad_norms.items() if all(pair)]


@mistake(STUCK, "The layers whose two norms are equal are returned. Two equal gradients above 0 both move their matrix.")  # fmt: skip
def _equal(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == b]


@mistake(STUCK, "Only the first such layer is returned, although there are more.")
def _first(grad_norms):
    return which_is_stuck(grad_norms)[:1]


@mistake(STUCK, "The result says only whether there is such a layer. Return the names.")
def _whether(grad_norms):
    return bool(which_is_stuck(grad_norms))


@mistake(STUCK, "The result is the number of such layers. Return their names.")
def _how_many(grad_norms):
    return len(which_is_stuck(grad_norms))


@mistake(STUCK, "The pairs of norms are returned. Return the names.")
def _norms(grad_norms):
    return [grad_norms[name] for name in which_is_stuck(grad_norms)]


@mistake(STUCK, "Each name is returned together with its norms. Return the names alone.")
def _items(grad_norms):
    return [(name, grad_norms[name]) for name in which_is_stuck(grad_norms)]


@mistake(STUCK, "The positions of the layers are returned. Return their names.")
def _positions(grad_norms):
    return [list(grad_norms).index(name) for name in which_is_stuck(grad_norms)]


@mistake(STUCK, "One True or False for each layer is returned. Return the names of the layers that cannot change.")  # fmt: skip
def _mask(grad_norms):
    return [not any(pair) for pair in grad_norms.values()]


def _stuck(rule: str, describe: str, **norms: tuple[float, float]) -> Case:
    told = f"`which_is_stuck({norms})`: {describe}"
    return Case(told, lambda: (dict(norms),), which_is_stuck, rule=rule)


STUCK_CASES = (
    _stuck("stuck", "the second layer is stuck", up=(0.4, 0.3), down=(0.0, 0.0)),
    _stuck("stuck", "B of q has a gradient", q=(0.0, 2.7), v=(0.0, 0.0)),
    _stuck("stuck", "A of q has a gradient", q=(15.5, 0.0), v=(0.0, 0.0)),
    _stuck("stuck", "two equal gradients", k=(0.2, 0.2), o=(0.0, 0.0)),
    _stuck("tiny", "tiny gradients", q=(1e-15, 0.0), k=(0.0, 1e-15), v=(1e-15, 1e-15), o=(0.0, 0.0)),
    _stuck("tiny", "the tiniest gradients", q=(1e-40, 0.0), k=(0.0, 1e-40), o=(0.0, 0.0)),
    _stuck("order", "three are stuck", v=(0.0, 0.0), k=(0.0, 0.7), q=(0.0, 0.0), a=(0.0, 0.0)),
    _stuck("order", "no layer is stuck", q=(0.0, 1.5), v=(0.0, 0.7)),
)  # fmt: skip


def _draw(rng: random.Random, *_: object) -> tuple:
    kinds: list[Callable[[], tuple]] = [
        lambda: (0.0, rng.random() + 0.1), lambda: (0.0, 0.0), lambda: (rng.random() + 0.1, 0.0), lambda: (1e-15, 0.0),
    ]  # fmt: skip
    return ({f"layers.{k}.q_proj": rng.choice(kinds)() for k in range(rng.randint(2, 7))},)


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
            "The gradients of A and B",
            lora_gradients,
            GRADIENT_CASES,
            asks="Return the gradients of A and B of a LoRA layer, y = W x + scale · B A x.\n\n"
            "x: (tokens, d_in). grad_output: (tokens, d_out), the loss's gradient with respect to y.\n"
            "A: (r, d_in). B: (d_out, r). scale: a number.",
            rules={
                "chain": "The result is a pair: the gradient of A, then that of B, each of its shape.",
                "sum": "Sum over the tokens; do not average.",
                "unchanged": "The arguments stay as they are.",
            },
            draw=lambda rng, *_: _layer(rng, *(rng.randint(2, 9) for _ in range(4))),
            hints=(
                "Write y as two steps: h = A x, then y = W x + scale · B h. Begin at the end.",
                ("chain", "For a linear step y = M h, the gradient of M is grad_output.T @ h, and that of h is grad_output @ M."),
                "So B's gradient needs h, which A makes; A's needs what arrives at h through B.",
            ),
            path="Name what lies between the two matrices: hidden = x @ A.T. B's gradient is that of any linear layer that reads hidden. For A's, first carry "
            "grad_output back through B, then do the same with x. The scale stands in front of the product, so it multiplies both. The usual wrong turn is a "
            "shape that fits by chance: check every product with tokens, d_in, d_out and r all different.",
            why="No gradient of W is formed: both results come from thin products over the tokens.",
        ),
        Exercise(
            STUCK,
            "Find the layers that cannot change",
            which_is_stuck,
            STUCK_CASES,
            asks="Return the names of the LoRA layers that can never change, as a list.\n\n"
            "grad_norms: {layer: (norm of A's gradient, norm of B's)} after one backward pass.",
            rules={
                "stuck": "A layer is returned if neither matrix will ever move, moved by gradients alone.",
                "tiny": "Only a norm of exactly 0 is no gradient. Any other moves its matrix, however small.",
                "order": "The names stand in the order of grad_norms; without any, the list is empty.",
                "unchanged": "grad_norms stays as it is.",
            },
            draw=_draw,
            hints=(
                "Go through the four cases: each of the two gradients is zero or not. In which of them does nothing move at the next step?",
                ("stuck", "If one matrix moves, what happens to the gradient of the other one a step later?"),
                "Go over the names with their pairs, and test both numbers of a pair.",
            ),
            path="Write down the four combinations of gradients first: both, only A's, only B's, none. One zero is the healthy start of LoRA, so it decides nothing. "
            "What is left is one condition on both norms, tested for each name in order. The usual wrong turn is a threshold for small gradients.",
            why="One backward pass on the untrained model is enough to know. The check belongs in every training script: a stuck adapter raises no error, "
            "and its loss curve still moves, because the batches differ.",
        ),
    )
}  # fmt: skip
