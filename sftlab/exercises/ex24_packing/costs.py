"""What padded, sorted and packed batches cost: positions, pairs of positions, and seconds.

Two sets of conversations: ``short`` ones of one exchange, all about equally long, and ``mixed`` ones of 1 to
12 exchanges, most of them short.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

from sftlab.almanac.pairs import pairs
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex24_packing.experiment import kept_apart
from sftlab.loss import model_loss
from sftlab.masking import Example
from sftlab.packing import in_sequences, pack

PADDED, SORTED, PACKED = "padded", "sorted by length", "packed"
WAYS = (PADDED, SORTED, PACKED)
EXCHANGES = (1, 1, 1, 1, 2, 2, 4, 12)  # one of these is drawn for each mixed conversation
STEP = 16  # examples of a step
SIZE = 512  # tokens of a packed sequence

Layout = list[list[int]]  # numbers of the examples in each sequence of a step


def short(tokenizer, count: int = 48, seed: int = 0) -> list[Example]:
    """Return conversations of one exchange."""
    return tokenize_conversations(tokenizer, [conversation(p) for p in pairs(count, seed)]).examples


def mixed(tokenizer, count: int = 48, seed: int = 0) -> list[Example]:
    """Return conversations of one to twelve exchanges."""
    rng, pool = Random(seed), pairs(400, seed)
    talks = []
    for _ in range(count):
        asked = rng.sample(pool, rng.choice(EXCHANGES))
        talks.append([message for pair in asked for message in conversation(pair)])
    return tokenize_conversations(tokenizer, talks).examples


def steps(
    lengths: Sequence[int],
    way: str,
    packing: Callable[[list[int], int], Layout] = pack,
    size: int = SIZE,
) -> list[Layout]:
    """Return the layout of each step of 16 examples, in one of the three ways."""
    order = list(range(len(lengths)))
    if way == SORTED:
        order.sort(key=lambda k: lengths[k])
    found = []
    for start in range(0, len(order), STEP):
        chosen = order[start : start + STEP]
        packed = packing([lengths[k] for k in chosen], size)
        found.append([[chosen[k] for k in sequence] for sequence in packed] if way == PACKED else [[k] for k in chosen])  # fmt: skip
    return found


def counted(lengths: Sequence[int], layouts: Sequence[Layout]) -> dict[str, float]:
    """Return the positions, and the pairs of positions, that are computed for each token."""
    positions = pairs_ = 0
    for step in layouts:
        width = max(sum(lengths[k] for k in sequence) for sequence in step)
        positions += len(step) * width
        pairs_ += len(step) * width**2
    return {"positions": positions / sum(lengths), "pairs": pairs_ / sum(lengths)}


def seconds(model, examples: Sequence[Example], layouts: Sequence[Layout], pad_id: int) -> float:
    """Return the time of forward and backward passes over all steps."""
    batches = []
    for step in layouts:
        batch, document_ids = in_sequences(examples, step, pad_id)
        batches.append(batch | kept_apart(document_ids))
    began = time.perf_counter()
    for batch in batches:
        model.zero_grad()
        model_loss(model, batch)[0].backward()
    return time.perf_counter() - began
