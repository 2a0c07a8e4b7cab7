"""The checks of notebook 09: the factor in front of B·A, and the update that it scales."""

from __future__ import annotations

import math

import torch

from sftlab.classroom.checking import Case, Exercise
from sftlab.lora import effective_update, lora_scale


def _as_lora(alpha, r, rule):
    return lora_scale(alpha, r, "lora")


def _swapped_rules(alpha, r, rule):
    return lora_scale(alpha, r, {"lora": "rslora", "rslora": "lora"}.get(rule, rule))


SCALE_MISTAKES = (
    (lambda alpha, r, rule: float(alpha) if rule == "lora" else lora_scale(alpha, r, rule), "α was not divided by r: at rank 8 the update is 8 times too strong. With α = r that would be just as wrong, only less so."),
    (lambda alpha, r, rule: r / alpha, "Upside down: it is α over r, not r over α."),
    (_as_lora, "The rule is not looked at: α/r holds for \"lora\" alone."),
    (_swapped_rules, "The two rules are swapped: \"lora\" divides by r, \"rslora\" by its root."),
    (lambda alpha, r, rule: alpha // r if rule == "lora" else lora_scale(alpha, r, rule), "`//` cuts off the fraction: with α = 12 and r = 8 that is 1 and not 1.5, and with α < r it is 0."),
    (lambda alpha, r, rule: math.sqrt(alpha / r) if rule == "rslora" else lora_scale(alpha, r, rule), "The root is taken of r alone, not of the whole fraction: α/√r."),
    (lambda alpha, r, rule: alpha / r**2 if rule == "rslora" else lora_scale(alpha, r, rule), "\"rslora\" divides by the *root* of r, not by its square."),
    (lambda alpha, r, rule: lora_scale(alpha, r, "lora") / math.sqrt(r) if rule == "rslora" else lora_scale(alpha, r, rule), "For \"rslora\" both factors are applied: α/r and then 1/√r. The root takes the place of r."),
    (lambda alpha, r, rule: 1.0 if rule == "plain" else lora_scale(alpha, r, rule), "\"plain\" is not \"no factor\": it is α, whatever the rank."),
    (lambda alpha, r, rule: alpha * r if rule == "plain" else lora_scale(alpha, r, rule), "\"plain\" leaves the rank out altogether: the factor is α."),
)  # fmt: skip


def _scale(describe: str, alpha: float, r: int, rule: str) -> Case:
    return Case(describe, lambda: (alpha, r, rule), lora_scale, SCALE_MISTAKES, 1e-6)


UPDATE_MISTAKES = (
    (lambda A, B, alpha, r: B @ A, "The factor α/r is missing."),
    (lambda A, B, alpha, r: alpha * (B @ A), "α was used without dividing by r: the update is r times too strong."),
    (lambda A, B, alpha, r: (B @ A) / r, "α is missing from the factor: it is α/r, not 1/r."),
    (lambda A, B, alpha, r: r / alpha * (B @ A), "Upside down: the factor is α/r, not r/α."),
    (lambda A, B, alpha, r: alpha / math.sqrt(r) * (B @ A), "That is the rank-stabilised factor α/√r. LoRA's own is α/r."),
    (lambda A, B, alpha, r: (alpha / r) ** 2 * (B @ A), "The factor is applied twice, to A and to B, say, or once here and once before. It stands in front of the product once."),
    (lambda A, B, alpha, r: alpha // r * (B @ A), "`//` cuts off the fraction of α/r."),
    (lambda A, B, alpha, r: alpha / A.shape[1] * (B @ A), "You divided by d_in. r is the number of *rows* of A."),
    (lambda A, B, alpha, r: alpha / B.shape[0] * (B @ A), "You divided by d_out. r is the number of *columns* of B."),
    (lambda A, B, alpha, r: alpha / r * (B @ A).T, "That is the transpose: ΔW is added to W, which is (d_out, d_in)."),
)  # fmt: skip


def _update(describe: str, r: int, d_in: int, d_out: int, alpha: float, trained=False) -> Case:
    def make() -> tuple:
        generator = torch.Generator().manual_seed(d_in)
        A = torch.randn(r, d_in, generator=generator)
        B = torch.randn(d_out, r, generator=generator)
        return A.requires_grad_(trained), B.requires_grad_(trained), alpha, r

    return Case(describe, make, effective_update, UPDATE_MISTAKES, 1e-5)


EXERCISES = {
    "09.lora_scale": Exercise(
        id="09.lora_scale",
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
    "09.effective_update": Exercise(
        id="09.effective_update",
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
