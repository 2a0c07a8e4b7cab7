"""Checks of notebook 19: a meter of the memory that tensors hold, and the peak of a step."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.memory.meter import MemoryMeter
from sftlab.memory.plan import peak_training_bytes

METER, ID = "19.MemoryMeter", "19.peak_training_bytes"

# --- MemoryMeter -----------------------------------------------------------------------------


def _parts(result: Any) -> list[Tensor]:
    return [part for part in tree_flatten(result)[0] if isinstance(part, Tensor)]


@mistake(METER, "A view counts again. Tensors that share a storage hold its bytes once.")
class CountsTensors(MemoryMeter):
    def hold(self, tensor):
        key = id(tensor)
        self.sizes[key] = tensor.numel() * tensor.element_size()
        weakref.finalize(tensor, self.sizes.pop, key, None)


@mistake(METER, "What is freed stays counted. Its bytes have to go when its storage is freed.")
class NeverFrees(MemoryMeter):
    def hold(self, tensor):
        storage = tensor.untyped_storage()
        self.sizes[storage._cdata] = storage.nbytes()
        self.__dict__.setdefault("kept", []).append(storage)


@mistake(
    METER,
    "A new storage is taken for an old one and counts nothing. It can get the address of one that was freed: forget a storage when it is freed.",
)
class RemembersFreedOnes(MemoryMeter):
    def hold(self, tensor):
        storage = tensor.untyped_storage()
        seen = self.__dict__.setdefault("seen", set())
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            self.sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, storage._cdata, None)


@mistake(
    METER,
    "The bytes go when a tensor is freed. Others may still share its storage: wait until that is freed.",
)
class WatchesTensors(MemoryMeter):
    def hold(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(tensor, self.sizes.pop, storage._cdata, None)


@mistake(METER, "Arguments are counted. Known are results, and what was given to `hold`.")
class CountsArguments(MemoryMeter):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for part in _parts((args, kwargs)):
            self.hold(part)
        return super().__torch_dispatch__(operation, types, args, kwargs)


@mistake(
    METER,
    "The number of elements is counted. An element of float32 takes 4 bytes, one of int64 takes 8.",
)
class CountsElements(MemoryMeter):
    def hold(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = tensor.numel()
            weakref.finalize(storage, self.sizes.pop, storage._cdata)


@mistake(
    METER, "Every element counts as 4 bytes. One of int64 takes 8: ask the storage for its bytes."
)
class FourBytesEach(MemoryMeter):
    def hold(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = 4 * tensor.numel()
            weakref.finalize(storage, self.sizes.pop, storage._cdata)


@mistake(
    METER, "`hold` has no effect. A tensor that was there before is known once it was given to it."
)
class HoldsNothing(MemoryMeter):
    def hold(self, tensor):
        return None

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for part in _parts(result):
            super().hold(part)
        self.timeline.append(_total(self))
        return result


def _dispatching(told: str) -> Callable:
    """Declare a mistake in what happens around an operation: (meter, result of the operation, run)."""

    def declare(around: Callable) -> Callable:
        class Wrong(MemoryMeter):
            def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
                return around(self, lambda: operation(*args, **(kwargs or {})))

        Wrong.__name__ = around.__name__
        mistake(METER, told)(Wrong)
        return around

    return declare


def _total(meter: MemoryMeter) -> int:
    return sum(meter.sizes.values())


@_dispatching(
    "An operation with several results: only a single tensor is counted. Take every tensor of the result."
)
def one_result(meter, run):
    result = run()
    if isinstance(result, Tensor):
        meter.hold(result)
    meter.timeline.append(_total(meter))
    return result


@_dispatching(
    "An operation with several results: only the first is counted. Take every tensor of the result."
)
def first_result(meter, run):
    result = run()
    for part in _parts(result)[:1]:
        meter.hold(part)
    meter.timeline.append(_total(meter))
    return result


@_dispatching(
    "An operation may return a number, which has no storage. Leave out what is no tensor."
)
def anything_held(meter, run):
    result = run()
    for part in tree_flatten(result)[0]:
        meter.hold(part)
    meter.timeline.append(_total(meter))
    return result


@_dispatching(
    "The timeline lags behind: it gets the bytes before an operation. Note them after it."
)
def before_the_operation(meter, run):
    meter.timeline.append(_total(meter))
    result = run()
    for part in _parts(result):
        meter.hold(part)
    return result


@_dispatching(
    "The timeline gets what an operation adds. It should get all bytes that are held after it."
)
def only_what_is_added(meter, run):
    before, result = _total(meter), run()
    for part in _parts(result):
        meter.hold(part)
    meter.timeline.append(_total(meter) - before)
    return result


@_dispatching(
    "The timeline gets the highest number so far. It should fall when something is freed."
)
def highest_so_far(meter, run):
    result = run()
    for part in _parts(result):
        meter.hold(part)
    meter.timeline.append(max([_total(meter), *meter.timeline]))
    return result


@_dispatching(
    "The timeline grows only when something new is held. Note the bytes after every operation."
)
def only_new_ones(meter, run):
    before, result = len(meter.sizes), run()
    for part in _parts(result):
        meter.hold(part)
    if len(meter.sizes) != before:
        meter.timeline.append(_total(meter))
    return result


@_dispatching(
    "The result of an operation is lost: the program under the meter gets None. Return it."
)
def nothing_returned(meter, run):
    for part in _parts(run()):
        meter.hold(part)
    meter.timeline.append(_total(meter))


def _watched(steps: Callable[[Any], Any]) -> Callable[[Any, tuple], Any]:
    """Return the timeline of some operations, or what they return if that is anything."""

    def observe(meter: Any, _: tuple) -> Any:
        with meter:
            found = steps(meter)
        return list(meter.timeline) if found is None else found

    return observe


ROUNDS = 32  # so many that an address is used again, whatever the allocator does


def _new(meter):
    a = torch.zeros(3)
    b = torch.zeros(5, dtype=torch.int64)
    assert len(a) and len(b)


def _shared(meter):
    a = torch.zeros(6)
    a.view(2, 3).t()
    a.add_(1)


def _freed(meter):
    a = torch.zeros(6)
    b = a + 1
    del b
    c = a * 2
    del a
    c.mul_(2)


def _several(meter):
    torch.sort(torch.zeros(7))


def _number(meter):
    torch.ones(3).sum().item()


def _outside(meter, _):
    weight = torch.ones(11)
    meter.hold(weight)
    meter.hold(weight)
    with meter:
        doubled = weight * 2
    assert len(doubled)
    return list(meter.timeline)


def _detached(meter, _):
    weight, other = torch.ones(11), torch.ones(5)
    meter.hold(weight.detach()[:4])
    with meter:
        doubled, second = weight * 2, other + 1
    assert len(doubled) and len(second)
    return list(meter.timeline)


def _freed_after_two(meter):
    a = torch.zeros(6)
    a.add_(1)
    del a
    b = torch.zeros(2)
    assert len(b)


def _again(meter):
    for _ in range(ROUNDS):
        x = torch.zeros(1000)
        del x
    return min(meter.timeline, default=None)


def _results(meter):
    a = torch.full((3,), 2.0)
    if a is None:
        return None, None, None
    values, order = torch.sort(a, descending=True)
    return a.tolist(), values.tolist(), order.tolist()


def _learning(meter):
    w = torch.ones(4, requires_grad=True)
    (w * 3).sum().backward()
    assert w.grad is not None


def _meter_case(rule: str, told: str, observe: Callable[[Any, tuple], Any]) -> Case:
    return Case(
        f"a new `MemoryMeter()`: {told}", lambda: (), MemoryMeter, rule=rule, observe=observe
    )


METER_CASES = (
    _meter_case("returned", "what some operations return while the meter is on", _watched(_results)),
    _meter_case("every", "the timeline of two operations that make 3 numbers of float32 and 5 of int64", _watched(_new)),
    _meter_case("shared", "the timeline of `a = torch.zeros(6)`, `a.view(2, 3).t()`, `a.add_(1)`", _watched(_shared)),
    _meter_case("freed", "the timeline of `a = torch.zeros(6)`, `b = a + 1`, `del b`, `c = a * 2`, `del a`, `c.mul_(2)`", _watched(_freed)),
    _meter_case("several", "the timeline of `torch.sort(torch.zeros(7))`, which returns two tensors", _watched(_several)),
    _meter_case("several", "the timeline of `torch.ones(3).sum().item()`, which ends with a number", _watched(_number)),
    _meter_case("hold", "the timeline of `weight * 2` and `other + 1`; of the weight, 11 numbers, a view of 4 was given to `hold` before, `other` was not", _detached),
    _meter_case("freed", "the timeline of `a = torch.zeros(6)`, `a.add_(1)`, `del a`, `b = torch.zeros(2)`", _watched(_freed_after_two)),
    _meter_case("freed", f"the lowest number of the timeline; `x = torch.zeros(1000)` and `del x` are repeated {ROUNDS} times", _watched(_again)),
    _meter_case("hold", "the timeline of `weight * 2`; the weight, 11 numbers, was given to `hold` twice before", _outside),
    _meter_case("every", "the timeline of a small forward and backward pass", _watched(_learning)),
)  # fmt: skip

# --- peak_training_bytes ---------------------------------------------------------------------

# Each mistake as a formula. The arguments, in order: weights, gradients, optimizer, activations,
# logits, in_flight, largest.
MISTAKES = (
    ("That is weights, gradients, optimizer and activations added up. They are never all held at once: the activations are freed before all gradients are there. Take the largest of the three moments.",
     lambda w, g, o, a, x, f, m: w + g + o + a),
    ("That is the sum of all seven arguments. They are never all held at once: take the largest of the three moments.",
     lambda w, g, o, a, x, f, m: w + g + o + a + x + f + m),
    ("The three moments are added. They follow one another, so only the largest of them counts.",
     lambda w, g, o, a, x, f, m: w + o + (a + 2 * x) + (a - x + f) + (g + 2 * m)),
    ("That is the smallest of the three moments. A run fails at its largest one.",
     lambda w, g, o, a, x, f, m: w + o + min(a + 2 * x, a - x + f, g + 2 * m)),
    ("That is moment 1, the backward pass of the loss. Moments 2 and 3 can be larger.",
     lambda w, g, o, a, x, f, m: w + o + a + 2 * x),
    ("That is moment 3, the end of the step. Moments 1 and 2 can be larger.",
     lambda w, g, o, a, x, f, m: w + o + g + 2 * m),
    ("The optimizer's state is missing. It is held from the first step on, at every moment.",
     lambda w, g, o, a, x, f, m: w + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The optimizer's state is counted at the end only. It is held at every moment.",
     lambda w, g, o, a, x, f, m: w + max(a + 2 * x, a - x + f, g + o + 2 * m)),
    ("The weights are missing. Frozen or not, they are held at every moment.",
     lambda w, g, o, a, x, f, m: o + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("Weights and optimizer are missing. They are held at every moment: add them to the largest one.",
     lambda w, g, o, a, x, f, m: max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The gradients are counted at every moment. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + g + o + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The gradients are counted at every moment. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + g + o + max(a + 2 * x, a - x + f, 2 * m)),
    ("That is the number of the largest moment. Return the bytes that are held at it.",
     lambda w, g, o, a, x, f, m: 1 + max(range(3), key=(a + 2 * x, a - x + f, g + 2 * m).__getitem__)),
    ("That is the number of the largest moment. Return the bytes that are held at it.",
     lambda w, g, o, a, x, f, m: max(range(3), key=(a + 2 * x, a - x + f, g + 2 * m).__getitem__)),
    ("In the backward pass of the last layer, the gradients are added. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f + g, g + 2 * m)),
    ("In the backward pass of the last layer, in_flight is added twice. It holds all that this moment needs.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + 2 * f, g + 2 * m)),
    ("The end of the step is left out. In full fine-tuning it is often the largest moment.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f)),
    ("The backward pass of the loss (moment 1) is left out.",
     lambda w, g, o, a, x, f, m: w + o + max(a - x + f, g + 2 * m)),
    ("in_flight never counts. It belongs to the backward pass of the last layer, which can be the largest moment when activations are recomputed.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, g + 2 * m)),
    ("In the backward pass of the last layer, the activations are missing. Only the logits among them are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, f, g + 2 * m)),
    ("In the backward pass of the loss, the two arrays of the size of the logits are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a, a - x + f, g + 2 * m)),
    ("Moment 1 comes to activations + 1 × logits. The logits are still held as part of the activations: subtract nothing, and add two more arrays.",
     lambda w, g, o, a, x, f, m: w + o + max(a + x, a - x + f, g + 2 * m)),
    ("The logits are counted beside the activations. They are among them: moment 1 adds two more arrays of their size, and at moment 2 they have been freed.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 3 * x, a + f, g + 2 * m)),
    ("In the backward pass of the loss, three arrays of the size of the logits are added. The logits themselves are part of the activations; two more come.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 3 * x, a - x + f, g + 2 * m)),
    ("In the backward pass of the last layer, the logits are still counted. They are part of the activations and are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a + f, g + 2 * m)),
    ("In the backward pass of the last layer, the logits are added. They are freed by then: subtract them.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a + x + f, g + 2 * m)),
    ("in_flight is counted at the loss as well. It belongs to the backward pass of the last layer.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x + f, a - x + f, g + 2 * m)),
    ("At the end, the two arrays of the size `largest` are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, g)),
    ("At the end, one array of the size `largest` is added. There are two.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, g + m)),
    ("At the end, the gradients are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, 2 * m)),
    ("The activations are counted at the end as well. They are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, a + g + 2 * m)),
)  # fmt: skip
for _message, _formula in MISTAKES:
    _formula.__name__ = f"formula: {_message[:60]}"
    mistake(ID, _message)(_formula)

NAMES = ("weights", "gradients", "optimizer", "activations", "logits", "in_flight", "largest")


def _case(rule: str, remark: str, **parts: int) -> Case:
    given = {"weights": 101, "gradients": 7, "optimizer": 23, "activations": 59, "logits": 17,
             "in_flight": 5, "largest": 2} | parts  # fmt: skip
    told = ", ".join(f"{name}={size}" for name, size in given.items())
    return Case(
        f"`peak_training_bytes({told})`: {remark}",
        lambda: tuple(given[name] for name in NAMES),
        peak_training_bytes,
        rule=rule,
    )


CASES = (
    _case("held", "weights and optimizer alone", gradients=0, activations=0, logits=0, in_flight=0, largest=0),
    _case("loss", "moment 1 is the largest"),
    _case("layer", "much in flight, so moment 2 is the largest", in_flight=151),
    _case("end", "large gradients, so moment 3 is the largest", gradients=97, largest=31),
    _case("end", "a large trained matrix, so moment 3 is the largest", largest=53),
    _case("peak", "large gradients, and still moment 1 is the largest", gradients=71),
    _case("peak", "the three moments differ little", gradients=79, in_flight=47, largest=6),
)  # fmt: skip


def _draw(rng: random.Random, *_: int) -> tuple[int, ...]:
    weights, gradients, optimizer, rest, logits, in_flight = (
        rng.randrange(10**6) for _ in range(6)
    )
    return (
        weights,
        gradients,
        optimizer,
        rest + logits,
        logits,
        in_flight,
        rng.randrange(gradients + 1),
    )


EXERCISES = {
    METER: Exercise(
        METER,
        "A meter of memory",
        MemoryMeter,
        METER_CASES,
        asks="Record the bytes that tensors hold after every operation, in `timeline`.",
        rules={
            "every": "After every operation, `timeline` gets the bytes held by all known tensors.",
            "several": "A tensor becomes known when an operation returns it, alone or with others.",
            "hold": "`hold(tensor)` makes a tensor known that was there before.",
            "shared": "Tensors that share a storage, as views do, hold its bytes once.",
            "freed": "When a storage is freed, its bytes are no longer held.",
            "returned": "Every operation returns what it would return without the meter.",
        },
        hints=(
            "Keep a dictionary from a storage's number to its bytes. The rest is to keep it up to date.",
            ("freed", "`weakref.finalize(storage, function, *arguments)` calls the function when the storage is freed."),
            "`tensor.untyped_storage()` has `nbytes()`, and `_cdata`, a number that is the same for all tensors that share it.",
        ),
        path="Write `hold` first: storage, number, bytes, and what is to happen when it is freed. Then `__torch_dispatch__`: run the operation, give each tensor of its result to `hold`, "
        "append the sum, return the result. The usual wrong turn is to keep the storage itself: then nothing is ever freed.",
        why="A mode sees each operation that PyTorch runs, those of the backward pass and of the optimizer included. Counting storages instead of tensors makes views and results in place come out right.",
        points=2,
    ),
    ID: Exercise(
        ID,
        "The peak of a step from its parts",
        peak_training_bytes,
        CASES,
        asks="Return the largest number of bytes that a training step holds at one moment.\n\n"
        "All are sizes in bytes. optimizer: its state. activations: all that the forward pass keeps, the logits among "
        "them. in_flight: what the backward pass of the last layer makes. largest: the largest trained matrix.",
        rules={
            "held": "Weights and optimizer state stay throughout; gradients count at moment 3 alone.",
            "loss": "Moment 1: the loss is differentiated. Nothing is freed yet; two arrays as large as the logits are made.",
            "layer": "Moment 2: the backward pass of the last transformer layer. The logits and the arrays of moment 1 have been freed; the rest of the activations is there.",
            "end": "Moment 3: AdamW steps. No activation is left; two arrays as large as largest are made.",
            "peak": "The moments follow one another. Return what is held at the largest.",
        },
        draw=_draw,
        hints=(
            "Two of the seven sizes are held from the first moment to the last. Which?",
            ("layer", "Write all three moments as sums before you compare them."),
            "The place to look is what the three sums have in common: it can be added once, after the comparison.",
        ),
        path="Notice first what does not change: weights and optimizer state. Then write one sum for each moment, in the order of time, and "
        "leave out what is freed by then. Compare last. The usual wrong turn is to add up all parts: the activations are freed layer by layer "
        "while the gradients arrive, so they are never all held at once.",
        why="A run fails at its largest moment. That moment decides whether it fits, and saving memory at another one does not help. LoRA shrinks the third moment to a few "
        "megabytes and leaves the first two nearly as they are. Recomputation shrinks the first two and leaves the third. `sftlab.memory.plan.plan` computes the seven "
        "sizes from shapes alone and calls this function.",
        points=2,
    )
}  # fmt: skip
