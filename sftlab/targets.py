"""Which layers of a model can take an adapter, whatever its architecture."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


def linear_layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers that compute x Wᵀ + b by name: ``nn.Linear`` and GPT-2's ``Conv1D``."""
    return {name: m for name, m in model.named_modules() if _is_linear(m)}


def _is_linear(module: nn.Module) -> bool:
    if type(module).__name__ == "Conv1D":  # of transformers, which takes seconds to import
        return hasattr(module, "nf")
    if not isinstance(module, nn.Linear):
        return False
    if type(module).forward is nn.Linear.forward:
        return True
    if type(module) not in _PLAIN:
        _PLAIN[type(module)] = _computes_as_linear(module)
    return _PLAIN[type(module)]


_PLAIN: dict[type, bool] = {}  # subclasses of nn.Linear with a forward of their own


def _computes_as_linear(module: nn.Linear) -> bool:
    """Return whether a trial call gives one output; some routers return several, or in groups."""
    x = torch.zeros(2, module.in_features, device=module.weight.device)
    try:
        with torch.enable_grad():  # bitsandbytes repacks its weights in a call without gradients
            found = module(x.to(module.weight.dtype) if module.weight.is_floating_point() else x)
    except Exception:  # of any type: it takes other inputs
        return False
    return isinstance(found, Tensor) and found.shape == (2, module.out_features)


def output_head(model: nn.Module) -> str | None:
    """Return the name of the layer that gives the logits, as PEFT finds it; None if there is none."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    named = model.named_modules()
    if head is None:
        return next((name for name, _ in named if name.split(".")[-1] == "lm_head"), None)
    return next(name for name, module in named if module is head)


# The weight of a layer as a value in the code around it: not assigned, cut, or asked for its dtype.
# A fused kernel, such as Mamba's, takes the weight and never calls the layer, on some devices and in
# training only, so a trial call elsewhere does not show it.
READ = r"self\.{}\.weight(?!\s*=(?!=)|\w|\[|\.(data|dtype|device|shape|requires_grad)\b)"


@cache
def _code_of(owner: Any) -> str:
    """Return the source of the methods of a class, inherited ones too, that speak of a weight."""
    methods = [
        inspect.unwrap(found)
        for part in owner.__mro__[: owner.__mro__.index(nn.Module)]
        for found in vars(part).values()
        if inspect.isfunction(found)
    ]
    try:
        return "\n".join(inspect.getsource(m) for m in methods if "weight" in m.__code__.co_names)
    except (OSError, TypeError):  # the source is not at hand, as in a notebook's deleted cell
        return ""


def unfit_layers(model: nn.Module) -> dict[str, str]:
    """Return the linear layers that cannot take an adapter by name, with the reason."""
    places = [model, *(c for m in model.modules() for c in m._modules.values() if c is not None)]
    owners = Counter(id(p) for place in places for p in place.parameters(recurse=False))
    unfit = {}
    for name, layer in linear_layers(model).items():
        parent, _, own = name.rpartition(".")
        reader: Any = type(model.get_submodule(parent))
        if owners[id(layer.weight)] > 1:
            unfit[name] = "shares its weight with another module"
        elif re.search(READ.format(re.escape(own)), _code_of(reader)):
            unfit[name] = f"has its weight read by {reader.__name__} itself, past any adapter"
    return unfit
