"""Checks of notebook 20: folding an adapter into a weight, and taking it out. All numbers are exact in binary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import merge, unmerge

MERGE, UNMERGE = "20.merge", "20.unmerge"
W_VALUES = [[1.0, -2.0, 0.5, 4.0], [0.0, 3.0, -1.5, 2.0]]
A_VALUES = [[1.0, 2.0, 0.0, -1.0], [0.5, 0.0, 1.0, 4.0], [-1.0, 0.25, 2.0, 0.0]]
B_VALUES = [[1.0, 2.0, -0.5], [0.0, -1.0, 3.0]]


def _full_precision() -> tuple:
    """d_in = 4, d_out = 2, r = 3, α = 12: the factor is 4."""
    return torch.tensor(W_VALUES), torch.tensor(A_VALUES), torch.tensor(B_VALUES), 12.0, 3


def _sixteen_bits() -> tuple:
    """A weight in bfloat16 and updates of about its rounding; r = 3, α = 3/2: the factor is 1/2.

    All numbers have so few digits that float32 adds and multiplies them exactly, in any order.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int, limit: int, step: float) -> Tensor:
        return torch.randint(-limit, limit, (rows, columns), generator=generator) * step

    W = draw(40, 32, 255, 2.0**-6).to(torch.bfloat16)
    return W, draw(3, 32, 1023, 2.0**-10), draw(40, 3, 1023, 2.0**-13), 1.5, 3


def _both_ways(ID: str, sign: int) -> None:
    """Declare the mistakes that are made in merging (sign 1) as in unmerging (sign −1)."""

    @mistake(ID, "A and B were rounded to bfloat16 before they were multiplied. Keep them in float32; round once, at the end.")  # fmt: skip
    def _rounded_factors(W, A, B, alpha, r):
        return W + sign * (alpha / r) * (B.to(W.dtype) @ A.to(W.dtype))

    @mistake(ID, "α was used without dividing by r: the update is r times too large.")
    def _not_divided_by_r(W, A, B, alpha, r):
        return (W + sign * alpha * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor α/r is missing. With α = r nobody would notice; here it is 12/3.")
    def _no_factor(W, A, B, alpha, r):
        return (W + sign * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor is upside down: r/α in place of α/r.")
    def _upside_down(W, A, B, alpha, r):
        return (W + sign * r / alpha * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor is α/√r, rank-stabilised LoRA's. This adapter was trained with α/r: merge with the factor that it was trained with.")  # fmt: skip
    def _rank_stabilised(W, A, B, alpha, r):
        return (W + sign * alpha / math.sqrt(r) * (B @ A)).to(W.dtype)

    @mistake(ID, "The factor α/r was applied twice, to A or B and to their product perhaps. The merged model would not be the one that was trained.")  # fmt: skip
    def _factor_twice(W, A, B, alpha, r):
        return (W + sign * (alpha / r) ** 2 * (B @ A)).to(W.dtype)

    @mistake(ID, "The update was applied twice.")
    def _update_twice(W, A, B, alpha, r):
        return (W + sign * 2 * alpha / r * (B @ A)).to(W.dtype)


_both_ways(MERGE, 1)
_both_ways(UNMERGE, -1)


@mistake(MERGE, "The update was rounded to bfloat16 before it was added, and the sum was rounded again. Add in float32, and round once, at the end.")  # fmt: skip
def _added_rounded(W, A, B, alpha, r):
    return W + (alpha / r * (B @ A)).to(W.dtype)


@mistake(UNMERGE, "The update was rounded to bfloat16 before it was subtracted, and the difference was rounded again. Subtract in float32, and round once, at the end.")  # fmt: skip
def _subtracted_rounded(W, A, B, alpha, r):
    return W - (alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "The merged weight is in float32, twice the size of the one it replaces. Return it in the dtype of W.")  # fmt: skip
def _merged_in_float32(W, A, B, alpha, r):
    return W + alpha / r * (B @ A)


@mistake(UNMERGE, "The weight is in float32, twice the size of the one that was given. Return it in the dtype of W.")  # fmt: skip
def _unmerged_in_float32(W, A, B, alpha, r):
    return W - alpha / r * (B @ A)


@mistake(MERGE, "Nothing was merged: this is the base, as if the adapter had never been loaded.")
@mistake(UNMERGE, "Nothing was taken out: the merged weight came back as it was.")
def _unchanged(W, A, B, alpha, r):
    return W


@mistake(MERGE, "The update was subtracted. That takes an adapter *out*.")
def _subtracted(W, A, B, alpha, r):
    return unmerge(W, A, B, alpha, r)


@mistake(UNMERGE, "The update was added once more. Taking it out means to subtract it.")
def _added(W, A, B, alpha, r):
    return merge(W, A, B, alpha, r)


@mistake(MERGE, "This is the update alone. The weight of the base is missing.")
@mistake(UNMERGE, "This is the update alone, not the weight without it.")
def _update_alone(W, A, B, alpha, r):
    return (alpha / r * (B @ A)).to(W.dtype)


def _cases(reference, told: str) -> list[Case]:
    return [
        Case(f"{told}: float32, d_in = 4, d_out = 2, r = 3, α = 12", _full_precision, reference, tolerance=1e-6),
        Case(f"{told}: W in bfloat16, A and B in float32, r = 3, α = 3/2", _sixteen_bits, reference),
    ]  # fmt: skip


EXERCISES = {
    MERGE: Exercise(
        id=MERGE,
        title="Fold an adapter into its weight",
        reference=merge,
        cases=_cases(merge, "merge"),
        hints=[
            "W is (d_out, d_in), so the update must be too: which of A @ B and B @ A has that shape?",
            "The update is α/r times B @ A. Return a new tensor: whoever called may still need W.",
            "If W is in bfloat16 and A, B are in float32, their sum is in float32. `.to(W.dtype)` rounds it once.",
        ],
        why="One line, and every part of it has been wrong in some library: the factor, the order, the dtype, the second application. "
        "The test that finds all of them is the same each time: merged and unmerged logits agree.",
    ),
    UNMERGE: Exercise(
        id=UNMERGE,
        title="Take an adapter out again",
        reference=unmerge,
        cases=_cases(unmerge, "unmerge"),
        hints=[
            "The same update as in `merge`, the other way.",
            "In float32 it gives W back to about seven digits. In bfloat16 what the merge has rounded away stays lost.",
        ],
        why="Subtracting is cheap and needs no copy of the base, so servers use it to change adapters. The rounding of each round trip stays: "
        "a server that must not drift keeps the base and merges anew.",
    ),
}  # fmt: skip
