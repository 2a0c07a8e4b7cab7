"""Answers to the check of notebook 06, as students write them."""

import copy

import torch


def usual(model, optimizer):
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


def a_step_on_a_copy(model, optimizer):
    """Take a real step with gradients of zero, and count what is there then."""
    model, optimizer = copy.deepcopy((model, optimizer))
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values()]
    return sum(v.numel() * v.element_size() for v in kept if torch.is_tensor(v))


def by_table(model, optimizer):
    ids = {id(p) for p in model.parameters() if p.requires_grad}
    (group,) = optimizer.param_groups
    copies, counter = (group["momentum"] > 0, 0) if "momentum" in group else (2, 4)
    mine = [p for p in group["params"] if id(p) in ids]
    return sum(copies * p.numel() * p.element_size() for p in mine) + counter * len(mine)


# --- wrong -----------------------------------------------------------------------------------


def held(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def trained(optimizer):
    return [p for p in held(optimizer) if p.requires_grad]


def frozen_too(model, optimizer):
    return sum(2 * p.nbytes + 4 for p in held(optimizer))


def trainable_of_the_model(model, optimizer):
    return sum(2 * p.nbytes + 4 for p in model.parameters() if p.requires_grad)


def one_moment(model, optimizer):
    return sum(p.nbytes + 4 for p in trained(optimizer))


def eight_bytes(model, optimizer):
    return sum(8 * p.numel() + 4 for p in trained(optimizer))


def no_counter(model, optimizer):
    return sum(2 * p.nbytes for p in trained(optimizer))


def sixteen(model, optimizer):
    return sum(16 * p.numel() for p in trained(optimizer))


def twelve(model, optimizer):
    return sum(12 * p.numel() for p in trained(optimizer))


def numbers(model, optimizer):
    return sum(2 * p.numel() for p in trained(optimizer))


def bits(model, optimizer):
    return 8 * usual(model, optimizer)


def sgd_like_adam(model, optimizer):
    return sum(2 * p.nbytes + 4 for p in trained(optimizer))


def sgd_like_adam_without_counter(model, optimizer):
    counter = 0 if isinstance(optimizer, torch.optim.SGD) else 4
    return sum(2 * p.nbytes + counter for p in trained(optimizer))


def momentum_forgotten(model, optimizer):
    return 0 if isinstance(optimizer, torch.optim.SGD) else usual(model, optimizer)


def as_it_is_now(model, optimizer):
    kept = [v for state in optimizer.state.values() for v in state.values()]
    return sum(v.numel() * v.element_size() for v in kept)


def weights(model, optimizer):
    return sum(p.nbytes for p in trained(optimizer))


RIGHT = {
    "06.optimizer_state_bytes": {
        "usual": usual,
        "a step on a copy": a_step_on_a_copy,
        "by table": by_table,
    }
}

WRONG = {
    "06.optimizer_state_bytes": {
        "frozen too": (frozen_too, "never get a state"),
        "trainable of the model": (trainable_of_the_model, "the *optimiser* was handed"),
        "one moment": (one_moment, "*two* moments"),
        "eight bytes": (eight_bytes, "dtype of their parameter"),
        "no counter": (no_counter, "step counter"),
        "sixteen": (sixteen, "weight 4, gradient 4, moments 8"),
        "twelve": (twelve, "the gradient (4) was counted"),
        "numbers": (numbers, "how many *numbers*"),
        "bits": (bits, "in bits"),
        "SGD like Adam": (sgd_like_adam, "counted like AdamW"),
        "SGD like Adam, no counter": (sgd_like_adam_without_counter, "counted like AdamW"),
        "momentum forgotten": (momentum_forgotten, "running gradient"),
        "as it is now": (as_it_is_now, "holds *now*"),
        "weights": (weights, "parameters themselves"),
    }
}
