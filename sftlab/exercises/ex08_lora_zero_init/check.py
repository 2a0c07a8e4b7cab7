"""The checks of notebook 08: how A and B start, and which layers can never move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import init_lora_
from sftlab.lora_statistics import which_is_stuck

START, STUCK = "08.init_lora_", "08.which_is_stuck"
UNFILLED = 7.0  # what the matrices hold before they are filled


def _matrices(r: int, d_in: int, d_out: int, trainable: bool):
    def make() -> tuple[Tensor, Tensor]:
        A, B = torch.full((r, d_in), UNFILLED), torch.full((d_out, r), UNFILLED)
        return (nn.Parameter(A), nn.Parameter(B)) if trainable else (A, B)

    return make


def _verify_start(_: Any, given: tuple) -> str | None:
    """What is wrong with the two matrices that were filled."""
    A, B = (matrix.detach() for matrix in given)
    left = [name for name, M in (("A", A), ("B", B)) if (M == UNFILLED).any()]
    if left:
        return (
            f"{' and '.join(left)} still {'holds' if len(left) == 1 else 'hold'} what was there before. `A = …` only gives the name to a new tensor: "
            "fill the one you were given, with methods that end in an underscore, such as `zero_()`."
        )
    if not (A.isfinite().all() and B.isfinite().all()):
        return "There are entries that are infinite or not a number."
    if not A.any() and not B.any():
        return "Both are zero. The gradient of each passes through the other, so both gradients are zero too, for ever: the layer is stuck."
    if not A.any():
        return "The other way round: here B is random and A is zero. It would start at the base as well, but LoRA's own start is A random, B zero."
    if B.any():
        return "B is not zero, so B·A is not either: the model would start away from the base, with its output changed before the first step."
    return _wrong_A(A) or _frozen(given)


def _wrong_A(A: Tensor) -> str | None:
    d_in = A.shape[1]
    if (A[0] == A[1]).all():
        return "The rows of A are alike. They would get like gradients and stay alike: r rows would do the work of one. Draw them at random."
    if (A == 0).float().mean() > 0.5:
        return "Most of A is zero. Every entry is drawn at random."
    if A.mean().abs() > 0.5 * A.std():
        return "The entries of A are not centred at zero: every row would mostly measure the mean of its inputs."
    size = (A.std() * (3 * d_in) ** 0.5).item()  # 1 if uniform within ±1/√d_in
    if size > 5:
        return (
            f"The entries of A are about {size:.0f} times too large. Each row of A adds up d_in = {d_in} inputs: keep them within about ±1/√d_in. "
            "Was another width used, or none?"
        )
    if size < 0.2:
        return f"The entries of A are about {1 / size:,.0f} times smaller than 1/√d_in: hardly any gradient reaches B through them."
    return None


def _frozen(given: tuple) -> str | None:
    """A filled parameter must still be one that is trained."""
    if any(isinstance(matrix, nn.Parameter) and not matrix.requires_grad for matrix in given):
        return "The matrices no longer require a gradient: nothing would be trained. Fill them inside `torch.no_grad()` and leave the flag alone."
    return None


@mistake(STUCK, "A without a gradient is how every LoRA starts: B is zero, and moves first. Stuck is a layer with no gradient at all.")  # fmt: skip
def _of_A(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == 0]


@mistake(STUCK, "B without a gradient means that A is zero; A has a gradient and moves. Stuck is a layer with no gradient at all.")  # fmt: skip
def _of_B(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if b == 0]


@mistake(STUCK, "One zero is not enough: the matrix that has a gradient moves, and frees the other. Stuck means A *and* B.")  # fmt: skip
def _of_either(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == 0 or b == 0]


@mistake(STUCK, "A tiny gradient is not zero: Adam divides a step by the gradient's own size, so it moves all the same. Compare with 0.")  # fmt: skip
def _tiny(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a < 1e-6 and b < 1e-6]


@mistake(STUCK, "Those are the layers that *do* move. Asked for are the others.")
def _moving(grad_norms):
    return [name for name, pair in grad_norms.items() if any(pair)]


@mistake(STUCK, "Those are layers in which both matrices have a gradient. Asked for are those in which neither has.")  # fmt: skip
def _both_moving(grad_norms):
    return [name for name, pair in grad_norms.items() if all(pair)]


@mistake(STUCK, "Equal is not zero: two gradients of the same size are healthy.")
def _equal(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == b]


@mistake(STUCK, "Only the first one is returned. There may be more.")
def _first(grad_norms):
    return which_is_stuck(grad_norms)[:1]


@mistake(STUCK, "That says whether there is one. Asked for are their names, in a list.")
def _whether(grad_norms):
    return bool(which_is_stuck(grad_norms))


@mistake(STUCK, "That is how many there are. Asked for are their names, in a list.")
def _how_many(grad_norms):
    return len(which_is_stuck(grad_norms))


@mistake(STUCK, "Those are their norms. Asked for are their names.")
def _norms(grad_norms):
    return [grad_norms[name] for name in which_is_stuck(grad_norms)]


def _stuck(describe: str, **norms: tuple[float, float]) -> Case:
    return Case(describe, lambda: (dict(norms),), which_is_stuck)


EXERCISES = {
    START: Exercise(
        id=START,
        title="Start A and B",
        reference=init_lora_,
        cases=[
            Case("two tensors, r = 4, d_in = 400, d_out = 10", _matrices(4, 400, 10, False), verify=_verify_start, in_place=True),
            Case("two parameters, r = 2, d_in = 900, d_out = 12", _matrices(2, 900, 12, True), verify=_verify_start, in_place=True),
        ],
        hints=[
            "One of the two is zero, so that B·A is zero; the other is random, so that a gradient gets through. Which is which?",
            "B.zero_(), and A.uniform_(-bound, bound). Each row of A adds up d_in inputs; the bound shrinks with the root of that.",
            "Parameters complain about changes in place while gradients are recorded: do it inside `with torch.no_grad():`.",
        ],
        why="B is zero, so the product is zero whatever A is. A's bound 1/√d_in is that of PyTorch's own linear layers (Kaiming, a = √5), and PEFT's; "
        "functions of `nn.init` switch the recording of gradients off by themselves.",
    ),
    STUCK: Exercise(
        id=STUCK,
        title="Find the layers that cannot move",
        reference=which_is_stuck,
        cases=[
            _stuck("one of each kind", young=(0.0, 2.7), stuck=(0.0, 0.0), turned=(15.5, 0.0), going=(0.2, 0.2), dead=(0.0, 0.0), late=(0.3, 0.9)),
            _stuck("very small gradients", small=(1e-9, 0.0), smaller=(0.0, 1e-12), stuck=(0.0, 0.0)),
            _stuck("none is stuck", q=(0.0, 1.5), v=(0.0, 0.7)),
            _stuck("all are", k=(0.0, 0.0), o=(0.0, 0.0)),
        ],
        hints=[
            "When does a layer never change? What must hold for A, and what for B?",
            "`grad_norms.items()` gives a name and a pair (norm of A's gradient, norm of B's).",
            "A list of names: those for which both norms equal 0.",
        ],
        why="One backward pass on the untrained model is enough to know. The check belongs in every training script: a stuck adapter raises no error, "
        "and its loss curve moves, because the batches differ.",
    ),
}  # fmt: skip
