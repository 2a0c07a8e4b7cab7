"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.lora import inject_lora

COUNT, RANK, NEAREST = "07.lora_parameter_count", "07.break_even_rank", "07.nearest_low_rank"


@right(NEAREST)
def all_in_B(delta, r):
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    return vt[:r], u[:, :r] @ torch.diag(s[:r])


@right(NEAREST)
def by_projection(delta, r):
    """Project onto the r main directions of the rows."""
    _, vectors = torch.linalg.eigh(delta.double() @ delta.double().T)
    main = vectors[:, -r:].float()
    return main.T @ delta, main


@right(NEAREST)
def by_numpy(delta, r):
    u, s, vt = np.linalg.svd(delta.numpy())
    return vt[:r], u[:, :r] * s[:r]


@right(NEAREST)
def one_by_one(delta, r):
    """Take one direction after the other from what is left."""
    rest, rows, columns = delta.clone(), [], []
    for _ in range(r):
        u, s, vt = torch.linalg.svd(rest)
        rows.append(s[0] * vt[0])
        columns.append(u[:, 0])
        rest = rest - torch.outer(columns[-1], rows[-1])
    return torch.stack(rows), torch.stack(columns, dim=1)


equivalent(
    NEAREST,
    "the full factors only have more columns and rows, which are cut off",
    "`False` becomes `True`",
    "without `full_matrices=` in `torch.linalg.svd(delta, full_matrices=False)`",
)


@refused(NEAREST, "changes its own input (argument 1")
def delta_overwritten(delta, r):
    A, B = all_in_B(delta, r)
    delta -= B @ A
    return A, B


@right(COUNT)
def two_products(d_in, d_out, r):
    in_A = r * d_in
    in_B = d_out * r
    return in_A + in_B


@right(COUNT)
def by_tensors(d_in, d_out, r):
    return torch.empty(r, d_in).numel() + torch.empty(d_out, r).numel()


@right(COUNT)
def by_shapes(d_in, d_out, r):
    return sum(math.prod(shape) for shape in ((r, d_in), (d_out, r)))


@right(COUNT)
def by_adapters(d_in, d_out, r):
    """Count what is trainable once LoRA stands beside a layer."""
    model = torch.nn.Sequential(torch.nn.Linear(d_in, d_out))
    model = inject_lora(model, "all-linear", r=r, lora_alpha=r, seed=0)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@refused(COUNT, "Put return in place of print")
def printed(d_in, d_out, r):
    print(r * (d_in + d_out))


@right(COUNT)
def a_whole_float(d_in, d_out, r):
    return r * (d_in + d_out) / 1


@refused(COUNT, "a whole number is expected: 130")
def in_millions(d_in, d_out, r):
    return r * (d_in + d_out) / 1e6


@right(RANK)
def by_search(d_in, d_out):
    r = 0
    while (r + 1) * (d_in + d_out) < d_in * d_out:
        r += 1
    return r


@right(RANK)
def by_ceiling(d_in, d_out):
    return math.ceil(d_in * d_out / (d_in + d_out)) - 1


@right(RANK)
def by_fraction(d_in, d_out):
    border = 1 / (Fraction(1, d_in) + Fraction(1, d_out))
    return math.floor(border) - (border.denominator == 1)


@right(RANK)
def by_bisection(d_in, d_out):
    ranks = range(1, min(d_in, d_out) + 1)
    return bisect_left(ranks, d_in * d_out, key=lambda r: r * (d_in + d_out))


@right(RANK)
def from_above(d_in, d_out):
    ranks = reversed(range(min(d_in, d_out) + 1))
    return next(r for r in ranks if d_in * d_out - r * d_in - r * d_out > 0)


@refused(RANK, "Expected: 3, got: 4")
def widest_half(d_in, d_out):
    return (d_in + d_out) // 3


@refused(RANK, "The rule: Return 0 if there is no such rank")
def searched_from_one(d_in, d_out):
    ranks = range(1, min(d_in, d_out) + 1)
    return max(r for r in ranks if r * (d_in + d_out) < d_in * d_out)


@refused(RANK, "exactly as many")
def truncated(d_in, d_out):
    return int(d_in * d_out / (d_in + d_out))


@refused(RANK, "is a return missing?")
def none_if_there_is_no_rank(d_in, d_out):
    return by_search(d_in, d_out) or None
