"""Packing: rows hold every example once, examples do not see each other, and training is the same."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sftlab.data import collate
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameters
from sftlab.loss import IGNORE_INDEX, model_loss
from sftlab.masking import Example
from sftlab.packing import (
    block_mask,
    check_model,
    collate_packed,
    leak,
    pack,
    packed_batch,
    position_ids,
)
from sftlab.settings import read_run
from sftlab.train import TrainConfig, sft_train

CONFIG = TrainConfig(learning_rate=1e-2, num_train_epochs=2, batch_size=3, precision="fp32")
LENGTHS = st.lists(st.integers(1, 20), max_size=40)
DOCUMENTS = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(
    lambda sizes: torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)])
)


class TestPack:
    def test_a_small_case_by_hand(self):
        # 7 begins a row, 5 another; 3 fits the first exactly; 4 and 1 fill the second.
        assert pack([3, 7, 4, 5, 1], 10) == [[1, 0], [3, 2, 4]]

    def test_the_fullest_row_that_has_room_is_taken(self):
        assert pack([6, 8, 2], 10) == [[1, 2], [0]]

    def test_an_example_longer_than_a_row_is_refused(self):
        with pytest.raises(ValueError, match="example 1 has 11 tokens, more than 10"):
            pack([3, 11], 10)

    @given(LENGTHS, st.integers(20, 50))
    def test_every_example_stands_in_one_row_and_no_row_is_too_long(self, lengths, size):
        rows = pack(lengths, size)
        assert sorted(k for row in rows for k in row) == list(range(len(lengths)))
        assert all(row and sum(lengths[k] for k in row) <= size for row in rows)

    @given(LENGTHS, st.integers(20, 50))
    def test_no_two_rows_would_fit_into_one(self, lengths, size):
        filled = sorted(sum(lengths[k] for k in row) for row in pack(lengths, size))
        assert len(filled) < 2 or filled[0] + filled[1] > size

    @given(LENGTHS, st.integers(20, 50))
    def test_the_order_of_the_examples_does_not_change_how_full_the_rows_are(self, lengths, size):
        def filled(some):
            return sorted(sum(some[k] for k in row) for row in pack(some, size))

        assert filled(lengths) == filled(lengths[::-1])


class TestMaskAndPositions:
    @given(DOCUMENTS)
    def test_the_mask_is_its_definition(self, documents):
        mask = block_mask(documents)
        length = len(documents)
        expected = [
            [bool(documents[t] == documents[s]) and s <= t for s in range(length)]
            for t in range(length)
        ]
        assert mask.dtype == torch.bool and mask.tolist() == expected

    @given(DOCUMENTS)
    def test_a_position_counts_the_earlier_tokens_that_are_attended_to(self, documents):
        assert position_ids(documents).equal(block_mask(documents).sum(-1) - 1)

    def test_rows_are_independent(self):
        documents = torch.tensor([[0, 0, 1], [1, 1, 1]])
        assert position_ids(documents).tolist() == [[0, 1, 0], [0, 1, 2]]
        assert block_mask(documents)[1].equal(block_mask(documents[1]))


class TestBatch:
    def test_holds_all_targets_but_none_across_a_border(self, rows):
        trained_first = [Example(row.input_ids, list(row.input_ids)) for row in rows]
        batch = collate_packed(trained_first, 200, 0)
        starts = batch["position_ids"] == 0
        assert (batch["labels"][starts] == IGNORE_INDEX).all()
        assert (batch["labels"] != IGNORE_INDEX).sum() == sum(row.trained for row in trained_first)

    def test_is_as_wide_as_its_fullest_row(self, rows):
        ends = [row.end for row in rows]
        assert collate_packed(rows, 10_000, 0)["input_ids"].shape == (1, sum(ends))

    @pytest.mark.parametrize("size", [64, 100, 10_000])
    def test_loss_and_gradient_are_those_of_the_padded_batch(self, tiny_model, rows, size):
        def found(batch):
            model = copy.deepcopy(tiny_model).double()
            loss, count = model_loss(model, batch)
            (loss / count).backward()
            return loss.item(), count, [p.grad for p in model.parameters()]

        loss, count, gradients = found(collate_packed(rows, size, 0))
        expected, expected_count, expected_gradients = found(collate(rows, 0))
        assert count == expected_count and loss == pytest.approx(expected, abs=1e-9)
        torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-9)

    def test_what_is_lost_without_the_mask_is_seen(self, tiny_model, rows):
        batch = packed_batch(rows, [[0, 1]], 0)
        masked = model_loss(tiny_model, batch)[0].item()
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"]).tril()
        assert abs(model_loss(tiny_model, batch)[0].item() - masked) > 1e-4

    def test_an_example_that_is_too_long_or_not_trained_is_named(self, rows):
        with pytest.raises(WorkbookError, match=r"row 1 has \d+ tokens .* packed_length = 9"):
            collate_packed(rows, 9, 0)
        nothing = Example([1, 2, 3], [IGNORE_INDEX] * 3)
        with pytest.raises(WorkbookError, match="row 2 has no trained token"):
            collate_packed([rows[0], nothing], 99, 0)


class TestTraining:
    def run(self, model, rows, **options):
        model = inject_lora(copy.deepcopy(model), "all-linear", r=2, lora_alpha=4, seed=0)
        history = sft_train(model, rows, replace(CONFIG, **options), progress=False, check=False)
        return history.losses, [p.detach() for p in lora_parameters(model)]

    @pytest.mark.parametrize("options", [{}, {"packed_length": 70}, {"packed_length": 70, "micro_batch_size": 1}])  # fmt: skip
    def test_ends_with_the_weights_of_the_unpacked_run(self, tiny_model, rows, options):
        losses, weights = self.run(tiny_model, rows, packing=True, **options)
        expected_losses, expected = self.run(tiny_model, rows)
        assert losses == pytest.approx(expected_losses, abs=1e-5)
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)

    def test_a_too_long_example_is_named_before_the_first_step(self, tiny_model, rows):
        with pytest.raises(WorkbookError, match="packed_length = 9"):
            self.run(tiny_model, rows, packing=True, packed_length=9)

    def test_a_padded_run_is_resumed_packed(self, tiny_model, rows, tmp_path):
        straight = self.run(tiny_model, rows)[1]
        model = inject_lora(copy.deepcopy(tiny_model), "all-linear", r=2, lora_alpha=4, seed=0)
        sft_train(model, rows, CONFIG, folder=tmp_path, stop_after_steps=3, progress=False)
        packed = replace(CONFIG, packing=True)
        assert sft_train(model, rows, packed, folder=tmp_path, progress=False).finished
        torch.testing.assert_close(
            [p.detach() for p in lora_parameters(model)], straight, rtol=0, atol=1e-5
        )


class TestSettings:
    def read(self, tmp_path, **train):
        run = {"model": "almanac", "data": "d.jsonl", "output": "out", "adapter": None, "train": train}  # fmt: skip
        (tmp_path / "run.json").write_text(json.dumps(run))
        return read_run(tmp_path / "run.json").train

    def test_a_run_is_padded_unless_its_file_says_otherwise(self, tmp_path):
        assert not self.read(tmp_path).packing
        assert self.read(tmp_path, packing=True, packed_length=64).packed_length == 64

    def test_names_of_other_trainers_lead_to_ours(self, tmp_path):
        with pytest.raises(WorkbookError, match="here it is packing"):
            self.read(tmp_path, sample_packing=True)
        with pytest.raises(WorkbookError, match="packed_length is 0; it must be at least 1"):
            self.read(tmp_path, packed_length=0)


class TestModel:
    def test_attention_that_follows_the_mask_leaks_nothing(self, tiny_model, rows):
        assert leak(tiny_model) == 0
        check_model(tiny_model, rows)

    def test_attention_that_does_not_is_refused(self, tiny_model, rows):
        tiny_model.set_attn_implementation("eager")  # adds the mask, so True would be 1
        with pytest.raises(WorkbookError, match="does not keep packed examples apart"):
            check_model(tiny_model, rows)

    def test_a_model_that_takes_no_positions_is_refused(self, tiny_model, rows, monkeypatch):
        forward = tiny_model.forward
        monkeypatch.setattr(
            tiny_model, "forward", lambda input_ids, attention_mask, use_cache: forward(input_ids)
        )
        with pytest.raises(WorkbookError, match=r"not take a block mask .*position_ids"):
            check_model(tiny_model, rows)

    def test_a_sliding_window_shorter_than_an_example_is_refused(self, tiny_model, rows):
        tiny_model.config.sliding_window = 8
        with pytest.raises(WorkbookError, match="attends to 8 tokens back at most"):
            check_model(tiny_model, rows)
