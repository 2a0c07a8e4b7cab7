"""The gradients of a LoRA layer, written out."""

from __future__ import annotations

from torch import Tensor


def lora_gradients(
    x: Tensor, grad_output: Tensor, W: Tensor, A: Tensor, B: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the loss with respect to x, A and B, for y = W x + scale · B A x.

    Args:
        x: (tokens, d_in), what the layer reads. grad_output: (tokens, d_out), the gradient of the
            loss with respect to what it returns.
        W: (d_out, d_in), frozen. A: (r, d_in). B: (d_out, r). scale: α/r.

    Returns:
        The gradient of x (tokens, d_in), that of A (r, d_in), and that of B (d_out, r). Those of A
        and B pass through the other matrix.
    """
    hidden = x @ A.T  # (tokens, r)
    grad_hidden = scale * grad_output @ B  # (tokens, r)
    of_x = grad_output @ W + grad_hidden @ A
    return of_x, grad_hidden.T @ x, scale * grad_output.T @ hidden
