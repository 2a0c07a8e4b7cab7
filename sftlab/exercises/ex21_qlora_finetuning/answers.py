"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from sftlab.classroom.answers import refused, right
from sftlab.lora import LoRALinear
from sftlab.memory.count import stored_bytes, weight_count
from sftlab.quantized_layers import _bitsandbytes, keep_weights_in_place

QUANTIZE, REPORT = "21.quantize_model_linears", "21.memory_report"


def packed(
    model, quant_type="nf4", double=True, dtype=None, skip=("lm_head",), guard=True, bias=True,
    only=99, scramble=False, moved=True,
):  # fmt: skip
    linears = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and n not in skip}
    for name, old in list(linears.items())[:only]:
        new = _bitsandbytes().nn.Linear4bit(
            old.in_features, old.out_features, bias=False, compute_dtype=dtype or old.weight.dtype,
            compress_statistics=double, quant_type=quant_type,
        )  # fmt: skip
        data = torch.randn_like(old.weight.data) if scramble else old.weight.data
        weight = _bitsandbytes().nn.Params4bit(
            data, requires_grad=False, compress_statistics=double, quant_type=quant_type, module=new
        )
        new.weight = weight.to("cpu") if moved else weight
        new.bias = old.bias if bias else None
        if not guard:
            new.support_avx512bf16_for_cpu = True  # as on a processor that has it
        model.set_submodule(name, new)
    return keep_weights_in_place(model) if guard else model


@right(QUANTIZE)
def in_a_loop(model):
    return packed(model)


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
                compute_dtype=torch.bfloat16, device="meta",
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


@refused(QUANTIZE, "These are fp4 weights")
def fp4_the_default(model):
    return packed(model, quant_type="fp4")


@refused(QUANTIZE, "The scales are still in 32 bits")
def scales_in_32_bits(model):
    return packed(model, double=False)


@refused(QUANTIZE, "not computed in bfloat16")
def float32_products(model):
    return packed(model, dtype=torch.float32)


@refused(QUANTIZE, "The output head was packed")
def head_packed(model):
    return packed(model, skip=())


@refused(QUANTIZE, "The guard is missing")
def no_guard(model):
    return packed(model, guard=False)


@refused(QUANTIZE, "The biases are not those")
def bias_lost(model):
    return packed(model, bias=False)


@refused(QUANTIZE, "Only one of the linear layers")
def one_layer_only(model):
    return packed(model, only=1)


@refused(QUANTIZE, "No linear layer is packed")
def nothing_packed(model):
    return packed(model, only=0)


@refused(QUANTIZE, "with other numbers")
def fresh_weights(model):
    return packed(model, scramble=True)


@refused(QUANTIZE, "not packed yet")
def never_moved(model):
    return packed(model, moved=False)


@refused(QUANTIZE, "was cast to float32")
def embedding_and_norm_cast(model):
    for module in (model.embed, model.norm):
        module.float()
    return packed(model)


@refused(QUANTIZE, "Nothing came back")
def nothing_returned(model):
    packed(model)


@refused(QUANTIZE, "Return the model itself")
def in_a_list(model):
    return [packed(model)]


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


@refused(REPORT, "is None, but")
def printed(model):
    print(by_name(model))


@refused(REPORT, "AttributeError")
def every_weight_packed(model):
    return {"whole": sum(p.quant_state.shape.numel() for p in model.parameters())}
