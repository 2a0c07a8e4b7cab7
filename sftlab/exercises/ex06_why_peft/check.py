"""The check of notebook 06: the bytes that an optimiser will keep, before its first step."""

from __future__ import annotations

import torch
from torch import nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import inject_lora
from sftlab.memory.count import measured_optimizer_state_bytes, optimizer_state_bytes

ID = "06.optimizer_state_bytes"


def _model(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 10, bias=False)).to(dtype)


def _adamw():
    model = _model()
    return model, torch.optim.AdamW(model.parameters())


def _lora():
    """The optimiser is handed everything; the base under the adapters is frozen."""
    model = inject_lora(_model(), "all-linear", r=3, lora_alpha=7, seed=0)
    return model, torch.optim.AdamW(model.parameters())


def _half():
    model = _model(torch.bfloat16)
    return model, torch.optim.AdamW(model.parameters())


def _some():
    """All is trainable, but the optimiser was handed the last layer only."""
    model = _model()
    return model, torch.optim.AdamW(model[2].parameters())


def _sgd():
    model = _model()
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def _momentum():
    model = _model(torch.bfloat16)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _held(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def _trained(optimizer):
    return [p for p in _held(optimizer) if p.requires_grad]


def _is_sgd(optimizer) -> bool:
    return isinstance(optimizer, torch.optim.SGD)


def _bytes(parameters, optimizer, copies=None, counter=None, size=None) -> int:
    """The right formula; what is given by name replaces a part of it."""
    if copies is None:
        copies = int(optimizer.param_groups[0]["momentum"] > 0) if _is_sgd(optimizer) else 2
    if counter is None:
        counter = 0 if _is_sgd(optimizer) else 4
    return sum(copies * p.numel() * (size or p.element_size()) + counter for p in parameters)


@mistake(ID, "Frozen parameters were counted. The optimiser was handed them, but without a gradient they never get a state: that is what LoRA saves. Look at `requires_grad`.")  # fmt: skip
def _frozen_too(model, optimizer):
    return _bytes(_held(optimizer), optimizer)


@mistake(ID, "You counted the model's trainable parameters. What has a state are those that the *optimiser* was handed: go through its `param_groups`.")  # fmt: skip
def _of_the_model(model, optimizer):
    return _bytes([p for p in model.parameters() if p.requires_grad], optimizer)


@mistake(ID, "You counted all parameters of the model. Only those that the optimiser was handed *and* that require a gradient get a state.")  # fmt: skip
def _whole_model(model, optimizer):
    return _bytes(model.parameters(), optimizer)


@mistake(ID, "AdamW keeps *two* moments for each parameter: the mean of its gradients, and of their squares.")  # fmt: skip
def _one_moment(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=1)


@mistake(ID, "You took 4 bytes a number. The moments have the dtype of their parameter, here 2 bytes: `p.element_size()`.")  # fmt: skip
def _always_four(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, size=4)


@mistake(ID, "Nearly: besides the moments each parameter *tensor* has a step counter, one float32 of 4 bytes.")  # fmt: skip
def _no_counter(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=0)


@mistake(ID, "16 bytes a parameter is everything that is held for it: weight 4, gradient 4, moments 8. Asked for is the optimiser's part.")  # fmt: skip
def _sixteen(model, optimizer):
    return 16 * sum(p.numel() for p in _trained(optimizer))


@mistake(ID, "12 bytes a parameter: the gradient (4) was counted too. It belongs to the parameter (`p.grad`), not to the optimiser's state.")  # fmt: skip
def _with_gradient(model, optimizer):
    return 12 * sum(p.numel() for p in _trained(optimizer))


@mistake(ID, "That is how many *numbers* are kept. Each takes `p.element_size()` bytes; and each tensor has a counter of 4.")  # fmt: skip
def _numbers(model, optimizer):
    return 2 * sum(p.numel() for p in _trained(optimizer))


@mistake(ID, "That is in bits. Asked for are bytes.")  # fmt: skip
def _bits(model, optimizer):
    return 8 * optimizer_state_bytes(model, optimizer)


@mistake(ID, "This optimiser is SGD, and was counted like AdamW. SGD keeps one copy if it has momentum, nothing otherwise, and no counter.")  # fmt: skip
def _sgd_like_adam(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=2, counter=4)


@mistake(ID, "This optimiser is SGD, and was counted like AdamW. SGD keeps one copy if it has momentum, and nothing otherwise.")  # fmt: skip
def _sgd_like_adam_without_counter(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=2)


@mistake(ID, "SGD with momentum does keep something: one copy of each parameter, the running gradient.")  # fmt: skip
def _momentum_forgotten(model, optimizer):
    return 0 if _is_sgd(optimizer) else optimizer_state_bytes(model, optimizer)


@mistake(ID, "That is what the optimiser holds *now*: nothing. The state is made at its first step. You are asked to say it beforehand.")  # fmt: skip
def _as_it_is_now(model, optimizer):
    return measured_optimizer_state_bytes(optimizer)


@mistake(ID, "Those are the bytes of the parameters themselves. Each has two moments of its size, and a counter.")  # fmt: skip
def _weights(model, optimizer):
    return sum(p.nbytes for p in _trained(optimizer))


def _case(describe: str, arguments) -> Case:
    return Case(describe, arguments, optimizer_state_bytes)


EXERCISES = {
    ID: Exercise(
        id=ID,
        title="What the optimiser will keep",
        reference=optimizer_state_bytes,
        cases=[
            _case("AdamW, everything trained, float32", _adamw),
            _case("AdamW, adapters beside a frozen base", _lora),
            _case("AdamW in bfloat16", _half),
            _case("AdamW that was handed the last layer only", _some),
            _case("SGD", _sgd),
            _case("SGD with momentum, in bfloat16", _momentum),
        ],
        hints=[
            "`optimizer.param_groups` is a list of dictionaries; `group['params']` are the parameters, and for SGD `group['momentum']` says whether there is any.",
            "Per parameter tensor that requires a gradient: copies · numel · element_size, and for AdamW 4 more for the step counter.",
            "Copies: AdamW 2, SGD with momentum 1, SGD without 0. `isinstance(optimizer, torch.optim.SGD)` tells them apart.",
        ],
        why="It needs no step, no memory and no GPU: the same function works for a 70B model on the `meta` device. The package's version also knows `amsgrad` (three moments) and refuses "
        "optimisers for which it has no formula.",
        points=2,
    )
}  # fmt: skip
