"""An update, split into its part along the gradient and the rest."""

from __future__ import annotations

from torch import Tensor


def split_update(update: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return (along, rest): the part of an update along a gradient, and what is left.

    ``along`` is the multiple of the gradient that is nearest to the update, so ``rest`` is orthogonal
    to the gradient, all entries taken together. To first order, ``along`` alone changes the loss.

    Args:
        update, gradient: (d_out, d_in), ΔW and the gradient of the loss with respect to W.
    """
    squared = gradient.square().sum()
    times = (update * gradient).sum() / squared if squared > 0 else 0.0
    along = times * gradient
    return along, update - along
