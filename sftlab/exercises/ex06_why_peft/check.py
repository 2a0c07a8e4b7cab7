"""The check of notebook 06: the bytes that an optimizer will keep, before its first step."""

from __future__ import annotations

import random

import torch
from torch import nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import inject_lora
from sftlab.memory.count import measured_optimizer_state_bytes, optimizer_state_bytes

ID = "06.optimizer_state_bytes"
AdamW, SGD = torch.optim.AdamW, torch.optim.SGD

# --- models and optimizers -------------------------------------------------------------------


def _model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """77 and 11 numbers, then 65: three parameter tensors of odd sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 5, bias=False)).to(dtype)


def _one_tensor():
    model = nn.Linear(7, 11, bias=False)
    return model, AdamW(model.parameters())


def _three_tensors():
    model = _model()
    return model, AdamW(model.parameters())


def _half():
    model = _model(torch.bfloat16)
    return model, AdamW(model.parameters())


def _mixed():
    model = _model(torch.float64)
    model[2].half()
    return model, AdamW(model.parameters())


def _lora():
    """The optimizer is given everything; the base beside the adapters is frozen."""
    model = inject_lora(_model(), "all-linear", r=3, lora_alpha=7, seed=0)
    return model, AdamW(model.parameters())


def _frozen_layer():
    """One layer is frozen, without any adapter."""
    model = _model()
    model[0].requires_grad_(False)
    return model, AdamW(model.parameters())


def _last_layer():
    """Everything is trainable, but the optimizer was given the last layer only."""
    model = _model()
    return model, AdamW(model[2].parameters())


def _two_groups():
    model = _model()
    groups = [{"params": model[2].parameters()}, {"params": model[0].parameters(), "lr": 1e-5}]
    return model, AdamW(groups)


def _sgd():
    model = _model()
    return model, SGD(model.parameters(), lr=0.1)


def _momentum():
    model = _model()
    return model, SGD(model.parameters(), lr=0.1, momentum=0.3)


def _momentum_in_half():
    model = _model(torch.bfloat16)
    return model, SGD(model.parameters(), lr=0.1, momentum=0.9)


def _momentum_in_one_group():
    model = _model()
    first = {"params": model[2].parameters(), "momentum": 0.9, "nesterov": True}
    return model, SGD([first, {"params": model[0].parameters()}], lr=0.1)


def _momentum_frozen_layer():
    model = _model()
    model[0].requires_grad_(False)
    return model, SGD(model.parameters(), lr=0.1, momentum=0.9)


def _draw(rng: random.Random, *_: object) -> tuple:
    a, b, c = rng.sample([3, 5, 7, 11, 13], 3)
    model = nn.Sequential(nn.Linear(a, b), nn.Linear(b, c))
    model[rng.randrange(2)].to(rng.choice([torch.float32, torch.bfloat16]))
    model[rng.randrange(2)].requires_grad_(rng.random() < 0.5)
    optimizer = rng.choice([AdamW, SGD])
    momentum = {} if optimizer is AdamW else {"momentum": rng.choice([0, 0.8])}
    return model, optimizer([{"params": layer.parameters()} for layer in model], lr=0.1, **momentum)


# --- mistakes --------------------------------------------------------------------------------


def _given(optimizer):
    return [(p, group) for group in optimizer.param_groups for p in group["params"]]


def _trained(optimizer):
    return [(p, group) for p, group in _given(optimizer) if p.requires_grad]


def _of_first_group(parameters, optimizer):
    return [(p, optimizer.param_groups[0]) for p in parameters]


def _is_sgd(optimizer) -> bool:
    return isinstance(optimizer, SGD)


def _bytes(chosen, optimizer, copies=None, counter=None, size=None) -> int:
    """The right formula; what is given by name replaces a part of it."""
    if counter is None:
        counter = 0 if _is_sgd(optimizer) else 4
    total = 0
    for p, group in chosen:
        own = int(group["momentum"] > 0) if _is_sgd(optimizer) else 2
        kept = own if copies is None else copies
        total += kept * p.numel() * (size or p.element_size()) + counter
    return total


@mistake(ID, "Frozen parameters are counted. The optimizer was given them, but without a gradient they never get a state: that is what LoRA saves. Look at `requires_grad`.")  # fmt: skip
def _frozen_too(model, optimizer):
    return _bytes(_given(optimizer), optimizer)


@mistake(ID, "The model's trainable parameters are counted. Only those that the *optimizer* was given have a state: look at its `param_groups`.")  # fmt: skip
def _of_the_model(model, optimizer):
    trainable = [p for p in model.parameters() if p.requires_grad]
    return _bytes(_of_first_group(trainable, optimizer), optimizer)


@mistake(ID, "All parameters of the model are counted. Only those that the optimizer was given *and* that require a gradient get a state.")  # fmt: skip
def _whole_model(model, optimizer):
    return _bytes(_of_first_group(model.parameters(), optimizer), optimizer)


@mistake(ID, "Only the optimizer's first group is counted. `param_groups` is a list: go through all of them.")  # fmt: skip
def _first_group(model, optimizer):
    first = optimizer.param_groups[0]
    return _bytes([(p, group) for p, group in _trained(optimizer) if group is first], optimizer)


SETTINGS = "One momentum is used for all groups. Each group of an optimizer has settings of its own: look into the group that the parameter is in."  # fmt: skip


@mistake(ID, SETTINGS)
def _momentum_of_the_first_group(model, optimizer):
    return _bytes(_of_first_group([p for p, _ in _trained(optimizer)], optimizer), optimizer)


@mistake(ID, SETTINGS)
def _momentum_of_the_defaults(model, optimizer):
    return _bytes([(p, optimizer.defaults) for p, _ in _trained(optimizer)], optimizer)


@mistake(ID, "One moment is counted for AdamW. It keeps *two*: the mean of the gradients, and of their squares.")  # fmt: skip
def _one_moment(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=None if _is_sgd(optimizer) else 1)


@mistake(ID, "4 bytes are counted for every number. The state has the dtype of its parameter, and bfloat16 takes 2: `element_size()` tells.")  # fmt: skip
def _always_four(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, size=4)


@mistake(ID, "Half-precision parameters are counted with 4 bytes. The state has the dtype of its parameter, and float16 and bfloat16 take 2.")  # fmt: skip
def _at_least_four(model, optimizer):
    return sum(
        _bytes([one], optimizer, size=max(4, one[0].element_size())) for one in _trained(optimizer)
    )


@mistake(ID, "The dtype of the first parameter is used for all. A model can hold several: ask each parameter.")  # fmt: skip
def _dtype_of_the_first(model, optimizer):
    size = next(model.parameters()).element_size()
    return _bytes(_trained(optimizer), optimizer, size=size)


@mistake(ID, "The step counters are missing: AdamW keeps 4 bytes more for each parameter *tensor*.")
def _no_counter(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=0)


@mistake(ID, "One step counter is counted for the whole optimizer. There is one for each parameter *tensor*.")  # fmt: skip
def _one_counter(model, optimizer):
    return _no_counter(model, optimizer) + 4 * (not _is_sgd(optimizer))


@mistake(ID, "A step counter is counted for each *number*. There is one for each parameter tensor.")
def _counter_for_each_number(model, optimizer):
    numbers = sum(p.numel() for p, _ in _trained(optimizer))
    return _no_counter(model, optimizer) + 4 * numbers * (not _is_sgd(optimizer))


@mistake(ID, "A step counter of 8 bytes is counted for each parameter tensor. It has 4.")
def _counter_of_eight(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=0 if _is_sgd(optimizer) else 8)


@mistake(
    ID, "One step counter is counted for each *group*. There is one for each parameter tensor."
)
def _counter_for_each_group(model, optimizer):
    groups = 0 if _is_sgd(optimizer) else len(optimizer.param_groups)
    return _no_counter(model, optimizer) + 4 * groups


@mistake(ID, "Only matrices are counted. Vectors, like the bias of a layer, are trained and get a state too.")  # fmt: skip
def _matrices_only(model, optimizer):
    return _bytes([(p, group) for p, group in _trained(optimizer) if p.dim() > 1], optimizer)


@mistake(ID, "The lengths of a tensor's dimensions are added up. It holds their *product* of numbers: `numel()` tells.")  # fmt: skip
def _sum_of_the_shape(model, optimizer):
    return sum(
        _bytes([one], optimizer, counter=0) * sum(one[0].shape) // one[0].numel()
        + 4 * (not _is_sgd(optimizer))
        for one in _trained(optimizer)
    )


@mistake(
    ID, "The weights of the model are counted too. Return what the optimizer keeps beside them."
)
def _with_the_weights(model, optimizer):
    weights = sum(p.nbytes for p in model.parameters())
    return optimizer_state_bytes(model, optimizer) + weights


TWICE = "The bytes of the trained parameters are added: of their weights or their gradients, which belong to the model. Return what the optimizer keeps beside them."  # fmt: skip


@mistake(ID, TWICE)
def _with_the_gradients(model, optimizer):
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return optimizer_state_bytes(model, optimizer) + gradients


@mistake(ID, TWICE)
def _with_the_gradients_of_its_own(model, optimizer):
    return optimizer_state_bytes(model, optimizer) + _weights(model, optimizer)


@mistake(ID, "The step counter is counted in the parameter's dtype. It has 4 bytes, whatever the parameter has.")  # fmt: skip
def _counter_in_the_dtype(model, optimizer):
    sizes = sum(p.element_size() for p, _ in _trained(optimizer))
    return _no_counter(model, optimizer) + sizes * (not _is_sgd(optimizer))


COUNTER_OF_SGD = "A step counter is counted for SGD. Only AdamW has one."


@mistake(ID, COUNTER_OF_SGD)
def _counter_for_sgd(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=4)


@mistake(ID, COUNTER_OF_SGD)
def _counter_for_momentum(model, optimizer):
    with_momentum = sum(group.get("momentum", 0) > 0 for _, group in _trained(optimizer))
    return optimizer_state_bytes(model, optimizer) + 4 * with_momentum


@mistake(ID, "16 bytes for each number are everything that is held for it in training: weight 4, gradient 4, state 8. Return the optimizer's part.")  # fmt: skip
def _sixteen(model, optimizer):
    return 16 * sum(p.numel() for p, _ in _trained(optimizer))


@mistake(ID, "12 bytes for each number: the gradient's 4 are in it. A gradient belongs to the parameter (`p.grad`), not to the optimizer's state.")  # fmt: skip
def _with_gradient(model, optimizer):
    return 12 * sum(p.numel() for p, _ in _trained(optimizer))


@mistake(ID, "8 bytes for each number hold for AdamW in float32 alone, and the step counters are missing. Look at the optimizer, at each dtype, at each tensor.")  # fmt: skip
def _eight(model, optimizer):
    return 8 * sum(p.numel() for p, _ in _trained(optimizer))


NUMBERS = "This is how many *numbers* are kept. Each takes `element_size()` bytes, and each tensor has a step counter of 4."  # fmt: skip


@mistake(ID, NUMBERS)
def _numbers(model, optimizer):
    return 2 * sum(p.numel() for p, _ in _trained(optimizer))


@mistake(ID, NUMBERS)
def _numbers_by_kind(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=0, size=1)


NUMBERS_AND_COUNTERS = "This is how many *numbers* are kept, counters included. Return bytes: `element_size()` for each, and 4 for a counter."  # fmt: skip


@mistake(ID, NUMBERS_AND_COUNTERS)
def _numbers_and_counters(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, counter=int(not _is_sgd(optimizer)), size=1)


@mistake(ID, "The numbers are counted as one byte each. Only the counter's 4 are bytes: `element_size()` tells what a number takes.")  # fmt: skip
def _one_byte_each(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, size=1)


@mistake(ID, "This is in bits. Return bytes.")
def _bits(model, optimizer):
    return 8 * optimizer_state_bytes(model, optimizer)


LIKE_ADAM = "SGD is counted like AdamW. It keeps one copy of a parameter if it has momentum, nothing otherwise, and no counter."  # fmt: skip


@mistake(ID, LIKE_ADAM)
def _sgd_like_adam(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=2, counter=4)


@mistake(ID, LIKE_ADAM)
def _sgd_like_adam_without_counter(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=2)


@mistake(ID, "A copy is counted for SGD without momentum. It keeps nothing then.")
def _always_a_copy(model, optimizer):
    return _bytes(_trained(optimizer), optimizer, copies=1 if _is_sgd(optimizer) else None)


@mistake(ID, "SGD with momentum keeps something: one copy of each parameter, the running gradient.")
def _momentum_forgotten(model, optimizer):
    return 0 if _is_sgd(optimizer) else optimizer_state_bytes(model, optimizer)


@mistake(ID, "The result is always 0: before the first step there is no state, and no parameter has a gradient. Compute what the optimizer will keep.")  # fmt: skip
def _as_it_is_now(model, optimizer):
    return measured_optimizer_state_bytes(optimizer)


@mistake(ID, "These are the bytes of the trained parameters themselves. What does the optimizer keep for each of them?")  # fmt: skip
def _weights(model, optimizer):
    return sum(p.nbytes for p, _ in _trained(optimizer))


def _case(rule: str, describe: str, arguments) -> Case:
    return Case(describe, arguments, optimizer_state_bytes, rule=rule)


EXERCISES = {
    ID: Exercise(
        ID,
        "What the optimizer will keep",
        optimizer_state_bytes,
        [
            _case("adamw", "AdamW on one tensor of 11 × 7 in float32", _one_tensor),
            _case("counter", "AdamW on three tensors of 11 × 7, 11 and 5 × 11 in float32", _three_tensors),
            _case("dtype", "AdamW on the same three tensors in bfloat16", _half),
            _case("dtype", "AdamW on two tensors in float64 and one in float16", _mixed),
            _case("trained", "AdamW on everything, of which the first layer is frozen", _frozen_layer),
            _case("trained", "AdamW on everything: adapters beside a frozen base", _lora),
            _case("given", "AdamW that was given the last layer only", _last_layer),
            _case("given", "AdamW with two groups of parameters", _two_groups),
            _case("sgd", "SGD without momentum", _sgd),
            _case("sgd", "SGD with a momentum of 0.3", _momentum),
            _case("trained", "SGD with momentum on everything, of which the first layer is frozen", _momentum_frozen_layer),
            _case("dtype", "SGD with momentum in bfloat16", _momentum_in_half),
            _case("sgd", "SGD with Nesterov momentum in the first of two groups", _momentum_in_one_group),
        ],
        asks="Return how many bytes of state an optimizer will keep after its first step, which has not been taken yet.\n\n"
        "optimizer: a torch.optim.AdamW (without amsgrad) or SGD that was given parameters of model, all or some.",
        rules={
            "adamw": "For each number of a parameter, AdamW keeps two numbers (the moments).",
            "counter": "AdamW also keeps a step counter of 4 bytes for each parameter tensor, whatever its dtype.",
            "dtype": "The kept numbers have the dtype of their own parameter; a model may hold several dtypes.",
            "sgd": "SGD keeps one copy of a parameter if its group has momentum, large or small, Nesterov or not; otherwise nothing. It has no counter.",
            "trained": "A parameter that requires no gradient gets no state, although the optimizer was given it.",
            "given": "Only parameters that the optimizer was given count, in all of its param_groups.",
            "unchanged": "The model and the optimizer stay as they are: no step is taken.",
        },
        draw=_draw,
        hints=(
            "`optimizer.param_groups` is a list of dictionaries: `params` are the parameters of a group, the other entries its settings, for SGD its momentum.",
            ("counter", "So there are two counts for each parameter tensor: its numbers, times their size in bytes, and 4 for the tensor itself."),
            "First find out how many copies a parameter gets: for AdamW 2, for SGD 1 or 0. `isinstance` tells the two optimizers apart.",
        ),
        path="Two loops, over the groups and over the parameters in each, leave one question: how many bytes for this parameter? Leave out the frozen ones, decide on "
        "the number of copies, multiply by the numbers and their size, and add the counter. The usual wrong turn is to go through the model's parameters: the optimizer knows which it has.",
        why="It needs no step, no memory and no GPU: the same function works for a 70B model on the `meta` device. The package's version also knows `amsgrad` (three moments) and refuses "
        "optimizers for which it has no formula.",
        points=2,
    )
}  # fmt: skip
