"""Answers to the checks of notebook 21, as students write them."""

import bitsandbytes as bnb
import torch
from torch import nn

from sftlab.memory.count import stored_bytes, weight_count
from sftlab.quantized_layers import keep_weights_in_place


def packing(
    quant_type="nf4", double=True, dtype=None, skip=("lm_head",), guard=True, bias=True, only=99,
    scramble=False, moved=True, cast_up=False,
):  # fmt: skip
    def way(model):
        linears = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and n not in skip}
        for name, old in list(linears.items())[:only]:
            compute = dtype or old.weight.dtype
            new = bnb.nn.Linear4bit(
                old.in_features, old.out_features, bias=False, compute_dtype=compute,
                compress_statistics=double, quant_type=quant_type,
            )  # fmt: skip
            data = torch.randn_like(old.weight.data) if scramble else old.weight.data
            weight = bnb.nn.Params4bit(
                data, requires_grad=False, compress_statistics=double, quant_type=quant_type,
                module=new,
            )  # fmt: skip
            new.weight = weight.to("cpu") if moved else weight
            new.bias = old.bias if bias else None
            if not guard:
                new.support_avx512bf16_for_cpu = True  # as on a processor that has it
            model.set_submodule(name, new)
        if cast_up:
            for module in (model.embed, model.norm):
                module.float()
        return keep_weights_in_place(model) if guard else model

    return way


def recursive(model):
    def visit(module):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and name != "lm_head":
                layer = bnb.nn.LinearNF4(
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


def nothing_returned(model):
    packing()(model)


def report(weights=weight_count, size=stored_bytes, twice=False, skip=()):
    def way(model):
        found = dict.fromkeys(("embedding", "linear", "adapter", "other", "whole"), (0, 0))
        done = []
        for module in model.modules():
            kind = {"LoRALinear": "adapter", "Linear": "linear", "Linear4bit": "linear", "Embedding": "embedding"}.get(type(module).__name__, "other")  # fmt: skip
            for p in module._parameters.values():
                if p is None or kind in skip or (any(p is q for q in done) and not twice):
                    continue
                done.append(p)
                for name in (kind, "whole"):
                    found[name] = (found[name][0] + weights(p), found[name][1] + size(p))
        return found

    return way


def by_name(model):
    found = {k: [0, 0] for k in ("embedding", "linear", "adapter", "other", "whole")}
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


def bare(p):
    return p.numel() * p.element_size()


RIGHT = {
    "21.quantize_model_linears": {"a loop": packing(), "recursive, LinearNF4": recursive},
    "21.memory_report": {"a list of seen ones": report(), "by name": by_name},
}

WRONG = {
    "21.quantize_model_linears": {
        "fp4, the default": (packing(quant_type="fp4"), "These are fp4 weights"),
        "scales in 32 bits": (packing(double=False), "The scales are still in 32 bits"),
        "float32 products": (packing(dtype=torch.float32), "not computed in bfloat16"),
        "head packed": (packing(skip=()), "The output head was packed"),
        "no guard": (packing(guard=False), "The guard is missing"),
        "bias lost": (packing(bias=False), "The biases are not those"),
        "one layer only": (packing(only=1), "Only one of the linear layers"),
        "nothing packed": (packing(only=0), "No linear layer is packed"),
        "fresh weights": (packing(scramble=True), "with other numbers"),
        "never moved": (packing(moved=False), "not packed yet"),
        "embedding cast up": (packing(cast_up=True), "was cast to float32"),
        "nothing returned": (nothing_returned, "Nothing came back"),
        "something else": (lambda model: [model], "Return the model itself"),
    },
    "21.memory_report": {
        "tied twice": (report(twice=True), "counted twice"),
        "packed halves": (report(weights=lambda p: p.numel()), "half as many elements"),
        "no scales": (report(size=bare), "The scales are left out"),
        "both": (report(weights=lambda p: p.numel(), size=bare), "half of the packed weights"),
        "2 bytes each": (report(size=lambda p: 2 * weight_count(p)), "takes 2 bytes"),
        "4 bytes each": (report(size=lambda p: 4 * weight_count(p)), "takes 4 bytes"),
        "bits": (report(size=lambda p: 8 * stored_bytes(p)), "These are bits"),
        "half a byte each": (report(size=lambda p: weight_count(p) // 2), "Half a byte"),
        "no norms": (report(skip=("other",)), "The norm is missing"),
        "no adapters": (report(skip=("adapter",)), "A and B are missing"),
    },
}
