"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.lora import inject_lora

COUNT, ENERGY, NEAREST = "07.lora_parameter_count", "07.energy_kept", "07.nearest_low_rank"


@right(NEAREST)
def all_in_B(delta, r):
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    return vt[:r], u[:, :r] @ torch.diag(s[:r])


@right(NEAREST)
def by_projection(delta, r):
    """Project onto the r main directions of the rows."""
    _, vectors = torch.linalg.eigh(delta.double() @ delta.double().T)
    main = vectors[:, -r:].float()
    return main.T @ delta, main


@right(NEAREST)
def by_numpy(delta, r):
    u, s, vt = np.linalg.svd(delta.numpy())
    return vt[:r], u[:, :r] * s[:r]


@right(NEAREST)
def one_by_one(delta, r):
    """Take one direction after the other from what is left."""
    rest, rows, columns = delta.clone(), [], []
    for _ in range(r):
        u, s, vt = torch.linalg.svd(rest)
        rows.append(s[0] * vt[0])
        columns.append(u[:, 0])
        rest = rest - torch.outer(columns[-1], rows[-1])
    return torch.stack(rows), torch.stack(columns, dim=1)


equivalent(
    NEAREST,
    "the full factors only have more columns and rows, which are cut off",
    "`False` becomes `True`",
    "without `full_matrices=` in `torch.linalg.svd(delta, full_matrices=False)`",
)


@refused(NEAREST, "changes its own input (argument 1")
def delta_overwritten(delta, r):
    A, B = all_in_B(delta, r)
    delta -= B @ A
    return A, B


@right(COUNT)
def two_products(d_in, d_out, r):
    in_A = r * d_in
    in_B = d_out * r
    return in_A + in_B


@right(COUNT)
def by_tensors(d_in, d_out, r):
    return torch.empty(r, d_in).numel() + torch.empty(d_out, r).numel()


@right(COUNT)
def by_shapes(d_in, d_out, r):
    return sum(math.prod(shape) for shape in ((r, d_in), (d_out, r)))


@right(COUNT)
def by_adapters(d_in, d_out, r):
    """Count what is trainable once LoRA stands beside a layer."""
    model = torch.nn.Sequential(torch.nn.Linear(d_in, d_out))
    model = inject_lora(model, "all-linear", r=r, lora_alpha=r, seed=0)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@refused(COUNT, "Put return in place of print")
def printed(d_in, d_out, r):
    print(r * (d_in + d_out))


@right(COUNT)
def a_whole_float(d_in, d_out, r):
    return r * (d_in + d_out) / 1


@refused(COUNT, "a whole number is expected: 130")
def in_millions(d_in, d_out, r):
    return r * (d_in + d_out) / 1e6


@right(ENERGY)
def by_sums_for_each_rank(matrices, ranks):
    squares = [torch.linalg.svdvals(matrix) ** 2 for matrix in matrices]
    whole = sum(s.sum() for s in squares)
    return {r: sum(s[:r].sum() for s in squares) / whole for r in ranks}


@right(ENERGY)
def by_entries(matrices, ranks):
    """The whole from the entries, the kept part from the cut matrices."""
    whole = sum((matrix**2).sum() for matrix in matrices)
    found = {}
    for r in ranks:
        kept = 0
        for matrix in matrices:
            u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
            kept += ((u[:, :r] * s[:r] @ vt[:r]) ** 2).sum()
        found[r] = float(kept / whole)
    return found


@right(ENERGY)
def by_eigenvalues(matrices, ranks):
    values = [torch.linalg.eigvalsh(m.double() @ m.double().T).flip(0) for m in matrices]
    whole = sum(v.sum().item() for v in values)
    return {r: sum(v[:r].sum().item() for v in values) / whole for r in ranks}


@right(ENERGY)
def by_running_sums(matrices, ranks):
    longest = max(ranks)
    total = np.zeros(longest)
    whole = 0.0
    for matrix in matrices:
        squares = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
        whole += squares.sum()
        total += np.cumsum(np.append(squares, np.zeros(longest)))[:longest]
    return {r: total[r - 1] / whole for r in ranks}


@right(ENERGY)
def as_tensors(matrices, ranks):
    squares = [torch.linalg.svdvals(matrix).square() for matrix in matrices]
    whole = torch.stack([s.sum() for s in squares]).sum()
    return {r: torch.stack([s[:r].sum() for s in squares]).sum() / whole for r in ranks}


@refused(ENERGY, "changes its own input")
def sorted_in_place(matrices, ranks):
    ranks.sort()
    return by_eigenvalues(matrices, ranks)


@refused(ENERGY, "two matrices, the second one of zeros")
def zeros_give_nan(matrices, ranks):
    shares = [torch.linalg.svdvals(m).square() / m.square().sum() for m in matrices]
    sizes = [m.square().sum() for m in matrices]
    whole = sum(sizes)
    return {
        r: sum(s[:r].sum() * w for s, w in zip(shares, sizes, strict=True)) / whole for r in ranks
    }


@refused(ENERGY, "all of it is kept then")
def only_where_r_fits(matrices, ranks):
    fitting = {r: [m for m in matrices if r <= min(m.shape)] for r in ranks}
    whole = sum((m**2).sum() for m in matrices)
    return {
        r: sum((torch.linalg.svdvals(m)[:r] ** 2).sum() for m in some) / whole
        for r, some in fitting.items()
    }
