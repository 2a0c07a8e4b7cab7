"""Three probes of a training run: from its batches, from a gradient and from its weights.

A probe is a number for which the value of every sound run is known, whatever its data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from sftlab.loss import IGNORE_INDEX


def label_errors(input_ids: Sequence[int], labels: Sequence[int], answer: Sequence[int]) -> int:
    """Return the number of label mismatches of an example that should train this answer alone.

    Args:
        answer: the ids of the answer, with its end-of-turn token.

    Returns:
        Trained labels that are not the token at their position, plus trained labels that are not those
        of the answer, one by one, plus the difference of the two lengths. 0 for a sound example.
    """
    trained = [label for label in labels if label != IGNORE_INDEX]
    moved = sum(
        label not in (IGNORE_INDEX, token) for token, label in zip(input_ids, labels, strict=True)
    )
    other = sum(label != wanted for label, wanted in zip(trained, answer, strict=False))
    return moved + other + abs(len(trained) - len(answer))


def split_gap(combine: Callable, logits: Tensor, labels: Tensor) -> float:
    """Return ‖g_split − g_whole‖ / ‖g_whole‖ for the gradients of a batch's loss by its logits.

    Args:
        combine: makes one loss of a list of micro-batches (logits, labels).
        logits: (batch, length, vocabulary). labels: (batch, length).

    Returns:
        0, up to rounding, if the loss does not depend on how the batch is split.
    """
    gradients = []
    for size in (len(logits), 1):  # in one piece, and in micro-batches of one example
        leaf = logits.detach().requires_grad_()
        combine(list(zip(leaf.split(size), labels.split(size), strict=True))).backward()
        gradients.append(leaf.grad)
    whole, split = gradients
    return ((split - whole).norm() / whole.norm()).item()


def update_strength(served: Tensor, base: Tensor, A: Tensor, B: Tensor, scale: float) -> float:
    """Return how many times the trained update is in a served weight: 1 is once, 0 is not at all.

    It is ⟨served − base, ΔW⟩ / ⟨ΔW, ΔW⟩ with ΔW = scale · B·A.

    Args:
        served, base: (d_out, d_in). A: (r, d_in). B: (d_out, r), not all zero.
    """
    update = scale * (B @ A)
    return (((served.float() - base) * update).sum() / update.square().sum()).item()
