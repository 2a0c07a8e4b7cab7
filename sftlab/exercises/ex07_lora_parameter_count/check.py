"""The checks of notebook 07: how many parameters LoRA trains, and the nearest matrix of a rank."""

from __future__ import annotations

import math
import random

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex07_lora_parameter_count.experiment import nearest_low_rank
from sftlab.lora import break_even_rank, lora_parameter_count

COUNT, RANK, NEAREST = "07.lora_parameter_count", "07.break_even_rank", "07.nearest_low_rank"

# --- how many parameters ---------------------------------------------------------------------


SAME_WIDTH = "The same width is used for A and for B, as if the weight were square. A is r × d_in, B is d_out × r."  # fmt: skip


@mistake(COUNT, SAME_WIDTH)
def _square_of_d_in(d_in, d_out, r):
    return 2 * d_in * r


@mistake(COUNT, SAME_WIDTH)
def _square_of_d_out(d_in, d_out, r):
    return 2 * d_out * r


@mistake(COUNT, SAME_WIDTH)
def _square_of_the_smaller(d_in, d_out, r):
    return 2 * min(d_in, d_out) * r


@mistake(COUNT, SAME_WIDTH)
def _square_of_the_larger(d_in, d_out, r):
    return 2 * max(d_in, d_out) * r


@mistake(COUNT, "This is A alone. B, of the shape (d_out, r), is trained too.")
def _only_A(d_in, d_out, r):
    return r * d_in


@mistake(COUNT, "This is B alone. A, of the shape (r, d_in), is trained too.")
def _only_B(d_in, d_out, r):
    return d_out * r


@mistake(COUNT, "This is the frozen weight. Count what is trained beside it: A and B.")
def _the_weight(d_in, d_out, r):
    return d_out * d_in


@mistake(COUNT, "The two widths are multiplied, as if each of r matrices were as large as the weight. Count the entries of A and of B, and add them.")  # fmt: skip
def _product_of_all(d_in, d_out, r):
    return r * d_in * d_out


@mistake(COUNT, "The frozen weight is counted as well. LoRA does not train it.")
def _weight_too(d_in, d_out, r):
    return d_out * d_in + lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "This is the number of parameters that LoRA *saves*. Return how many it trains.")
def _saved(d_in, d_out, r):
    return d_out * d_in - lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "An r × r matrix between A and B is counted. There is none: B·A multiplies them directly.")  # fmt: skip
def _matrix_between(d_in, d_out, r):
    return r * d_in + r * r + d_out * r


@mistake(COUNT, "A bias of d_out entries is counted. LoRA adds none.")
def _with_bias(d_in, d_out, r):
    return r * d_in + d_out * r + d_out


@mistake(COUNT, "Biases of r and d_out entries are counted, one for each matrix. LoRA adds none.")
def _with_two_biases(d_in, d_out, r):
    return r * d_in + d_out * r + r + d_out


@mistake(COUNT, "This is how many times fewer parameters LoRA trains. Return their number.")
def _ratio(d_in, d_out, r):
    return d_out * d_in / lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "This is the share of the weight's parameters. Return the number of LoRA's.")
def _share(d_in, d_out, r):
    return lora_parameter_count(d_in, d_out, r) / (d_out * d_in)


@mistake(COUNT, "The number is four times too large: are these bytes? Return parameters.")
def _in_bytes(d_in, d_out, r):
    return 4 * lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "The number is twice too large. A and B are different matrices, and each counts once.")  # fmt: skip
def _twice(d_in, d_out, r):
    return 2 * lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "The widths and the rank are added. A matrix has rows *times* columns entries.")
def _added(d_in, d_out, r):
    return d_in + d_out + r


@mistake(COUNT, "This is the count at rank 1. Each unit of rank adds a row to A and a column to B.")
def _rank_forgotten(d_in, d_out, r):
    return d_in + d_out


PARENTHESES = "The rank multiplies only one of the two widths: are parentheses missing?"


@mistake(COUNT, PARENTHESES)
def _parentheses_missing(d_in, d_out, r):
    return r * d_in + d_out


@mistake(COUNT, PARENTHESES)
def _parentheses_missing_before(d_in, d_out, r):
    return d_in + d_out * r


@mistake(COUNT, "These are two numbers, one for A and one for B. Return their sum.")
def _two_numbers(d_in, d_out, r):
    return r * d_in, d_out * r


@mistake(COUNT, "The mean of the two widths is rounded to a whole number. Add the entries of A and of B instead: there is no division.")  # fmt: skip
def _mean_width(d_in, d_out, r):
    return 2 * r * ((d_in + d_out) // 2)


CAPPED = "The rank is limited to the smaller width. A larger r makes no sense in practice, but A and B have r rows and columns all the same."  # fmt: skip


@mistake(COUNT, CAPPED)
def _rank_limited(d_in, d_out, r):
    return lora_parameter_count(d_in, d_out, min(r, d_in, d_out))


@mistake(COUNT, "The count is limited to the size of the weight. A and B can have more parameters than the weight.")  # fmt: skip
def _count_limited(d_in, d_out, r):
    return min(lora_parameter_count(d_in, d_out, r), d_in * d_out)


def _count(rule: str, describe: str, d_in: int, d_out: int, r: int) -> Case:
    return Case(
        f"`lora_parameter_count({d_in}, {d_out}, {r})`: {describe}",
        lambda: (d_in, d_out, r),
        lora_parameter_count,
        rule=rule,
    )


# --- up to which rank ------------------------------------------------------------------------


@mistake(RANK, "At this rank A and B have exactly as many parameters as the weight: that is not fewer. Look at the case where the division leaves no remainder.")  # fmt: skip
def _equal_counted(d_in, d_out):
    return d_in * d_out // (d_in + d_out)


@mistake(RANK, "This is the first rank at which LoRA is *not* smaller any more. Return the last one at which it is.")  # fmt: skip
def _first_that_is_not_smaller(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out))


@mistake(RANK, "The quotient is rounded to the nearest rank: where that goes up, A and B are already larger than the weight.")  # fmt: skip
def _rounded(d_in, d_out):
    return round(d_in * d_out / (d_in + d_out))


FLOOR = "The quotient is rounded down, and then one is taken off: right where it is a whole number, one too few elsewhere."  # fmt: skip


@mistake(RANK, FLOOR)
def _one_less_than_the_floor_or_0(d_in, d_out):
    return max(0, d_in * d_out // (d_in + d_out) - 1)


@mistake(RANK, FLOOR)
def _one_less_than_the_floor(d_in, d_out):
    return d_in * d_out // (d_in + d_out) - 1


@mistake(RANK, "Ranks are whole numbers. Which is the last one *below* this quotient?")
def _quotient(d_in, d_out):
    return d_in * d_out / (d_in + d_out)


@mistake(RANK, "The quotient is upside down: the sum of the widths is divided by their product.")
def _upside_down(d_in, d_out):
    return (d_in + d_out) // (d_in * d_out)


SQUARE = "Half of d is the border of square weights. Here d_in and d_out differ, so write the condition with both: parameters of A and B on one side, of the weight on the other."  # fmt: skip


@mistake(RANK, SQUARE)
def _half_of_d_in(d_in, d_out):
    return d_in // 2


@mistake(RANK, SQUARE)
def _half_of_d_out(d_in, d_out):
    return d_out // 2


@mistake(RANK, SQUARE)
def _below_half_of_d_in(d_in, d_out):
    return (d_in - 1) // 2


@mistake(RANK, SQUARE)
def _below_half_of_d_out(d_in, d_out):
    return (d_out - 1) // 2


@mistake(RANK, SQUARE)
def _below_half_of_the_larger(d_in, d_out):
    return (max(d_in, d_out) - 1) // 2


SMALLER = "Half of the smaller width is too few for weights that are not square: write the condition with both widths."  # fmt: skip


@mistake(RANK, SMALLER)
def _half_of_the_smaller(d_in, d_out):
    return min(d_in, d_out) // 2


@mistake(RANK, SMALLER)
def _below_half_of_the_smaller(d_in, d_out):
    return (min(d_in, d_out) - 1) // 2


@mistake(RANK, "This is the highest rank that the weight can have. LoRA stops being smaller long before.")  # fmt: skip
def _full_rank(d_in, d_out):
    return min(d_in, d_out)


@mistake(RANK, "The result is half of what it should be: is there a 2 too many? A has r·d_in parameters, B has d_out·r.")  # fmt: skip
def _a_2_too_many(d_in, d_out):
    return (d_in * d_out - 1) // (2 * (d_in + d_out))


ONE_MATRIX = "Only one of the two matrices is counted. A and B together have to be smaller than the weight."  # fmt: skip


@mistake(RANK, ONE_MATRIX)
def _only_A_in_the_condition(d_in, d_out):
    return (d_in * d_out - 1) // d_in


@mistake(RANK, ONE_MATRIX)
def _only_B_in_the_condition(d_in, d_out):
    return (d_in * d_out - 1) // d_out


@mistake(RANK, "For a weight as thin as this one there is no such rank: even r = 1 is not smaller. Return 0.")  # fmt: skip
def _at_least_one(d_in, d_out):
    return max(1, break_even_rank(d_in, d_out))


@mistake(RANK, "The result is one too small: at the next rank A and B together are still smaller than the weight.")  # fmt: skip
def _one_too_few(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out)) - 2


def _rank(rule: str, describe: str, d_in: int, d_out: int) -> Case:
    return Case(
        f"`break_even_rank({d_in}, {d_out})`: {describe}",
        lambda: (d_in, d_out),
        break_even_rank,
        rule=rule,
    )


# --- the nearest matrix of a rank --------------------------------------------------------------


def _svd(delta):
    return torch.linalg.svd(delta, full_matrices=False)


EXCHANGED = "A and B are exchanged: A is r × d_in and comes first, B is d_out × r."


@mistake(NEAREST, EXCHANGED)
def _exchanged(delta, r):
    A, B = nearest_low_rank(delta, r)
    return B, A


@mistake(NEAREST, EXCHANGED)
def _exchanged_s_in_b(delta, r):
    u, s, vt = _svd(delta)
    return u[:, :r] * s[:r], vt[:r]


@mistake(NEAREST, EXCHANGED)
def _exchanged_s_in_a(delta, r):
    u, s, vt = _svd(delta)
    return u[:, :r], s[:r, None] * vt[:r]


@mistake(NEAREST, "The singular values are missing: the product has only directions, all of length 1.")  # fmt: skip
def _without_singular_values(delta, r):
    u, _, vt = _svd(delta)
    return vt[:r], u[:, :r]


@mistake(NEAREST, "The singular values are in both factors whole, so the product has their squares.")  # fmt: skip
def _singular_values_twice(delta, r):
    u, s, vt = _svd(delta)
    return s[:r, None] * vt[:r], u[:, :r] * s[:r]


@mistake(NEAREST, "Only the square roots of the singular values are in the product: put a root into both factors, or the whole value into one.")  # fmt: skip
def _one_root(delta, r):
    u, s, vt = _svd(delta)
    return vt[:r], u[:, :r] * s[:r].sqrt()


@mistake(NEAREST, "The smallest singular values are kept. They come in descending order: the first r are the largest.")  # fmt: skip
def _smallest(delta, r):
    u, s, vt = _svd(delta)
    return s[-r:, None] * vt[-r:], u[:, -r:]


@mistake(NEAREST, "One singular direction too few is kept.")
def _one_direction_too_few(delta, r):
    A, B = nearest_low_rank(delta, r)
    A[-1], B[:, -1] = 0, 0
    return A, B


@mistake(NEAREST, "The columns of V are taken for its rows: `svd` returns Vᵀ, whose rows are the directions. Take its first r *rows*.")  # fmt: skip
def _columns_of_vt(delta, r):
    u, s, vt = torch.linalg.svd(delta)
    return s[:r, None] * vt[:, :r].T, u[:, :r]


@mistake(NEAREST, "These are the first r rows and columns of the matrix. The nearest matrix of rank r has its largest singular directions.")  # fmt: skip
def _first_rows(delta, r):
    A = delta[:r]
    B = torch.zeros(len(delta), r)
    B[:r, :r] = torch.eye(r)
    return A, B


@mistake(NEAREST, "The matrix is cut by size, and the product still has a high rank or other values. Use its singular value decomposition.")  # fmt: skip
def _random_projection(delta, r):
    basis = torch.linalg.qr(delta[:, :r]).Q
    return basis.T @ delta, basis


def _shapes(result, _):
    A, B = (torch.as_tensor(part) for part in result)
    return {"shape of A": tuple(A.shape), "shape of B": tuple(B.shape)}


def _product(result, given):
    A, B = (torch.as_tensor(part) for part in result)
    return {**_shapes(result, given), "B @ A": B @ A}


def _nearest(rule: str, told: str, d_out: int, d_in: int, r: int, seed: int, observe=_product) -> Case:  # fmt: skip
    return Case(
        f"`nearest_low_rank(delta, {r})` with delta of {d_out} × {d_in}: {told}",
        lambda: (tensor(random.Random(seed), d_out, d_in), r),
        nearest_low_rank,
        1e-4,
        rule=rule,
        observe=observe,
    )


EXERCISES = {
    COUNT: Exercise(
        COUNT,
        "Count A and B",
        lora_parameter_count,
        [
            _count("parts", "a square weight", 13, 13, 5),
            _count("shape", "a wide weight", 17, 8, 3),
            _count("shape", "a tall weight", 5, 11, 2),
            _count("shape", "the k projection of Llama 3 8B", 4096, 1024, 7),
            _count("shape", "its MLP's first matrix", 4096, 14336, 16),
            _count("shape", "GPT-2's output layer, at a high rank", 768, 50257, 331),
            _count("rank", "a rank larger than both widths", 5, 3, 9),
        ],
        asks="Return how many parameters LoRA of rank r trains beside a weight (d_out, d_in).",
        rules={
            "parts": "Every entry of A and of B is one parameter; nothing else is counted.",
            "shape": "A has the shape (r, d_in), B the shape (d_out, r). The weight need not be square.",
            "rank": "r may be larger than d_in and d_out.",
        },
        draw=lambda rng, *_: tuple(rng.randint(2, 300) for _ in range(3)),
        hints=(
            "There are two matrices. How many entries does each have?",
            ("shape", "So A turns d_in numbers into r, and B turns r numbers into d_out."),
            "Multiply rows by columns for each matrix, then add the two products.",
        ),
        path="Write down the shape of A and of B before you write any code; the count follows from them. The usual wrong turn is a formula for "
        "square weights, with one width: it is right in the first example and wrong for most weights of today's models.",
        why="The sum of the two widths replaces their product: that is the whole saving. It does not depend on α, nor on what the weight is for.",
    ),
    RANK: Exercise(
        RANK,
        "The last rank that saves anything",
        break_even_rank,
        [
            _rank("largest", "a square weight", 7, 7),
            _rank("shape", "a wide weight", 17, 11),
            _rank("shape", "a tall weight", 5, 37),
            _rank("largest", "4,096 to 14,336, as in an MLP", 4096, 14336),
            _rank("largest", "A and B have one parameter less than the weight at rank 2,100", 3289, 5809),
            _rank("fewer", "a square weight, equal at rank 6", 12, 12),
            _rank("fewer", "a wide weight, equal at rank 2", 6, 3),
            _rank("fewer", "A and B have 5 parameters at rank 1, one less than the weight", 2, 3),
            _rank("zero", "no rank is low enough", 1, 8),
            _rank("zero", "rank 1 is equal", 2, 2),
        ],
        asks="Return the largest rank at which A and B have fewer parameters than their weight.",
        rules={
            "largest": "A whole number: the largest r at which A and B together have fewer entries than the weight.",
            "shape": "A has the shape (r, d_in), B the shape (d_out, r). The weight need not be square.",
            "fewer": "Equally many is not fewer.",
            "zero": "Return 0 if there is no such rank.",
        },
        draw=lambda rng, *_: (rng.randint(1, 900), rng.randint(1, 900)),
        hints=(
            "Write the condition first: the parameters of A and B on the left, those of the weight on the right, and < between them.",
            ("fewer", "So solve the condition for r, and then ask what happens if the quotient is a whole number."),
            "You want the largest whole number strictly below a quotient of whole numbers. You can search for it, or take 1 off the numerator before a division that rounds down.",
        ),
        path="Write the condition as an inequality, with the count of 7a on the left, and solve it for r. Then look at the two borders: a quotient that is a whole number, "
        "and a weight so thin that no rank helps. The usual wrong turn is to round down, which counts an equal number as fewer.",
        why="With whole numbers throughout there is no rounding to think about, and equally many counts as no saving. For a square weight this is just below d/2.",
    ),
    NEAREST: Exercise(
        NEAREST,
        "The nearest matrix of a rank",
        nearest_low_rank,
        [
            _nearest("shape", "the shapes alone", 9, 6, 2, 5, _shapes),
            _nearest("nearest", "a square one", 5, 5, 2, 1),
            _nearest("nearest", "a wide one", 4, 7, 3, 2),
            _nearest("nearest", "a tall one", 9, 5, 1, 3),
            _nearest("nearest", "the whole rank", 3, 6, 3, 4),
            _nearest("nearest", "a larger one", 19, 13, 7, 6),
        ],
        asks="Return A and B, whose product B @ A is the matrix of rank r nearest to delta.\n\n"
        "delta: tensor (d_out, d_in). r: at most the smaller of both.",
        rules={
            "shape": "The result is a pair: A of shape (r, d_in), then B of shape (d_out, r).",
            "nearest": "Nearest: the energy of delta - B @ A, the sum of its squared entries, is as small as rank r allows. How the product is split is up to you.",
            "unchanged": "delta stays as it is.",
        },
        draw=lambda rng, *_: (tensor(rng, rng.randint(4, 9), rng.randint(4, 9)), rng.randint(1, 4)),
        hints=(
            "Which decomposition writes a matrix as a sum of r-times-one pieces, the largest first?",
            ("nearest", "Eckart and Young: keep the r largest singular values and drop the rest."),
            "`torch.linalg.svd(delta, full_matrices=False)` gives U, S and Vᵀ. Take r columns of one, r rows of the other, and don't forget S.",
        ),
        path="Write delta as U·S·Vᵀ first. Each singular value belongs to one column of U and one row of Vᵀ, and they come in descending order. "
        "Keep the first r of all three. Then decide where S goes: into A, into B, or its root into both. The usual wrong turn is to leave S out, "
        "or to have it in both.",
        why="The root of S goes into both factors, so A and B are equally long, as the gradient of one contains the other. "
        "LoRA starts elsewhere, with B at zero; only the product is compared.",
    ),
}  # fmt: skip
