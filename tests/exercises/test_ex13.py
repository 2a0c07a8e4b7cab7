"""Notebook 13: its arms, its records, and words that follow the numbers."""

from __future__ import annotations

import pytest

from sftlab.exercises.ex13_before_after_sft import dose, plots
from sftlab.exercises.ex13_before_after_sft.experiment import (
    CHECKPOINTS,
    LINES,
    QUESTIONS,
    RATES,
    SEEDS,
    batches,
    few_shot,
    first_line,
    handful,
    questions,
    scores,
    wrong_values,
)
from sftlab.exercises.record import runs
from sftlab.generate import Generation


@pytest.mark.parametrize("seed", range(SEEDS))
def test_wrong_values_change_the_value_alone(seed):
    rows = handful(seed)
    for row, wrong in zip(rows, wrong_values(rows, seed), strict=True):
        assert wrong["prompt"] == row["prompt"] and wrong["value"] != row["value"]
        before, _, after = row["response"].rpartition(row["value"])
        assert wrong["response"] == f"{before}{wrong['value']}{after}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_pair_has_the_subject_of_a_question(seed):
    validation, test = questions()
    assert len(validation) == len(test) == QUESTIONS
    asked = {(q["kind"], q["subject"]) for q in (*validation, *test)}
    assert len(asked) == 2 * QUESTIONS
    assert not asked & {(row["kind"], row["subject"]) for row in handful(seed)}


def test_both_trained_arms_read_the_same_questions_in_the_same_order(tokenizer):
    def asked(rows: list[dict]) -> list[list[int]]:
        """The prompts: all tokens before the first trained one."""
        found = []
        for batch in batches(tokenizer, rows, 4, seed=3):
            for ids, labels in zip(
                batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True
            ):
                found.append(ids[: next(k for k, label in enumerate(labels) if label != -100)])
        return found

    assert asked(handful(0)) == asked(wrong_values(handful(0), 0))


def test_a_few_shot_prompt_ends_where_the_answer_begins():
    (prompt,) = few_shot([{"prompt": "A?", "response": "B."}], [{"prompt": "C?"}])
    assert prompt == "Q: A?\nA: B.\nQ: C?\nA:"
    reply = first_line(Generation(" B.\nQ: D?", [1, 2], stopped=False))
    assert (reply.text, reply.stopped) == ("B.", True)
    assert not first_line(Generation(" B", [1], stopped=False)).stopped


def test_right_answers_meet_every_line():
    asked = questions()[1][:20]
    right = [Generation(question["answer"], [1], stopped=True) for question in asked]
    assert scores(asked, right) == dict.fromkeys(LINES, 1.0)
    endless = [Generation("Hm", [1], stopped=False) for _ in asked]
    assert scores(asked, endless) == dict.fromkeys(LINES, 0.0)


# --- words that follow the numbers -----------------------------------------------------------


def flat(value: float, run: dict) -> dict:
    same = [dict.fromkeys(LINES, value)] * len(run["test"])
    return {**run, "test": same, "validation": same}


def claims(recorded: list[dict]) -> list[str]:
    return list(plots.claims(recorded, runs("elicit_smollm2"), runs("declining"))["claim"])


def test_claims_are_turned_round_with_the_data():
    recorded = runs("elicit")
    flipped = [flat(1.0, r) if r["arm"] == "base" else r for r in recorded]
    assert claims(recorded)[0].endswith("more") and claims(flipped)[0].endswith("fewer")
    swap = {"32 pairs": "wrong values", "wrong values": "32 pairs"}
    swapped = [{**run, "arm": swap.get(run["arm"], run["arm"])} for run in recorded]
    before, after = (plots.cost_of_wrong_values(some, RATES[2])[0] for some in (recorded, swapped))
    assert after == pytest.approx(-before)
    same = [flat(0.5, run) for run in recorded]
    assert all("not settled" in claim for claim in claims(same)[:2])


def test_a_learning_rate_is_chosen_on_validation_questions():
    recorded = runs("elicit")
    for arm in ("32 pairs", "wrong values"):
        found = plots.best(recorded, arm)
        assert len(found) == SEEDS and len({run["learning_rate"] for run in found}) == 1
        blind = [{**run, "test": [None] * len(CHECKPOINTS)} for run in recorded]
        assert plots.best(blind, arm)[0]["learning_rate"] == found[0]["learning_rate"]


def test_the_dose_curve_is_drawn_for_both_arms():
    figure = plots.dose_curve(runs("declining"))
    assert all(arm in figure.alt for arm in dose.ARMS)
