"""What a training run is: everything that decides its result, so that a checkpoint goes on with no other.

What changes nothing but the time or the place is left out: how a batch is cut into micro-batches, how
often a checkpoint is written, where files lie, by which name the same weights are known.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from sftlab.lora import lora_layers
from sftlab.masking import Example

DECIDING = (
    "learning_rate",
    "batch_size",
    "warmup_ratio",
    "lr_scheduler_type",
    "weight_decay",
    "precision",
    "seed",
)
# A setting that is compared by what follows from it, and told by its own name where it differs.
CAUSES = {
    "steps": ("num_train_epochs", "max_steps"),
    "frozen weights": ("model",),
    "start": ("model",),
}
FOLLOWS = ("trained", "start")  # told only where nothing else explains them
NOT_COMPUTED_WITH = ("transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")
PLACES = ("base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping")

_starts: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def describe(
    model: nn.Module,
    trainable: Mapping[str, torch.Tensor],
    examples: Sequence[Example],
    settings: Mapping[str, Any],
    steps: int,
    name: str | None = None,
) -> dict[str, dict]:
    """A run: its ``identity``, and ``names`` by which a difference is told.

    Args:
        settings: the fields of a ``TrainConfig``, with the precision that is computed with.
        steps: how many are planned. Epochs beyond ``max_steps`` change nothing.
        name: the model's.
    """
    clipped_at = settings["max_grad_norm"]
    identity = {
        **{setting: settings[setting] for setting in DECIDING},
        "max_grad_norm": clipped_at if clipped_at and clipped_at != math.inf else None,
        "steps": steps,
        "rows": f"{len(examples)} rows, sha256 {_rows_digest(examples)}",
        **_adapter_settings(model),
        "trained": {name: list(p.shape) for name, p in trainable.items()},
        "frozen weights": digest(_frozen(model)),
        "start": start_digest(trainable),
        **{f"config.{setting}": value for setting, value in _model_config(model).items()},
    }
    told = {
        "num_train_epochs": settings["num_train_epochs"],
        "max_steps": settings["max_steps"],
        "model": name,
    }
    return {"identity": identity, "names": told}


def _adapter_settings(model: nn.Module) -> dict:
    """Settings of the LoRA layers, ours or PEFT's: those that all layers share, or layer by layer."""
    layers = lora_layers(model)
    found: dict = {}
    if layers:
        rates = {name: getattr(m.dropout, "p", repr(m.dropout)) for name, m in layers.items()}
        by_layer = {"lora_dropout": rates}
        for setting, own in (("r", "r"), ("lora_alpha", "alpha"), ("rule", "rule")):
            by_layer[setting] = {name: getattr(m, own) for name, m in layers.items()}
        found = {setting: _shared(values) for setting, values in by_layer.items()}
        found["target_modules"] = list(layers)
    for adapter, config in getattr(model, "peft_config", {}).items():
        for name, value in config.to_dict().items():
            if name not in PLACES:
                found[f"{adapter}.{name}"] = sorted(value) if isinstance(value, set) else value
    return _plain(found)


def _shared(values: Mapping[str, object]) -> object:
    """The one value of all layers; all of them where they differ."""
    first, *others = values.values()
    return dict(values) if any(other != first for other in others) else first


def _model_config(model: nn.Module) -> dict:
    """The model's configuration: with other numbers the same weights compute something else."""
    config: Any = getattr(model, "config", None)
    found = config.to_dict() if hasattr(config, "to_dict") else {}
    return _plain(
        {k: v for k, v in found.items() if not k.startswith("_") and k not in NOT_COMPUTED_WITH}
    )


def _plain(values: dict) -> dict:
    return json.loads(json.dumps(values, default=str))


def _rows_digest(examples: Sequence[Example]) -> str:
    rows = [[example.input_ids, example.labels] for example in examples]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes, dtypes and all bytes: half a second for 135 million numbers."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """Frozen parameters, and the buffers that belong to the weights (packed ones, say)."""
    stored = model.state_dict().keys()
    buffers = {name: b for name, b in model.named_buffers() if name in stored}
    return {n: p for n, p in model.named_parameters() if not p.requires_grad} | buffers


def start_digest(trainable: Mapping[str, torch.Tensor]) -> str:
    """Where the trained parameters begin. While B is zero it does not matter where A was drawn."""
    found = dict(trainable)
    for name in trainable:
        # Our name of the B beside an A, or PEFT's.
        beside = f"{name[:-1]}B" if name.endswith(".A") else name.replace(".lora_A.", ".lora_B.")
        if beside != name and beside in trainable and not trainable[beside].any():
            del found[name]
    return digest(found)


def starts_of(model: nn.Module) -> set[str]:
    """Where this model began, in every run that this process trained it in: add to it, or look.

    Once it is trained its own weights no longer tell.
    """
    return _starts.setdefault(model, set())


def differences(old: Mapping, new: Mapping, old_names: Mapping, new_names: Mapping) -> list[str]:
    """What differs between two runs, ``"alpha: 16 → 32"`` each; nothing if they are the same.

    Args:
        old_names, new_names: settings that only *tell* a difference, by the names in ``CAUSES``.
    """
    found: dict[str, str] = {}
    for name in {**old, **new}:
        one_sided = name.startswith("config.") and not (name in old and name in new)
        if one_sided or old.get(name) == new.get(name):  # libraries add keys with their defaults
            continue
        causes = [
            (cause, old_names[cause], new_names[cause])
            for cause in CAUSES.get(name, ())
            if old_names.get(cause) != new_names.get(cause)
        ]
        for told, before, after in causes or [(name, old.get(name), new.get(name))]:
            found[told] = f"{told}: {_told(before)} → {_told(after)}"
    explained = (*FOLLOWS, "config.") if "model" in found else FOLLOWS
    rest = [told for name, told in found.items() if not name.startswith(explained)]
    return rest or list(found.values())


def _told(value: object) -> str:
    if isinstance(value, dict) and len(value) > 4:
        return f"{len(value)} of them"
    if isinstance(value, list) and len(value) > 4:  # names of layers
        counts = Counter(str(each).split(".")[-1] for each in value)
        return ", ".join(f"{name} ×{count}" for name, count in sorted(counts.items()))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    words = text.split()
    if words and len(words[-1]) == 64:  # a digest: its first digits tell it from another
        return text[:-56] + "…"
    return text if len(text) <= 80 else f"{text[:79]}…"
