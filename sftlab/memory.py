"""Where the bytes go: weights, gradients and optimiser state, planned by formula and counted.

AdamW in float32 takes 16 bytes for each trained parameter: 4 for the weight, 4 for its gradient and
8 for two moments. LoRA pays that for the adapter only. All results are bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, UntypedStorage, nn


def parameter_bytes(model: nn.Module, trainable: bool | None = None) -> int:
    """Bytes that the model's parameters take; a tied weight counts once.

    `trainable` picks those that are trained (True) or frozen (False); None means all. The scales
    of a 4-bit weight belong to it, though they are no parameters of the model.
    """
    chosen = [p for p in model.parameters() if trainable in (None, p.requires_grad)]
    return sum(stored_bytes(p) for p in chosen)


def stored_bytes(parameter: Tensor) -> int:
    """Bytes of one parameter; of a 4-bit one with its scales."""
    return _tensor_bytes(parameter) + _scale_bytes(parameter)


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of one gradient for each trained parameter, in the parameter's dtype."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def optimizer_state_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimiser will keep for the model's trained parameters, before its first step.

    Adam and AdamW keep two moments the size of each parameter (three with `amsgrad`) and a float32
    step counter (Kingma & Ba, 2014, arXiv:1412.6980; Loshchilov & Hutter, 2017, arXiv:1711.05101).
    SGD keeps a copy only if it has momentum. Raises ValueError for any other optimiser.
    """
    ours = {id(p) for p in model.parameters()}
    total = 0
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.Adam):  # AdamW is one too
            copies, counter = 3 if group["amsgrad"] else 2, 4
        elif isinstance(optimizer, torch.optim.SGD):
            copies, counter = 1 if group["momentum"] else 0, 0
        else:
            raise ValueError(f"no formula for {type(optimizer).__name__}: use Adam, AdamW or SGD")
        for p in group["params"]:
            if id(p) in ours and p.requires_grad:  # a frozen parameter never gets a state
                total += copies * p.numel() * p.element_size() + counter
    return total


def measured_optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimiser keeps now: 0 until its first step."""
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(_tensor_bytes(value) for value in kept if isinstance(value, Tensor))


@dataclass(frozen=True)
class TrainingBytes:
    """Where the bytes of one training step go, planned or measured.

    `adapters` is 0 in full fine-tuning. `activations` is what the forward pass saves for the
    backward pass. `peak` is the most that is held at one moment: less than the sum, since the
    activations are gone when the last gradient comes, and more, since results in flight count.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


@contextmanager
def saved_for_backward(model: nn.Module) -> Iterator[dict[int, UntypedStorage]]:
    """Collect the storages that autograd saves for the backward pass inside the ``with`` block.

    Each counts once, however many operations saved it. Parameters and buffers are left out: they
    are there anyway.
    """
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def process_peak_bytes() -> int:
    """The most memory that this process has held so far (resident, libraries included).

    It never falls: measure two things in two fresh processes. Linux's VmHWM is read where there is
    one, since getrusage's figure also counts the process that started this one.
    """
    if peak := _status("VmHWM"):
        return peak
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # here: Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def process_bytes() -> int:
    """The memory that this process holds now (resident)."""
    return psutil.Process().memory_info().rss


def written_bytes() -> int:
    """What this process has to itself and may write (VmData): what RLIMIT_DATA limits. Linux only."""
    found = _status("VmData")
    assert found is not None, "only Linux tells it"
    return found


def _status(name: str) -> int | None:
    """A figure in bytes from Linux's account of this process; None on other systems."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scale_bytes(parameter: Tensor) -> int:
    """What bitsandbytes keeps beside a 4-bit weight: scales, and their own scales if doubled."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return 0
    second = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return sum(_tensor_bytes(t) for t in [state.absmax, state.code, *second])
