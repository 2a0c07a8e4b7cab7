"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import torch
from torch import nn

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex21_qlora_finetuning.check import pack
from sftlab.memory.count import stored_bytes, weight_count
from sftlab.quantized_layers import _bitsandbytes, keep_weights_in_place

QUANTIZE, CENSUS = "21.quantize_model_linears", "21.census"


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
            if not isinstance(old, nn.Linear) or name == "lm_head":
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
        if name.split(".")[-1] == "lm_head":
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
        if not isinstance(old, nn.Linear) or name.split(".")[-1] == "lm_head":
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


# --- The census -----------------------------------------------------------------------------------
@right(CENSUS)
def by_a_list_of_seen_ones(model):
    found, done = {}, []
    for name, module in model.named_modules():
        for last, p in module._parameters.items():
            if p is None or any(p is q for q in done):
                continue
            done.append(p)
            kind = "linear" if isinstance(module, nn.Linear) else "embedding" if isinstance(module, nn.Embedding) else "other"  # fmt: skip
            if "lora_" in f"{name}.{last}":
                kind = "adapter"
            numbers, size = found.setdefault((kind, str(p.dtype).split(".")[1]), (0, 0))
            found[kind, str(p.dtype).split(".")[1]] = (numbers + weight_count(p), size + stored_bytes(p))  # fmt: skip
    return found


@right(CENSUS)
def by_counters(model):
    numbers, sizes = Counter(), Counter()
    for name, p in model.named_parameters():
        path = name.split(".")
        owner = model.get_submodule(".".join(path[:-1]))
        kind = {True: "adapter"}.get(any(part.startswith("lora_") for part in path))
        kind = kind or {nn.Linear: "linear", nn.Embedding: "embedding"}.get(
            next((c for c in type(owner).__mro__ if c in (nn.Linear, nn.Embedding)), None), "other"
        )
        key = kind, repr(p.dtype)[6:]
        numbers[key] += weight_count(p)
        sizes[key] += stored_bytes(p)
    return {key: [numbers[key], sizes[key]] for key in numbers}


@right(CENSUS)
def by_tensors(model):
    """Counts in tensors, with scales found by hand."""
    found = defaultdict(lambda: torch.zeros(2, dtype=torch.int64))
    owners = {id(p): m for m in reversed(list(model.modules())) for p in m.parameters(recurse=False)}  # fmt: skip
    for name, p in model.named_parameters():
        owner, state = owners[id(p)], getattr(p, "quant_state", None)
        kind = "embedding" if isinstance(owner, nn.Embedding) else "linear" if isinstance(owner, nn.Linear) else "other"  # fmt: skip
        count, size = p.numel(), p.nbytes
        if state is not None:
            count = math.prod(state.shape)
            beside = [state.absmax, state.code]
            if state.nested:
                beside += [state.offset, state.state2.absmax, state.state2.code]
            size += sum(t.nbytes for t in beside)
        key = "adapter" if "lora_" in name else kind, str(p.dtype)[len("torch.") :]
        found[key] += torch.tensor([count, size])
    return {key: tuple(pair.tolist()) for key, pair in found.items()}


@right(CENSUS)
def one_kind_after_the_other(model):
    named = dict(model.named_parameters())
    first = {p: m for m in reversed(list(model.modules())) for p in m.parameters(recurse=False)}
    adapters = {p for name, p in named.items() if "lora_" in name}
    linear = {p for p, m in first.items() if isinstance(m, nn.Linear)} - adapters
    embedding = {p for p, m in first.items() if isinstance(m, nn.Embedding)} - adapters
    parts = {"adapter": adapters, "linear": linear, "embedding": embedding}
    parts["other"] = set(first) - adapters - linear - embedding
    return {
        (kind, str(dtype).removeprefix("torch.")): (
            sum(weight_count(p) for p in part if p.dtype == dtype),
            sum(stored_bytes(p) for p in part if p.dtype == dtype),
        )
        for kind, part in parts.items()
        for dtype in {p.dtype for p in part}
    }


@refused(CENSUS, "It prints, but it returns nothing")
def printed(model):
    print(by_counters(model))


@refused(CENSUS, "AttributeError")
def every_weight_packed(model):
    return {("linear", "uint8"): sum(p.quant_state.shape.numel() for p in model.parameters())}


@refused(CENSUS, "changes its own input (argument 1")
def cast_first(model):
    found = by_counters(model)
    model.float()
    return found


@refused(CENSUS, "has no entry")
def head_instead_of_embedding(model):
    found = by_counters(model)
    if ("embedding", "bfloat16") in found and getattr(model, "lm_head", None) is not None:
        found["linear", "bfloat16"] = found.pop(("embedding", "bfloat16"))
    return found


NEW = "bnb.nn.Linear4bit(plain.in_features, plain.out_features, bias=False, compute_dtype=weight.dtype, compress_statistics=double, quant_type='nf4', device='meta')"
WEIGHT = "bnb.nn.Params4bit(weight.data, False, compress_statistics=double, quant_type='nf4', module=layer)"
equivalent(
    QUANTIZE,
    "The weight and the bias of the new layer are replaced; its mode has no effect.",
    "`False` becomes `True`",
    "without `layer.train(plain.training)`",
    *(
        f"without `{name}=` in `{NEW}`"
        for name in ("bias", "compress_statistics", "quant_type", "device")
    ),
    *(f"without `{name}=` in `{WEIGHT}`" for name in ("compress_statistics", "module")),
)
