"""An update, split row by row into its part along the gradient and the rest."""

from __future__ import annotations

from torch import Tensor


def split_update(update: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return (along, rest): the part of an update along a gradient, row by row, and what is left.

    Each row of ``along`` is the projection of the update's row onto the gradient's row, so each row
    of ``rest`` is orthogonal to it. To first order, ``along`` alone changes the loss.

    Args:
        update, gradient: (d_out, d_in), ΔW and the gradient of the loss with respect to W.
    """
    squared = gradient.square().sum(1, keepdim=True)
    times = (update * gradient).sum(1, keepdim=True) / squared.where(squared > 0, 1.0)
    along = times * gradient
    return along, update - along
