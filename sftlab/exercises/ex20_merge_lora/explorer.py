"""The explorer of notebook 20: an adapter of any strength, merged into weights of any dtype."""

from __future__ import annotations

import copy

import ipywidgets as widgets
import torch

from sftlab.classroom.explorer import WIDE, explorer, text_box
from sftlab.classroom.views import View, table
from sftlab.errors import WorkbookError
from sftlab.exercises.ex20_merge_lora.experiment import rounded
from sftlab.generate import answer
from sftlab.lora import lora_layers, merge_lora
from sftlab.merging import rounding_loss
from sftlab.models import cast

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def scaled(model, strength: float):
    """Return a copy of a model whose adapters are as many times stronger."""
    made = copy.deepcopy(model)
    for layer in lora_layers(made).values():
        layer.B.data *= strength
    return made


def merge_strength(model, tokenizer, prompt: str) -> None:
    """Compare an adapter with its merge: how strong it is, and how the merged weights are stored.

    Args:
        model: with its LoRA layers, not merged; it stays so.
    """

    def draw(power: int, stored: str, prompt: str) -> View:
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        adapted = scaled(model, 2.0**power)
        stays, error = rounding_loss(list(lora_layers(adapted).values()), DTYPES[stored])
        lines = []
        for name in ("base", "not merged", "merged"):
            if name == "merged":
                adapted = cast(merge_lora(rounded(adapted, DTYPES[stored])), torch.float32)
            asked = scaled(model, 0.0) if name == "base" else adapted
            (reply,) = answer(asked, tokenizer, [prompt], max_new_tokens=32)
            told = (f"{stays:.0%}", f"{error:.0%}") if name == "merged" else ("–", "–")
            lines.append([name, *told, reply.text])
        return table(lines, ["adapter", "entries that stay", "error of ΔW", "the model writes"])

    slider = widgets.IntSlider(value=0, min=-8, max=2, description="B × 2^", layout=WIDE)
    explorer(
        {
            "power": slider,
            "stored": widgets.ToggleButtons(options=list(DTYPES), value="bfloat16"),
            "prompt": text_box(prompt, "Prompt (Enter to ask)"),
        },
        draw,
        lambda power, stored, prompt: (
            f"What the model answers to {prompt!r} with B times {2.0**power:g}, not merged and merged in {stored}."
        ),
    )
