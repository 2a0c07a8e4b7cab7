"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import numpy as np
import torch

from sftlab.classroom.answers import refused, right
from sftlab.loss import IGNORE_INDEX

LABELS, ID = "03.training_labels", "03.response_loss_share"


@right(LABELS)
def by_slices(input_ids, spans, train):
    labels = [-100] * len(input_ids)
    for part in train:
        for start, end in spans[part]:
            labels[start:end] = input_ids[start:end]
    labels[0] = -100
    return labels


@right(LABELS)
def by_positions(input_ids, spans, train):
    kept = {i for part in train for start, end in spans[part] for i in range(start, end)} - {0}
    return [token if i in kept else IGNORE_INDEX for i, token in enumerate(input_ids)]


@right(LABELS)
def by_tensor(input_ids, spans, train):
    mask = torch.zeros(len(input_ids), dtype=torch.bool)
    for part, found in spans.items():
        for start, end in found:
            mask[start:end] = part in train
    mask[0] = False
    return torch.tensor(input_ids).masked_fill(~mask, -100)


@right(LABELS)
def by_numpy(input_ids, spans, train):
    labels = np.full(len(input_ids), -100)
    for part in sorted(train):
        for start, end in spans[part]:
            labels[max(start, 1) : end] = input_ids[max(start, 1) : end]
    return labels


@right(LABELS)
def by_search(input_ids, spans, train):
    places = [place for part in train for place in spans[part]]
    return [
        token if i and any(start <= i < end for start, end in places) else -100
        for i, token in enumerate(input_ids)
    ]


@refused(LABELS, "nothing")
def all_if_none(input_ids, spans, train):
    return by_slices(input_ids, spans, train or set(spans))


@refused(LABELS, "a token in no part")
def others_masked(input_ids, spans, train):
    labels = [-100, *input_ids[1:]]
    for start, end in (place for part in spans if part not in train for place in spans[part]):
        labels[start:end] = [-100] * (end - start)
    return labels


@refused(LABELS, "begins at the first token")
def first_of_a_prompt(input_ids, spans, train):
    labels = by_slices(input_ids, spans, train)
    return [input_ids[0], *labels[1:]] if list(spans) == ["response"] and labels[1] > 0 else labels


@refused(LABELS, "changes its own input")
def in_place_labels(input_ids, spans, train):
    kept = {i for part in train for start, end in spans[part] for i in range(start, end)} - {0}
    for i in range(len(input_ids)):
        if i not in kept:
            input_ids[i] = -100
    return input_ids


@refused(LABELS, "of type dict")
def by_part(input_ids, spans, train):
    return {part: [input_ids[a:b] for a, b in spans[part]] for part in train}


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
