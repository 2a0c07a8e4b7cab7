"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from sftlab.classroom.answers import equivalent, refused, right

SCALE, SPLIT = "09.lora_scale", "09.split_update"


@right(SCALE)
def by_dictionary(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / r**0.5, "plain": float(alpha)}[rule]


@right(SCALE)
def by_power(alpha, r, rule):
    power = {"lora": 1, "rslora": 0.5, "plain": 0}[rule]
    return alpha * r**-power


@right(SCALE)
def by_match(alpha, r, rule):
    match rule:
        case "lora":
            divisor = r
        case "rslora":
            divisor = math.sqrt(r)
        case "plain":
            divisor = 1
        case _:
            raise ValueError(rule)
    return alpha / divisor


@right(SCALE)
def by_logarithms(alpha, r, rule):
    return np.exp(np.log(alpha) - ["plain", "rslora", "lora"].index(rule) / 2 * np.log(r))


@refused(SCALE, "is a `return` missing?")
def nothing_for_plain(alpha, r, rule):
    if rule == "lora":
        return alpha / r
    if rule == "rslora":
        return alpha / math.sqrt(r)


@right(SCALE)
def in_tensors(alpha, r, rule):
    power = torch.tensor({"lora": 1.0, "rslora": 0.5, "plain": 0.0}[rule])
    return alpha / torch.tensor(float(r)) ** power


@refused(SCALE, "Expected: 5.81378, got: 7.60245")
def another_root(alpha, r, rule):
    return {"lora": alpha / r, "rslora": alpha / r ** (1 / 3), "plain": alpha}[rule]


@refused(SCALE, "The factor may be a fraction and is not rounded")
def two_decimals(alpha, r, rule):
    return round(by_power(alpha, r, rule), 6) if alpha > r else round(by_power(alpha, r, rule), 2)


@right(SPLIT)
def by_unit_vectors(update, gradient):
    unit = F.normalize(gradient, dim=1)
    along = (update * unit).sum(1, keepdim=True) * unit
    return along, update - along


@right(SPLIT)
def by_einsum_of_both(update, gradient):
    squared = torch.einsum("ij,ij->i", gradient, gradient).clamp(min=1e-30)
    along = torch.einsum("ij,ij,i,ik->ik", update, gradient, 1 / squared, gradient)
    return [along, update - along]


@right(SPLIT)
def by_rows(update, gradient):
    along = torch.zeros_like(update)
    for i, (u, g) in enumerate(zip(update, gradient, strict=True)):
        if g.any():
            along[i] = (u @ g) / (g @ g) * g
    return along, update - along


@right(SPLIT)
def by_lists(update, gradient):
    found = []
    for u, g in zip(update.tolist(), gradient.tolist(), strict=True):
        squared = sum(x * x for x in g)
        times = sum(x * y for x, y in zip(u, g, strict=True)) / squared if squared else 0.0
        found.append([times * x for x in g])
    return torch.tensor(found), update - torch.tensor(found)


@right(SPLIT)
def by_least_squares(update, gradient):
    pairs = zip(update, gradient, strict=True)
    along = torch.stack([g * (torch.linalg.pinv(g[:, None]) @ u) for u, g in pairs])
    return along, update - along


@right(SPLIT)
def by_numpy_arrays(update, gradient):
    u, g = update.numpy(), gradient.numpy()
    along = (u * g).sum(1, keepdims=True) / np.maximum((g * g).sum(1, keepdims=True), 1e-30) * g
    return along, u - along


@right(SPLIT)
def by_diagonals(update, gradient):
    squared = torch.diagonal(gradient @ gradient.T)
    times = torch.diagonal(update @ gradient.T) / torch.where(squared == 0, 1, squared)
    along = torch.diag(times) @ gradient
    return along, update - along


@refused(SPLIT, "3 of 15 values differ")
def with_a_constant(update, gradient):
    squared = gradient.square().sum(1, keepdim=True) + 1e-2
    along = (update * gradient).sum(1, keepdim=True) / squared * gradient
    return along, update - along


@refused(SPLIT, "changes its own input")
def subtracted_in_place(update, gradient):
    along = by_unit_vectors(update, gradient)[0]
    return along, update.sub_(along)


@refused(SPLIT, "both parts")
def shortened(update, gradient):
    along, rest = by_unit_vectors(update, gradient)
    return along, rest / 2


equivalent(SPLIT, "It divides a product that is zero.", "`1.0` becomes `3.0`")
