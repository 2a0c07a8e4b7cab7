"""Checks of notebook 20: merging an adapter into a weight, and taking it out again.

The numbers of the cases in 16 bits have so few digits that float32 computes with them exactly.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import adapter, tensor
from sftlab.lora import merge, unmerge

MERGE, UNMERGE = "20.merge", "20.unmerge"


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


SHAPES = "W: tensor (d_out, d_in). A: tensor (r, d_in). B: tensor (d_out, r). alpha: a number. r: the rank."
ROUNDING = "W may be in float32 or in 16 bits; A and B are float32. All is computed in float32 and rounded once, at the end."
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
                "update": "For every input x, the merged weight W' computes the same as layer and adapter together: x W'ᵀ = x Wᵀ + (α/r) · x Aᵀ Bᵀ.",
                "rounding": ROUNDING,
                "dtype": "The result is a tensor of the dtype of W, so that the merged model takes no more memory than its base.",
                "unchanged": "W, A and B stay as they are: the caller may still need them.",
            },
            draw=_draw,
            hints=(
                "The update is added to W, so it has the shape of W. Which product of A and B has this shape?",
                ("rounding", "Which dtype does PyTorch give the sum of a bfloat16 and a float32 tensor?"),
                "The conversion to W's dtype belongs around the whole sum, not around one of its parts.",
            ),
            path="Begin with the shapes: W is (d_out, d_in), and only one product of A and B has this shape. Multiply by α/r, add to W, and leave PyTorch to compute the sum "
            "in the wider dtype. Round last, to the dtype of W. The usual wrong turns are a transposed product and rounding the update before it is added.",
            why="One line, and every part of it has been wrong in some library: the factor, the order, the dtype, the second application. "
            "The test that finds all of them is the same each time: merged and unmerged logits agree.",
        ),
        Exercise(
            UNMERGE,
            "Take an adapter out again",
            unmerge,
            _cases(unmerge),
            asks=f"Return the weight as it was before the adapter was merged into W, up to rounding.\n\n{SHAPES}",
            rules={
                "update": "W computes x Wᵀ = x W₀ᵀ + (α/r) · x Aᵀ Bᵀ for every input x. The result is W₀.",
                "rounding": ROUNDING,
                "dtype": "The result is a tensor of the dtype of W, so that it takes no more memory.",
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
            why="Subtracting is cheap and needs no copy of the base, so servers use it to change adapters. The rounding of each round trip stays: "
            "a server that must not drift keeps the base and merges anew.",
        ),
    )
}  # fmt: skip
