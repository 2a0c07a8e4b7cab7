"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy
from functools import singledispatch

import torch

from sftlab.classroom.answers import equivalent, refused, right

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
    total = torch.tensor(0)
    for group in optimizer.param_groups:
        copies, counter = (group["momentum"] > 0, 0) if "momentum" in group else (2, 4)
        mine = [p for p in group["params"] if p.requires_grad]
        total += sum(copies * p.numel() * p.dtype.itemsize for p in mine) + counter * len(mine)
    return total


@singledispatch
def kept(optimizer, group, numbers):
    raise TypeError(type(optimizer))


@kept.register
def _(optimizer: torch.optim.SGD, group, numbers):
    return sum(n * dtype.itemsize for dtype, n in numbers) if group["momentum"] else 0


@kept.register
def _(optimizer: torch.optim.AdamW, group, numbers):
    return sum(2 * n * dtype.itemsize + torch.float32.itemsize for dtype, n in numbers)


@right(ID)
def by_kind(model, optimizer):
    def numbers(group):
        return [(p.dtype, p.numel()) for p in group["params"] if p.requires_grad]

    return sum(kept(optimizer, group, numbers(group)) for group in optimizer.param_groups)


@refused(ID, "KeyError")
def every_optimizer_has_momentum(model, optimizer):
    return sum(
        p.nbytes * (1 if group["momentum"] else 2)
        for group in optimizer.param_groups
        for p in group["params"]
    )


@refused(ID, "The rule: The model and the optimizer stay as they are")
def a_step_on_the_model_itself(model, optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values()]
    return sum(v.nbytes for v in kept if torch.is_tensor(v))


equivalent(
    ID,
    "The text asks for AdamW and SGD as they are, without amsgrad.",
    "`3 if group['amsgrad'] else 2` becomes `2`",
    "`3` becomes `4`",
    "`3` becomes `2`",
)
