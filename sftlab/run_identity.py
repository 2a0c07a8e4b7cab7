"""The identity of a training run: all settings and data that decide its result.

A checkpoint is resumed only by a run with the same identity. Settings that change only time or
location are not part of it: the micro-batch size, the checkpoint interval, file paths and the name
of the model.
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
# Compared quantity -> settings that cause it and are named in the message if they differ.
CAUSES = {
    "steps": ("num_train_epochs", "max_steps"),
    "frozen weights": ("model",),
    "start": ("model",),
}
FOLLOWS = ("trained", "start")  # reported only if no other difference explains them
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
    """Return a run's ``identity`` and the ``names`` used to report differences.

    Args:
        settings: the fields of a ``TrainConfig``, with the precision used for computing.
        steps: number of planned steps. Epochs beyond ``max_steps`` change nothing.
        name: name of the model.
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
    """Return the settings of the LoRA layers, ours or PEFT's: one value, or one for each layer."""
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
    """Return the value that all layers share, or a dictionary of all values if they differ."""
    first, *others = values.values()
    return dict(values) if any(other != first for other in others) else first


def _model_config(model: nn.Module) -> dict:
    """Return the settings of the model's configuration that affect what the weights compute."""
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
    """Return the SHA-256 of names, shapes, dtypes and all bytes: 0.5 s for 135 million numbers."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the frozen parameters and persistent buffers (such as packed weights) by name."""
    stored = model.state_dict().keys()
    buffers = {name: b for name, b in model.named_buffers() if name in stored}
    return {n: p for n, p in model.named_parameters() if not p.requires_grad} | buffers


def start_digest(trainable: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of the initial trained parameters, without each A whose B is zero.

    While B is zero, the values of A do not affect what the model computes.
    """
    found = dict(trainable)
    for name in trainable:
        # The name of the B that belongs to an A, in our layers or in PEFT's.
        beside = f"{name[:-1]}B" if name.endswith(".A") else name.replace(".lora_A.", ".lora_B.")
        if beside != name and beside in trainable and not trainable[beside].any():
            del found[name]
    return digest(found)


def starts_of(model: nn.Module) -> set[str]:
    """Return the digests of the initial parameters of all runs of this model in this process.

    The set is mutable. After training, the initial parameters can no longer be read from the model.
    """
    return _starts.setdefault(model, set())


def differences(old: Mapping, new: Mapping, old_names: Mapping, new_names: Mapping) -> list[str]:
    """Return the differences between two runs, each as ``"alpha: 16 → 32"``; empty if they agree.

    Args:
        old_names, new_names: settings that are only used to *report* a difference; see ``CAUSES``.
    """
    found: dict[str, str] = {}
    for name in {**old, **new}:
        one_sided = name.startswith("config.") and not (name in old and name in new)
        if one_sided or old.get(name) == new.get(name):  # new versions of libraries add keys
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
    if words and len(words[-1]) == 64:  # a digest: the first digits are enough
        return text[:-56] + "…"
    return text if len(text) <= 80 else f"{text[:79]}…"
