"""Where the bytes go: weights, gradients and optimiser state, planned by formula and counted.

AdamW in float32 takes 16 bytes for each trained parameter: 4 for the weight, 4 for its gradient and
8 for two moments. LoRA pays that for the adapter only. All results are bytes.
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


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scale_bytes(parameter: Tensor) -> int:
    """What bitsandbytes keeps beside a 4-bit weight: scales, and their own scales if doubled."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return 0
    second = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return sum(_tensor_bytes(t) for t in [state.absmax, state.code, *second])


def weight_count(parameter: Tensor) -> int:
    """How many weights a parameter holds: bitsandbytes packs two of 4 bits into each byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def trainable_share(model: nn.Module) -> float:
    """Trained weights / all weights, from 0 to 1, the adapter's own among both.

    A tied weight counts once. What is trained is what requires a gradient, whatever its name.
    """
    parameters = list(model.parameters())
    trained = sum(weight_count(p) for p in parameters if p.requires_grad)
    return trained / sum(weight_count(p) for p in parameters)


def targeted_layers(
    model: nn.Module, targets: str | Sequence[str] = "all-linear"
) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of the linear layers that PEFT would take for `targets`, by name.

    Raises WorkbookError if there is none.
    """
    layers = linear_layers(model)
    if targets != "all-linear":
        wanted = tuple([targets] if isinstance(targets, str) else targets)
        layers = {n: s for n, s in layers.items() if n.split(".")[-1] in wanted}
    if not layers:
        raise WorkbookError(f"no linear layer of this model is called {targets}")
    return layers


def lora_config_for(model: nn.Module, budget: int, targets: str | Sequence[str] = "all-linear"):
    """PEFT's LoraConfig of the largest rank that trains at most `budget` parameters; α is 2r.

    Every unit of rank costs Σ (d_in + d_out) over the targeted layers. Raises WorkbookError if
    rank 1 is too much already.
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
    """(weights, bytes) of "embedding", "linear", "adapter", "other" modules, and of the "whole".

    A weight that two modules share counts once, for the first. A 4-bit weight counts as all the
    weights that are packed in it, and its scales count among its bytes.
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
