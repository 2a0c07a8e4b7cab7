"""Answers to the checks of notebook 09, as students write them."""

import math

import torch


# --- lora_scale ----------------------------------------------------------------------------
def by_dictionary(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / r**0.5, "plain": float(alpha)}[rule]


def by_power(alpha, r, rule):
    power = {"lora": 1, "rslora": 0.5, "plain": 0}[rule]
    return alpha * r**-power


def not_divided(alpha, r, rule):
    return alpha / math.sqrt(r) if rule == "rslora" else float(alpha)


def upside_down(alpha, r, rule):
    return r / alpha


def rule_ignored(alpha, r, rule):
    return alpha / r


def rules_swapped(alpha, r, rule):
    return {"rslora": alpha / r, "lora": alpha / math.sqrt(r), "plain": alpha}[rule]


def floored(alpha, r, rule):
    return {"lora": alpha // r, "rslora": alpha / math.sqrt(r), "plain": alpha}[rule]


def root_of_all(alpha, r, rule):
    return {"lora": alpha / r, "rslora": math.sqrt(alpha / r), "plain": alpha}[rule]


def squared(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / r**2, "plain": alpha}[rule]


def both_factors(alpha, r, rule):
    scale = alpha if rule == "plain" else alpha / r
    return scale / math.sqrt(r) if rule == "rslora" else scale


def plain_is_one(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / math.sqrt(r), "plain": 1.0}[rule]


def plain_times_r(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / math.sqrt(r), "plain": alpha * r}[rule]


def nothing_for_plain(alpha, r, rule):
    if rule == "lora":
        return alpha / r
    if rule == "rslora":
        return alpha / math.sqrt(r)


# --- effective_update ----------------------------------------------------------------------
def by_matmul(A, B, alpha, r):
    return torch.matmul(B, A) * alpha / r


def by_einsum(A, B, alpha, r):
    return alpha / r * torch.einsum("or,ri->oi", B, A)


def by_loop(A, B, alpha, r):
    return sum(alpha / r * torch.outer(B[:, k], A[k]) for k in range(r))


def no_factor(A, B, alpha, r):
    return B @ A


def alpha_alone(A, B, alpha, r):
    return alpha * (B @ A)


def no_alpha(A, B, alpha, r):
    return (B @ A) / r


def r_over_alpha(A, B, alpha, r):
    return (r / alpha) * (B @ A)


def stabilised(A, B, alpha, r):
    return alpha / r**0.5 * B @ A


def on_both(A, B, alpha, r):
    s = alpha / r
    return (s * B) @ (s * A)


def whole_factor(A, B, alpha, r):
    return (alpha // r) * (B @ A)


def by_d_in(A, B, alpha, r):
    return alpha / A.size(-1) * (B @ A)


def by_d_out(A, B, alpha, r):
    return alpha / len(B) * (B @ A)


def transposed(A, B, alpha, r):
    return (alpha / r) * (A.T @ B.T)


def wrong_order(A, B, alpha, r):
    return (alpha / r) * (A @ B)


def elementwise(A, B, alpha, r):
    return (alpha / r) * (B * A)


def detached(A, B, alpha, r):
    return (alpha / r) * (B.detach() @ A.detach())


def in_place(A, B, alpha, r):
    with torch.no_grad():
        B.mul_(alpha / r)
    return B @ A


RIGHT = {
    "09.lora_scale": {"dictionary": by_dictionary, "power": by_power},
    "09.effective_update": {"matmul": by_matmul, "einsum": by_einsum, "loop": by_loop},
}

WRONG = {
    "09.lora_scale": {
        "α not divided": (not_divided, "not divided by r"),
        "upside down": (upside_down, "Upside down"),
        "rule ignored": (rule_ignored, "not looked at"),
        "rules swapped": (rules_swapped, "The two rules are swapped"),
        "floored": (floored, "cuts off the fraction"),
        "root of all": (root_of_all, "of r alone"),
        "squared": (squared, "not by its square"),
        "both factors": (both_factors, "both factors are applied"),
        "plain is 1": (plain_is_one, 'not "no factor"'),
        "plain times r": (plain_times_r, "leaves the rank out"),
        "nothing for plain": (nothing_for_plain, "is a `return` missing?"),
    },
    "09.effective_update": {
        "no factor": (no_factor, "The factor α/r is missing"),
        "α alone": (alpha_alone, "without dividing by r"),
        "no α": (no_alpha, "α is missing"),
        "r over α": (r_over_alpha, "Upside down"),
        "stabilised": (stabilised, "rank-stabilised"),
        "on both": (on_both, "applied twice"),
        "floored": (whole_factor, "cuts off the fraction"),
        "by d_in": (by_d_in, "divided by d_in"),
        "by d_out": (by_d_out, "divided by d_out"),
        "transposed": (transposed, "That is the transpose"),
        "wrong order": (wrong_order, "cannot be multiplied"),
        "elementwise": (elementwise, "must match the size"),
        "detached": (detached, "the graph is lost"),
        "in place": (in_place, "changes its own input"),
    },
}
