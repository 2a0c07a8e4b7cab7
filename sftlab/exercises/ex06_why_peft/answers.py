"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right

BYTES, AT = "06.training_bytes", "06.value_at"


@right(BYTES)
def by_loops(model):
    found = {"weights": 0, "gradients": 0, "optimizer": 0, "file": 0}
    for p in model.parameters():
        size = p.numel() * p.element_size()
        found["weights"] += size
        if p.requires_grad:
            found["gradients"] += size
            found["optimizer"] += 2 * size + 4
            found["file"] += size
    return found


@right(BYTES)
def a_step_on_a_copy(model):
    """Take a real step with gradients of zero, and count what is there then."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values()]
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": gradients,
        "optimizer": sum(v.nbytes for v in kept),
        "file": gradients,
    }


@right(BYTES)
def by_table(model):
    table = torch.tensor([[p.nbytes, p.requires_grad] for p in model.parameters()])
    trained = (table[:, 0] * table[:, 1]).sum()
    moments = 2 * trained + 4 * table[:, 1].sum()
    return {"weights": table[:, 0].sum(), "gradients": trained, "optimizer": moments, "file": trained}  # fmt: skip


@right(BYTES)
def by_distinct_state(model):
    """Frozen and trained apart; a dictionary by identity drops what is tied."""
    every = {id(p): p for p in model.parameters()}.values()
    frozen, trained = ([p.nbytes for p in every if p.requires_grad == on] for on in (False, True))
    size = sum(trained)
    return dict(
        file=size,
        weights=sum(frozen) + size,
        optimizer=sum(2 * n + 4 for n in trained),
        gradients=size,
    )


@refused(BYTES, "The rule: The model stays as it is")
def a_step_on_the_model_itself(model):
    found = by_loops(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    return found


@refused(BYTES, "dict")
def a_tuple(model):
    return tuple(by_loops(model).values())


@right(AT)
def by_places(held_out, values, target):
    for k in range(1, len(held_out)):
        if held_out[k] <= target:
            start, end = math.log10(held_out[k - 1]), math.log10(held_out[k])
            share = (start - math.log10(target)) / (start - end)
            return (1 - share) * values[k - 1] + share * values[k]


@right(AT)
def by_numpy(held_out, values, target):
    below = np.flatnonzero(np.array(held_out) <= target)
    if not len(below):
        return None
    two = [below[0], below[0] - 1]
    return np.interp(np.log(target), np.log(np.array(held_out)[two]), np.array(values)[two])


@right(AT)
def by_a_while_loop(held_out, values, target):
    k = 0
    while held_out[k] > target:
        k += 1
        if k == len(held_out):
            return None
    slope = (values[k] - values[k - 1]) / math.log(held_out[k] / held_out[k - 1])
    return values[k] + slope * math.log(target / held_out[k])


@right(AT)
def by_tensors(held_out, values, target):
    losses, found = (torch.tensor(x, dtype=torch.float64) for x in (held_out, values))
    if not (losses <= target).any():
        return None
    k = int((losses <= target).to(torch.int8).argmax())
    share = math.log(losses[k - 1] / target) / math.log(losses[k - 1] / losses[k])
    return torch.lerp(found[k - 1], found[k], share)


@refused(AT, "The rule: held_out and values stay as they are")
def cuts_the_list(held_out, values, target):
    while held_out and held_out[-1] <= target and len(held_out) > 2 and held_out[-2] <= target:
        held_out.pop()
        values.pop()
    return by_places(held_out, values, target)


@refused(AT, "IndexError")
def runs_beyond_the_end(held_out, values, target):
    k = 0
    while held_out[k] > target:
        k += 1
    share = math.log(held_out[k - 1] / target) / math.log(held_out[k - 1] / held_out[k])
    return values[k - 1] + share * (values[k] - values[k - 1])


equivalent(
    AT,
    "The lists are equally long.",
    "`True` becomes `False`",
    "without `strict=` in `zip(held_out, values, strict=True)`",
)
