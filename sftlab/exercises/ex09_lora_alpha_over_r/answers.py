"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from sftlab.classroom.answers import equivalent, refused, right

SCALE, UPDATE, SPLIT = "09.lora_scale", "09.effective_update", "09.split_update"


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


@right(UPDATE)
def by_matmul(A, B, alpha, r):
    return torch.matmul(B, A) * alpha / r


@right(UPDATE)
def by_einsum(A, B, alpha, r):
    return alpha / r * torch.einsum("or,ri->oi", B, A)


@right(UPDATE)
def by_outer_products(A, B, alpha, r):
    return sum(alpha / r * torch.outer(B[:, k], A[k]) for k in range(r))


@right(UPDATE)
def by_linear(A, B, alpha, r):
    return F.linear(B / r, (alpha * A).T)


@right(UPDATE)
def by_entries(A, B, alpha, r):
    rows = [[(b * a).sum() * alpha / r for a in A.unbind(1)] for b in B.unbind(0)]
    return torch.stack([torch.stack(row) for row in rows])


@refused(UPDATE, "the graph is lost")
def detached(A, B, alpha, r):
    return (alpha / r) * (B.detach() @ A.detach())


@refused(UPDATE, "changes its own input")
def in_place(A, B, alpha, r):
    with torch.no_grad():
        B.mul_(alpha / r)
    return B @ A


@refused(UPDATE, "gradient of A")
def half_of_the_gradient(A, B, alpha, r):
    return (alpha / r) * (B @ (A / 2 + A.detach() / 2))


@refused(UPDATE, "because both are trained")
def by_numpy(A, B, alpha, r):
    return alpha / r * (B.detach().numpy() @ A.detach().numpy())


@refused(UPDATE, "for every shape")
def squeezed(A, B, alpha, r):
    return (alpha / r) * (B.squeeze() @ A.squeeze())


@right(SPLIT)
def by_unit_vector(update, gradient):
    unit = F.normalize(gradient.flatten(), dim=0)
    along = (update.flatten().dot(unit) * unit).view_as(update)
    return along, update - along


@right(SPLIT)
def by_einsum_of_both(update, gradient):
    squared = torch.einsum("ij,ij->", gradient, gradient).clamp(min=1e-30)
    along = torch.einsum("ij,ij->", update, gradient) / squared * gradient
    return [along, update - along]


@right(SPLIT)
def by_lists(update, gradient):
    pairs = list(zip(update.flatten().tolist(), gradient.flatten().tolist(), strict=True))
    squared = sum(g * g for _, g in pairs)
    times = sum(u * g for u, g in pairs) / squared if squared else 0.0
    return times * gradient, update - times * gradient


@right(SPLIT)
def by_least_squares(update, gradient):
    times = torch.linalg.pinv(gradient.reshape(-1, 1)) @ update.reshape(-1, 1)
    return times * gradient, update - times * gradient


@right(SPLIT)
def by_numpy_arrays(update, gradient):
    u, g = update.numpy().ravel(), gradient.numpy().ravel()
    along = (u @ g / max(g @ g, 1e-30) * g).reshape(update.shape)
    return along, update.numpy() - along


@right(SPLIT)
def by_trace(update, gradient):
    squared = torch.trace(gradient @ gradient.T)
    if squared == 0:
        return torch.zeros_like(update), update.clone()
    along = torch.trace(update @ gradient.T) / squared * gradient
    return along, update - along


@refused(SPLIT, "12 of 12 values differ")
def with_a_constant(update, gradient):
    along = (update * gradient).sum() / (gradient.square().sum() + 1e-2) * gradient
    return along, update - along


@refused(SPLIT, "changes its own input")
def subtracted_in_place(update, gradient):
    along = by_unit_vector(update, gradient)[0]
    return along, update.sub_(along)


@refused(SPLIT, "both parts")
def shortened(update, gradient):
    along, rest = by_unit_vector(update, gradient)
    return along, rest / 2


equivalent(SPLIT, "It multiplies a gradient that is zero.", "`0.0` becomes `1.0`")
