"""Save and load LoRA adapters in the two files that Hugging Face PEFT uses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_layers, lora_scale

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Settings of PEFT adapters that are more than plain LoRA, with the value of plain LoRA.
PLAIN = {"bias": "none", "use_dora": False, "fan_in_fan_out": False, "lora_bias": False}
EMPTY = ("modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")


def _key(layer: str, matrix: str) -> str:
    return f"base_model.model.{layer}.lora_{matrix}.weight"


def _adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    return {_key(n, m): getattr(x, m) for n, x in lora_layers(model).items() for m in "AB"}


def save_adapter(model: nn.Module, folder: str | Path, base_name: str | None = None) -> Path:
    """Save A and B of every LoRA layer and their settings in PEFT's format.

    Args:
        base_name: name of the base model, stored in the configuration.

    Returns:
        The folder. Its size is Σ r·(d_in + d_out)·4 bytes plus a small overhead.

    Raises:
        WorkbookError: the model has no LoRA layers, or their settings differ.
    """
    layers = lora_layers(model)
    settings = {(x.r, x.alpha, x.dropout.p, x.rule) for x in layers.values()}
    if len(settings) != 1:
        raise WorkbookError(f"One set of (r, alpha, dropout, rule) can be saved, not {settings}.")
    ((r, alpha, dropout, rule),) = settings
    ends = {name.split(".")[-1] for name in layers}
    rest = (n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in layers)
    ends_suffice = not any(name.split(".")[-1] in ends for name in rest)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": r,
        # PEFT has no "plain" rule; α·r divided by r gives the same factor.
        "lora_alpha": alpha * r if rule == "plain" else alpha,
        "use_rslora": rule == "rslora",
        "lora_dropout": dropout,
        "target_modules": sorted(ends if ends_suffice else layers),
        "inference_mode": True,
        **PLAIN,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    tensors = {key: p.detach().cpu().contiguous() for key, p in _adapter_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """Load a saved adapter, ours or PEFT's, into the model in place; return the model.

    LoRA layers are injected as configured in the files unless the model has some already.

    Raises:
        WorkbookError: a file is missing or damaged, the adapter is not plain LoRA, tensors are
            missing or unknown, or shapes do not match. The model then computes what it did before.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise WorkbookError(f"{folder} is not a saved adapter: it has no {name}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise WorkbookError(f"{folder} is damaged: {error}. Copy or train it anew.") from error
    extras = [k for k, v in PLAIN.items() if config.get(k, v) != v]
    extras += [k for k in EMPTY if config.get(k)]
    if config.get("peft_type") != "LORA" or extras:
        raise WorkbookError(f"{folder} is not plain LoRA: {extras or config.get('peft_type')}.")
    names = [k[len("base_model.model.") : -len(".lora_A.weight")] for k in tensors if "lora_A" in k]
    if not names:
        raise WorkbookError(f"{folder / WEIGHTS} holds no LoRA tensors.")
    rule = "rslora" if config.get("use_rslora") else "lora"
    fresh = not lora_layers(model)
    if fresh:
        dropout = config.get("lora_dropout", 0.0)
        inject_lora(model, names, config["r"], config["lora_alpha"], dropout, 0, rule)
    try:
        _fill(model, tensors, lora_scale(config["lora_alpha"], config["r"], rule), folder)
    except WorkbookError:
        for name, layer in lora_layers(model).items():
            if fresh:
                model.set_submodule(name, layer.base)
        raise
    return model


@torch.no_grad()
def _fill(model: nn.Module, tensors: dict[str, Tensor], scale: float, folder: Path) -> None:
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
        if layer.merged or not math.isclose(layer.scale, scale):
            state = "is merged" if layer.merged else f"scales by {layer.scale:g}, not by {scale:g}"
            raise WorkbookError(f"{name} {state}: load the model anew, then the adapter.")
    for key, parameter in wanted.items():
        parameter.copy_(tensors[key])
