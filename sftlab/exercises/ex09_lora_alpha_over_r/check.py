"""Checks of notebook 09: the factor in front of B·A, and a split of the update that it scales."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex09_lora_alpha_over_r.split import split_update
from sftlab.lora import lora_scale

SCALE, SPLIT = "09.lora_scale", "09.split_update"

# --- lora_scale ----------------------------------------------------------------------------


def _by_rule(rule, lora, rslora, plain):
    return {"lora": lora, "rslora": rslora, "plain": plain}[rule]


@mistake(SCALE, 'For "lora" the result is α: it is not divided by r.')
def _not_divided(alpha, r, rule):
    return _by_rule(rule, alpha, alpha / math.sqrt(r), alpha)


IGNORED = "The result does not depend on `rule`. Each of the three names stands for a formula of its own."  # fmt: skip


@mistake(SCALE, IGNORED)
def _always_lora(alpha, r, rule):
    return alpha / r


@mistake(SCALE, IGNORED)
def _always_rslora(alpha, r, rule):
    return alpha / math.sqrt(r)


@mistake(SCALE, IGNORED)
def _always_alpha(alpha, r, rule):
    return alpha


UPSIDE_DOWN = "The quotient is upside down: r over α in place of α over r."


@mistake(SCALE, UPSIDE_DOWN)
def _inverse(alpha, r, rule):
    return _by_rule(rule, r / alpha, alpha / math.sqrt(r), alpha)


@mistake(SCALE, UPSIDE_DOWN)
def _inverse_for_all(alpha, r, rule):
    return r / alpha


@mistake(SCALE, UPSIDE_DOWN)
def _both_inverse(alpha, r, rule):
    return _by_rule(rule, r / alpha, math.sqrt(r) / alpha, alpha)


@mistake(SCALE, 'The quotient of "rslora" is upside down: √r over α in place of α over √r.')
def _rslora_inverse(alpha, r, rule):
    return _by_rule(rule, alpha / r, math.sqrt(r) / alpha, alpha)


@mistake(SCALE, 'Two rules are exchanged: "lora" divides by r, "rslora" by its square root.')
def _rules_exchanged(alpha, r, rule):
    return _by_rule(rule, alpha / math.sqrt(r), alpha / r, alpha)


FLOORED = "The quotient is cut down to a whole number, as by `//` or `int`. With α < r this gives 0, and the adapter would have no effect."  # fmt: skip


@mistake(SCALE, FLOORED)
def _floored(alpha, r, rule):
    return _by_rule(rule, alpha // r, alpha / math.sqrt(r), alpha)


@mistake(SCALE, FLOORED)
def _both_floored(alpha, r, rule):
    return _by_rule(rule, alpha // r, alpha // math.sqrt(r), alpha)


@mistake(SCALE, FLOORED)
def _all_floored(alpha, r, rule):
    return int(lora_scale(alpha, r, rule))


ROUNDED = "The quotient is rounded to a whole number. The factor may be any number, such as 2.6."


@mistake(SCALE, ROUNDED)
def _rounded(alpha, r, rule):
    return _by_rule(rule, round(alpha / r), alpha / math.sqrt(r), alpha)


@mistake(SCALE, ROUNDED)
def _both_rounded(alpha, r, rule):
    return _by_rule(rule, round(alpha / r), round(alpha / math.sqrt(r)), alpha)


@mistake(SCALE, 'For "rslora" the root is taken of the whole quotient. It is taken of r alone.')
def _root_of_all(alpha, r, rule):
    return _by_rule(rule, alpha / r, math.sqrt(alpha / r), alpha)


@mistake(SCALE, 'For "rslora" α is divided by the square of r, not by its square root.')
def _squared(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r**2, alpha)


@mistake(SCALE, 'For "rslora" α is multiplied by √r, not divided by it.')
def _times_root(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha * math.sqrt(r), alpha)


@mistake(SCALE, 'For "rslora" α is divided by r and by √r. The square root takes the place of r.')
def _both_factors(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r / math.sqrt(r), alpha)


@mistake(SCALE, 'For "rslora" the result is α/r, as for "lora". Compare the whole name: the text "lora" is a part of "rslora", too.')  # fmt: skip
def _part_of_the_name(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r, alpha)


@mistake(SCALE, 'For "rslora" α is divided by r/2: in `r ** 1/2` the power is taken first. A fraction as the power needs parentheses.')  # fmt: skip
def _power_first(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / (r / 2), alpha)


@mistake(SCALE, 'For "rslora" the result is α/(2r): in `alpha / r ** 1/2` the power is taken first, and the rest from left to right. A fraction as the power needs parentheses.')  # fmt: skip
def _left_to_right(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r**1 / 2, alpha)


def _to_digits(digits: int) -> None:
    @mistake(SCALE, "The factor is rounded to a few decimals. Return it as it is.")
    def _few_decimals(alpha, r, rule):
        return round(lora_scale(alpha, r, rule), digits)


for _digits in (1, 2, 3, 4):
    _to_digits(_digits)


@mistake(SCALE, 'For "rslora" the root of r is a whole number, as `math.isqrt` gives it.')
def _whole_root(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.isqrt(r), alpha)


@mistake(SCALE, 'For "plain" the result is 1. "plain" does not mean "no factor".')
def _plain_is_one(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.sqrt(r), 1.0)


@mistake(SCALE, 'For "plain" the result is α·r. "plain" leaves the rank out altogether.')
def _plain_times_r(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.sqrt(r), alpha * r)


@mistake(SCALE, 'For "plain" the result is α/r, as for "lora". "plain" leaves the rank out altogether.')  # fmt: skip
def _plain_as_lora(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.sqrt(r), alpha / r)


def _scale(key: str, alpha: float, r: int, rule: str) -> Case:
    describe = f'`lora_scale({alpha}, {r}, "{rule}")`'
    return Case(describe, lambda: (alpha, r, rule), lora_scale, 1e-7, rule=key)


SCALE_CASES = (
    _scale("lora", 13, 5, "lora"),
    _scale("rslora", 13, 5, "rslora"),
    _scale("plain", 13, 5, "plain"),
    _scale("lora", 7, 1, "lora"),
    _scale("fraction", 3, 11, "lora"),
    _scale("fraction", 2, 131, "rslora"),
    _scale("fraction", 2.5, 7, "plain"),
    _scale("fraction", 0.5, 1499, "lora"),
)


def _draw_scale(rng: random.Random, *_: object) -> tuple:
    return rng.randint(1, 64), rng.randint(1, 256), rng.choice(["lora", "rslora", "plain"])


# --- split_update --------------------------------------------------------------------------


def _along(update, gradient):
    return split_update(update, gradient)[0]


def _products(update, gradient):
    """Return, for each row, the product of ΔW and G and that of G with itself, which is not 0."""
    squared = gradient.square().sum(1, keepdim=True)
    return (update * gradient).sum(1, keepdim=True), squared.where(squared > 0, 1.0)


@mistake(SPLIT, "The product of ΔW and G is divided by the norm of G's row, not by its square: `along` grows with the size of G.")  # fmt: skip
def _divided_once(update, gradient):
    product, squared = _products(update, gradient)
    along = product / squared.sqrt() * gradient
    return along, update - along


@mistake(SPLIT, "The product of ΔW and G is not divided by the squared norm of G's row: `along` grows with the size of G.")  # fmt: skip
def _not_divided_at_all(update, gradient):
    along = _products(update, gradient)[0] * gradient
    return along, update - along


@mistake(SPLIT, "The product is divided by the squared norm of ΔW's row, not by that of G's row.")
def _by_the_update(update, gradient):
    product, _ = _products(update, gradient)
    along = product / update.square().sum(1, keepdim=True) * gradient
    return along, update - along


@mistake(SPLIT, "The product is divided by the norms of both rows. This is a cosine, which does not depend on how large ΔW is.")  # fmt: skip
def _cosine(update, gradient):
    product, squared = _products(update, gradient)
    along = product / (squared.sqrt() * update.norm(dim=1, keepdim=True)) * gradient
    return along, update - along


@mistake(SPLIT, "`along` has the length of ΔW's part along G, but not its direction in each row: multiply the cosine's length by G's row divided by its norm.")  # fmt: skip
def _length_alone(update, gradient):
    product, squared = _products(update, gradient)
    along = (product / squared.sqrt()).expand_as(update)
    return along, update - along


@mistake(SPLIT, "This is the part of G along ΔW. The two have changed places.")
def _places_changed(update, gradient):
    along = _products(update, gradient)[0] / update.square().sum(1, keepdim=True) * update
    return along, gradient - along


def _over(dims: tuple[int, ...], least: float, message: str) -> None:
    """Declare sums over the wrong entries; with ``least`` above 0, guarded against a gradient of zero."""

    @mistake(SPLIT, message)
    def _wrong_sums(update, gradient):
        squared = gradient.square().sum(dims, keepdim=True).clamp(min=least)
        along = (update * gradient).sum(dims, keepdim=True) / squared * gradient
        return along, update - along


for _least in (1e-30, 0.0):
    _over((0, 1), _least, "ΔW and G are split as one vector each, by sums over all entries. Each row has its own coefficient here.")  # fmt: skip
    _over((0,), _least, "Each column is split on its own. Sum along the columns' index, so that each *row* has a coefficient.")  # fmt: skip


@mistake(SPLIT, "The rows of ΔW are projected onto the space of *all* rows of G. Row i follows row i of G alone.")  # fmt: skip
def _onto_all_rows(update, gradient):
    along = update @ torch.linalg.pinv(gradient) @ gradient
    return along, update - along


@mistake(SPLIT, "`along` keeps the entries in which ΔW and G have the same sign. Its rows are multiples of G's rows instead.")  # fmt: skip
def _same_signs(update, gradient):
    along = update * (update * gradient > 0)
    return along, update - along


@mistake(SPLIT, "The sign of `along` is lost: against the gradient, a row is a negative multiple of G's row.")  # fmt: skip
def _sign_lost(update, gradient):
    product, squared = _products(update, gradient)
    along = product.abs() / squared * gradient
    return along, update - along


@mistake(SPLIT, "The sign of `along` is turned: where ΔW goes with the gradient, `along` goes against it.")  # fmt: skip
def _sign_turned(update, gradient):
    along = -_along(update, gradient)
    return along, update - along


@mistake(SPLIT, "The rest comes first. Return (along, rest).")
def _rest_first(update, gradient):
    return split_update(update, gradient)[::-1]


@mistake(SPLIT, "`rest` is ΔW itself. Take `along` away from it.")
def _whole_as_rest(update, gradient):
    return _along(update, gradient), update


@mistake(SPLIT, "`rest` is along − ΔW: its sign is turned.")
def _rest_turned(update, gradient):
    along, rest = split_update(update, gradient)
    return along, -rest


@mistake(SPLIT, "`rest` is ΔW minus the whole gradient. Take `along` away from it.")
def _minus_gradient(update, gradient):
    return _along(update, gradient), update - gradient


@mistake(SPLIT, "Only `along` comes back. Return (along, rest).")
def _along_alone(update, gradient):
    return _along(update, gradient)


@mistake(SPLIT, "Where a row of the gradient is zero there are nan in the result: 0 is divided by 0.")  # fmt: skip
def _zero_by_zero(update, gradient):
    squared = gradient.square().sum(1, keepdim=True)
    along = (update * gradient).sum(1, keepdim=True) / squared * gradient
    return along, update - along


@mistake(SPLIT, "Where a row of the gradient is zero all of ΔW's row is `along`. No part of it follows a gradient that is not there.")  # fmt: skip
def _all_along(update, gradient):
    empty = ~gradient.any(dim=1, keepdim=True)
    along = torch.where(empty, update, _along(update, gradient))
    return along, update - along


@mistake(SPLIT, "Where a row of the gradient is zero the rest of this row is zero, too, and a part of ΔW is lost.")  # fmt: skip
def _row_lost(update, gradient):
    along, rest = split_update(update, gradient)
    return along, rest * gradient.any(dim=1, keepdim=True)


def _first(result: Any, _: tuple) -> Any:
    """Return `along` alone, if the result has the right form."""
    pair = hasattr(result, "__len__") and len(result) == 2  # no case has two rows
    return result[0] if pair else result


def _split(rule: str, told: str, make, observe=None) -> Case:
    return Case(f"`split_update(update, gradient)`: {told}", make, split_update, 1e-5, rule=rule, observe=observe)  # fmt: skip


def _pair(seed: int, d_out: int, d_in: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    update, gradient = torch.randn(2, d_out, d_in, generator=generator)
    return update, size * gradient


def _against() -> tuple[Tensor, Tensor]:
    update, gradient = _pair(3, 3, 4)
    return update - 2 * gradient, gradient


def _one_row_without() -> tuple[Tensor, Tensor]:
    update, gradient = _pair(5, 3, 4, 2.0)
    gradient[1] = 0
    return update, gradient


SPLIT_CASES = (
    _split("along", "`along` alone, 3 × 5, a large gradient", lambda: _pair(1, 3, 5, 7.0), _first),
    _split("along", "`along` alone, 4 × 3, a small gradient", lambda: _pair(2, 4, 3, 0.2), _first),
    _split(
        "along", "`along` alone, a gradient of a thousandth", lambda: _pair(9, 3, 4, 1e-3), _first
    ),
    _split("along", "`along` alone, an update against the gradient", _against, _first),
    _split("rest", "both parts, 3 × 5", lambda: _pair(4, 3, 5, 3.0)),
    _split("rest", "both parts, an update against the gradient", _against),
    _split("zero", "a gradient whose second row is zero", _one_row_without),
    _split("zero", "a gradient of zero", lambda: (_pair(5, 3, 4)[0], torch.zeros(3, 4))),
)


def _draw_split(rng: random.Random, *_: object) -> tuple:
    d_out, d_in = rng.randint(2, 6), rng.randint(2, 6)
    return tensor(rng, d_out, d_in), tensor(rng, d_out, d_in, scale=rng.uniform(0.1, 9))


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            SCALE,
            "The factor, under three rules",
            lora_scale,
            SCALE_CASES,
            asks="Return the factor in front of B·A, a number.\n\n"
            'alpha: a number above 0. r: the rank. rule: "lora", "rslora" or "plain".',
            rules={
                "lora": '"lora": α/r, LoRA\'s own rule.',
                "rslora": '"rslora": α/√r, the rank-stabilized rule; only r is under the root.',
                "plain": '"plain": α, whatever the rank is.',
                "fraction": "The factor may be a fraction and is not rounded.",
            },
            draw=_draw_scale,
            hints=(
                "There are three names and three formulas. In which of them does the rank not occur at all?",
                ("rslora", "What does it give for alpha = 13 and r = 5, on paper?"),
                "The place to decide is a comparison of `rule` with each name; what follows each is one division, or none.",
            ),
            path="Read the three rules as three branches and write the simplest one first. Then check the two divisions by hand on one pair of "
            "numbers in which α and r differ: with α = r or with r = 1 most mistakes do not show. The usual wrong turn is a division that drops the fraction.",
            why="One function decides the factor, and every layer asks it: that is how the factor is applied once and only once. "
            "A rule with a typing error in its name raises an error, rather than training with the wrong factor.",
        ),
        Exercise(
            SPLIT,
            "The part along the gradient, and the rest",
            split_update,
            SPLIT_CASES,
            asks="Return (along, rest), row by row: the part of ΔW along the gradient, and what is left.\n\n"
            "update, gradient: tensors (d_out, d_in), ΔW and the gradient G.",
            rules={
                "along": "along: row i of ΔW projected onto row i of G; the coefficient may be negative.",
                "rest": "rest: ΔW without along. In each row its product with G sums to 0.",
                "zero": "Where a row of G is zero, that row of along is zero.",
                "unchanged": "update and gradient stay as they are.",
            },
            draw=_draw_split,
            hints=(
                "Think of a row of ΔW and the same row of G as two arrows. `along` is the shadow of one of them on the line of the other.",
                ("along", "For one row, along = c·G. For which number c is the sum of the entries of (ΔW − c·G)·G zero?"),
                "Two sums over each row are needed, of ΔW·G and of G·G; with `keepdim=True` they multiply row by row. Test with G twice as long: `along` must not change.",
            ),
            path="Begin with one row. Write along = c·G with an unknown number c, demand that what is left has no product with G, and solve for c: a quotient of two sums. "
            "Then take the sums over each row of the matrices. Treat a row of zeros before you divide. The usual wrong turns are one sum over all entries, and the norm in place of its square.",
            why="A small change ΔW changes the loss by the sum of ΔW·G over all entries. No row of `rest` adds to this sum, so to first order the loss feels `along` alone.",
        ),
    )
}  # fmt: skip
