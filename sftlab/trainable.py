"""How much of a model is trained: shares counted right, and the LoRA that fits a budget."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sftlab.errors import WorkbookError
from sftlab.lora import lora_parameter_count
from sftlab.shapes import linear_layers


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
