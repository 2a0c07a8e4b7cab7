"""Answers to the checks of notebook 08, as students write them."""

import math

import torch
from torch import nn


# --- init_lora_ ----------------------------------------------------------------------------
def kaiming(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.zeros_(B)


def gaussian(A, B):
    with torch.no_grad():
        A.normal_(0, 1 / math.sqrt(A.shape[1]))
        B.zero_()


def copied(A, B):
    with torch.no_grad():
        A.copy_((2 * torch.rand_like(A) - 1) / A.size(1) ** 0.5)
        B[:] = 0
    return A, B


def swapped(A, B):
    nn.init.zeros_(A)
    nn.init.kaiming_uniform_(B, a=math.sqrt(5))


def both_zero(A, B):
    nn.init.zeros_(A)
    nn.init.zeros_(B)


def both_random(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.kaiming_uniform_(B, a=math.sqrt(5))


def small_B(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.normal_(B, std=1e-6)


def new_tensors(A, B):
    A = torch.randn(A.shape) / A.shape[1] ** 0.5
    B = torch.zeros(B.shape)
    return A, B


def B_forgotten(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))


def ones(A, B):
    nn.init.constant_(A, 1 / A.shape[1] ** 0.5)
    nn.init.zeros_(B)


def one_row(A, B):
    with torch.no_grad():
        A.copy_(torch.randn(1, A.shape[1]).expand_as(A) / A.shape[1] ** 0.5)
        B.zero_()


def unscaled(A, B):
    nn.init.normal_(A)
    nn.init.zeros_(B)


def by_rank(A, B):
    bound = 1 / math.sqrt(A.shape[0])
    nn.init.uniform_(A, -bound, bound)
    nn.init.zeros_(B)


def tiny(A, B):
    nn.init.normal_(A, std=1e-6)
    nn.init.zeros_(B)


def one_sided(A, B):
    with torch.no_grad():
        A.copy_(torch.rand_like(A) / A.shape[1] ** 0.5)
        B.zero_()


def identity(A, B):
    nn.init.eye_(A)
    nn.init.zeros_(B)


def frozen(A, B):
    kaiming(A.requires_grad_(False), B.requires_grad_(False))


def recorded(A, B):
    bound = 1 / math.sqrt(A.shape[1])
    A.uniform_(-bound, bound)
    B.zero_()


# --- which_is_stuck ------------------------------------------------------------------------
def comprehension(grad_norms):
    return [layer for layer, norms in grad_norms.items() if norms == (0, 0)]


def by_loop(grad_norms):
    found = []
    for layer in grad_norms:
        if not any(grad_norms[layer]):
            found.append(layer)
    return found


def by_maximum(grad_norms):
    return [name for name, pair in grad_norms.items() if max(pair) == 0]


def A_zero(grad_norms):
    return [name for name, pair in grad_norms.items() if pair[0] == 0]


def B_zero(grad_norms):
    return [name for name, pair in grad_norms.items() if pair[1] == 0]


def product(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a * b == 0]


def threshold(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a + b < 1e-8]


def moving(grad_norms):
    return [name for name, pair in grad_norms.items() if any(pair)]


def healthy(grad_norms):
    return [name for name, pair in grad_norms.items() if all(pair)]


def equal(grad_norms):
    return [name for name, (a, b) in grad_norms.items() if a == b]


def first(grad_norms):
    for name, pair in grad_norms.items():
        if not any(pair):
            return [name]
    return []


def whether(grad_norms):
    return any(not any(pair) for pair in grad_norms.values())


def how_many(grad_norms):
    return sum(not any(pair) for pair in grad_norms.values())


def as_set(grad_norms):
    return {name for name, pair in grad_norms.items() if not any(pair)}


def the_norms(grad_norms):
    return [pair for pair in grad_norms.values() if not any(pair)]


RIGHT = {
    "08.init_lora_": {"Kaiming": kaiming, "Gaussian": gaussian, "copied": copied},
    "08.which_is_stuck": {"pairs": comprehension, "loop": by_loop, "maximum": by_maximum},
}

WRONG = {
    "08.init_lora_": {
        "the other way round": (swapped, "other way round"),
        "both zero": (both_zero, "the layer is stuck"),
        "both random": (both_random, "B is not zero"),
        "B small": (small_B, "B is not zero"),
        "new tensors": (new_tensors, "A and B still hold"),
        "B forgotten": (B_forgotten, "B still holds"),
        "ones": (ones, "rows of A are alike"),
        "one row": (one_row, "rows of A are alike"),
        "unscaled": (unscaled, "too large. Each row of A"),
        "by the rank": (by_rank, "too large. Each row of A"),
        "tiny": (tiny, "smaller than 1/√d_in"),
        "one-sided": (one_sided, "not centred at zero"),
        "identity": (identity, "Most of A is zero"),
        "frozen": (frozen, "no longer require a gradient"),
        "gradients recorded": (recorded, "leaf Variable that requires grad"),
    },
    "08.which_is_stuck": {
        "A zero": (A_zero, "how every LoRA starts"),
        "B zero": (B_zero, "A has a gradient and moves"),
        "one zero": (product, "One zero is not enough"),
        "threshold": (threshold, "tiny gradient is not zero"),
        "the others": (moving, "that *do* move"),
        "both going": (healthy, "both matrices have a gradient"),
        "equal": (equal, "Equal is not zero"),
        "first": (first, "Only the first"),
        "whether": (whether, "says whether there is one"),
        "how many": (how_many, "how many there are"),
        "a set": (as_set, "of type set"),
        "norms": (the_norms, "Those are their norms"),
    },
}
