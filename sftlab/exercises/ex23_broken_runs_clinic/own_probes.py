"""Two more probes of a training run: from its log, and from the answers of the served model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sftlab.loss import sft_loss


def first_loss_ratio(losses: Sequence[float], logits: Tensor, labels: Tensor) -> float:
    """Return the first loss of a log over the base's own loss on the same batch: 1 in a sound run.

    Args:
        losses: of the steps.
        logits: of the base, (batch, length, vocabulary). labels: as they should be, (batch, length).
    """
    return losses[0] / sft_loss(logits, labels).item()


def learned(ask: Callable[[list[str]], list[str]], pairs: Sequence[Mapping[str, str]]) -> float:
    """Return the share of training questions that the served model answers as trained.

    Args:
        ask: makes a list of replies of a list of questions.
    """
    replies = ask([pair["prompt"] for pair in pairs])
    as_trained = [
        reply.strip() == pair["response"].strip()
        for reply, pair in zip(replies, pairs, strict=True)
    ]
    return sum(as_trained) / len(as_trained)
