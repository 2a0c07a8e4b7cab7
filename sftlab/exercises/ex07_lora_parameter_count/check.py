"""The checks of notebook 07: LoRA's parameters, the energy of directions, the nearest matrix of a rank."""

from __future__ import annotations

import random

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex07_lora_parameter_count.experiment import nearest_low_rank
from sftlab.exercises.ex07_lora_parameter_count.spectra import energy_kept
from sftlab.lora import lora_parameter_count

COUNT, ENERGY, NEAREST = "07.lora_parameter_count", "07.energy_kept", "07.nearest_low_rank"

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


# --- the energy of the largest directions ------------------------------------------------------


def _squares(matrices):
    return [torch.linalg.svdvals(matrix).square() for matrix in matrices]


@mistake(ENERGY, "The shares of the matrices are averaged, so that a small matrix counts as much as a large one. Add up the energies first, and divide once.")  # fmt: skip
def _mean_of_shares(matrices, ranks):
    squares = [s for s in _squares(matrices) if s.sum() > 0]
    return {r: float(sum(s[:r].sum() / s.sum() for s in squares) / len(squares)) for r in ranks}


@mistake(ENERGY, "The singular values are added up as they are. The energy is the sum of their squares.")  # fmt: skip
def _not_squared(matrices, ranks):
    values = [torch.linalg.svdvals(matrix) for matrix in matrices]
    return {
        r: float(sum(s[:r].sum() for s in values) / sum(s.sum() for s in values)) for r in ranks
    }


@mistake(ENERGY, "These are shares of the norm, the root of the energy. Leave the root out.")
def _root(matrices, ranks):
    return {r: share**0.5 for r, share in energy_kept(matrices, ranks).items()}


@mistake(ENERGY, "The energy of the *smallest* directions is kept. Singular values come in descending order: the first r are the largest.")  # fmt: skip
def _smallest_of_all(matrices, ranks):
    squares = _squares(matrices)
    return {
        r: float(sum(s[-r:].sum() for s in squares) / sum(s.sum() for s in squares)) for r in ranks
    }


@mistake(ENERGY, "This is the energy of direction r alone. Directions 1 to r are kept together.")
def _one_direction(matrices, ranks):
    squares = _squares(matrices)
    return {
        r: float(sum(s[r - 1 : r].sum() for s in squares) / sum(s.sum() for s in squares))
        for r in ranks
    }


@mistake(ENERGY, "One direction too few is kept.")
def _one_too_few(matrices, ranks):
    squares = _squares(matrices)
    return {
        r: float(sum(s[: r - 1].sum() for s in squares) / sum(s.sum() for s in squares))
        for r in ranks
    }


@mistake(ENERGY, "One direction too many is kept.")
def _one_too_many(matrices, ranks):
    return dict(zip(ranks, energy_kept(matrices, [r + 1 for r in ranks]).values(), strict=True))


@mistake(ENERGY, "This is the share that is lost. Return the share that is kept.")
def _lost(matrices, ranks):
    return {r: 1 - share for r, share in energy_kept(matrices, ranks).items()}


@mistake(ENERGY, "The r largest directions of all matrices together are kept. Each matrix keeps its own r largest.")  # fmt: skip
def _of_all_together(matrices, ranks):
    every = torch.cat(_squares(matrices)).sort(descending=True).values
    return {r: float(every[:r].sum() / every.sum()) for r in ranks}


@mistake(ENERGY, "The largest directions of all matrices together are kept, r for each matrix on average. Each matrix keeps its own r largest.")  # fmt: skip
def _pooled(matrices, ranks):
    every = torch.cat(_squares(matrices)).sort(descending=True).values
    return {r: float(every[: r * len(matrices)].sum() / every.sum()) for r in ranks}


@mistake(ENERGY, "This is the kept energy itself. Divide it by the energy of all matrices.")
def _not_divided(matrices, ranks):
    squares = _squares(matrices)
    return {r: float(sum(s[:r].sum() for s in squares)) for r in ranks}


@mistake(ENERGY, "This is the energy of the first r rows. The largest directions are singular directions: use the singular values.")  # fmt: skip
def _first_rows_alone(matrices, ranks):
    whole = sum(m.square().sum() for m in matrices)
    return {r: float(sum(m[:r].square().sum() for m in matrices) / whole) for r in ranks}


@mistake(ENERGY, "Only the first matrix is looked at.")
def _first_matrix(matrices, ranks):
    return energy_kept(matrices[:1], ranks)


@mistake(ENERGY, "Only the last matrix is looked at: is the sum set to 0 again inside the loop?")
def _last_matrix(matrices, ranks):
    return energy_kept(matrices[-1:], ranks)


@mistake(ENERGY, "The shares are percentages. Return numbers between 0 and 1.")
def _percentages(matrices, ranks):
    return {r: 100 * share for r, share in energy_kept(matrices, ranks).items()}


@mistake(ENERGY, "A list comes back. Return a dictionary: rank -> share.")
def _list_of_shares(matrices, ranks):
    return list(energy_kept(matrices, ranks).values())


def _some(seed: int, *shapes: tuple[int, int], scales: tuple[float, ...] = ()) -> list:
    rng = random.Random(seed)
    scales = scales or (1.0,) * len(shapes)
    return [tensor(rng, *shape, scale=by) for shape, by in zip(shapes, scales, strict=True)]


def _energy(rule: str, told: str, make, ranks: tuple[int, ...]) -> Case:
    return Case(
        f"`energy_kept(matrices, {list(ranks)})`: {told}",
        lambda: (make(), list(ranks)),
        energy_kept,
        1e-4,
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
    ENERGY: Exercise(
        ENERGY,
        "The energy of the largest directions",
        energy_kept,
        [
            _energy("kept", "one matrix, 5 × 7", lambda: _some(1, (5, 7)), (2,)),
            _energy("kept", "one matrix, 7 × 5, three ranks", lambda: _some(2, (7, 5)), (3, 1, 4)),
            _energy("share", "three matrices, one of them ten times as large", lambda: _some(3, (5, 6), (4, 7), (6, 4), scales=(10.0, 1.0, 3.0)), (1, 2, 3)),
            _energy("share", "two matrices, the second one of zeros", lambda: [*_some(4, (5, 6)), torch.zeros(4, 4)], (1, 3)),
            _energy("larger", "2 × 6 beside 6 × 5", lambda: _some(5, (2, 6), (6, 5)), (4, 7)),
        ],
        asks="Return which share of the energy of some matrices their largest directions hold.\n\n"
        "matrices: list of tensors (d_out, d_in) of any shapes. ranks: list of whole numbers, from 1.",
        rules={
            "kept": "The result is {r: share}. Each matrix keeps its own r largest singular directions.",
            "share": "share: the kept energy of all matrices, divided by the energy of all matrices.",
            "larger": "r may be larger than a matrix has directions: all of it is kept then.",
            "unchanged": "matrices and ranks stay as they are.",
        },
        draw=lambda rng, *_: (
            [tensor(rng, rng.randint(2, 7), rng.randint(2, 7), scale=rng.uniform(0.5, 5)) for _ in range(rng.randint(1, 4))],
            rng.sample(range(1, 8), 3),
        ),
        hints=(
            "How does the energy of a matrix follow from its singular values?",
            ("share", "So there are two sums over all matrices: one for each rank, and one for the whole. Divide at the end."),
            "`torch.linalg.svdvals(matrix)` gives the singular values, the largest first. Square them, and add up the first r of them.",
        ),
        path="Begin with one matrix and one rank: the squares of the first r singular values over the squares of all. Then put a loop over the matrices around it, with one sum for "
        "the whole and one for each rank, and divide after the loop. The usual wrong turn is to average the shares: then a layer that hardly changed counts as much as the others.",
        why="Singular directions are at right angles, so their energies add up, and the squared singular values are these energies. One decomposition serves all ranks.",
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
