"""The checks of notebook 09: the factor in front of B·A, and the update that it scales."""

from __future__ import annotations

import math

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import effective_update, lora_scale

SCALE, UPDATE = "09.lora_scale", "09.effective_update"


def _by_rule(rule, lora, rslora, plain):
    return float({"lora": lora, "rslora": rslora, "plain": plain}[rule])


@mistake(SCALE, "α was not divided by r: at rank 8 the update is 8 times too strong. With α = r that would be just as wrong, only less so.")  # fmt: skip
def _not_divided(alpha, r, rule):
    return _by_rule(rule, alpha, alpha / math.sqrt(r), alpha)


@mistake(SCALE, "Upside down: it is α over r, not r over α.")
def _inverse(alpha, r, rule):
    return r / alpha


@mistake(SCALE, 'The rule is not looked at: α/r holds for "lora" alone.')
def _rule_ignored(alpha, r, rule):
    return alpha / r


@mistake(SCALE, 'The two rules are swapped: "lora" divides by r, "rslora" by its root.')
def _rules_swapped(alpha, r, rule):
    return _by_rule(rule, alpha / math.sqrt(r), alpha / r, alpha)


@mistake(SCALE, "`//` cuts off the fraction: with α = 12 and r = 8 that is 1 and not 1.5, and with α < r it is 0.")  # fmt: skip
def _floored(alpha, r, rule):
    return _by_rule(rule, alpha // r, alpha / math.sqrt(r), alpha)


@mistake(SCALE, "The root is taken of r alone, not of the whole fraction: α/√r.")
def _root_of_all(alpha, r, rule):
    return _by_rule(rule, alpha / r, math.sqrt(alpha / r), alpha)


@mistake(SCALE, '"rslora" divides by the *root* of r, not by its square.')
def _squared(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r**2, alpha)


@mistake(SCALE, 'For "rslora" both factors are applied: α/r and then 1/√r. The root takes the place of r.')  # fmt: skip
def _both_factors(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / r / math.sqrt(r), alpha)


@mistake(SCALE, '"plain" is not "no factor": it is α, whatever the rank.')
def _plain_is_one(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.sqrt(r), 1.0)


@mistake(SCALE, '"plain" leaves the rank out altogether: the factor is α.')
def _plain_times_r(alpha, r, rule):
    return _by_rule(rule, alpha / r, alpha / math.sqrt(r), alpha * r)


def _scale(describe: str, alpha: float, r: int, rule: str) -> Case:
    return Case(describe, lambda: (alpha, r, rule), lora_scale, 1e-6)


@mistake(UPDATE, "The factor α/r is missing.")
def _no_factor(A, B, alpha, r):
    return B @ A


@mistake(UPDATE, "α was used without dividing by r: the update is r times too strong.")
def _alpha_alone(A, B, alpha, r):
    return alpha * (B @ A)


@mistake(UPDATE, "α is missing from the factor: it is α/r, not 1/r.")
def _no_alpha(A, B, alpha, r):
    return (B @ A) / r


@mistake(UPDATE, "Upside down: the factor is α/r, not r/α.")
def _r_over_alpha(A, B, alpha, r):
    return r / alpha * (B @ A)


@mistake(UPDATE, "That is the rank-stabilised factor α/√r. LoRA's own is α/r.")
def _stabilised(A, B, alpha, r):
    return alpha / math.sqrt(r) * (B @ A)


@mistake(UPDATE, "The factor is applied twice, to A and to B, say, or once here and once before. It stands in front of the product once.")  # fmt: skip
def _twice(A, B, alpha, r):
    return (alpha / r * B) @ (alpha / r * A)


@mistake(UPDATE, "`//` cuts off the fraction of α/r.")
def _cut_off(A, B, alpha, r):
    return alpha // r * (B @ A)


@mistake(UPDATE, "You divided by d_in. r is the number of *rows* of A.")
def _by_d_in(A, B, alpha, r):
    return alpha / A.shape[1] * (B @ A)


@mistake(UPDATE, "You divided by d_out. r is the number of *columns* of B.")
def _by_d_out(A, B, alpha, r):
    return alpha / B.shape[0] * (B @ A)


@mistake(UPDATE, "That is the transpose: ΔW is added to W, which is (d_out, d_in).")
def _transposed(A, B, alpha, r):
    return alpha / r * (A.T @ B.T)


def _update(describe: str, r: int, d_in: int, d_out: int, alpha: float, trained=False) -> Case:
    def make() -> tuple:
        generator = torch.Generator().manual_seed(d_in)
        A = torch.randn(r, d_in, generator=generator)
        B = torch.randn(d_out, r, generator=generator)
        return A.requires_grad_(trained), B.requires_grad_(trained), alpha, r

    return Case(describe, make, effective_update, 1e-5)


EXERCISES = {
    SCALE: Exercise(
        id=SCALE,
        title="The factor, under three rules",
        reference=lora_scale,
        cases=[
            _scale('α = 12, r = 8, "lora"', 12, 8, "lora"),
            _scale('α = 16, r = 64, "lora"', 16, 64, "lora"),
            _scale('α = 12, r = 8, "rslora"', 12, 8, "rslora"),
            _scale('α = 12, r = 8, "plain"', 12, 8, "plain"),
            _scale('α = 2, r = 128, "rslora"', 2, 128, "rslora"),
            _scale('α = 5, r = 1, "plain"', 5, 1, "plain"),
        ],
        hints=[
            'Three rules, three formulas: "lora" is α/r, "rslora" is α/√r, "plain" is α.',
            "`math.sqrt(r)` or `r ** 0.5` gives the root; `/` divides without cutting anything off.",
            "`if rule == ...` three times; what should happen for a rule that you do not know?",
        ],
        why="One place decides the factor, and every layer asks it: that is how the factor is applied once and only once. "
        "A rule with a typing error in its name raises, rather than training with the wrong factor.",
    ),
    UPDATE: Exercise(
        id=UPDATE,
        title="The update ΔW",
        reference=effective_update,
        cases=[
            _update("r = 2, d_in = 5, d_out = 3, α = 3", 2, 5, 3, 3),
            _update("r = 4, d_in = 3, d_out = 7, α = 2", 4, 3, 7, 2),
            _update("r = 8, d_in = 6, d_out = 6, α = 12", 8, 6, 6, 12),
            _update("r = 2, d_in = 4, d_out = 3, α = 5, with gradients", 2, 4, 3, 5, trained=True),
        ],
        hints=[
            "ΔW is added to W, so it has its shape, (d_out, d_in). Which product of A and B has that shape?",
            "B is (d_out, r), A is (r, d_in): `B @ A`.",
            "The factor α/r stands in front of the product, once.",
        ],
        why="This is what merging adds to the weight (notebook 20) and what a LoRA layer computes without ever forming it: "
        "x Aᵀ Bᵀ costs r(d_in + d_out) products for each token, x ΔWᵀ would cost d_in·d_out.",
    ),
}  # fmt: skip
