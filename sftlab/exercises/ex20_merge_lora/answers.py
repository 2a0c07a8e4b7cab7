"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from sftlab.classroom.answers import refused, right
from sftlab.lora import LoRALinear, lora_layers

MERGE, UNMERGE, MODEL = "20.merge", "20.unmerge", "20.merge_lora"


@right(MERGE)
def added(W, A, B, alpha, r):
    return (W + alpha / r * (B @ A)).to(W.dtype)


@right(MERGE)
def in_float64(W, A, B, alpha, r):
    update = alpha * torch.einsum("or,ri->oi", B.double(), A.double()) / r
    return (W.double() + update).to(W.dtype)


@right(MERGE)
def rank_by_rank(W, A, B, alpha, r):
    total = W.float().clone()
    for k in range(r):
        total += (alpha / r) * torch.outer(B[:, k], A[k])
    return total.type_as(W)


@right(MERGE)
def factor_on_B(W, A, B, alpha, r):
    return (W + ((alpha / r) * B) @ A).to(W.dtype)


@right(MERGE)
def in_place_of_a_copy(W, A, B, alpha, r):
    merged = W.clone()
    return merged.copy_(torch.addmm(W.float(), B, A, alpha=alpha / r))


@right(UNMERGE)
def subtracted(W, A, B, alpha, r):
    return (W - alpha / r * (B @ A)).to(W.dtype)


@right(UNMERGE)
def merging_the_negative(W, A, B, alpha, r):
    return added(W, A, B, -alpha, r)


@right(UNMERGE)
def by_numpy(W, A, B, alpha, r):
    found = W.to(torch.float64).numpy() - np.multiply(alpha / r, np.dot(B.numpy(), A.numpy()))
    return torch.from_numpy(found).to(dtype=W.dtype)


@right(UNMERGE)
def entry_by_entry(W, A, B, alpha, r):
    rows = [
        [w - alpha / r * sum(b * a for b, a in zip(row, column, strict=True))
         for w, column in zip(weights, A.T.tolist(), strict=True)]
        for weights, row in zip(W.tolist(), B.tolist(), strict=True)
    ]  # fmt: skip
    return torch.tensor(rows, dtype=W.dtype)


@right(UNMERGE)
def outer_products(W, A, B, alpha, r):
    updates = B.T.unsqueeze(2) * A.unsqueeze(1)  # (r, d_out, d_in)
    return W.float().sub(updates.sum(dim=0), alpha=alpha / r).to(W)


@refused(MERGE, "changes its own input")
def merged_in_place(W, A, B, alpha, r):
    W.copy_((W + alpha / r * (B @ A)).to(W.dtype))
    return W


@refused(UNMERGE, "changes its own input")
def unmerged_in_place(W, A, B, alpha, r):
    W.copy_((W - alpha / r * (B @ A)).to(W.dtype))
    return W


@refused(MERGE, "is None, but")
@refused(UNMERGE, "is None, but")
def nothing_returned(W, A, B, alpha, r):
    W + alpha / r * (B @ A)


@refused(MERGE, "a tensor of the dtype of W")
@refused(UNMERGE, "a tensor of the dtype of W")
def a_list(W, A, B, alpha, r):
    return W.tolist()


@refused(MERGE, "changes its own input (argument 3")
def scaled_in_place(W, A, B, alpha, r):
    B *= alpha / r
    return (W + B @ A).to(W.dtype)


def cut_off(W):
    """W with the last binary digit of its 16 set to 0; in float32 W itself."""
    return W if W.dtype == torch.float32 else (W.view(torch.int16) & -2).view(W.dtype)


@refused(MERGE, "Compute in float32, and round once")
def merged_with_a_digit_less(W, A, B, alpha, r):
    return cut_off(added(W, A, B, alpha, r))


@refused(UNMERGE, "Compute in float32, and round once")
def unmerged_with_a_digit_less(W, A, B, alpha, r):
    return cut_off(subtracted(W, A, B, alpha, r))


@refused(UNMERGE, "torch.float64")
def in_float64_and_left_there(W, A, B, alpha, r):
    return W.double() - alpha / r * (B @ A)


def merged_weight(layer):
    W = layer.base.weight
    return (W + layer.scale * (layer.B @ layer.A)).to(W.dtype).detach()


@right(MODEL)
def base_used_again(model):
    for name, layer in list(lora_layers(model).items()):
        layer.base.weight.data = merged_weight(layer)
        model.set_submodule(name, layer.base)
    return model


@right(MODEL)
def new_layers(model):
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoRALinear):
            d_out, d_in = layer.base.weight.shape
            plain = nn.Linear(d_in, d_out, bias=layer.base.bias is not None)
            plain.weight = nn.Parameter(merged_weight(layer))
            plain.bias = layer.base.bias
            model.set_submodule(name, plain)
    return model


@right(MODEL)
def child_by_child(model):
    for name, child in list(model.named_children()):
        if isinstance(child, LoRALinear):
            with torch.no_grad():
                child.base.weight.copy_(merged_weight(child))
            setattr(model, name, child.base)
        else:
            child_by_child(child)
    return model


@right(MODEL)
def through_the_parent(model):
    for name in [n for n, m in model.named_modules() if isinstance(m, LoRALinear)]:
        parent, _, last = name.rpartition(".")
        layer = getattr(model.get_submodule(parent), last)
        update = layer.scale * layer.r * (layer.B.double() @ layer.A.double()) / layer.r
        layer.base.weight.data = (layer.base.weight + update).to(layer.base.weight.dtype).detach()
        setattr(model.get_submodule(parent), last, layer.base)
    return model


@refused(MODEL, "cannot be multiplied")
def transposed(model):
    for name, layer in list(lora_layers(model).items()):
        layer.base.weight.data = merged_weight(layer).T.contiguous()
        model.set_submodule(name, layer.base)
    return model


@refused(MODEL, "changed size during iteration")
def replaced_while_walking(model):
    for name, layer in model._modules.items():
        if isinstance(layer, LoRALinear):
            model.new = copy.copy(layer.base)
    return base_used_again(model)
