"""The SFT loss: mean negative log-likelihood of the response tokens, also over micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch

from sftlab._internal.random_state import own_random_state

IGNORE_INDEX = -100  # label of a token without loss, as in PyTorch and transformers
INPUTS = ("input_ids", "attention_mask", "position_ids")  # of a batch, what the model reads
_ENDS_WITH_HEAD: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the negative log-probability of each label, in nats; 0 where the label is ignored.

    The logits at position t predict token t+1, so they are compared with the labels shifted by one
    position. The result is therefore one position shorter than the input.

    Args:
        logits: (batch, length, vocabulary), any floating-point dtype. Log-probabilities are
            computed in float32 or float64 because half precision would lose digits.
        labels: (batch, length), token ids; ``IGNORE_INDEX`` where the token is not trained.

    Returns:
        (batch, length - 1)

    Raises:
        ValueError: the shapes of logits and labels do not match.
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
    """Count the labels of shape (batch, length) that contribute to the loss, as a 0-dim tensor.

    The first token of a sequence never counts because no earlier token predicts it.
    """
    return (labels[:, 1:] != IGNORE_INDEX).sum()


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return L = -(1/N) Σ log P(x_t | x_<t) over the N trained tokens, in nats per token.

    Shapes as in ``token_nll``. Without a trained token the mean is undefined and the result is NaN,
    as with ``F.cross_entropy``; a loss of 0 would look like a perfect fit.
    """
    return token_nll(logits, labels).sum() / trained_tokens(labels)


def accumulated_loss(micro_batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the loss of a batch that is split into micro-batches of (logits, labels).

    Adds up all negative log-probabilities, counts all trained tokens and divides once. Averaging
    the losses of the micro-batches gives a different number when their token counts differ: a token
    in a short micro-batch would then weigh more than one in a long micro-batch.
    """
    total, count = torch.tensor(0.0), torch.tensor(0)
    for logits, labels in micro_batches:
        total = total + token_nll(logits, labels).sum()
        count = count + trained_tokens(labels)
    return total / count


def mean_of_means(micro_batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the mean of the micro-batch losses: incorrect, kept for comparison."""
    return torch.stack([sft_loss(logits, labels) for logits, labels in micro_batches]).mean()


def perplexity(loss: float) -> float:
    """Return exp(loss): the number of equally likely tokens with the same loss per token."""
    return math.exp(loss)


def response_loss_share(per_token_loss: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share (0 to 1) of a full-sequence loss that comes from the response tokens.

    Args:
        per_token_loss: (batch, length - 1), losses of *all* tokens after the first of each
            sequence.
        labels: (batch, length), ``IGNORE_INDEX`` outside the response.
    """
    response = labels[:, 1:] != IGNORE_INDEX
    return (per_token_loss[response].sum() / per_token_loss.sum()).item()


def model_loss(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return the summed NLL of a batch in nats and its number of trained tokens.

    The output head is the largest matrix of a small model, and prompt and padding positions need no
    logits. Only the scored positions are projected to the vocabulary, unless the model changes its
    logits after the head (``ends_with_head``). The value equals ``token_nll(model(...).logits,
    labels).sum()``.

    Args:
        batch: from ``data.collate`` or ``packing.collate_packed``.
    """
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORE_INDEX
    if ends_with_head(model, inputs):
        hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        logits = _projected(model.get_output_embeddings(), hidden[:, :-1][scored])
    else:
        logits = model(**inputs, use_cache=False).logits[:, :-1][scored]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = torch.nn.functional.cross_entropy(logits, targets[scored], reduction="sum")
    return loss, int(scored.sum())


def ends_with_head(model, inputs: dict[str, torch.Tensor]) -> bool:
    """Return whether the logits are ``head(decoder(...))`` and nothing else, to the last bit.

    Many models cap, scale or mask their logits after the output head (Gemma 2, Cohere, Granite,
    Falcon-H1), or have no decoder of their own, and no list of them is complete. So it is tried on
    the model itself, once per model, with a part of the first batch.

    Args:
        inputs: as the model takes them; two rows of 16 tokens are used, and no block mask.
    """
    if model not in _ENDS_WITH_HEAD:
        short = {name: tensor[:2, :16] for name, tensor in inputs.items() if tensor.ndim == 2}
        with trial(model):
            logits = model(**short, use_cache=False).logits
            try:
                hidden = model.get_decoder()(**short, use_cache=False).last_hidden_state
                projected = model.get_output_embeddings()(hidden)
                _ENDS_WITH_HEAD[model] = torch.equal(projected.to(logits.dtype), logits)
            except Exception:  # of any type: there is no such decoder or head
                _ENDS_WITH_HEAD[model] = False
    return _ENDS_WITH_HEAD[model]


@contextmanager
def trial(model) -> Iterator[Callable[[int], None]]:
    """Eval mode for trial calls; modes, buffers and torch's random state are restored afterwards.

    Yields the function that sets a seed. Gradients stay on: bitsandbytes repacks 4-bit weights for
    good in a call without them.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        model.eval()
        with (
            own_random_state(device=next(model.parameters()).device) as reseed,
            torch.enable_grad(),
        ):
            yield reseed
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def _projected(head: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Return ``head(hidden)``, bit for bit; the gradient of a tied embedding accumulates in place.

    In most small models, head and embedding are one matrix, the largest of the model, and it
    receives two gradients. PyTorch adds the second one in place only if the first is contiguous in
    memory. ``linear`` returns a transposed view as the gradient, so a third matrix would be
    allocated for the sum.
    """
    if type(head) is torch.nn.Linear and head.bias is None and head.weight.requires_grad:
        return (head.weight @ hidden.T).T.contiguous()  # otherwise cross_entropy keeps both copies
    return head(hidden)
