"""Answers to the checks of notebook 07, as students write them."""

import math


# --- lora_parameter_count ------------------------------------------------------------------
def two_products(d_in, d_out, r):
    in_A = r * d_in
    in_B = d_out * r
    return in_A + in_B


def by_tensors(d_in, d_out, r):
    import torch

    return torch.empty(r, d_in).numel() + torch.empty(d_out, r).numel()


def square_in(d_in, d_out, r):
    return 2 * d_in * r


def square_out(d_in, d_out, r):
    return 2 * d_out * r


def only_A(d_in, d_out, r):
    return r * d_in


def only_B(d_in, d_out, r):
    return d_out * r


def full(d_in, d_out, r):
    return d_in * d_out


def product(d_in, d_out, r):
    return d_in * d_out * r


def with_the_base(d_in, d_out, r):
    return d_in * d_out + r * d_in + d_out * r


def with_a_middle(d_in, d_out, r):
    return d_in * r + r * r + r * d_out


def with_bias(d_in, d_out, r):
    return r * d_in + d_out * r + d_out


def ratio(d_in, d_out, r):
    return (d_in * d_out) / (r * (d_in + d_out))


def in_bytes(d_in, d_out, r):
    return 4 * r * (d_in + d_out)


def added(d_in, d_out, r):
    return d_in + r + d_out


def nothing(d_in, d_out, r):
    print(r * (d_in + d_out))


# --- break_even_rank -----------------------------------------------------------------------
def by_search(d_in, d_out):
    r = 0
    while (r + 1) * (d_in + d_out) < d_in * d_out:
        r += 1
    return r


def by_ceiling(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out)) - 1


def floored(d_in, d_out):
    return d_in * d_out // (d_in + d_out)


def truncated(d_in, d_out):
    return int(d_in * d_out / (d_in + d_out))


def ceiling(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out))


def rounded(d_in, d_out):
    return round(d_in * d_out / (d_in + d_out))


def quotient(d_in, d_out):
    return d_in * d_out / (d_in + d_out)


def half_in(d_in, d_out):
    return d_in // 2


def half_smaller(d_in, d_out):
    return min(d_in, d_out) // 2


def full_rank(d_in, d_out):
    return min(d_in, d_out)


def twice(d_in, d_out):
    return (d_in * d_out - 1) // (2 * (d_in + d_out))


def at_least_one(d_in, d_out):
    return max(1, (d_in * d_out - 1) // (d_in + d_out))


def one_too_few(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out)) - 2


RIGHT = {
    "07.lora_parameter_count": {"two products": two_products, "by tensors": by_tensors},
    "07.break_even_rank": {"search": by_search, "ceiling less one": by_ceiling},
}

WRONG = {
    "07.lora_parameter_count": {
        "square, d_in": (square_in, "you took d = d_in"),
        "square, d_out": (square_out, "you took d = d_out"),
        "A only": (only_A, "That is A alone"),
        "B only": (only_B, "That is B alone"),
        "the weight": (full, "That is the frozen weight"),
        "product": (product, "multiplied the two widths"),
        "with the base": (with_the_base, "counted as well"),
        "a matrix between": (with_a_middle, "no r × r matrix"),
        "bias": (with_bias, "A bias of d_out"),
        "ratio": (ratio, "how many times fewer"),
        "bytes": (in_bytes, "are these bytes?"),
        "added": (added, "rows *times* columns"),
        "printed": (nothing, "is a return missing?"),
    },
    "07.break_even_rank": {
        "floor": (floored, "exactly as many"),
        "truncated": (truncated, "exactly as many"),
        "ceiling": (ceiling, "*not* smaller any more"),
        "rounded": (rounded, "Do not round"),
        "quotient": (quotient, "Ranks are whole numbers"),
        "half of d_in": (half_in, "border of square weights"),
        "half of the smaller": (half_smaller, "Half of the smaller width"),
        "full rank": (full_rank, "highest rank that the weight can have"),
        "a 2 too many": (twice, "a 2 too many"),
        "at least one": (at_least_one, "even r = 1 is no smaller"),
        "one too few": (one_too_few, "One too few"),
    },
}
