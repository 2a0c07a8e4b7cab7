"""Checks of notebook 21: packing a model's linear layers, and telling what its weights take."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import inject_lora
from sftlab.memory.count import memory_report, stored_bytes, weight_count
from sftlab.quant import dequantize_nf4, quantize_nf4
from sftlab.quantized_layers import _bitsandbytes, keep_weights_in_place, quantize_model_linears

QUANTIZE, REPORT = "21.quantize_model_linears", "21.memory_report"


class Small(nn.Module):
    """An embedding that is the output head as well, two linear layers of different shapes, a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 64)
        self.up = nn.Linear(64, 128)
        self.norm = nn.LayerNorm(128)
        self.down = nn.Linear(128, 64, bias=False)
        self.lm_head = nn.Linear(64, 50, bias=False)
        self.lm_head.weight = self.embed.weight
        self.to(torch.bfloat16)


def _verify(model, _given: tuple) -> str | None:
    """The first thing that is not as it should be with a packed `Small`."""
    if model is None:
        return "Nothing came back. Return the model, although it was changed in place."
    if not all(hasattr(model, name) for name in ("embed", "up", "norm", "down", "lm_head")):
        return f"A `{type(model).__name__}` came back. Return the model itself."
    packed, layers, before = _bitsandbytes().nn.Linear4bit, [model.up, model.down], Small()
    if isinstance(model.lm_head, packed):
        return "The output head was packed as well. It shares its weight with the embedding, and it writes the logits: skip `lm_head`."
    if any(weight.dtype == torch.float32 for weight in (model.embed.weight, model.norm.weight)):
        return "Embedding or norm was cast to float32. That doubles them, and on models with large vocabularies it undoes what 4 bits save."
    if not any(isinstance(layer, packed) for layer in layers):
        return "No linear layer is packed. Are new layers put into the model with `set_submodule`?"
    if not all(isinstance(layer, packed) for layer in layers):
        return "Only one of the linear layers was packed. Go through all of `named_modules()`, at every depth."
    if any(layer.weight.dtype != torch.uint8 for layer in layers):
        return "The weights are not packed yet: bitsandbytes does it when a `Params4bit` is moved with `.to(device)`."
    if any(layer.weight.quant_state.quant_type != "nf4" for layer in layers):
        return 'These are fp4 weights, bitsandbytes\' default. Say `quant_type="nf4"`.'
    if not all(layer.weight.quant_state.nested for layer in layers):
        return "The scales are still in 32 bits: 4.5 bits for each weight in place of 4.127. Double quantisation is `compress_statistics=True`."
    if any(layer.compute_dtype != torch.bfloat16 for layer in layers):
        return "The products are not computed in bfloat16, the dtype that the weights had. Give `compute_dtype`."
    if model.up.bias is None or model.down.bias is not None:
        return "The biases are not those of the model: `up` has one, `down` has none."
    if any(layer.support_avx512bf16_for_cpu for layer in layers):
        return "The guard is missing: on some processors the first answer in eval mode repacks the weights for good, and no gradient passes any more. End with `keep_weights_in_place(model)`."
    return _wrong_values(model, before)


def _wrong_values(model, before) -> str | None:
    bnb = _bitsandbytes()
    for name in ("up", "down"):
        layer = getattr(model, name)
        found = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        wanted = dequantize_nf4(quantize_nf4(getattr(before, name).weight.data, double=True))
        if found.shape != wanted.shape or not torch.equal(found.to(wanted.dtype), wanted):
            return f"`{name}` is packed, but with other numbers than the model's own weight."
    if not torch.equal(model.up.bias, before.up.bias):
        return "The bias of `up` has other numbers than the model's own."
    return None


@cache
def _model(kind: str) -> nn.Module:
    """Read only, so it is shared between calls."""
    model = Small()
    if kind != "16 bits":
        quantize_model_linears(model)
    if kind == "with adapters":
        inject_lora(model, "all-linear", r=4, lora_alpha=8, seed=0)
    return model


def _report(model, weights=weight_count, size=stored_bytes, twice=False, skip=()):
    found = {kind: [0, 0] for kind in ("embedding", "linear", "adapter", "other", "whole")}
    names = {"LoRALinear": "adapter", "Linear": "linear", "Linear4bit": "linear", "Embedding": "embedding"}  # fmt: skip
    seen = set()
    for module in model.modules():
        kind = names.get(type(module).__name__, "other")
        for p in module.parameters(recurse=False):
            if kind in skip or (id(p) in seen and not twice):
                continue
            seen.add(id(p))
            for name in (kind, "whole"):
                found[name][0] += weights(p)
                found[name][1] += size(p)
    return {kind: tuple(pair) for kind, pair in found.items()}


def _elements(parameter) -> int:
    return parameter.numel()


def _bare(parameter) -> int:
    return parameter.numel() * parameter.element_size()


@mistake(REPORT, "The embedding is counted twice: the output head is the same tensor. Remember what you have seen, by `id`.")  # fmt: skip
def _tied_twice(model):
    return _report(model, twice=True)


@mistake(REPORT, "A packed tensor has half as many elements as it holds weights, and `numel()` tells the elements. Its `quant_state.shape` knows.")  # fmt: skip
def _elements_counted(model):
    return _report(model, weights=_elements)


@mistake(REPORT, "The scales are left out. They are kept in `quant_state`, beside the packed weights.")  # fmt: skip
def _no_scales(model):
    return _report(model, size=_bare)


@mistake(REPORT, "The count is `numel()`, half of the packed weights, and the bytes leave out the scales in `quant_state`.")  # fmt: skip
def _elements_and_no_scales(model):
    return _report(model, weights=_elements, size=_bare)


@mistake(REPORT, "Not every weight takes 2 bytes. Ask each tensor for its `element_size()`.")
def _two_bytes_each(model):
    return _report(model, size=lambda p: 2 * weight_count(p))


@mistake(REPORT, "Not every weight takes 4 bytes. Ask each tensor for its `element_size()`.")
def _four_bytes_each(model):
    return _report(model, size=lambda p: 4 * weight_count(p))


@mistake(REPORT, "These are bits. Asked for are bytes.")
def _bits(model):
    return _report(model, size=lambda p: 8 * stored_bytes(p))


@mistake(REPORT, "Half a byte for every weight holds for packed ones, without their scales. Embedding, norm and bias stay in 16 bits.")  # fmt: skip
def _half_a_byte_each(model):
    return _report(model, size=lambda p: weight_count(p) // 2)


@mistake(REPORT, "The norm is missing, with all that is neither linear, nor an embedding, nor an adapter.")  # fmt: skip
def _no_norm(model):
    return _report(model, skip=("other",))


@mistake(REPORT, "The adapter's A and B are missing. They are parameters of `LoRALinear` itself.")
def _no_adapter(model):
    return _report(model, skip=("adapter",))


def _case(describe: str, kind: str) -> Case:
    return Case(describe, lambda: (_model(kind),), memory_report)


EXERCISES = {
    QUANTIZE: Exercise(
        id=QUANTIZE,
        title="Pack the linear layers in 4 bits",
        reference=quantize_model_linears,
        cases=[Case("a model in bfloat16 with two linear layers and a tied head", lambda: (Small(),), verify=_verify, in_place=True)],
        hints=[
            "Collect the plain `nn.Linear` modules of `model.named_modules()` first, all but `lm_head`; then replace them one by one with `model.set_submodule(name, layer)`.",
            "`bitsandbytes.nn.Linear4bit(d_in, d_out, bias=False, compute_dtype=…, compress_statistics=True, quant_type=\"nf4\")`, and then its weight: "
            "`Params4bit(weight.data, requires_grad=False, compress_statistics=True, quant_type=\"nf4\", module=layer).to(device)`.",
            "Hand the old bias on, and return `keep_weights_in_place(model)`.",
        ],
        why="Every argument that is stated here has another default in bitsandbytes: fp4, float32 products. The guard at the end costs speed on one kind of "
        "processor and keeps gradients right on all.",
        shows=[keep_weights_in_place],
    ),
    REPORT: Exercise(
        id=REPORT,
        title="Tell what the weights take",
        reference=memory_report,
        cases=[
            _case("a model in 16 bits, its head tied to its embedding", "16 bits"),
            _case("the same model, linear layers in 4 bits", "packed"),
            _case("the packed model with LoRA", "with adapters"),
        ],
        hints=[
            "Go through `model.modules()`, and for each through `module.parameters(recurse=False)`: its own parameters, not those of its parts.",
            "`sftlab.memory.count.weight_count(p)` and `sftlab.memory.count.stored_bytes(p)` know about packed weights and their scales. Which kind is the module?",
            "Keep a set of `id(p)`, so that a shared tensor counts once, for the module that comes first.",
        ],
        why="The factor that is printed on the tin, 3.9, belongs to one row of this report. What a machine must hold is the last row.",
    ),
}  # fmt: skip
