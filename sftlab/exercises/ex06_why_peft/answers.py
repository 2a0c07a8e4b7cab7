"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy
from collections import Counter
from functools import singledispatch

import torch

from sftlab.classroom.answers import refused, right

ID = "06.optimizer_state_bytes"


@right(ID)
def by_loops(model, optimizer):
    total = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            if not p.requires_grad:
                continue
            if isinstance(optimizer, torch.optim.SGD):
                total += p.nbytes if group["momentum"] else 0
            else:
                total += 2 * p.nbytes + 4
    return total


@right(ID)
def a_step_on_a_copy(model, optimizer):
    """Take a real step with gradients of zero, and count what is there then."""
    model, optimizer = copy.deepcopy((model, optimizer))
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values()]
    return sum(v.numel() * v.element_size() for v in kept if torch.is_tensor(v))


@right(ID)
def by_table(model, optimizer):
    ids = {id(p) for p in model.parameters() if p.requires_grad}
    (group,) = optimizer.param_groups
    copies, counter = (group["momentum"] > 0, 0) if "momentum" in group else (2, 4)
    mine = [p for p in group["params"] if id(p) in ids]
    return sum(copies * p.numel() * p.element_size() for p in mine) + counter * len(mine)


@singledispatch
def kept(optimizer, numbers, tensors):
    raise TypeError(type(optimizer))


@kept.register
def _(optimizer: torch.optim.SGD, numbers, tensors):
    has_momentum = optimizer.defaults["momentum"] != 0
    return sum(n * dtype.itemsize for dtype, n in numbers.items()) if has_momentum else 0


@kept.register
def _(optimizer: torch.optim.AdamW, numbers, tensors):
    counters = tensors * torch.float32.itemsize
    return counters + 2 * sum(n * dtype.itemsize for dtype, n in numbers.items())


@right(ID)
def by_dtype_and_kind(model, optimizer):
    numbers, tensors = Counter(), 0
    for group in optimizer.param_groups:
        for p in filter(lambda p: p.requires_grad, group["params"]):
            numbers[p.dtype] += p.numel()
            tensors += 1
    return kept(optimizer, numbers, tensors)


@refused(ID, "KeyError")
def every_optimizer_has_momentum(model, optimizer):
    return sum(
        p.nbytes * (1 if group["momentum"] else 2)
        for group in optimizer.param_groups
        for p in group["params"]
    )


@refused(ID, "is a tensor")
def a_tensor(model, optimizer):
    return torch.tensor(by_loops(model, optimizer))
