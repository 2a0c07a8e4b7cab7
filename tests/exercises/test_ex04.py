"""The experiment of notebook 04: its batches and splits, its words, and a part of what was recorded."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from sftlab.exercises.ex04_sft_loss import plots
from sftlab.exercises.ex04_sft_loss.experiment import (
    ARMS,
    CHECKPOINTS,
    MEANS,
    MIXED,
    TOKEN_MEAN,
    batches,
    by_length,
    examples,
    is_long,
    mixed,
    outputs,
    questions,
    run,
    training_rows,
)
from sftlab.exercises.record import runs
from sftlab.loss import accumulated_loss, mean_of_means, sft_loss

NAME = "accumulation"


def test_no_pair_has_the_subject_of_a_question_and_no_question_is_in_two_sets():
    asked = [(q["kind"], q["subject"]) for rows in questions().values() for q in rows]
    assert len(asked) == len(set(asked))
    for seed in range(5):
        short, long = training_rows(seed)
        assert len(short) == len(long) == 48
        assert all(map(is_long, long)) and not any(map(is_long, short))
        assert not {(r["kind"], r["subject"]) for r in short + long} & set(asked)


def test_both_splits_hold_the_same_examples_and_only_one_is_uneven(tokenizer):
    for short, long in batches(tokenizer, seed=1, steps=3):
        assert max(e.trained for e in short) <= min(e.trained for e in long)
        for split in (by_length, mixed):
            found = [e for part in split(short, long) for e in part]
            assert sorted(map(id, found)) == sorted(map(id, short + long))
        first, second = (sum(e.trained for e in part) for part in mixed(short, long))
        assert 2 / 3 < first / second < 3 / 2


def test_every_arm_reads_the_same_batches(tokenizer):
    first, again = (list(batches(tokenizer, seed=2, steps=3)) for _ in range(2))
    assert first == again != list(batches(tokenizer, seed=3, steps=3))


def test_the_split_changes_the_mean_of_means_alone(tiny_model, tokenizer):
    halves = next(batches(tokenizer, seed=0, steps=1))
    pad = tokenizer.pad_token_id
    with torch.no_grad():
        whole = sft_loss(*outputs(tiny_model, [halves[0] + halves[1]], pad)[0])
        for split in (by_length, mixed):
            found = outputs(tiny_model, split(*halves), pad)
            assert accumulated_loss(found).item() == pytest.approx(whole.item(), rel=1e-5)
        uneven = mean_of_means(outputs(tiny_model, by_length(*halves), pad))
    assert abs(uneven - whole) > 1e-4


# --- words that follow the numbers -----------------------------------------------------------

SHARE = {"base": (0.9, (0.85, 0.95)), "chat": (0.8, (0.7, 0.9))}
GRADIENTS = pd.DataFrame({"token mean": [1e-15, 1e-16], "mean of means": [0.5, 2.0]})
STEPS = {
    "SGD": (250.0, (200.0, 300.0)),
    "SGD, per token": (1.0, (0.99, 1.01)),
    "AdamW": (1.0, (0.999, 1.001)),
}


def words(recorded=None, share=SHARE, gradients=GRADIENTS, steps=STEPS) -> list[str]:
    found = runs(NAME) if recorded is None else recorded
    return list(plots.claims(found, share, 0.25, gradients, steps)["claim"])


def test_the_claims_turn_round_with_their_numbers():
    swap = {TOKEN_MEAN: MEANS, MEANS: TOKEN_MEAN, MIXED: MIXED}
    flipped = [{**r, "arm": swap[r["arm"]]} for r in runs(NAME)]
    before, after = words(), words(flipped)
    assert before[2].endswith("lower") and after[2].endswith("higher")
    less = dict.fromkeys(SHARE, (0.1, (0.05, 0.15)))
    assert "more" in before[0] and "less" in words(share=less)[0]
    assert "does not change" in before[1]
    assert "changes" in words(gradients=GRADIENTS + 0.1)[1]
    assert "the same within 1%" in before[3]
    assert "higher" in words(steps=STEPS | {"AdamW": (2.0, (1.5, 2.5))})[3]


def test_without_a_difference_it_is_the_same():
    level = [{**r, "short": [1.0 + r["seed"] / 9] * 3, "long": [1.0] * 3} for r in runs(NAME)]
    assert "the same within 5%" in words(level)[2]


def test_a_ratio_is_that_of_the_arms_best_learning_rates():
    at = CHECKPOINTS.index(12)
    one = [r for r in runs(NAME) if r["arm"] == MEANS]
    losses: dict[float, float] = {}
    for r in one:
        both = r["validation, short"][at] + r["validation, long"][at]
        losses[r["learning_rate"]] = losses.get(r["learning_rate"], 0.0) + both
    best = min(losses, key=lambda rate: losses[rate])
    worse = [{**r, "short": [9.9] * 3} if r["learning_rate"] != best else r for r in one]
    others = [r for r in runs(NAME) if r["arm"] != MEANS]
    assert plots.ratio(worse + others, MEANS, "short", 12) == plots.ratio(
        runs(NAME), MEANS, "short", 12
    )


# --- the recorded file -----------------------------------------------------------------------


def test_every_arm_is_recorded():
    assert {run_["arm"] for run_ in runs(NAME)} == set(ARMS)


@pytest.mark.base
@pytest.mark.thorough
def test_a_training_gives_what_was_recorded():
    cell = {"arm": MEANS, "learning_rate": 1e-3, "seed": 0}
    (recorded,) = runs(NAME, **cell)
    found = run(**cell)
    for name in questions():
        assert found[name] == pytest.approx(recorded[name], rel=0.1)


def test_the_rows_become_examples_whose_answer_is_trained(tokenizer):
    (example,) = examples(tokenizer, training_rows(0)[0][:1])
    trained = tokenizer.decode([label for label in example.labels if label >= 0])
    assert trained == training_rows(0)[0][0]["response"] + tokenizer.eos_token
