"""One function for each kind of fault in the clinic: what the run should have done.

Token ids are plain lists here, as a tokenizer gives them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sftlab.chat import encode, user
from sftlab.loss import IGNORE_INDEX


def repair_row(
    prompt: list[int], answer: list[int], begin: int, end: int, max_length: int
) -> tuple[list[int], list[int]] | None:
    """A training row from the ids of a prompt and of its answer: (input_ids, labels).

    Five faults of rows end here. Begin tokens at the front become one. The prompt is masked; the
    answer and its end marker are trained, whatever other use the marker has; labels stand at their
    tokens. A row of more than ``max_length`` tokens is not cut: None leaves it out.

    Args:
        answer: without its end marker.
        begin, end: ids of the begin token and of the end marker.
    """
    front = next((n for n, token in enumerate(prompt) if token != begin), len(prompt))
    prompt = prompt[max(front - 1, 0) :]
    input_ids = [*prompt, *answer, end]
    if len(input_ids) > max_length:
        return None
    return input_ids, [IGNORE_INDEX] * len(prompt) + [*answer, end]


def micro_batch_weights(counts: list[int]) -> list[float]:
    """By how much each micro-batch's mean loss counts, so that the sum is the mean over all tokens.

    ``counts``: how many trained tokens each micro-batch holds, at least one in all of them together.
    With mean_i = sum_i / n_i and N = Σ n_i, the whole mean is Σ sum_i / N = Σ (n_i / N) · mean_i.
    """
    return [count / sum(counts) for count in counts]


def repair_merge(W: Tensor, A: Tensor, B: Tensor, alpha: float, r: int) -> Tensor:
    """The weight that was meant, from W + α·B·A, into which the adapter was merged without its /r.

    A is (r, d_in), B (d_out, r), W (d_out, d_in); the result is in the dtype of W.
    """
    return (W - (alpha - alpha / r) * (B @ A)).to(W.dtype)


def fit_names(saved: list[str], wanted: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Which tensor of an adapter's file belongs to which of the model's, and what belongs nowhere.

    A saved name fits a wanted one if it is equal to it, or ends with a dot and the wanted one.

    Returns:
        ({saved name: wanted name}, wanted names without a tensor, saved names that are left over).
        Unless both lists are empty, something stays as it was: do not go on.
    """
    found = {s: w for w in wanted for s in saved if f".{s}".endswith(f".{w}")}
    missing = [name for name in wanted if name not in found.values()]
    return found, missing, [name for name in saved if name not in found]


def drop(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout: in training each number is 0 with probability p and else divided by 1 − p.

    So the mean stays what it was. Out of training the input itself is returned. 0 ≤ p < 1.
    """
    if not training:
        return x
    return x * (torch.rand_like(x) >= p) / (1 - p)


def serving_prompt(tokenizer, question: str) -> list[int]:
    """The ids that a model is asked with: its own template, ready for the answer, and nothing else.

    The template writes every special token that belongs there, the begin token too.
    """
    return encode(tokenizer, user(question), add_generation_prompt=True)
