"""How much of some matrices their largest singular directions hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def energy_kept(matrices: Sequence[Tensor], ranks: Sequence[int]) -> dict[int, float]:
    """Return r -> the share of the energy of all matrices in the r largest directions of each.

    A matrix's squared singular values add up to its energy, the sum of its squared entries.

    Args:
        matrices: of any shapes, not all zero. ranks: in any order; r may exceed a matrix's rank.
    """
    kept = dict.fromkeys(ranks, 0.0)
    whole = 0.0
    for matrix in matrices:
        squares = torch.linalg.svdvals(matrix).square()
        whole += squares.sum().item()
        for r in ranks:
            kept[r] += squares[:r].sum().item()
    return {r: part / whole for r, part in kept.items()}
