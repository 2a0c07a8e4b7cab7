"""The checks of notebook 06: the bytes of a training, and a measurement at a held-out loss."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex06_why_peft.reference import training_bytes, value_at
from sftlab.lora import inject_lora

BYTES, AT = "06.training_bytes", "06.value_at"

# --- bytes -----------------------------------------------------------------------------------


def _model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """77 and 11 numbers, then 65: three parameter tensors of odd sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 5, bias=False)).to(dtype)


def _whole():
    return (_model(),)


def _half():
    return (_model(torch.bfloat16),)


def _mixed():
    model = _model(torch.float64)
    model[2].half()
    return (model,)


def _lora():
    return (inject_lora(_model(), "all-linear", r=3, lora_alpha=7, seed=0),)


def _lora_on_half():
    """The base is in 16 bits, the adapters in 32."""
    return (inject_lora(_model(torch.bfloat16), "all-linear", r=3, lora_alpha=7, seed=0),)


def _last_layer():
    model = _model()
    model[0].requires_grad_(False)
    return (model,)


def _tied():
    model = nn.Sequential(nn.Embedding(13, 5), nn.Linear(5, 13, bias=False))
    model[1].weight = model[0].weight
    return (model,)


def _with_buffers():
    """Running means and a counter: numbers that belong to the model and are no parameters."""
    return (nn.Sequential(_model(), nn.BatchNorm1d(5)),)


def _tied_and_frozen():
    (model,) = _tied()
    model.requires_grad_(False)
    return (nn.Sequential(model, nn.Linear(13, 3)),)


def _draw_model(rng: random.Random, *_: object) -> tuple:
    a, b, c = rng.sample([3, 5, 7, 11, 13], 3)
    model = nn.Sequential(nn.Linear(a, b), nn.Linear(b, c))
    model[rng.randrange(2)].to(rng.choice([torch.float32, torch.bfloat16]))
    model[rng.randrange(2)].requires_grad_(rng.random() < 0.5)
    return (model,)


def _trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def _size(parameters) -> int:
    return sum(p.nbytes for p in parameters)


def _parts(all_, trained, counters=None, moments=2, file=None) -> dict[str, int]:
    """The right sums over other parameters; what is given by name replaces a part."""
    size = _size(trained)
    counters = len(trained) if counters is None else counters
    file = size if file is None else file
    return {"weights": _size(all_), "gradients": size, "optimizer": moments * size + 4 * counters, "file": file}  # fmt: skip


def _with(model, **changed) -> dict[str, int]:
    return {**training_bytes(model), **changed}


FROZEN = "A frozen parameter has no gradient. Then AdamW keeps nothing for it either, and no task has to store it. Look at `requires_grad`."  # fmt: skip


@mistake(BYTES, FROZEN)
def _everything_is_trained(model):
    return _parts(list(model.parameters()), list(model.parameters()))


@mistake(BYTES, FROZEN)
def _frozen_have_gradients(model):
    return _with(model, gradients=_size(model.parameters()))


@mistake(BYTES, FROZEN)
def _frozen_have_moments(model):
    kept = list(model.parameters())
    return _with(model, optimizer=2 * _size(kept) + 4 * len(kept))


@mistake(BYTES, "The file holds the whole model. A task has to store only what was trained; the base is there already.")  # fmt: skip
def _whole_file(model):
    return _with(model, file=_size(model.parameters()))


@mistake(BYTES, "The weights are those of the trained parameters. The frozen ones are in memory too: the forward pass needs them.")  # fmt: skip
def _weights_of_the_trained(model):
    return _with(model, weights=_size(_trained(model)))


TIED = "A tied parameter is counted twice. It is one tensor in two places: `model.parameters()` gives it once."  # fmt: skip


@mistake(BYTES, TIED)
def _by_modules(model):
    every = [p for module in model.modules() for p in module.parameters(recurse=False)]
    return _parts(every, [p for p in every if p.requires_grad])


@mistake(BYTES, TIED)
def _by_state(model):
    return _with(model, weights=_size(model.state_dict().values()))


@mistake(
    BYTES, "Buffers are counted too. They are no parameters: `model.parameters()` leaves them out."
)
def _with_its_buffers(model):
    return _with(model, weights=_size(model.parameters()) + _size(model.buffers()))


@mistake(BYTES, "One moment is counted. AdamW keeps *two* numbers for each trained one: the mean of its gradients, and of their squares.")  # fmt: skip
def _one_moment(model):
    return _parts(list(model.parameters()), _trained(model), moments=1)


@mistake(BYTES, "The step counters are missing: AdamW keeps 4 bytes more for each trained *tensor*.")  # fmt: skip
def _no_counter(model):
    return _parts(list(model.parameters()), _trained(model), counters=0)


@mistake(BYTES, "One step counter is counted for the whole model. There is one for each trained tensor.")  # fmt: skip
def _one_counter(model):
    return _parts(list(model.parameters()), _trained(model), counters=1)


@mistake(BYTES, "A step counter is counted for each *number*. There is one for each trained tensor.")  # fmt: skip
def _counter_for_each_number(model):
    numbers = sum(p.numel() for p in _trained(model))
    return _parts(list(model.parameters()), _trained(model), counters=numbers)


@mistake(BYTES, "The optimizer's bytes include the gradients. They belong to the model, and have a line of their own.")  # fmt: skip
def _gradients_twice(model):
    return _parts(list(model.parameters()), _trained(model), moments=3)


@mistake(BYTES, "4 bytes are counted for every number. In 16 bits it takes 2, in 64 bits 8: `nbytes` or `element_size()` tells.")  # fmt: skip
def _always_four(model):
    trained, every = (sum(p.numel() for p in some) for some in (_trained(model), model.parameters()))  # fmt: skip
    optimizer = 8 * trained + 4 * len(_trained(model))
    return {"weights": 4 * every, "gradients": 4 * trained, "optimizer": optimizer, "file": 4 * trained}  # fmt: skip


@mistake(BYTES, "The moments are counted with 4 bytes. They have the dtype of their parameter; only the counter always has 4.")  # fmt: skip
def _moments_in_32_bits(model):
    numbers = sum(p.numel() for p in _trained(model))
    return _with(model, optimizer=8 * numbers + 4 * len(_trained(model)))


@mistake(BYTES, "These are *numbers*, not bytes. Each takes `element_size()` bytes.")
def _numbers(model):
    trained, every = (sum(p.numel() for p in some) for some in (_trained(model), model.parameters()))  # fmt: skip
    optimizer = 2 * trained + 4 * len(_trained(model))
    return {"weights": every, "gradients": trained, "optimizer": optimizer, "file": trained}


@mistake(BYTES, "Only matrices are counted. Vectors, such as a bias, are trained as well.")
def _matrices_only(model):
    every = [p for p in model.parameters() if p.dim() > 1]
    return _parts(every, [p for p in every if p.requires_grad])


@mistake(BYTES, "Trained parameters are found by the names A and B. Without LoRA, others are trained: look at `requires_grad`.")  # fmt: skip
def _by_name(model):
    named = [p for name, p in model.named_parameters() if name.split(".")[-1] in "AB"]
    return _parts(list(model.parameters()), named)


def _case(rule: str, describe: str, arguments) -> Case:
    return Case(describe, arguments, training_bytes, rule=rule)


# --- a value at a target ---------------------------------------------------------------------

HELD_OUT, VALUES = [2.9, 1.3, 0.37, 0.11, 0.23, 0.07], [0.59, 0.61, 0.66, 0.83, 0.9, 1.1]


def _path(target: float, held_out=HELD_OUT, values=VALUES):
    return lambda: (list(held_out), list(values), target)


def _draw_path(rng: random.Random, *_: object) -> tuple:
    count = rng.randint(4, 7)
    held_out = [rng.uniform(0.02, 1.0) for _ in range(count)]
    return [3.0, *held_out], [rng.uniform(0.5, 2) for _ in range(count + 1)], rng.uniform(0.05, 1.2)


def _reached(held_out, target) -> int | None:
    return next((k for k, loss in enumerate(held_out) if loss <= target), None)


def _between(held_out, values, k, part) -> float:
    return values[k - 1] + part * (values[k] - values[k - 1])


def _part(held_out, k, target, scale=math.log) -> float:
    before, now = scale(held_out[k - 1]), scale(held_out[k])
    return (before - scale(target)) / (before - now)


@mistake(AT, "The value of the checkpoint that reaches the target is returned. The loss was at the target earlier: between this checkpoint and the one before.")  # fmt: skip
def _without_interpolation(held_out, values, target):
    k = _reached(held_out, target)
    return None if k is None else values[k]


@mistake(AT, "The value of the checkpoint *before* the target is returned. At the target the training was further: between the two.")  # fmt: skip
def _checkpoint_before(held_out, values, target):
    k = _reached(held_out, target)
    return None if k is None else values[k - 1]


@mistake(AT, "The line runs over the loss itself. Let it run over its logarithm, since losses fall by factors.")  # fmt: skip
def _linear(held_out, values, target):
    k = _reached(held_out, target)
    return k and _between(held_out, values, k, _part(held_out, k, target, float))


@mistake(AT, "The middle of two checkpoints is returned. How near the target lies to each of them decides.")  # fmt: skip
def _middle(held_out, values, target):
    k = _reached(held_out, target)
    return k and _between(held_out, values, k, 0.5)


@mistake(AT, "The line is walked in the wrong direction: near the later checkpoint the value is near that of the earlier one.")  # fmt: skip
def _reversed(held_out, values, target):
    k = _reached(held_out, target)
    return k and _between(held_out, values, k, 1 - _part(held_out, k, target))


OUT_OF_ORDER = "The checkpoints are sorted, or taken as if the loss fell all the time (`np.interp` does so). It can rise again: go through them in the order of training."  # fmt: skip


@mistake(AT, OUT_OF_ORDER)
def _sorted_by_loss(held_out, values, target):
    if min(held_out) > target:
        return None
    losses, sorted_values = zip(*sorted(zip(held_out, values, strict=True)), strict=True)
    return float(np.interp(math.log(target), np.log(losses), sorted_values))


@mistake(AT, OUT_OF_ORDER)
def _interpolated_backwards(held_out, values, target):
    if min(held_out) > target:
        return None
    return float(np.interp(math.log(target), np.log(held_out[::-1]), values[::-1]))


@mistake(AT, "The *last* time that the target is passed is taken. After the first time the training would have been stopped.")  # fmt: skip
def _last_time(held_out, values, target):
    last = [k for k in range(1, len(held_out)) if held_out[k] <= target < held_out[k - 1]]
    return _between(held_out, values, last[-1], _part(held_out, last[-1], target)) if last else None  # fmt: skip


@mistake(AT, "A target that is met exactly counts as missed. At or below it, it is reached.")
def _strictly_below(held_out, values, target):
    k = next((k for k, loss in enumerate(held_out) if loss < target), None)
    return k and _between(held_out, values, k, _part(held_out, k, target))


def _or_else(held_out, values, target, instead):
    found = value_at(held_out, values, target)
    return instead if found is None else found


NEVER = "A target that is never reached gets a number. Return None, so that nobody takes it for a measurement."  # fmt: skip


@mistake(AT, NEVER)
def _last_value(held_out, values, target):
    return _or_else(held_out, values, target, values[-1])


@mistake(AT, NEVER)
def _zero(held_out, values, target):
    return _or_else(held_out, values, target, 0.0)


@mistake(AT, NEVER)
def _value_at_the_lowest(held_out, values, target):
    return _or_else(held_out, values, target, values[held_out.index(min(held_out))])


def _at(rule: str, describe: str, arguments) -> Case:
    held_out, values, target = arguments()
    told = f"`value_at({held_out}, {values}, {target})`: {describe}"
    return Case(told, arguments, value_at, tolerance=1e-6, rule=rule)


EXERCISES = {
    BYTES: Exercise(
        BYTES,
        "The bytes of a training",
        training_bytes,
        [
            _case("optimizer", "three tensors of 11 × 7, 11 and 5 × 11 in float32, all trained", _whole),
            _case("weights", "an embedding of 13 × 5 that is also the output head", _tied),
            _case("file", "the three tensors, of which the first two are frozen", _last_layer),
            _case("gradients", "the three tensors in bfloat16", _half),
            _case("gradients", "two tensors in float64 and one in float16", _mixed),
            _case("optimizer", "adapters in float32 beside a frozen base in bfloat16", _lora_on_half),
            _case("weights", "a tied embedding, frozen, with a trained layer behind it", _tied_and_frozen),
            _case("file", "adapters beside a frozen base, both in float32", _lora),
            _case("weights", "the three tensors, then a BatchNorm1d(5), which has buffers", _with_buffers),
        ],
        asks="Return the bytes that training with AdamW takes, as a dictionary of four sums.\n\n"
        "model: an nn.Module. Some parameters may be frozen: they require no gradient.",
        rules={
            "weights": '"weights": all parameters, frozen or not. A tied parameter (one tensor used in two places) counts once, a buffer not at all.',
            "gradients": '"gradients": as many bytes as the trained parameters.',
            "optimizer": '"optimizer": two moments per trained number (running means of the gradient and of its square), in its dtype, and a counter of 4 bytes per trained tensor.',
            "file": '"file": the trained parameters. That is all a task has to store.',
            "unchanged": "The model stays as it is: no step is taken.",
        },
        draw=_draw_model,
        hints=(
            "`p.nbytes` is the size of a parameter in bytes; `p.requires_grad` says whether it is trained.",
            ("optimizer", "So a part of it depends on how many tensors there are, not on their size."),
            "Make the list of trained parameters first. Three of the four sums need only that list.",
        ),
        path="One list decides: the trained parameters. Weights are summed over all parameters, everything else over this list. The usual wrong turn is to count numbers and multiply "
        "by 4: in 16 bits that is twice too much, and an adapter is often kept in another dtype than its base.",
        why="It needs no step, no data and no GPU. The same function works for a 70B model on the `meta` device, whose parameters have shapes and dtypes but no memory.",
        points=2,
    ),
    AT: Exercise(
        AT,
        "A measurement at a held-out loss",
        value_at,
        [
            _at("between", "the target 0.2 lies between two checkpoints", _path(0.2)),
            _at("between", "the target 1.7 lies between the first two", _path(1.7)),
            _at("first", "the loss falls to 0.11, rises, and falls again; the target is 0.15", _path(0.15)),
            _at("first", "the target 0.37 is met exactly; afterwards the loss rises", _path(0.37, [2.9, 0.37, 0.5, 0.1], VALUES[:4])),
            _at("never", "the target 0.05 is never reached", _path(0.05)),
        ],
        asks="Return what a measurement was when the held-out loss first fell to a target.\n\n"
        "held_out, values: the loss and the measurement at the checkpoints of one training.\n"
        "target: a held-out loss below the first one.",
        rules={
            "first": "The first checkpoint at or below the target counts, and the one before it.",
            "between": "Between the two, values lie on a straight line over the logarithm of the loss.",
            "never": "If the target is never reached, the result is None.",
            "unchanged": "held_out and values stay as they are.",
        },
        draw=_draw_path,
        hints=(
            "Go through the checkpoints in order, with the one before at hand.",
            ("between", "Which share of the way from log(before) to log(now) has been gone at log(target)?"),
            "The result is the earlier value plus that share of the difference of the two values.",
        ),
        path="Find the first checkpoint at or below the target. With its predecessor it makes an interval, in which the target lies at a share of the way. Take the same share of the way "
        "between the values. The usual wrong turn is to compare checkpoints: then one method is measured well below the target, the other just at it.",
        why="Two trainings are compared at the same held-out loss and not after equally many steps. Losses fall by factors, so their logarithm is nearly straight between two checkpoints.",
        points=2,
    ),
}  # fmt: skip
