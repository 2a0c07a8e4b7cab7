"""The SFT loss: the mean surprise of the response tokens, kept right when batches are split."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

IGNORE_INDEX = (
    -100
)  # the label of a token that is not trained; the value PyTorch and transformers use
# Settings of the few models (Gemma 2, Cohere, Granite) that change the logits after the head.
AFTER_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The negative log-probability, in nats, of every label: 0 where nothing is scored.

    The logits at position t are a forecast of token t+1, so they are compared with the labels one
    place further on. The result therefore has one position less than the input.

    Args:
        logits: (batch, length, vocabulary), any floating type; log-probabilities are taken in
            float32 or better, as half precision would lose digits.
        labels: (batch, length), token ids, ``IGNORE_INDEX`` where the token is not trained.

    Returns:
        (batch, length - 1)
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not belong "
            "together: expected (batch, length, vocabulary) and (batch, length)"
        )
    forecasts = logits[:, :-1]
    forecasts = forecasts if forecasts.dtype == torch.float64 else forecasts.float()
    targets = labels[:, 1:]
    scored = targets != IGNORE_INDEX
    log_probabilities = forecasts.log_softmax(dim=-1)
    chosen = log_probabilities.gather(-1, targets.where(scored, 0).unsqueeze(-1)).squeeze(-1)
    return -chosen.where(scored, 0.0)


def trained_tokens(labels: torch.Tensor) -> torch.Tensor:
    """How many tokens of (batch, length) labels are scored, as a tensor without dimensions.

    The first token of a row never is: nothing precedes it.
    """
    return (labels[:, 1:] != IGNORE_INDEX).sum()


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """L = -(1/N) Σ log P(x_t | x_<t), the sum over the N trained tokens, in nats per token.

    Shapes as in ``token_nll``. With no trained token the mean is undefined, and the result is NaN,
    as with ``F.cross_entropy``: 0 would look like a perfect fit.
    """
    return token_nll(logits, labels).sum() / trained_tokens(labels)


def accumulated_loss(micro_batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The loss of a batch that was cut into micro-batches of (logits, labels).

    Sums all negative log-probabilities, counts all trained tokens, divides once. The mean of the
    micro-batch means is another number as soon as their counts differ: a token in a short
    micro-batch would weigh more than one in a long micro-batch.
    """
    total, count = torch.tensor(0.0), torch.tensor(0)
    for logits, labels in micro_batches:
        total = total + token_nll(logits, labels).sum()
        count = count + trained_tokens(labels)
    return total / count


def mean_of_means(micro_batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The wrong way to accumulate, kept for comparison: every micro-batch weighs the same."""
    return torch.stack([sft_loss(logits, labels) for logits, labels in micro_batches]).mean()


def perplexity(loss: float) -> float:
    """exp(loss): among how many equally likely tokens the model seems to choose."""
    return math.exp(loss)


def response_loss_share(per_token_loss: torch.Tensor, labels: torch.Tensor) -> float:
    """Which part (0 to 1) of a full-sequence loss falls on the response.

    Args:
        per_token_loss: (batch, length - 1), losses of *all* tokens after the first of each row.
        labels: (batch, length), ``IGNORE_INDEX`` outside the response.
    """
    response = labels[:, 1:] != IGNORE_INDEX
    return (per_token_loss[response].sum() / per_token_loss.sum()).item()


def model_loss(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Summed NLL and number of trained tokens of a batch, projecting only the scored positions.

    The head is the largest matrix of a small model, and prompt and padding positions need no
    logits: they are left out *before* the projection. The value equals
    ``token_nll(model(...).logits, labels).sum()``.

    Args:
        batch: input_ids, labels and attention_mask, each (batch, length), padded on the right.
    """
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORE_INDEX
    if any(getattr(model.config, name, None) for name in AFTER_THE_HEAD):
        logits = model(**inputs, use_cache=False).logits[:, :-1][scored]
    else:
        hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        logits = _projected(model.get_output_embeddings(), hidden[:, :-1][scored])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = torch.nn.functional.cross_entropy(logits, targets[scored], reduction="sum")
    return loss, int(scored.sum())


def _projected(head: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """``head(hidden)``, to the bit, written so that a tied embedding's gradient is added up in place.

    Head and embedding of most small models are one matrix, the largest they have, so it gets two
    gradients. PyTorch adds the second to the first only where the first lies contiguous in memory;
    that of ``linear`` is a transposed view, and a third matrix would be made for the sum.
    """
    if type(head) is torch.nn.Linear and head.bias is None and head.weight.requires_grad:
        return (head.weight @ hidden.T).T.contiguous()  # here, or cross_entropy keeps both
    return head(hidden)
