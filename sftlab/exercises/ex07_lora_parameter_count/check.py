"""The checks of notebook 07: how many parameters LoRA trains, and up to which rank that is fewer."""

from __future__ import annotations

import math

from sftlab.classroom.checking import Case, Exercise
from sftlab.lora import break_even_rank, lora_parameter_count

COUNT_MISTAKES = (
    (lambda i, o, r: 2 * i * r, "2·d·r holds for square weights only, and you took d = d_in. A is r × d_in, B is d_out × r."),
    (lambda i, o, r: 2 * o * r, "2·d·r holds for square weights only, and you took d = d_out. A is r × d_in, B is d_out × r."),
    (lambda i, o, r: i * r, "That is A alone. B, d_out × r, is trained too."),
    (lambda i, o, r: o * r, "That is B alone. A, r × d_in, is trained too."),
    (lambda i, o, r: i * o, "That is the frozen weight. Count what is trained beside it: A and B."),
    (lambda i, o, r: r * i * o, "You multiplied the two widths, as if each of r matrices were as large as the weight. A and B share no such side: add their sizes."),
    (lambda i, o, r: i * o + r * (i + o), "The frozen weight is counted as well. LoRA does not train it."),
    (lambda i, o, r: r * (i + o) + r * r, "There is no r × r matrix between A and B: B·A multiplies them directly."),
    (lambda i, o, r: r * (i + o) + o, "A bias of d_out is in your count. LoRA adds none."),
    (lambda i, o, r: i * o / (r * (i + o)), "That is how many times fewer they are. Asked for is their number."),
    (lambda i, o, r: 4 * r * (i + o), "Four times too many: are these bytes? Asked for are parameters."),
    (lambda i, o, r: i + o + r, "You added the widths and the rank. A matrix has rows *times* columns entries."),
)  # fmt: skip

RANK_MISTAKES = (
    (lambda i, o: i * o // (i + o), "At this rank A and B have exactly as many parameters as the weight: that is not fewer. Mind the case where the division leaves no rest."),
    (lambda i, o: -(-i * o // (i + o)), "That is the first rank at which LoRA is *not* smaller any more. Asked for is the last one at which it is."),
    (lambda i, o: round(i * o / (i + o)), "Do not round to the nearest: if that goes up, A and B are already larger than the weight."),
    (lambda i, o: i * o / (i + o), "Ranks are whole numbers. Which is the last one *below* this quotient?"),
    (lambda i, o: i // 2, "d/2 is the border of square weights. Here d_in and d_out differ: r·(d_in + d_out) < d_in·d_out."),
    (lambda i, o: i // 2 - 1, "d/2 is the border of square weights. Here d_in and d_out differ: r·(d_in + d_out) < d_in·d_out."),
    (lambda i, o: min(i, o) // 2, "Half of the smaller width is too few for weights that are not square: r·(d_in + d_out) < d_in·d_out."),
    (lambda i, o: min(i, o), "That is the highest rank that the weight can have. LoRA stops being smaller long before."),
    (lambda i, o: (i * o - 1) // (2 * (i + o)), "Half of what is expected: is there a 2 too many? A and B together have r·(d_in + d_out) parameters."),
    (lambda i, o: max(1, (i * o - 1) // (i + o)), "For a weight as thin as this one there is no such rank: even r = 1 is no smaller. Return 0."),
    (lambda i, o: math.ceil(i * o / (i + o)) - 2, "One too few: at the next rank A and B together are still smaller than the weight."),
)  # fmt: skip


def _count(describe: str, d_in: int, d_out: int, r: int) -> Case:
    return Case(describe, lambda: (d_in, d_out, r), lora_parameter_count, COUNT_MISTAKES)


def _rank(describe: str, d_in: int, d_out: int) -> Case:
    return Case(describe, lambda: (d_in, d_out), break_even_rank, RANK_MISTAKES)


EXERCISES = {
    "07.lora_parameter_count": Exercise(
        id="07.lora_parameter_count",
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
    "07.break_even_rank": Exercise(
        id="07.break_even_rank",
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
