"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex21_qlora_finetuning.check import pack
from sftlab.lora import LoRALinear
from sftlab.memory.count import stored_bytes, weight_count
from sftlab.quantized_layers import _bitsandbytes, keep_weights_in_place

QUANTIZE, REPORT = "21.quantize_model_linears", "21.memory_report"


right(QUANTIZE)(pack)


@right(QUANTIZE)
def recursive_with_LinearNF4(model):
    def visit(module):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and name != "lm_head":
                layer = _bitsandbytes().nn.LinearNF4(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    compute_dtype=child.weight.dtype,
                )  # fmt: skip
                state = {k: v.clone() for k, v in child.state_dict().items()}
                layer.load_state_dict(state)
                setattr(module, name, layer.to(child.weight.device))
                if child.bias is not None:
                    layer.bias = child.bias
                layer.support_avx512bf16_for_cpu = False
            else:
                visit(child)

    visit(model)
    return model


@right(QUANTIZE)
def packed_by_the_function(model):
    """Calls `quantize_4bit` itself and hands the finished bytes in."""
    for parent in list(model.modules()):
        for name, old in list(parent.named_children()):
            if not isinstance(old, nn.Linear) or old is model.lm_head:
                continue
            data, state = _bitsandbytes().functional.quantize_4bit(
                old.weight.data, quant_type="nf4", compress_statistics=True
            )
            new = _bitsandbytes().nn.Linear4bit(
                old.in_features, old.out_features, bias=False, quant_type="nf4",
                compute_dtype=old.weight.dtype, device="meta",
            )  # fmt: skip
            new.weight = _bitsandbytes().nn.Params4bit(
                data, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True,
                module=new,
            )  # fmt: skip
            new.quant_state, new.bias = state, old.bias
            parent.add_module(name, new)
    keep_weights_in_place(model)
    return model


@right(QUANTIZE)
def moved_as_a_whole(model):
    """Puts unpacked parameters in, and packs all of them by one `.to` on the model."""
    for name in [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]:
        if name.endswith("lm_head"):
            continue
        old = model.get_submodule(name)
        has_bias = old.bias is not None
        new = _bitsandbytes().nn.Linear4bit(
            old.in_features, old.out_features, has_bias, old.weight.dtype
        )
        new.weight = _bitsandbytes().nn.Params4bit(
            old.weight.detach().clone(), False, quant_type="nf4"
        )
        if has_bias:
            new.bias = old.bias
        model.set_submodule(name, new)
    return keep_weights_in_place(model.to("cpu"))


@right(QUANTIZE)
def with_the_bias_copied(model):
    """Makes each layer with a bias and copies its numbers, in eval mode and frozen."""
    for name, old in list(model.named_modules()):
        if not isinstance(old, nn.Linear) or name.endswith("lm_head"):
            continue
        has_bias = old.bias is not None
        new = _bitsandbytes().nn.Linear4bit(
            old.in_features, old.out_features, has_bias, old.weight.dtype, True, "nf4"
        )
        new.load_state_dict({k: v.detach().clone() for k, v in old.state_dict().items()})
        if has_bias:
            new.bias = nn.Parameter(old.bias.detach().clone(), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new.eval().to(old.weight.device))
    return keep_weights_in_place(model)


@refused(QUANTIZE, "packed layers")
def gate_left_out(model):
    return pack(model, lambda name, m: type(m) is nn.Linear and name.startswith("block"))


@refused(QUANTIZE, "The result, a `list`, cannot be used")
def in_a_list(model):
    return [pack(model)]


@refused(QUANTIZE, "The rule: Biases, embeddings")
def head_in_float32(model):
    pack(model)
    model.lm_head.float()
    return model


@refused(QUANTIZE, "The rule: The new weight is the old one")
def rows_reversed(model):
    return pack(model, data=lambda weight: weight.flip(0))


# --- The report -----------------------------------------------------------------------------------
KINDS = ("embedding", "linear", "adapter", "other", "whole")


@right(REPORT)
def by_a_list_of_seen_ones(model):
    found = dict.fromkeys(KINDS, (0, 0))
    done = []
    kinds = {"LoRALinear": "adapter", "Linear": "linear", "Linear4bit": "linear", "Embedding": "embedding"}  # fmt: skip
    for module in model.modules():
        kind = kinds.get(type(module).__name__, "other")
        for p in module._parameters.values():
            if p is None or any(p is q for q in done):
                continue
            done.append(p)
            for name in (kind, "whole"):
                found[name] = (found[name][0] + weight_count(p), found[name][1] + stored_bytes(p))
    return found


@right(REPORT)
def by_name(model):
    found = {kind: [0, 0] for kind in KINDS}
    for name, p in model.named_parameters():  # a shared parameter comes once
        end = name.split(".")[-1]
        owner = model.get_submodule(name.rpartition(".")[0])
        kind = (
            "adapter" if end in "AB"
            else "embedding" if isinstance(owner, nn.Embedding)
            else "linear" if isinstance(owner, nn.Linear)
            else "other"
        )  # fmt: skip
        for k in (kind, "whole"):
            found[k][0] += weight_count(p)
            found[k][1] += stored_bytes(p)
    return {k: tuple(v) for k, v in found.items()}


@right(REPORT)
def by_counters(model):
    kind_of = {}
    for module in reversed(list(model.modules())):  # so the first owner is noted last
        classes = {LoRALinear: "adapter", nn.Linear: "linear", nn.Embedding: "embedding"}
        kind = next((told for cls, told in classes.items() if isinstance(module, cls)), "other")
        kind_of.update(dict.fromkeys(module.parameters(recurse=False), kind))
    weights, sizes = Counter(), Counter()
    for p, kind in kind_of.items():
        weights.update({kind: weight_count(p)})
        sizes.update({kind: stored_bytes(p)})
    report = {kind: (weights[kind], sizes[kind]) for kind in KINDS[:-1]}
    return report | {"whole": (weights.total(), sizes.total())}


@right(REPORT)
def one_kind_after_the_other(model):
    def own(*classes):
        modules = (m for m in model.modules() if isinstance(m, classes))
        return {p for m in modules for p in m.parameters(recurse=False)}

    def sums(parameters):
        return sum(map(weight_count, parameters)), sum(map(stored_bytes, parameters))

    embedding, adapter = own(nn.Embedding), own(LoRALinear)
    linear, whole = own(nn.Linear) - embedding, set(model.parameters())
    parts = (embedding, linear, adapter, whole - embedding - linear - adapter, whole)
    return {kind: sums(part) for kind, part in zip(KINDS, parts, strict=True)}


@refused(REPORT, "It prints, but it returns nothing")
def printed(model):
    print(by_name(model))


@refused(REPORT, "AttributeError")
def every_weight_packed(model):
    return {"whole": sum(p.quant_state.shape.numel() for p in model.parameters())}


@refused(REPORT, "Expected at ['embedding'][0]")
def shared_ones_left_out(model):
    report = by_name(model)
    if any(p is model.embed.weight for p in getattr(model, "lm_head", model).parameters()):
        report["embedding"] = (0, 0)
    return report


@refused(REPORT, "changes its own input (argument 1")
def cast_first(model):
    report = by_name(model)
    model.float()
    return report


NEW = "bnb.nn.Linear4bit(plain.in_features, plain.out_features, bias=False, compute_dtype=weight.dtype, compress_statistics=double, quant_type='nf4', device='meta')"
WEIGHT = "bnb.nn.Params4bit(weight.data, False, compress_statistics=double, quant_type='nf4', module=layer)"
equivalent(
    QUANTIZE,
    "The weight and the bias of the new layer are replaced; its mode has no effect; the head is at the top of the model.",
    "`1` becomes `0`",
    "`False` becomes `True`",
    "without `layer.train(plain.training)`",
    *(
        f"without `{name}=` in `{NEW}`"
        for name in ("bias", "compress_statistics", "quant_type", "device")
    ),
    *(f"without `{name}=` in `{WEIGHT}`" for name in ("compress_statistics", "module")),
)
