"""Save and load LoRA adapters in the two files that Hugging Face PEFT uses."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sftlab.errors import WorkbookError
from sftlab.lora import check_lora_settings, inject_lora, lora_layers, lora_scale

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Settings of PEFT that plain LoRA has too, and those without a say in what a saved adapter
# computes. Whatever else is set makes more than plain LoRA of it.
PLAIN = {"bias": "none"}
KNOWN = (
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping"),
    *("peft_version", "inference_mode", "runtime_config", "r", "lora_alpha", "lora_dropout"),
    *("use_rslora", "fan_in_fan_out", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "init_lora_weights", "eva_config", "corda_config", "loftq_config"),
    *("lora_ga_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
    *("rank_pattern", "alpha_pattern", "target_parameters"),
)
STARTS = (None, True, False, "gaussian", "eva")  # initializations that leave the base unchanged
# In a model with experts, PEFT takes layers of these names for the fused experts, even if there are
# none (peft/utils/transformers_weight_conversion.py). It leaves target_parameters alone.
TAKEN_FOR_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}


def _key(layer: str, matrix: str) -> str:
    return f"base_model.model.{layer}.lora_{matrix}.weight"


def _adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    return {_key(n, m): getattr(x, m) for n, x in lora_layers(model).items() for m in "AB"}


def save_adapter(model: nn.Module, folder: str | Path, base_name: str | None = None) -> Path:
    """Save A and B of every LoRA layer and their settings in PEFT's format.

    Each file is written beside the old one and then replaces it, so a full disk leaves the old.
    In a model with experts, dense layers are named as target_parameters, for which PEFT has no
    dropout, so none is stored; an adapter computes the same with and without it.
    ``sftlab.results.save_result`` adds what makes the folder usable elsewhere.

    Args:
        base_name: name of the base model, stored in the configuration.

    Returns:
        The folder. Its size is Σ r·(d_in + d_out)·4 bytes plus a small overhead.

    Raises:
        WorkbookError: the model has no LoRA layers, their settings differ, or the folder cannot be
            written to.
    """
    layers = lora_layers(model)
    if not layers:
        raise WorkbookError("The model has no LoRA layers, so there is no adapter to save.")
    settings = {(x.r, x.alpha, x.dropout.p, x.rule) for x in layers.values()}
    if len(settings) != 1:
        raise WorkbookError(f"One set of (r, alpha, dropout, rule) can be saved, not {settings}.")
    ((r, alpha, dropout, rule),) = settings
    whole: Any = model
    sizes = whole.config.get_text_config().to_dict() if hasattr(model, "config") else {}
    experts = any("expert" in key and value for key, value in sizes.items())
    taken = [name for name in layers if experts and name.split(".")[-1] in TAKEN_FOR_EXPERTS]
    modules = [name for name in layers if name not in taken]
    ends = {name.split(".")[-1] for name in modules}
    # PEFT looks for an end among the modules of every type.
    others = (name for name, _ in model.named_modules() if name not in modules)
    ends_suffice = not any(name.split(".")[-1] in ends for name in others)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": r,
        # PEFT has no "plain" rule; α·r divided by r gives the same factor.
        "lora_alpha": alpha * r if rule == "plain" else alpha,
        "use_rslora": rule == "rslora",
        "lora_dropout": 0.0 if taken else dropout,  # PEFT has none over parameters
        "target_modules": sorted(ends if ends_suffice else modules),
        **({"target_parameters": [f"{name}.weight" for name in taken]} if taken else {}),
        # GPT-2's layers store their weights as (d_in, d_out).
        "fan_in_fan_out": any(type(x.base).__name__ == "Conv1D" for x in layers.values()),
        "inference_mode": True,
        "use_dora": False,
        "lora_bias": False,
        **PLAIN,
    }
    folder = Path(folder)
    new = {name: folder / f"{name}.new" for name in (WEIGHTS, CONFIG)}
    tensors = {key: p.detach().cpu().contiguous() for key, p in _adapter_tensors(model).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, new[WEIGHTS], metadata={"format": "pt"})
        new[CONFIG].write_text(
            json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        for name, path in new.items():
            os.replace(path, folder / name)
    except (OSError, SafetensorError) as error:
        for path in new.values():
            if path.is_file():
                path.unlink()
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WorkbookError(
            f"the adapter cannot be written to {folder} ({reason}): free some space or choose "
            "another folder"
        ) from error
    return folder


def adapter_config(folder: str | Path) -> dict:
    """Return the configuration of a saved adapter, ours or PEFT's.

    Raises:
        WorkbookError: a file is missing or damaged, or the adapter is more than plain LoRA.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise WorkbookError(f"{folder} is not a saved adapter: it has no {name}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = config.get("peft_type")
        missing = [name for name in ("r", "lora_alpha") if name not in config]
    except (ValueError, AttributeError) as error:
        raise WorkbookError(f"{folder} is damaged: {error}. Copy or train it anew.") from error
    extras = [k for k, v in PLAIN.items() if config.get(k, v) != v]
    extras += [k for k, v in config.items() if v and k not in (*KNOWN, *PLAIN)]
    if not all(str(name).endswith(".weight") for name in config.get("target_parameters") or ()):
        extras.append("target_parameters")  # weights of linear layers are plain, experts are not
    if (start := config.get("init_lora_weights")) not in STARTS:
        extras.append(f"init_lora_weights {start!r}, which changes the base")
    if kind != "LORA" or extras:
        raise WorkbookError(
            f"{folder} is not plain LoRA: {', '.join(extras) or kind}. PEFT can load it; merged "
            "there (merge_and_unload) it can be used here."
        )
    if missing:
        raise WorkbookError(f"{folder} is damaged: {CONFIG} has no {' and no '.join(missing)}.")
    return config


def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """Load a saved adapter, ours or PEFT's, into the model in place; return the model.

    LoRA layers are injected as configured in the files unless the model has some already.

    Raises:
        WorkbookError: a file is missing or damaged, the adapter is not plain LoRA, tensors are
            missing or unknown, or shapes do not match. The model then computes what it did before.
    """
    folder = Path(folder)
    config = adapter_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise WorkbookError(f"{folder} is damaged: {error}. Copy or train it anew.") from error
    names = [k[len("base_model.model.") : -len(".lora_A.weight")] for k in tensors if "lora_A" in k]
    if not names:
        raise WorkbookError(f"{folder / WEIGHTS} holds no LoRA tensors.")
    rule = "rslora" if config.get("use_rslora") else "lora"
    settings = {name: _settings(config, name) for name in names}
    dropout = config.get("lora_dropout", 0.0)
    for r, alpha in {(config["r"], config["lora_alpha"]), *settings.values()}:
        check_lora_settings(names, r, alpha, dropout, rule)
    fresh = not lora_layers(model)
    if fresh:
        inject_lora(model, names, config["r"], config["lora_alpha"], dropout, 0, rule)
        for name, layer in lora_layers(model).items():
            if (own := settings.get(name)) and own != (layer.r, layer.alpha):
                model.set_submodule(name, type(layer)(layer.base, *own, dropout, rule))
    try:
        _fill(model, tensors, {n: lora_scale(a, r, rule) for n, (r, a) in settings.items()}, folder)
    except WorkbookError:
        for name, layer in lora_layers(model).items():
            if fresh:
                model.set_submodule(name, layer.base)
        raise
    return model


def _settings(config: dict, layer: str) -> tuple[int, float]:
    """Return r and alpha of a layer: those of the first pattern that matches its name, as in PEFT."""
    found = []
    for patterns, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        given = config.get(patterns) or {}
        key = next((key for key in given if re.match(rf"(.*\.)?({key})$", layer)), None)
        found.append(config[default] if key is None else given[key])
    return found[0], found[1]


@torch.no_grad()
def _fill(
    model: nn.Module, tensors: dict[str, Tensor], scales: dict[str, float], folder: Path
) -> None:
    """Copy the tensors into the LoRA layers after checking that all of them fit."""
    wanted = _adapter_tensors(model)
    if missing := sorted(set(wanted) - set(tensors)):
        raise WorkbookError(f"{folder / WEIGHTS}: {missing[0]} is missing ({len(missing)} in all).")
    if unknown := sorted(set(tensors) - set(wanted)):
        raise WorkbookError(
            f"{folder / WEIGHTS}: no place for {unknown[0]} ({len(unknown)} in all)."
        )
    for key, parameter in wanted.items():
        found, shape = tuple(tensors[key].shape), tuple(parameter.shape)
        if found != shape:
            raise WorkbookError(f"{folder / WEIGHTS}: {key} is {found}, this model needs {shape}.")
    for name, layer in lora_layers(model).items():
        if layer.merged or not math.isclose(layer.scale, scales[name]):
            scale = f"scales by {layer.scale:g}, not by {scales[name]:g}"
            state = "is merged" if layer.merged else scale
            raise WorkbookError(f"{name} {state}: load the model anew, then the adapter.")
    for key, parameter in wanted.items():
        parameter.copy_(tensors[key])
