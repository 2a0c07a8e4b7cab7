"""Two indices of four bits in a byte."""

from __future__ import annotations

from torch import Tensor

from sftlab.quant import pack


def pack_indices(indices: Tensor) -> Tensor:
    """Return the bytes of 4-bit indices, two in each.

    Args:
        indices: (blocks, size), uint8, 0 to 15, an even number of them. The first of two goes into
            the high half of their byte.
    """
    return pack(indices.flatten())
