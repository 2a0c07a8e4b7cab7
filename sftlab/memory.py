"""Where the bytes go: weights, gradients and optimiser state, planned by formula and counted.

AdamW in float32 takes 16 bytes for each trained parameter: 4 for the weight, 4 for its gradient and
8 for two moments. LoRA pays that for the adapter only. All results are bytes.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


def parameter_bytes(model: nn.Module, trainable: bool | None = None) -> int:
    """Bytes that the model's parameters take; a tied weight counts once.

    `trainable` picks those that are trained (True) or frozen (False); None means all. The scales
    of a 4-bit weight belong to it, though they are no parameters of the model.
    """
    chosen = [p for p in model.parameters() if trainable in (None, p.requires_grad)]
    return sum(_tensor_bytes(p) + _scale_bytes(p) for p in chosen)


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
    """Bytes held during training, activations left out. `adapters` is 0 in full fine-tuning."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.gradients + self.optimizer


def training_bytes(
    parameters: int,
    adapter_parameters: int = 0,
    *,
    weight_bits: float = 32,
    trained_bits: int = 32,
    moments: int = 2,
) -> TrainingBytes:
    """Plan from counts: full fine-tuning, or frozen weights with adapters if there are any.

    `weight_bits` is what the model is stored in: 32, 16, or for NF4 what
    `sftlab.quant.bits_per_parameter` says. `trained_bits` is that of adapters, gradients and
    moments; full fine-tuning in 16 bits keeps them all in 16. `moments`: AdamW 2, plain SGD 0.
    Raises ValueError for full fine-tuning of weights in fewer than 16 bits.
    """
    if adapter_parameters == 0 and weight_bits < 16:
        raise ValueError(f"weights in {weight_bits:g} bits cannot be trained: plan with adapters")
    trained = adapter_parameters or parameters
    bits = trained_bits if adapter_parameters else min(trained_bits, int(weight_bits))
    return TrainingBytes(
        weights=round(parameters * weight_bits / 8),
        adapters=adapter_parameters * trained_bits // 8,
        gradients=trained * bits // 8,
        optimizer=moments * trained * bits // 8,
    )


def model_training_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingBytes:
    """The same plan for a model as it is: what is trained beside frozen weights is the adapter.

    Works on the meta device too, where nothing is stored.
    """
    frozen, trained = parameter_bytes(model, False), parameter_bytes(model, True)
    return TrainingBytes(
        weights=frozen or trained,
        adapters=trained if frozen else 0,
        gradients=gradient_bytes(model),
        optimizer=optimizer_state_bytes(model, optimizer),
    )


def process_peak_bytes() -> int:
    """The most memory that this process has held so far (resident, libraries included).

    It never falls: measure two things in two fresh processes. Linux's VmHWM is read where there is
    one, since getrusage's figure also counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scale_bytes(parameter: Tensor) -> int:
    """What bitsandbytes keeps beside a 4-bit weight: scales, and their own scales if doubled."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return 0
    second = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return sum(_tensor_bytes(t) for t in [state.absmax, state.code, *second])
