"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import weakref
from itertools import accumulate

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from sftlab.classroom.answers import equivalent, refused, right

METER, ID = "19.MemoryMeter", "19.peak_training_bytes"


@right(METER)
class ByTreeMap(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.timeline, self.bytes_of = [], {}

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata in self.bytes_of:
            return
        self.bytes_of[storage._cdata] = storage.nbytes()
        weakref.finalize(storage, lambda: self.bytes_of.pop(storage_key))
        storage_key = storage._cdata

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.hold, result)
        self.timeline.append(sum(self.bytes_of.values()))
        return result


@right(METER)
class ByARunningTotal(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.timeline, self.known, self.total = [], set(), 0

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.total += size
            weakref.finalize(storage, self.free, key, size)

    def free(self, key, size):
        self.known.remove(key)
        self.total -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_flatten(out)[0]:
            if torch.is_tensor(leaf):
                self.hold(leaf)
        self.timeline.append(self.total)
        return out


@right(METER)
class ByWeakKeys(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.timeline, self.sizes = [], WeakIdKeyDictionary()

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        self.sizes[storage] = storage.nbytes()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, torch.Tensor):
                self.hold(part)
        self.timeline.append(sum(self.sizes.values()))
        return result


@right(METER)
class ByLookingWhatIsLeft(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.timeline, self.references = [], {}

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        self.references[storage._cdata] = StorageWeakRef(storage), storage.nbytes()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.hold, result)
        self.references = {k: r for k, r in self.references.items() if not r[0].expired()}
        self.timeline.append(sum(size for _, size in self.references.values()))
        return result


@refused(METER, "Expected at [0]: 12, got: 24")
class HoldsTwiceAsMuch(ByTreeMap):
    def hold(self, tensor):
        super().hold(tensor)
        self.bytes_of[tensor.untyped_storage()._cdata] = 2 * tensor.untyped_storage().nbytes()


equivalent(
    METER,
    "A mode of this version works without it; PyTorch's documentation asks for it.",
    "without `super().__init__()`",
)


@right(ID)
def three_sums(weights, gradients, optimizer, activations, logits, in_flight, largest):
    held = weights + optimizer
    return held + max(
        activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    )


@right(ID)
def over_a_list(weights, gradients, optimizer, activations, logits, in_flight, largest):
    moments = [activations + logits * 2, activations + in_flight - logits, gradients + largest * 2]
    return sorted(weights + optimizer + moment for moment in moments)[-1]


@right(ID)
def step_by_step(weights, gradients, optimizer, activations, logits, in_flight, largest):
    peak = now = weights + optimizer + activations  # after the forward pass
    peak = max(peak, now + 2 * logits)
    now -= logits
    peak = max(peak, now + in_flight)
    now = weights + optimizer + gradients
    return max(peak, now + largest + largest)


@right(ID)
def by_differences(weights, gradients, optimizer, activations, logits, in_flight, largest):
    rest = activations - logits
    changes = (weights, optimizer, activations, logits, logits)  # up to the loss
    changes += (-3 * logits, in_flight, -in_flight, gradients, -rest, largest, largest)
    last_of_moment = (4, 6, 11)
    levels = list(accumulate(changes))
    return max(levels[place] for place in last_of_moment)


@right(ID)
def by_a_matrix(*parts):
    moments = torch.tensor([[1, 0, 1, 1, 2, 0, 0], [1, 0, 1, 1, -1, 1, 0], [1, 1, 1, 0, 0, 0, 2]])
    return (moments @ torch.tensor(parts)).amax().item()


@right(ID)
def by_cases(weights, gradients, optimizer, activations, logits, in_flight, largest):
    backward = 2 * logits if 3 * logits >= in_flight else in_flight - logits
    end = gradients + 2 * largest
    return weights + optimizer + (end if end > activations + backward else activations + backward)


@right(ID)
def a_tensor(*parts):
    return torch.tensor(by_a_matrix(*parts))


@right(ID)
def whole_float(weights, gradients, optimizer, activations, logits, in_flight, largest):
    backward = max(2.0 * logits, in_flight - logits) + activations
    return float(weights) + optimizer + max(backward, gradients + 2 * largest)


@refused(ID, "Return what is held at the largest")
def by_the_larger_part(weights, gradients, optimizer, activations, logits, in_flight, largest):
    end = gradients + 2 * largest
    backward = activations + max(2 * logits, in_flight - logits)
    return weights + optimizer + (end if gradients + largest > activations else backward)


@refused(ID, "Expected: `124`, got: `125`")
def adapters_counted(weights, *parts):
    return three_sums(weights + 1, *parts)


@refused(ID, "of type `str`")
def in_words(*parts):
    return f"{three_sums(*parts) / 1e6:.0f} MB"


@refused(ID, "It prints, but it returns nothing")
def printed(*parts):
    print(three_sums(*parts))


equivalent(
    ID,
    "The largest of three sums does not depend on their order.",
    "`max(loss, last_layer, end)` becomes `max(last_layer, loss, end)`",
)
