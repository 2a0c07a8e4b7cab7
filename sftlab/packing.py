"""Packing: several examples share a sequence of a batch, and none of them sees another.

Padded examples cost as much as the longest one of their batch. Packed ones stand one after the other
in sequences of a given size, so that little is computed for nothing. Three things keep them apart:

* a token attends to itself and to earlier tokens of its own document only (``block_mask``)
* positions restart at 0 in each document (``position_ids``)
* the first token of a document is no target, because the token before it belongs to another one

Loss, gradients and trained weights are then those of the padded batch, up to rounding.

Best-fit packing for language models: Ding et al., 2024, arXiv:2404.10830.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX, trial
from sftlab.masking import Example

PADDING = -1  # the document id of padding


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return sequences of example numbers by best fit, the longest example first.

    Each example goes into the sequence with the least free space that still has room for it, and into
    a new one if there is none. Among equal lengths, and among equal sequences, the first is taken.

    Args:
        lengths: number of tokens of each example.
        size: largest number of tokens of a sequence.

    Raises:
        ValueError: an example is longer than a sequence.
    """
    sequences: list[list[int]] = []
    free: list[int] = []  # tokens left in each sequence
    for example in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        length = lengths[example]
        if length > size:
            raise ValueError(f"example {example} has {length} tokens, more than {size}")
        fitting = [k for k, space in enumerate(free) if space >= length]
        if not fitting:
            sequences.append([])
            free.append(size)
            fitting = [len(sequences) - 1]
        best = min(fitting, key=lambda k: free[k])
        sequences[best].append(example)
        free[best] -= length
    return sequences


def block_mask(document_ids: Tensor) -> Tensor:
    """Return which token attends to which: to itself and to earlier tokens of its own document.

    Args:
        document_ids: (…, length), the number of the document that each token belongs to.

    Returns:
        (…, length, length), True at [t, s] where token t attends to token s.
    """
    same = document_ids.unsqueeze(-1) == document_ids.unsqueeze(-2)
    return same.tril()


def position_ids(document_ids: Tensor) -> Tensor:
    """Return the position of each token in its own document, which begins at 0.

    Args:
        document_ids: (…, length); tokens of a document stand together.

    Returns:
        (…, length), whole numbers.
    """
    place = torch.arange(document_ids.shape[-1], device=document_ids.device)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[..., 1:] = document_ids[..., 1:] != document_ids[..., :-1]
    start = torch.where(begins, place, 0).cummax(dim=-1).values
    return place - start


def collate_packed(examples: Sequence[Example], size: int, pad_id: int) -> dict[str, Tensor]:
    """Combine examples into one packed batch, in the sequences of ``pack``.

    As in ``data.collate``, each example is cut after its last trained token. A single sequence without
    padding, as in padding-free training, is the special case of a ``size`` that holds all examples.

    Args:
        size: largest number of tokens of a sequence. All are padded to the longest of them.

    Returns:
        input_ids, labels and position_ids, each (batch, length), and attention_mask, (batch, 1,
        length, length): the block mask, which all heads share.

    Raises:
        WorkbookError: an example has no trained token, or is longer than a sequence.
    """
    check_fit(examples, size)
    return packed_batch(examples, pack([example.end for example in examples], size), pad_id)


def packed_batch(
    examples: Sequence[Example], sequences: Sequence[Sequence[int]], pad_id: int
) -> dict[str, Tensor]:
    """Return the batch of ``collate_packed`` for sequences that are given as numbers of examples."""
    batch, document_ids = in_sequences(examples, sequences, pad_id)
    return batch | {
        "attention_mask": block_mask(document_ids).unsqueeze(1),
        "position_ids": position_ids(document_ids),
    }


def in_sequences(
    examples: Sequence[Example], sequences: Sequence[Sequence[int]], pad_id: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return input_ids and labels of examples put one after the other, and their document ids.

    Returns:
        All are (batch, length). The first label of each document is ignored. Documents are numbered as
        the examples are; padding at the end of a sequence is document -1.
    """
    ids, labels, documents = [], [], []
    for numbers in sequences:
        parts = [(k, examples[k], examples[k].end) for k in numbers]
        ids.append([token for _, example, end in parts for token in example.input_ids[:end]])
        labels.append([label for _, e, end in parts for label in (IGNORE_INDEX, *e.labels[1:end])])
        documents.append([k for k, _, end in parts for _ in range(end)])
    batch = {"input_ids": _padded(ids, pad_id), "labels": _padded(labels, IGNORE_INDEX)}
    return batch, _padded(documents, PADDING)


def _padded(lists: Sequence[list[int]], value: int) -> Tensor:
    width = max(map(len, lists))
    return torch.tensor([one + [value] * (width - len(one)) for one in lists])


def check_fit(examples: Sequence[Example], size: int) -> None:
    """Raise WorkbookError if an example has no trained token, or is longer than a packed sequence."""
    for number, example in enumerate(examples, 1):
        if not example.trained:
            raise WorkbookError(
                f"row {number} has no trained token, so its loss would be undefined; leave it out, "
                "or check how it was masked"
            )
        if example.end > size:
            raise WorkbookError(
                f"row {number} has {example.end} tokens up to its last trained one, "
                f"{example.end - size} more than packed_length = {size}: it would be cut. Raise "
                "packed_length, shorten the row, or leave it out"
            )


def check_model(model, examples: Sequence[Example]) -> None:
    """Raise WorkbookError if the model does not keep packed documents apart.

    It is tried on the model itself, because no list of attention implementations is complete: the
    first of two documents is edited, and the model's output on the second must stay.

    Args:
        examples: those of the run; their lengths are compared with a sliding window.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    longest = max(example.end for example in examples)
    if window and longest > window:
        raise WorkbookError(
            f"the model attends to {window} tokens back at most, and an example has {longest}: the "
            "block mask would lift this limit. Set packing to false"
        )
    try:
        moved = leak(model)
    except (TypeError, ValueError, RuntimeError) as error:  # no position_ids, no mask of this shape
        raise WorkbookError(
            f"the model does not take a block mask ({str(error).splitlines()[0]}); set packing to false"
        ) from None
    if moved > max(1e-4, 6 * torch.finfo(model.dtype).eps):  # rounding
        raise WorkbookError(
            "the model does not keep packed examples apart: editing the first moved the logits of the "
            f'second by {moved:.1%}. Load it with attn_implementation="sdpa", or set packing to false'
        )


def leak(model) -> float:
    """Return how far the logits of a packed document move when the one before it is edited.

    The movement is relative to the largest logit.
    """
    documents = torch.tensor([[0] * 4 + [1] * 4], device=model.device)
    inputs = {
        "attention_mask": block_mask(documents).unsqueeze(1),
        "position_ids": position_ids(documents),
    }
    ids = torch.arange(8, device=model.device).unsqueeze(0)
    edited = torch.where(documents == 0, ids + 1, ids)
    with trial(model):
        first, second = (model(x, use_cache=False, **inputs).logits[:, 4:] for x in (ids, edited))
    return ((first - second).abs().max() / first.abs().max()).item()
