"""Examples of the committed pairs, batches of them, and a model's loss and logits on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import collate, conversation, read_jsonl, tokenize_conversations
from sftlab.loss import model_loss
from sftlab.masking import Example
from sftlab.train import TrainConfig, planned_batches

BATCH = 16


def rows_of(tokenizer, name: str, count: int | None = None) -> list[Example]:
    """Return the first ``count`` pairs of a file (default all), tokenized and masked."""
    pairs = read_jsonl(INSTRUCTIONS / f"{name}.jsonl")[:count]
    return tokenize_conversations(tokenizer, [conversation(pair) for pair in pairs]).examples


def batches(rows: Sequence[Example], steps: int, seed: int, pad_id: int) -> Iterator[dict]:
    """Yield batches of 16 examples for ``steps`` steps, in an order that depends on the seed."""
    passes = math.ceil(steps * BATCH / len(rows))
    config = TrainConfig(num_train_epochs=passes, batch_size=BATCH, max_steps=steps, seed=seed)
    for chosen in planned_batches(rows, config):
        yield collate([rows[i] for i in chosen], pad_id)


@torch.no_grad()
def mean_nll(model, rows: Sequence[Example], pad_id: int) -> float:
    """Return the NLL of the examples' responses, in nats per trained token."""
    loss, count = model_loss(model, collate(rows, pad_id))
    return (loss / count).item()


@torch.no_grad()
def logits_of(model, rows: Sequence[Example], pad_id: int) -> torch.Tensor:
    """Return the logits at every token of the examples, without padding: (tokens, vocabulary)."""
    batch = collate(rows, pad_id)
    mask = batch["attention_mask"]
    return model(batch["input_ids"], attention_mask=mask).logits[mask.bool()]
