"""The identity of a training run: all settings and data that decide its result.

A checkpoint is resumed only by a run with the same identity. Settings that change only time or
location are not part of it: the micro-batch size, the checkpoint interval, file paths and the name
of the model. What changes the result by rounding alone (versions of libraries, device, threads) is
the run's *environment*: a difference is reported and does not block.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from sftlab.distributed import rank_and_world_size
from sftlab.lora import lora_layers, lora_scale
from sftlab.masking import Example

# Every setting decides but these, so that one added later is not forgotten.
NOT_DECIDING = (
    "num_train_epochs",  # the number of steps decides
    "max_steps",
    "micro_batch_size",
    "gradient_checkpointing",
    "save_steps",
    "packing",
    "packed_length",
    "logging_steps",
    "eval_steps",
    "progress",
)
# Compared quantity -> settings that cause it and are named in the message if they differ.
CAUSES = {
    "steps": ("num_train_epochs", "max_steps"),
    "frozen weights": ("model",),
    "start": ("model",),
}
FOLLOWS = ("trained", "start", "dropout", "scale")  # reported only if nothing else explains them
# Parts of a model's configuration, or of a part of it, that do not change what it computes here.
NOT_COMPUTED_WITH = (
    "transformers_version",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
)
PLACES = (
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "auto_mapping",
    "task_type",
)
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")

_starts: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def describe(
    model: nn.Module,
    trainable: Mapping[str, torch.Tensor],
    examples: Sequence[Example],
    settings: Mapping[str, Any],
    steps: int,
    name: str | Mapping[str, object] | None = None,
) -> dict[str, dict]:
    """Return a run's ``identity``, its ``environment``, and the ``names`` used in reports.

    Args:
        settings: the fields of a ``TrainConfig``, with the precision used for computing.
        steps: number of planned steps. Epochs beyond ``max_steps`` change nothing.
        name: name of the model, or a mapping with ``model`` and whatever may cause a difference of
            the rows, such as ``data``, ``template`` and ``max_length``. Names do not decide.
    """
    clipped_at = settings["max_grad_norm"]
    processes = rank_and_world_size()[1]
    identity = {
        **{key: _plain(value) for key, value in settings.items() if key not in NOT_DECIDING},
        "max_grad_norm": clipped_at if clipped_at and clipped_at != math.inf else None,
        "steps": steps,
        "rows": f"{len(examples)} rows, sha256 {_rows_digest(examples)}",
        **_adapter_settings(model),
        **_dropout(model),
        "trained": {name: list(p.shape) for name, p in trainable.items()},
        "frozen weights": digest(_frozen(model)),
        "start": start_digest(trainable),
        **{f"config.{setting}": value for setting, value in _model_config(model).items()},
    }
    random = "dropout" in identity
    if random and processes > 1:  # each process draws its own masks
        identity["processes"] = processes
    told = {
        "num_train_epochs": settings["num_train_epochs"],
        "max_steps": settings["max_steps"],
        **(name if isinstance(name, Mapping) else {"model": name}),
    }
    environment = {
        **versions(),
        "device": _device(next(iter(trainable.values())).device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "micro_batch_size": settings.get("micro_batch_size"),
    }
    return {"identity": identity, "names": _plain(told), "environment": environment}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute, if installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _adapter_settings(model: nn.Module) -> dict:
    """Return the settings of the adapters, ours or PEFT's: one value, or one for each layer."""
    layers = lora_layers(model)
    found: dict = {}
    if layers:
        rates = {name: getattr(m.dropout, "p", repr(m.dropout)) for name, m in layers.items()}
        by_layer: dict[str, dict] = {"lora_dropout": rates}
        for setting, own in (("r", "r"), ("lora_alpha", "alpha"), ("rule", "rule")):
            by_layer[setting] = {name: getattr(m, own) for name, m in layers.items()}
        found = {setting: _shared(values) for setting, values in by_layer.items()}
        found["target_modules"] = list(layers)
    # A factor set by hand. Otherwise it follows from the settings above.
    scales: dict[str, object] = {
        name: layer.scale
        for name, layer in layers.items()
        if not math.isclose(layer.scale, lora_scale(layer.alpha, layer.r, layer.rule))
    }
    adapters = getattr(model, "peft_config", {})
    for adapter, config in adapters.items():
        for name, value in config.to_dict().items():
            if name not in PLACES:
                found[f"{adapter}.{name}"] = value
    if adapters:
        modules = list(model.named_modules())
        factors = {name: getattr(module, "scaling", None) for name, module in modules}
        scales |= {name: each for name, each in factors.items() if isinstance(each, dict)}
    if len(adapters) > 1:
        active: Any = getattr(model, "active_adapters", [])
        found["active adapters"] = active() if callable(active) else active
    found["merged"] = [n for n, m in model.named_modules() if getattr(m, "merged", False) is True]
    found["disabled"] = [n for n, layer in layers.items() if not layer.enabled]
    found["scale"] = scales
    kept = {key: v for key, v in found.items() if v or key not in ("merged", "disabled", "scale")}
    return _plain(kept)


def _dropout(model: nn.Module) -> dict[str, dict]:
    """Return the rates of all dropout in the model; nothing if there is none."""
    layers = {name: m for name, m in model.named_modules() if "Dropout" in type(m).__name__}
    rates = {name: rate for name, m in layers.items() if (rate := getattr(m, "p", 0.0))}
    rates |= {
        f"config.{name}": value
        for name, value in _flat(_model_config(model)).items()
        if "drop" in name and isinstance(value, float) and value
    }
    return {"dropout": rates} if rates else {}


def _shared(values: Mapping[str, object]) -> object:
    """Return the value that all layers share, or a dictionary of all values if they differ."""
    first, *others = values.values()
    return dict(values) if any(other != first for other in others) else first


def _model_config(model: nn.Module) -> dict:
    """Return the settings of the model's configuration that affect what the weights compute."""
    config: Any = getattr(model, "config", None)
    return _computed_with(_plain(config.to_dict())) if hasattr(config, "to_dict") else {}


def _computed_with(config: dict) -> dict:
    return {
        key: _computed_with(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not key.startswith("_") and key not in NOT_COMPUTED_WITH
    }


def _plain(value: Any) -> Any:
    """Return the value in JSON's types. It is the same in every process: sets are sorted."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(each) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        return digest({"": value})
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, torch.dtype | torch.device | PurePath):
        return str(value)
    if hasattr(value, "item"):  # a number of NumPy
        return value.item()
    return getattr(value, "__qualname__", type(value).__qualname__)  # repr may hold an address


def _rows_digest(examples: Sequence[Example]) -> str:
    """Return a digest of all fields of the examples, in order."""
    rows = [list(vars(example).values()) for example in examples]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, shapes, dtypes and all bytes: 0.5 s for 135 million numbers."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def base_digest(model: nn.Module) -> str:
    """Return the SHA-256 of the weights without adapters, whatever precision they are held in.

    The names of the weights, their shapes and their values in float32 count. It is the same before
    ``inject_lora`` and after it, and for a model stored in bfloat16 and read as float32.
    """
    weights = dict(model.state_dict())
    for name in lora_layers(model):
        held = [key for key in weights if key.startswith(f"{name}.")]
        found = {key: weights.pop(key) for key in held}
        start = f"{name}.base."
        weights |= {
            f"{name}.{key.removeprefix(start)}": tensor
            for key, tensor in found.items()
            if key.startswith(start)
        }
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].float() if weights[name].is_floating_point() else weights[name]
        total.update(digest({name: tensor}).encode())
    return total.hexdigest()


def _frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the frozen parameters and persistent buffers by name.

    Packed weights are followed by what unpacks them: the same codes with other scales are another
    base.
    """
    stored = model.state_dict().keys()
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            found |= {name: parameter, **_unpacked_with(name, parameter)}
    return found | {name: b for name, b in model.named_buffers() if name in stored}


def _unpacked_with(name: str, holder: object) -> dict[str, torch.Tensor]:
    """Return the tensors among the attributes of a packed weight and of its quantization state."""
    found: dict[str, torch.Tensor] = {}
    for key, value in sorted(getattr(holder, "__dict__", {}).items()):
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            found[f"{name}.{key}"] = value
        elif key in ("quant_state", "state2"):
            found |= _unpacked_with(f"{name}.{key}", value)
    return found


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


def differences(
    old: Mapping,
    new: Mapping,
    old_names: Mapping,
    new_names: Mapping,
    same_libraries: bool = False,
) -> list[str]:
    """Return the differences between two runs, each as ``"alpha: 16 → 32"``; empty if they agree.

    Args:
        old_names, new_names: settings that are only used to *report* a difference; see ``CAUSES``.
        same_libraries: whether both runs used the same versions of the libraries. New versions add
            keys to configurations, so a key that only one run has is otherwise no difference.
    """
    found: dict[str, str] = {}
    old, new = _flat(old, "config."), _flat(new, "config.")
    of_others = {cause for causes in CAUSES.values() for cause in causes}
    of_rows = [name for name in {**old_names, **new_names} if name not in of_others]
    adapters = {key.partition(".")[0] for key in {**old, **new} if key.endswith(".peft_type")}
    for name in {**old, **new}:
        one_sided = not (name in old and name in new)
        of_library = name.partition(".")[0] in {"config", *adapters}
        if old.get(name) == new.get(name) or (one_sided and of_library and not same_libraries):
            continue
        causes = [
            (cause, old_names[cause], new_names[cause])
            for cause in (of_rows if name == "rows" else CAUSES.get(name, ()))
            if cause in old_names and cause in new_names and old_names[cause] != new_names[cause]
        ]
        for told, before, after in causes or [(name, old.get(name), new.get(name))]:
            found[told] = _change(told, before, after)
    rest = [
        told
        for name, told in found.items()
        if name not in FOLLOWS and not ("model" in found and name.startswith("config."))
    ]
    return rest or list(found.values())


def environment_differences(old: Mapping, new: Mapping, dropout: bool) -> str:
    """Return a sentence on a run that goes on under other conditions; "" if they are the same.

    Args:
        old, new: environments as returned by ``describe``.
        dropout: whether the model has dropout.
    """
    told = [_change(n, old[n], new[n]) for n in new if n in old and old[n] != new[n]]
    if not told:
        return ""
    split = dropout and any(old.get(n) != new.get(n) for n in ("micro_batch_size", "device"))
    effect = (
        "dropout draws other masks from here on" if split else "the result may differ by rounding"
    )
    return f"the run goes on under other conditions ({'; '.join(told)}): {effect}"


def _flat(values: Mapping, start: str = "") -> dict:
    """Return the mapping with nested dictionaries, under keys with the start, as dotted keys."""
    found: dict = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and key.startswith(start):
            found |= {f"{key}.{inner}": each for inner, each in _flat(value).items()}
        else:
            found[key] = value
    return found


def _change(name: str, before: object, after: object) -> str:
    """Return ``"name: before → after"``; of two dictionaries with the same keys, what differs."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        changed = [key for key in before if before[key] != after[key]]
        if len(changed) < len(before):
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            key = changed[0]
            return f"{name} of {key}: {_told(before[key])} → {_told(after[key])}{more}"
    return f"{name}: {_told(before)} → {_told(after)}"


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
