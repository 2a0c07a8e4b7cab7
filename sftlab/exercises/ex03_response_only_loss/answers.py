"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import numpy as np
import torch

from sftlab.classroom.answers import refused, right
from sftlab.loss import IGNORE_INDEX

ID = "03.response_loss_share"


@right(ID)
def by_where(per_token_loss, labels):
    targets = labels[:, 1:]
    kept = torch.where(targets == IGNORE_INDEX, torch.zeros_like(per_token_loss), per_token_loss)
    return float(kept.sum() / per_token_loss.sum())


@right(ID)
def by_product(per_token_loss, labels):
    mask = labels[:, 1:].ne(IGNORE_INDEX).float()
    return ((per_token_loss * mask).sum() / per_token_loss.sum()).item()


@right(ID)
def by_loops(per_token_loss, labels):
    response = total = 0.0
    for losses, row in zip(per_token_loss.tolist(), labels.tolist(), strict=True):
        for loss, label in zip(losses, row[1:], strict=True):
            total += loss
            response += loss if label != IGNORE_INDEX else 0.0
    return response / total


@right(ID)
def by_the_rest(per_token_loss, labels):
    prompt = per_token_loss[labels[..., 1:] == IGNORE_INDEX].sum()
    return 1 - (prompt / per_token_loss.sum()).item()


@right(ID)
def by_array(per_token_loss, labels):
    losses, response = per_token_loss.numpy(), labels.numpy()[:, 1:] != IGNORE_INDEX
    return np.where(response, losses, 0).sum() / losses.sum()


@right(ID)
def by_parts_of_the_whole(per_token_loss, labels):
    parts = per_token_loss.double() / per_token_loss.double().sum()
    return torch.einsum("bt,bt->", parts, (labels[:, 1:] != IGNORE_INDEX).double())


@refused(ID, "IndexError")
def mask_as_long_as_labels(losses, labels):
    return (losses[labels != IGNORE_INDEX].sum() / losses.sum()).item()


@refused(ID, "the first label is set")
def as_many_from_the_end(losses, labels):
    pairs = zip(losses, (labels != IGNORE_INDEX).sum(1), strict=True)
    return (
        sum(row[len(row) - n :].sum() if n < len(row) else row.sum() for row, n in pairs)
        / losses.sum()
    )


@refused(ID, "changes its own input")
def in_place(losses, labels):
    total = losses.sum().item()
    losses[labels[:, 1:] == IGNORE_INDEX] = 0
    return losses.sum().item() / total
