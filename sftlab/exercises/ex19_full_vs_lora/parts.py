"""What the bytes of a training step are for, operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from sftlab.loss import model_loss
from sftlab.memory.meter import MemoryMeter
from sftlab.train import train_step

PARTS = ("weights", "optimizer state", "gradients", "activations", "temporary arrays")


class Lives(MemoryMeter):
    """A meter that also notes for each storage from which operation to which it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[
            list[int]
        ] = []  # first operation, operation that it is freed before, bytes
        self.numbers: dict[int, int] = {}  # storage -> its place in `lives`, while it is held

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, number = storage._cdata, len(self.lives)
        if key not in self.numbers:
            self.numbers[key] = number
            self.lives.append([len(self.timeline), -1, storage.nbytes()])
            weakref.finalize(storage, self._free, key, number)
        super().hold(tensor)

    def _free(self, key: int, number: int) -> None:
        self.lives[number][1] = len(self.timeline)
        self.numbers.pop(key, None)

    def number(self, tensor: Tensor) -> int:
        """Return the place of a tensor's storage in `lives`."""
        return self.numbers[tensor.untyped_storage()._cdata]


def step_parts(model: PreTrainedModel, batch: Mapping[str, Tensor], **how) -> dict[str, list[int]]:
    """Return the bytes of each part after every operation of the second step of a model.

    Activations are what the forward pass leaves, from the operation that makes it. Gradients are the
    storages that are gradients of weights at the end. All else is temporary: gradients of
    activations, arrays of the loss and of the optimizer, and what is computed again.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: Optimizer = torch.optim.AdamW(trained, **how)
    train_step(model, batch, optimizer)
    optimizer.zero_grad()
    state = [value for one in optimizer.state.values() for value in one.values()]
    meter, part = Lives(), {}
    for name, tensors in ((PARTS[0], [*model.parameters(), *model.buffers()]), (PARTS[1], state)):
        for tensor in tensors:
            meter.hold(tensor.detach())
            part[meter.number(tensor)] = name
    with meter:
        loss, count = model_loss(model, batch)
        for number in meter.numbers.values():
            part.setdefault(number, "activations")
        (loss / count).backward()
        optimizer.step()
        part |= {meter.number(p.grad): "gradients" for p in trained if p.grad is not None}
        length = len(meter.timeline)
    return _over_time(meter, part, length)


def _over_time(meter: Lives, part: Mapping[int, str], length: int) -> dict[str, list[int]]:
    changes = {name: [0] * (length + 1) for name in PARTS}
    for number, (first, freed, size) in enumerate(meter.lives):
        change = changes[part.get(number, PARTS[-1])]
        change[min(first, length)] += size
        change[min(freed, length) if freed >= 0 else length] -= size
    return {name: torch.tensor(each[:length]).cumsum(0).tolist() for name, each in changes.items()}
