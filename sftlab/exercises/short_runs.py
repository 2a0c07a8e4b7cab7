"""What short trainings of several exercises share: questions for validation and result, and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from random import Random

from sftlab.almanac.pairs import heldout
from sftlab.data import batch_order, collate
from sftlab.masking import Example

Questions = tuple[dict, ...]


@cache
def fact_questions(seed: int, number: int) -> tuple[Questions, Questions]:
    """Return held-out questions on facts: some for validation, and as many others for the result."""
    found = [question for question in heldout() if question["kind"] != "tips"]
    chosen = Random(seed).sample(found, 2 * number)
    return tuple(chosen[:number]), tuple(chosen[number:])


def endless_batches(
    examples: Sequence[Example], batch_size: int, seed: int, pad_id: int
) -> Iterator[dict]:
    """Yield batches epoch after epoch, in an order that depends on the lengths and the seed."""
    lengths = [len(example) for example in examples]
    for epoch in count():
        for chosen in batch_order(lengths, batch_size, seed, epoch):
            yield collate([examples[i] for i in chosen], pad_id)
