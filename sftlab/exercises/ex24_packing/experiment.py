"""The base trained on packed sequences, with the block mask and without it, against padded sequences.

Every arm trains with LoRA on the same 32 pairs of a seed: the same 16 examples in each of 24 steps, with
AdamW at a constant learning rate. The arms differ in the sequences of a step and in what keeps their
conversations apart:

``padded``                   a sequence for each conversation
``packed``                   all 16 in one sequence: block mask, positions restart
``no mask``                  the same sequence, but every token attends to all earlier ones of the sequence
``no mask, shuffled``        the same, the order of the conversations drawn anew in each step
``no mask, two each``       the same with two conversations in a sequence
``no mask, one count``       no mask, and positions run on to the end of the sequence

The learning rate of an arm is chosen on validation questions, each asked alone; the result is reported on
other questions, asked alone as well. This takes about twenty minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random

import torch
from torch import Tensor

from sftlab.data import batch_order, collate
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.trade_off import (
    ASKED,
    BATCH,
    LORA,
    PAIRS,
    exact_share,
    examples,
    pairs,
    prepare,
    questions,
)
from sftlab.masking import Example
from sftlab.models import load
from sftlab.packing import block_mask, in_sequences, pack, position_ids
from sftlab.train import train_step

RECORD = "packing"  # data/results/packing.json

RATES = (8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2)
SEEDS, MORE, STEPS = 5, 10, 24  # MORE: of the two arms that lie close together
LAST = 4  # steps at the end whose training losses are averaged
WHOLE, PART = 1024, 64  # tokens of a sequence: all examples of a step, or two


@dataclass(frozen=True)
class Arm:
    """How a step's examples stand in sequences, and what keeps them apart."""

    size: int = 0  # tokens of a sequence; 0: padded
    mask: bool = True
    restart: bool = True
    shuffled: bool = False


PADDED, PACKED, LOST = "padded", "packed", "no mask"
SHUFFLED, TWO, ONE_COUNT = f"{LOST}, shuffled", f"{LOST}, two each", f"{LOST}, one count"
CLOSE = (PADDED, ONE_COUNT)
ARMS = {
    PADDED: Arm(),
    PACKED: Arm(WHOLE),
    LOST: Arm(WHOLE, mask=False),
    SHUFFLED: Arm(WHOLE, mask=False, shuffled=True),
    TWO: Arm(PART, mask=False),
    ONE_COUNT: Arm(WHOLE, mask=False, restart=False),
}


def kept_apart(document_ids: Tensor, mask: bool = True, restart: bool = True) -> dict[str, Tensor]:
    """Return attention mask and position ids; without one of them as if the sequence were one document."""
    one = torch.zeros_like(document_ids)
    return {
        "attention_mask": block_mask(document_ids if mask else one).unsqueeze(1),
        "position_ids": position_ids(document_ids if restart else one),
    }


def batch_of(arm: Arm, chosen: Sequence[Example], pad_id: int, rng: Random) -> dict[str, Tensor]:
    """Return the examples of one step as a batch of the arm."""
    if not arm.size:
        return collate(chosen, pad_id)
    sequences = pack([example.end for example in chosen], arm.size)
    if arm.shuffled:
        for sequence in sequences:
            rng.shuffle(sequence)
    batch, document_ids = in_sequences(chosen, sequences, pad_id)
    return batch | kept_apart(document_ids, arm.mask, arm.restart)


def batches(arm: Arm, made: Sequence[Example], seed: int, pad_id: int) -> Iterator[dict]:
    """Yield batches without end: in every arm the same examples in the same order of steps."""
    rng, lengths = Random(seed), [len(example) for example in made]
    for epoch in count():
        for chosen in batch_order(lengths, BATCH, seed, epoch):
            yield batch_of(arm, [made[k] for k in chosen], pad_id, rng)


def run(arm: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train one arm; return its losses (nats per token) and its share of exact answers.

    ``training`` is the mean over the last steps. ``validation`` and ``test`` are of questions asked
    alone, and so is ``exact``.
    """
    model, tokenizer = load("almanac")
    prepare(model, LORA, seed)
    made = examples(tokenizer, pairs(PAIRS, seed, skills=()))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, weight_decay=0.0
    )
    stream = islice(batches(ARMS[arm], made, seed, tokenizer.pad_token_id), STEPS)
    losses = [train_step(model, batch, optimizer, max_grad_norm=None) for batch in stream]
    model.eval()
    validation, test = (examples(tokenizer, some) for some in questions())
    return {
        "training": sum(losses[-LAST:]) / LAST,
        "validation": response_nll(model, validation, tokenizer.pad_token_id, batch_size=8),
        "test": response_nll(model, test, tokenizer.pad_token_id, batch_size=8),
        "exact": exact_share(model, tokenizer, questions()[1][:ASKED]),
    }


def settings() -> list[dict]:
    """Return all settings, arm by arm."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for arm in ARMS
        for seed in range(MORE if arm in CLOSE else SEEDS)
        for rate in RATES
    ]
