"""Memory of weights, gradients and optimizer state, by formula and measured. Sizes are in bytes.

AdamW in float32 takes 16 bytes per trained parameter: 4 for the weight, 4 for its gradient and 8
for two moments. LoRA takes them for the adapter only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, UntypedStorage, nn

from sftlab.errors import WorkbookError
from sftlab.lora import LoRALinear, lora_parameter_count
from sftlab.memory.shapes import linear_layers


def parameter_bytes(model: nn.Module, trainable: bool | None = None) -> int:
    """Return the size of the model's parameters in bytes; a tied weight counts once.

    The scales of a 4-bit weight are included, although they are not parameters of the model.

    Args:
        trainable: True for trained parameters only, False for frozen ones, None for all.
    """
    chosen = [p for p in model.parameters() if trainable in (None, p.requires_grad)]
    return sum(stored_bytes(p) for p in chosen)


def stored_bytes(parameter: Tensor) -> int:
    """Return the size of one parameter in bytes, including the scales of a 4-bit weight."""
    return _tensor_bytes(parameter) + _scale_bytes(parameter)


def gradient_bytes(model: nn.Module) -> int:
    """Return the size of the gradients of all trained parameters in bytes, in their dtypes."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def optimizer_state_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the size of the optimizer state in bytes, computed before the first step.

    Adam and AdamW store two moments of the size of each trained parameter (three with `amsgrad`)
    and a float32 step counter (Kingma & Ba, 2014, arXiv:1412.6980; Loshchilov & Hutter, 2017,
    arXiv:1711.05101). SGD stores one copy of each parameter if it uses momentum, otherwise nothing.
    Only parameters of the model count.

    Raises:
        ValueError: any other optimizer.
    """
    ours = {id(p) for p in model.parameters()}
    total = 0
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.Adam):  # AdamW is a subclass
            copies, counter = 3 if group["amsgrad"] else 2, 4
        elif isinstance(optimizer, torch.optim.SGD):
            copies, counter = 1 if group["momentum"] else 0, 0
        else:
            raise ValueError(f"no formula for {type(optimizer).__name__}: use Adam, AdamW or SGD")
        for p in group["params"]:
            if id(p) in ours and p.requires_grad:  # frozen parameters have no state
                total += copies * p.numel() * p.element_size() + counter
    return total


def measured_optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the current size of the optimizer state in bytes; 0 before the first step."""
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(_tensor_bytes(value) for value in kept if isinstance(value, Tensor))


@dataclass(frozen=True)
class TrainingBytes:
    """The memory of one training step in bytes, planned or measured.

    `adapters` is 0 in full fine-tuning. `activations` is what the forward pass saves for the
    backward pass. `peak` is the largest amount held at one moment. It can be smaller than the sum
    because the activations are freed before the last gradient is computed, and larger because
    temporary results count too.
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

    Each storage counts once, even if several operations save it. Parameters and buffers are left
    out because they are in memory anyway.
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


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scale_bytes(parameter: Tensor) -> int:
    """Return the bytes of a 4-bit weight's scales and code tables in bitsandbytes, 0 for others."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return 0
    second = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return sum(_tensor_bytes(t) for t in [state.absmax, state.code, *second])


def weight_count(parameter: Tensor) -> int:
    """Return the number of weights in a parameter; two 4-bit weights are packed in one byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def trainable_share(model: nn.Module) -> float:
    """Return trained weights / all weights, from 0 to 1; adapters count in both numbers.

    A tied weight counts once. A weight is trained if it requires a gradient, whatever its name.
    """
    parameters = list(model.parameters())
    trained = sum(weight_count(p) for p in parameters if p.requires_grad)
    return trained / sum(weight_count(p) for p in parameters)


def targeted_layers(
    model: nn.Module, targets: str | Sequence[str] = "all-linear"
) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) by name of the linear layers that PEFT would adapt for `targets`.

    Raises:
        WorkbookError: there is no such layer.
    """
    layers = linear_layers(model)
    if targets != "all-linear":
        wanted = tuple([targets] if isinstance(targets, str) else targets)
        layers = {n: s for n, s in layers.items() if n.split(".")[-1] in wanted}
    if not layers:
        raise WorkbookError(f"no linear layer of this model is called {targets}")
    return layers


def lora_config_for(model: nn.Module, budget: int, targets: str | Sequence[str] = "all-linear"):
    """Return PEFT's LoraConfig of the largest rank that trains at most `budget` parameters; α = 2r.

    Each unit of rank costs Σ (d_in + d_out) parameters over the targeted layers.

    Raises:
        WorkbookError: rank 1 already exceeds the budget, or no layer matches `targets`.
    """
    from peft import LoraConfig

    layers = targeted_layers(model, targets)
    per_rank = sum(lora_parameter_count(d_in, d_out, 1) for d_in, d_out in layers.values())
    r = budget // per_rank
    if r < 1:
        raise WorkbookError(f"rank 1 takes {per_rank:,} parameters, the budget is {budget:,}")
    chosen = targets if isinstance(targets, str) else list(targets)
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=chosen, task_type="CAUSAL_LM")


KINDS = {LoRALinear: "adapter", nn.Linear: "linear", nn.Embedding: "embedding"}


def memory_report(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (weights, bytes) by kind of module.

    The kinds are "embedding", "linear", "adapter" and "other"; "whole" is the sum. A weight shared
    by two modules counts once, for the first. A 4-bit parameter counts as all weights packed in it,
    and its bytes include the scales.
    """
    found = dict.fromkeys(("embedding", "linear", "adapter", "other", "whole"), (0, 0))
    seen = set()
    for module in model.modules():
        kind = next((kind for type_, kind in KINDS.items() if isinstance(module, type_)), "other")
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            for name in (kind, "whole"):
                weights, size = found[name]
                found[name] = weights + weight_count(parameter), size + stored_bytes(parameter)
    return found
