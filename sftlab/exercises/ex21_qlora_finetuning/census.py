"""Count what the parameters of a model take, by kind and dtype."""

from __future__ import annotations

from torch import nn

from sftlab.memory.count import stored_bytes, weight_count


def census(model: nn.Module) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (kind, dtype) -> (parameters, bytes) of a model's parameters.

    The kinds are "adapter" (PEFT's "lora_" parameters), "linear", "embedding" and "other". A tied
    weight counts once. A 4-bit weight counts as all weights packed in it, with its scales.
    """
    kinds = {nn.Linear: "linear", nn.Embedding: "embedding"}
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        holder = model.get_submodule(name.rpartition(".")[0])
        kind = next((told for cls, told in kinds.items() if isinstance(holder, cls)), "other")
        key = "adapter" if "lora_" in name else kind, str(parameter.dtype).removeprefix("torch.")
        numbers, size = found.get(key, (0, 0))
        found[key] = numbers + weight_count(parameter), size + stored_bytes(parameter)
    return found
