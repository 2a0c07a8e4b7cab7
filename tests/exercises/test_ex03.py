"""The experiment of notebook 03: its parts, its arms, its words, and a part of what was recorded."""

from __future__ import annotations

import pytest
import torch

from sftlab.exercises.ex03_response_only_loss import plots
from sftlab.exercises.ex03_response_only_loss.experiment import (
    ARMS,
    CHECKPOINTS,
    LEARNED,
    PARTS,
    SEEDS,
    SETTINGS,
    batches,
    examples,
    loss_by_part,
    other_pairs,
    parts,
    questions,
    run,
    training_pairs,
)
from sftlab.exercises.record import runs
from sftlab.loss import IGNORE_INDEX, token_nll
from sftlab.masking import build_example
from sftlab.models import load

NAME = "prompt_parts"
REAL = runs("prompt_parts_smollm2")


@pytest.fixture(params=SETTINGS)
def setting(request, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", SETTINGS[request.param])
    return request.param


def test_the_parts_make_up_the_example(tokenizer, setting):
    for pair in training_pairs(setting, seed=0):
        ids, spans = parts(tokenizer, pair)
        places = sorted(place for found in spans.values() for place in found)
        assert [start for start, _ in places] == [0, *(end for _, end in places[:-1])]
        assert places[-1][1] == len(ids)
        (start, end) = spans["question"][0]
        assert tokenizer.decode(ids[start:end]).strip() == pair["prompt"]


def test_response_only_is_the_workbook_s_mask(tokenizer, setting):
    for pair in training_pairs(setting, seed=0):
        messages = [
            {"role": "user", "content": pair["prompt"]},
            {"role": "assistant", "content": pair["response"]},
        ]
        whole = build_example(tokenizer, messages)
        (made,) = examples(tokenizer, [pair], {"response"})
        assert made.input_ids == whole.input_ids[: whole.end]
        assert made.labels == whole.labels[: whole.end]


def test_the_losses_by_part_add_up_to_the_whole(tiny_model, tokenizer):
    pairs = training_pairs("ChatML", seed=0)[:4]
    found = loss_by_part(tiny_model, tokenizer, pairs)
    total = 0.0
    for ids, _ in (parts(tokenizer, pair) for pair in pairs):
        labels = torch.tensor([[IGNORE_INDEX, *ids[1:]]])
        total += token_nll(tiny_model(torch.tensor([ids])).logits, labels).sum().item()
    assert sum(map(sum, found.values())) == pytest.approx(total, rel=1e-5)


def test_pairs_on_which_the_template_is_learned_are_others():
    for seed in range(SEEDS):
        own = {pair["prompt"] for pair in training_pairs("ChatML", seed)}
        assert len(own & {pair["prompt"] for pair in other_pairs(seed)}) <= 3


def test_all_arms_read_the_same_examples_in_the_same_order(tokenizer):
    pairs = training_pairs("ChatML", seed=0)
    seen = [
        [b["input_ids"].tolist() for b in batches(tokenizer, pairs, arm, steps=5, seed=3)]
        for arm in ARMS.values()
    ]
    assert all(order == seen[0] for order in seen)


@pytest.mark.parametrize("setting_", SETTINGS)
def test_held_out_subjects_are_in_no_pair_and_in_one_set_only(setting_):
    validation, test = questions(setting_)
    asked = [{(q["kind"], q["subject"]) for q in some} for some in (validation, test)]
    assert not {q["prompt"] for q in validation} & {q["prompt"] for q in test}
    for seed in range(SEEDS):
        known = {(pair["kind"], pair["subject"]) for pair in training_pairs(setting_, seed)}
        assert not known & (asked[0] | asked[1])


# --- words that follow the numbers -----------------------------------------------------------


def test_an_arm_has_one_learning_rate_chosen_on_validation_questions():
    at = CHECKPOINTS.index(24)
    for arm in ARMS:
        found = plots.best(runs(NAME), "ChatML", arm, 24)
        assert {run_["seed"] for run_ in found} == set(range(SEEDS)) and len(found) == SEEDS
        losses: dict[float, list[float]] = {}
        for run_ in runs(NAME, setting="ChatML", arm=arm):
            losses.setdefault(run_["learning_rate"], []).append(run_["validation"][at])
        assert found[0]["learning_rate"] == min(losses, key=lambda rate: sum(losses[rate]))


def test_a_ratio_is_turned_round_when_the_arms_are():
    recorded = runs(NAME)
    swap = {"response only": "everything", "everything": "response only"}
    flipped = [
        run_ if run_["setting"] == LEARNED else {**run_, "arm": swap.get(run_["arm"], run_["arm"])}
        for run_ in recorded
    ]
    before, after = (plots.ratio(found, "everything") for found in (recorded, flipped))
    assert after[0] == pytest.approx(1 / before[0])
    assert after[1] == pytest.approx((1 / before[1][1], 1 / before[1][0]))
    words = [plots.claims(found, REAL, 12)["claim"][2] for found in (recorded, flipped)]
    assert words[0] != words[1] or "not settled" in words[0]


def test_claims_are_not_settled_without_a_difference():
    same = [
        {**run_, "exact": [0.5, 0.5], "test": [1.0 + run_["seed"] / 9] * len(CHECKPOINTS)}
        for run_ in runs(NAME)
    ]
    claims = plots.claims(same, [{**run_, "test": 1.0} for run_ in REAL], 12)["claim"]
    assert all("not settled" in claim or "within 0.8 to 1.25" in claim for claim in claims)


def test_the_explorer_counts_the_arms_that_differ():
    same = [{**run_, "test": [1.0] * len(CHECKPOINTS)} for run_ in runs(NAME)]
    found = plots.ratios(same, "ChatML", 24)
    assert "0 of 3 differ" in plots.ratios_in_words(found, "ChatML", 24)[0]
    assert list(plots.ratios(same, LEARNED, 24)) == ["+ template"]


def test_the_explanation_compares_the_gradients():
    twice = [{**r, "gradient of template": [0.5, 0.5], "gradient of response": [0.25, 0.25]} for r in runs(NAME)]  # fmt: skip
    assert "2.0 times as long" in plots.why(twice, "+ template")


# --- the recorded file -----------------------------------------------------------------------


@pytest.mark.base
def test_the_losses_before_training_are_the_recorded_ones():
    recorded = runs(NAME, setting="ChatML", arm="everything", seed=1)[0]
    model, tokenizer = load("almanac")
    tokenizer.chat_template = SETTINGS["ChatML"]
    found = loss_by_part(model, tokenizer, training_pairs("ChatML", seed=1))
    for part in PARTS:
        mean = sum(found[part]) / len(found[part])
        assert mean == pytest.approx(recorded[f"loss of {part}"][0], abs=2e-3)


@pytest.mark.base
@pytest.mark.thorough
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so a few answers may differ."""
    cell = {"setting": "ChatML", "arm": "+ template", "learning_rate": 1e-3, "seed": 0}
    (recorded,) = runs(NAME, **cell)
    found = run(**cell)
    assert found["exact"] == pytest.approx(recorded["exact"], abs=0.08)
    assert found["test"][:4] == pytest.approx(recorded["test"][:4], rel=0.15)
