"""Record how much memory tensors hold, operation by operation.

    with MemoryMeter() as meter:
        loss = model(**batch).loss
        loss.backward()
    max(meter.timeline)                  # bytes

PyTorch calls ``__torch_dispatch__`` of a mode for every operation, also for those of the backward
pass and of the optimizer. What matters is not the tensor but its storage: views and results in
place share one. The meter counts what operations return. Memory that an operation needs inside and
gives back before it returns is not seen, nor is what libraries keep for themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class MemoryMeter(TorchDispatchMode):
    """Record the bytes that tensors hold after every operation, in ``timeline``.

    Only tensors that an operation returns inside the ``with`` block are known, and those given to
    ``hold``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timeline: list[int] = []
        self.sizes: dict[int, int] = {}  # storage -> bytes

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, key, None)

    def __torch_dispatch__(
        self, operation: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation, and note what is held after it."""
        result = operation(*args, **(kwargs or {}))
        for part in tree_flatten(result)[0]:
            if isinstance(part, Tensor):
                self.hold(part)
        self.timeline.append(sum(self.sizes.values()))
        return result
