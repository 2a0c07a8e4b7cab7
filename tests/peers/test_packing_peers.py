"""TRL's packing and transformers' flattening collator as the oracles of ours."""

from __future__ import annotations

import random

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithFlattening
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.data import collate
from sftlab.loss import model_loss, token_nll
from sftlab.packing import collate_packed, pack


def filled(rows):
    return sorted(sum(row) for row in rows)


@pytest.mark.parametrize("seed", range(20))
def test_our_rows_are_as_full_as_those_of_trls_bfd(seed):
    """Among equally full rows the two choose differently; how full the rows are does not depend on it."""
    rng = random.Random(seed)
    size = rng.randint(20, 200)
    lengths = [rng.randint(1, size) for _ in range(rng.randint(1, 300))]
    data = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    theirs = pack_dataset(data, seq_length=size, strategy="bfd")["seq_lengths"]
    ours = [[lengths[k] for k in row] for row in pack(lengths, size)]
    assert filled(ours) == filled(theirs)


def as_rows(examples):
    return [{"input_ids": e.input_ids[: e.end], "labels": e.labels[: e.end]} for e in examples]


@torch.no_grad()
def flat_loss(model, batch, use_cache):
    """The loss of a flattened batch whose borders transformers finds in the positions."""
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    return token_nll(model(**inputs, use_cache=use_cache).logits, batch["labels"]).sum().item()


def test_one_row_is_the_batch_of_transformers_flattening_collator(tiny_model, rows):
    ours = collate_packed(rows, 10_000, 0)
    longest_first = sorted(rows, key=lambda e: -e.end)
    theirs = DataCollatorWithFlattening()(as_rows(longest_first))
    for name in ("input_ids", "labels", "position_ids"):
        assert ours[name].equal(theirs[name]), name
    expected = flat_loss(tiny_model, theirs, use_cache=False)
    assert model_loss(tiny_model, ours)[0].item() == pytest.approx(expected, rel=1e-6)


def test_with_a_cache_transformers_does_not_look_for_borders(tiny_model, rows):
    """The lesson says so; the Trainer turns the cache off, a loop of one's own may not."""
    theirs = DataCollatorWithFlattening()(as_rows(rows))
    apart = flat_loss(tiny_model, theirs, use_cache=False)
    assert abs(flat_loss(tiny_model, theirs, use_cache=True) - apart) > 1e-2


def test_our_batch_has_the_loss_of_trls_padding_free_batch(tiny_model, rows):
    data = Dataset.from_list(as_rows(rows))
    packed = pack_dataset(data, seq_length=120, strategy="bfd")
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(packed))
    expected = flat_loss(tiny_model, theirs, use_cache=False)
    for batch in (collate_packed(rows, 120, 0), collate(rows, 0)):
        assert model_loss(tiny_model, batch)[0].item() == pytest.approx(expected, rel=1e-6)
