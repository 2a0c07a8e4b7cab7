"""What the weights of a model take, by kind of module: 4 bits shrink the linear layers alone."""

from __future__ import annotations

from torch import nn

from sftlab.lora import LoRALinear
from sftlab.memory import stored_bytes
from sftlab.trainable import weight_count

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
