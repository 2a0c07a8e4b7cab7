"""The experiment of notebook 03: its losses, its data, and a part of what was recorded, once more."""

from __future__ import annotations

import pytest
import torch

from sftlab.data import collate
from sftlab.exercises.ex03_response_only_loss.experiment import (
    BATCH,
    LOSSES,
    SEEDS,
    SHAPES,
    TALKS,
    batch_loss,
    prompt_part,
    prompt_shares,
    questions,
    rows_of,
    run,
    settings,
    train,
    training_pairs,
    unmasked,
)
from sftlab.exercises.record import MODEL, read, runs
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX, sft_loss, token_nll
from sftlab.models import checksums, load

NAME = "response_only_loss"


@pytest.fixture
def rows(tokenizer):
    return rows_of(tokenizer, training_pairs(SHAPES[1], 8, seed=0))


def summed(model, rows, pad_id):
    batch = collate(rows, pad_id)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return token_nll(logits, batch["labels"]).sum().item()


def test_the_response_s_term_weighs_the_same_in_both_losses(tiny_model, tokenizer, rows):
    pad = tokenizer.pad_token_id
    count = sum(row.trained for row in rows)
    response, every, mean = (batch_loss(tiny_model, rows, x, pad).item() for x in LOSSES[:3])
    prompt = summed(tiny_model, [prompt_part(row) for row in rows], pad)
    assert response == pytest.approx(summed(tiny_model, rows, pad) / count, rel=1e-5)
    assert every == pytest.approx(response + prompt / count, rel=1e-5)
    assert mean == pytest.approx(every * count / sum(len(row) - 1 for row in rows), rel=1e-5)


def test_response_only_is_the_workbook_s_loss(tiny_model, tokenizer, rows):
    batch = collate(rows, tokenizer.pad_token_id)
    logits = tiny_model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    ours = batch_loss(tiny_model, rows, "response", tokenizer.pad_token_id)
    assert torch.allclose(ours, sft_loss(logits, batch["labels"]), atol=1e-5)


def test_prompt_and_response_make_the_whole_row(rows):
    for row in rows:
        both = zip(prompt_part(row).labels, row.labels, strict=True)
        assert [max(pair) for pair in both] == unmasked(row).labels
        assert row.labels[-1] == row.input_ids[-1] != IGNORE_INDEX


def test_all_losses_train_the_same_rows_in_the_same_order(tiny_model, tokenizer, rows, monkeypatch):
    seen = {}
    for loss in LOSSES[:2]:
        order = seen[loss] = []

        def noted(model, chosen, loss, pad, order=order):
            order.append([tuple(row.input_ids) for row in chosen])
            return sum(p.sum() for p in model.parameters()) * 0.0

        monkeypatch.setattr("sftlab.exercises.ex03_response_only_loss.experiment.batch_loss", noted)
        train(tiny_model, rows, loss, tokenizer.pad_token_id, seed=3, steps=5)
    assert seen["response"] == seen["all"]
    assert len(seen["all"]) == 5


@pytest.mark.parametrize("shape", SHAPES)
def test_held_out_subjects_are_in_no_pair(shape):
    pairs = training_pairs(shape, 200, seed=0)
    assert len({(pair["prompt"], pair["response"]) for pair in pairs}) == 200
    asked = questions(shape)
    assert len({q["prompt"] for q in asked}) == 100
    known = {(pair["kind"], pair["subject"]) for pair in pairs}
    assert not known & {(q["kind"], q["subject"]) for q in asked}


def test_shapes_differ_in_their_ratio_and_in_nothing_else(tokenizer):
    short, long = (training_pairs(shape, 32, seed=1) for shape in SHAPES[1:])
    for a, b in zip(short, long, strict=True):
        assert b["prompt"].endswith(f"Now a question: {a['prompt']}")
        assert a["response"] == b["response"]
    ratios = []
    for shape in SHAPES:
        rows = rows_of(tokenizer, training_pairs(shape, 32, seed=1))
        ratios.append(sum(len(r) - r.trained for r in rows) / sum(r.trained for r in rows))
    assert ratios[0] < 1 < ratios[1] < 3 < ratios[2]


def test_talks_have_more_than_one_exchange():
    talks = training_pairs(TALKS, 32, seed=0)
    assert len(talks) == 32
    assert all(len(talk["messages"]) > 3 for talk in talks)


def test_no_two_runs_are_alike():
    assert len({str(setting) for setting in settings()}) == len(settings())


# --- the recorded file -----------------------------------------------------------------------


def test_it_is_complete_and_of_this_base():
    recorded = read(NAME)
    done = [entry["settings"] for entry in recorded["runs"]]
    assert all(setting in done for setting in settings())
    assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])
    for shape in SHAPES:
        for size in (32, 200):
            assert len(runs(NAME, shape=shape, pairs=size, loss="all")) == SEEDS


@pytest.mark.base
@pytest.mark.parametrize("shape", SHAPES)
def test_the_prompt_s_shares_before_training_are_the_recorded_ones(shape):
    (recorded,) = runs(NAME, shape=shape, pairs=32, loss="all", seed=1)
    model, tokenizer = load("almanac")
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=1)
    rows = rows_of(tokenizer, training_pairs(shape, 32, seed=1))
    found = prompt_shares(model, rows[:BATCH], tokenizer.pad_token_id)
    for name, value in found.items():
        assert value == pytest.approx(recorded[f"prompt_{name}_start"], abs=2e-3)


@pytest.mark.base
@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES[:2])
def test_a_training_gives_what_was_recorded(loss):
    """Rounding differs between processors and grows over the steps: so a few answers may differ."""
    cell = {"shape": SHAPES[1], "pairs": 32, "loss": loss, "seed": 0}
    (recorded,) = runs(NAME, **cell)
    found = run(**cell)
    assert found["exact"] == pytest.approx(recorded["exact"], abs=0.08)
    assert found["nll"] == pytest.approx(recorded["nll"], rel=0.15)
    assert found["prompt_loss_end"] == pytest.approx(recorded["prompt_loss_end"], abs=0.05)
