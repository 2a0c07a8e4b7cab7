"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
import random

import torch
from torch import nn

from sftlab.classroom.answers import refused, right

START, STUCK = "08.init_lora_", "08.which_is_stuck"


@right(START)
def kaiming(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.zeros_(B)


@right(START)
def gaussian(A, B):
    with torch.no_grad():
        A.normal_(0, 1 / math.sqrt(A.shape[1]))
        B.zero_()


@right(START)
def copied(A, B):
    with torch.no_grad():
        A.copy_((2 * torch.rand_like(A) - 1) / A.size(1) ** 0.5)
        B[:] = 0
    return A, B


@right(START)
def orthogonal_rows(A, B):
    nn.init.orthogonal_(A)
    B.data -= B.data


@right(START)
def from_a_linear_layer(A, B):
    r, d_in = A.shape
    A.data = nn.Linear(d_in, r).weight.data
    B.data = torch.zeros(B.shape)


@right(START)
def entry_by_entry(A, B):
    bound = A.shape[1] ** -0.5
    with torch.no_grad():
        for row in A:
            for i in range(len(row)):
                row[i] = random.uniform(-bound, bound)
        B.mul_(0)


@refused(START, "other way round")
def swapped(A, B):
    nn.init.zeros_(A)
    nn.init.kaiming_uniform_(B, a=math.sqrt(5))


@refused(START, "the layer is stuck")
def both_zero(A, B):
    nn.init.zeros_(A)
    nn.init.zeros_(B)


@refused(START, "B is not zero")
def both_random(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.kaiming_uniform_(B, a=math.sqrt(5))


@refused(START, "B is not zero")
def small_B(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.normal_(B, std=1e-6)


@refused(START, "A and B still hold")
def new_tensors(A, B):
    A = torch.randn(A.shape) / A.shape[1] ** 0.5
    B = torch.zeros(B.shape)
    return A, B


@refused(START, "B still holds")
def B_forgotten(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))


@refused(START, "infinite or not a number")
def divided_by_zero(A, B):
    nn.init.zeros_(B)
    with torch.no_grad():
        A.uniform_(-1, 1).div_(B.sum())


@refused(START, "rows of A are alike")
def ones(A, B):
    nn.init.constant_(A, 1 / A.shape[1] ** 0.5)
    nn.init.zeros_(B)


@refused(START, "rows of A are alike")
def one_row(A, B):
    with torch.no_grad():
        A.copy_(torch.randn(1, A.shape[1]).expand_as(A) / A.shape[1] ** 0.5)
        B.zero_()


@refused(START, "too large. Each row of A")
def unscaled(A, B):
    nn.init.normal_(A)
    nn.init.zeros_(B)


@refused(START, "too large. Each row of A")
def by_rank(A, B):
    bound = 1 / math.sqrt(A.shape[0])
    nn.init.uniform_(A, -bound, bound)
    nn.init.zeros_(B)


@refused(START, "smaller than 1/√d_in")
def tiny(A, B):
    nn.init.normal_(A, std=1e-6)
    nn.init.zeros_(B)


@refused(START, "not centred at zero")
def one_sided(A, B):
    with torch.no_grad():
        A.copy_(torch.rand_like(A) / A.shape[1] ** 0.5)
        B.zero_()


@refused(START, "Most of A is zero")
def identity(A, B):
    nn.init.eye_(A)
    nn.init.zeros_(B)


@refused(START, "no longer require a gradient")
def frozen(A, B):
    kaiming(A.requires_grad_(False), B.requires_grad_(False))


@refused(START, "leaf Variable that requires grad")
def gradients_recorded(A, B):
    bound = 1 / math.sqrt(A.shape[1])
    A.uniform_(-bound, bound)
    B.zero_()


@right(STUCK)
def equal_to_a_pair(grad_norms):
    return [layer for layer, norms in grad_norms.items() if norms == (0, 0)]


@right(STUCK)
def by_loop(grad_norms):
    found = []
    for layer in grad_norms:
        if not any(grad_norms[layer]):
            found.append(layer)
    return found


@right(STUCK)
def by_maximum(grad_norms):
    return [name for name, pair in grad_norms.items() if max(pair) == 0]


@right(STUCK)
def by_removal(grad_norms):
    kept = dict(grad_norms)
    for name, (a, b) in grad_norms.items():
        if a or b:
            del kept[name]
    return list(kept)


@right(STUCK)
def by_filter(grad_norms):
    return tuple(filter(lambda name: math.hypot(*grad_norms[name]) == 0, grad_norms))


@right(STUCK)
def by_tensor(grad_norms):
    zero = (torch.tensor(list(grad_norms.values())) == 0).all(dim=1)
    return [name for name, stuck in zip(grad_norms, zero, strict=True) if stuck]


@refused(STUCK, "of type set")
def a_set(grad_norms):
    return {name for name, pair in grad_norms.items() if not any(pair)}


@refused(STUCK, "too many values to unpack")
def items_forgotten(grad_norms):
    return [name for name, a, b in grad_norms if a == b == 0]


@refused(STUCK, "changes its own input")
def deleted_from_the_input(grad_norms):
    for name in [name for name, pair in grad_norms.items() if any(pair)]:
        del grad_norms[name]
    return list(grad_norms)
