"""The gradients of LoRA's two matrices, written out."""

from __future__ import annotations

from torch import Tensor


def lora_gradients(
    x: Tensor, grad_output: Tensor, A: Tensor, B: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the loss with respect to A and B, for y = W x + scale · B A x.

    Args:
        x: (tokens, d_in), what the layer reads. grad_output: (tokens, d_out), the gradient of the
            loss with respect to what it returns.
        A: (r, d_in). B: (d_out, r). scale: α/r.

    Returns:
        The gradient of A (r, d_in), and that of B (d_out, r). Each passes through the other matrix.
    """
    hidden = x @ A.T  # (tokens, r)
    grad_hidden = grad_output @ B  # (tokens, r)
    return scale * grad_hidden.T @ x, scale * grad_output.T @ hidden
