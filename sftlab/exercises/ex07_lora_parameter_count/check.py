"""The checks of notebook 07: how many parameters LoRA trains, and up to which rank that is fewer."""

from __future__ import annotations

import math

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import break_even_rank, lora_parameter_count

COUNT, RANK = "07.lora_parameter_count", "07.break_even_rank"


@mistake(COUNT, "2·d·r holds for square weights only, and you took d = d_in. A is r × d_in, B is d_out × r.")  # fmt: skip
def _square_of_d_in(d_in, d_out, r):
    return 2 * d_in * r


@mistake(COUNT, "2·d·r holds for square weights only, and you took d = d_out. A is r × d_in, B is d_out × r.")  # fmt: skip
def _square_of_d_out(d_in, d_out, r):
    return 2 * d_out * r


@mistake(COUNT, "That is A alone. B, d_out × r, is trained too.")  # fmt: skip
def _only_A(d_in, d_out, r):
    return r * d_in


@mistake(COUNT, "That is B alone. A, r × d_in, is trained too.")  # fmt: skip
def _only_B(d_in, d_out, r):
    return d_out * r


@mistake(COUNT, "That is the frozen weight. Count what is trained beside it: A and B.")  # fmt: skip
def _the_weight(d_in, d_out, r):
    return d_out * d_in


@mistake(COUNT, "You multiplied the two widths, as if each of r matrices were as large as the weight. A and B share no such side: add their sizes.")  # fmt: skip
def _product_of_all(d_in, d_out, r):
    return r * d_in * d_out


@mistake(COUNT, "The frozen weight is counted as well. LoRA does not train it.")  # fmt: skip
def _weight_too(d_in, d_out, r):
    return d_out * d_in + lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "There is no r × r matrix between A and B: B·A multiplies them directly.")  # fmt: skip
def _matrix_between(d_in, d_out, r):
    return r * d_in + r * r + d_out * r


@mistake(COUNT, "A bias of d_out is in your count. LoRA adds none.")  # fmt: skip
def _with_bias(d_in, d_out, r):
    return r * d_in + d_out * r + d_out


@mistake(COUNT, "That is how many times fewer they are. Asked for is their number.")  # fmt: skip
def _ratio(d_in, d_out, r):
    return d_out * d_in / lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "Four times too many: are these bytes? Asked for are parameters.")  # fmt: skip
def _in_bytes(d_in, d_out, r):
    return 4 * lora_parameter_count(d_in, d_out, r)


@mistake(COUNT, "You added the widths and the rank. A matrix has rows *times* columns entries.")  # fmt: skip
def _added(d_in, d_out, r):
    return d_in + d_out + r


@mistake(RANK, "At this rank A and B have exactly as many parameters as the weight: that is not fewer. Mind the case where the division leaves no rest.")  # fmt: skip
def _draw_counted(d_in, d_out):
    return d_in * d_out // (d_in + d_out)


@mistake(RANK, "That is the first rank at which LoRA is *not* smaller any more. Asked for is the last one at which it is.")  # fmt: skip
def _first_that_is_not_smaller(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out))


@mistake(RANK, "Do not round to the nearest: if that goes up, A and B are already larger than the weight.")  # fmt: skip
def _rounded(d_in, d_out):
    return round(d_in * d_out / (d_in + d_out))


@mistake(RANK, "Ranks are whole numbers. Which is the last one *below* this quotient?")  # fmt: skip
def _quotient(d_in, d_out):
    return d_in * d_out / (d_in + d_out)


@mistake(RANK, "d/2 is the border of square weights. Here d_in and d_out differ: r·(d_in + d_out) < d_in·d_out.")  # fmt: skip
def _half_of_d_in(d_in, d_out):
    return d_in // 2


@mistake(RANK, "The last rank below d/2 is the answer for square weights. Here d_in and d_out differ: r·(d_in + d_out) < d_in·d_out.")  # fmt: skip
def _below_half_of_d_in(d_in, d_out):
    return d_in // 2 - 1


@mistake(RANK, "Half of the smaller width is too few for weights that are not square: r·(d_in + d_out) < d_in·d_out.")  # fmt: skip
def _half_of_the_smaller(d_in, d_out):
    return min(d_in, d_out) // 2


@mistake(RANK, "That is the highest rank that the weight can have. LoRA stops being smaller long before.")  # fmt: skip
def _full_rank(d_in, d_out):
    return min(d_in, d_out)


@mistake(RANK, "Half of what is expected: is there a 2 too many? A and B together have r·(d_in + d_out) parameters.")  # fmt: skip
def _a_2_too_many(d_in, d_out):
    return (d_in * d_out - 1) // (2 * (d_in + d_out))


@mistake(RANK, "For a weight as thin as this one there is no such rank: even r = 1 is no smaller. Return 0.")  # fmt: skip
def _at_least_one(d_in, d_out):
    return max(1, break_even_rank(d_in, d_out))


@mistake(RANK, "One too few: at the next rank A and B together are still smaller than the weight.")  # fmt: skip
def _one_too_few(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out)) - 2


def _count(describe: str, d_in: int, d_out: int, r: int) -> Case:
    return Case(describe, lambda: (d_in, d_out, r), lora_parameter_count)


def _rank(describe: str, d_in: int, d_out: int) -> Case:
    return Case(describe, lambda: (d_in, d_out), break_even_rank)


EXERCISES = {
    COUNT: Exercise(
        id=COUNT,
        title="Count A and B",
        reference=lora_parameter_count,
        cases=[
            _count("the k projection of Llama 3 8B: 4,096 to 1,024 at rank 8", 4096, 1024, 8),
            _count("its MLP's way up: 4,096 to 14,336 at rank 16", 4096, 14336, 16),
            _count("a square weight of 4,096 at rank 8", 4096, 4096, 8),
            _count("5 to 3 at rank 2", 5, 3, 2),
        ],
        hints=[
            "Two matrices. Write down the shape of each, in terms of d_in, d_out and r.",
            "A turns d_in numbers into r; B turns r numbers into d_out.",
            "r·d_in + d_out·r.",
        ],
        why="The sum of the two widths replaces their product: that is the whole saving. It does not depend on α, nor on what the weight is for.",
    ),
    RANK: Exercise(
        id=RANK,
        title="The last rank that saves anything",
        reference=break_even_rank,
        cases=[
            _rank("4,096 to 1,024", 4096, 1024),
            _rank("5 to 7", 5, 7),
            _rank("4,096 to 14,336", 4096, 14336),
            _rank("a square weight of 4,096: at rank 2,048 it is a draw", 4096, 4096),
            _rank("6 to 3: at rank 2 it is a draw", 6, 3),
            _rank("1 to 8: no rank is low enough", 1, 8),
        ],
        hints=[
            "Write the condition first: the parameters of A and B on the left, those of the weight on the right, and < between them.",
            "Solve it for r. The quotient is rarely a whole number; when it is, that rank is a draw.",
            "The largest whole number strictly below n/d is (n − 1) // d.",
        ],
        why="With whole numbers throughout there is no rounding to think about, and a draw counts as no saving. For a square weight this is just below d/2.",
    ),
}  # fmt: skip
