"""What several exercises share: settings that suit the size of a model, and the held-out loss.

What takes seconds on the embedded model would take most of an hour on a model of a hundred million
weights. Larger models train for a quarter of the epochs, with half the batch size and a third of
the learning rate, and answer only part of the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from sftlab.data import collate
from sftlab.loss import IGNORE_INDEX, model_loss
from sftlab.masking import Example
from sftlab.train import TrainConfig

SMALL = 20_000_000  # parameters; the embedded model has 3 million


def is_small(model) -> bool:
    """Return whether the model is about as small as the embedded one."""
    return model.num_parameters() < SMALL


def suited(config: TrainConfig, model) -> TrainConfig:
    """Return the settings as they are for a small model; fewer, smaller steps for a larger one."""
    if is_small(model):
        return config
    return replace(
        config,
        learning_rate=config.learning_rate / 3,
        num_train_epochs=max(1, config.num_train_epochs // 4),
        batch_size=max(1, config.batch_size // 2),
    )


def fewer(count: int, model, part: int = 5) -> int:
    """Return ``count`` for a small model; for a larger one ``count // part``, but at least ten."""
    return count if is_small(model) else max(10, count // part)


def unmasked(example: Example) -> Example:
    """Return the example with every token trained except the first, which nothing predicts."""
    return Example(example.input_ids, [IGNORE_INDEX, *example.input_ids[1:]])


@torch.no_grad()
def response_nll(model, rows: Sequence[Example], pad_id: int, batch_size: int = 50) -> float:
    """Return the mean loss of the trained tokens of some examples, in nats per token."""
    ordered = sorted(rows, key=len)
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    found = [model_loss(model, collate(batch, pad_id)) for batch in batches]
    return sum(total.item() for total, _ in found) / sum(count for _, count in found)
