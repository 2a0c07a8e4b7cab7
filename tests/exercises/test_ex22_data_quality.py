"""The data-quality experiments: their arms, and a part of what was recorded, once more."""

from __future__ import annotations

from collections import Counter

import pytest

from sftlab.almanac.defects import DEFECTS
from sftlab.exercises.ex22_data_quality_ablation import experiment, real, spoilt
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    ARMS,
    MAIN,
    SEEDS,
    bad,
    by_kind,
    good,
    questions,
    right,
)
from sftlab.exercises.ex22_data_quality_ablation.unseen import UNSEEN, unseen_pairs
from sftlab.exercises.record import read, runs
from sftlab.scoring import RUBRIC

GOOD, BAD, RIGHT = MAIN


def asked_of(rows: list[dict]) -> list[str]:
    return [row.get("prompt") or row["messages"][0]["content"] for row in rows]


@pytest.mark.parametrize("seed", [0, 3])
def test_the_main_arms_differ_in_200_answers_alone(seed):
    clean, poisoned, repaired = (ARMS[arm](seed) for arm in MAIN)
    assert poisoned[:500] == repaired[:500] == clean
    assert asked_of(poisoned) == asked_of(repaired)
    assert Counter(row["defect"] for row in poisoned[500:]) == dict.fromkeys(DEFECTS, 25)
    assert all(
        a["response"] != b["response"] for a, b in zip(poisoned[500:], repaired[500:], strict=True)
    )
    assert not any("defect" in row for row in repaired)
    assert clean[:100] == ARMS["100 good"](seed)


def test_a_seed_draws_other_pairs_and_none_is_asked_twice():
    assert good(0, 500) != good(1, 500) and bad(0) != bad(1)
    asked = [row["prompt"] for row in good(0, 700) + bad(0) if "prompt" in row]
    assert len(set(asked)) == len(asked) > 800
    assert not set(asked) & {question["prompt"] for question in questions()}


def test_the_lot_keeps_as_many_as_the_filter():
    assert len(ARMS["thinned by lot"](2)) == len(ARMS["filtered"](2)) < 700


@pytest.mark.parametrize("defect", [*DEFECTS, spoilt.COPIES, spoilt.LEAKED])
def test_an_arm_with_a_defect_differs_from_the_control_in_the_dose_alone(defect):
    clean, some, all_ = (
        spoilt.rows(d, n, 1) for d, n in ((spoilt.NONE, 0), (defect, 30), (defect, 100))
    )
    assert len(clean) == len(some) == len(all_) == 300
    assert [sum(a != b for a, b in zip(clean, arm, strict=True)) for arm in (some, all_)] == [
        30,
        100,
    ]
    if defect in DEFECTS:
        assert asked_of(some) == asked_of(clean)
        assert all(b == c for a, b, c in zip(clean, some, all_, strict=True) if a != b)


def test_left_out_pairs_are_missing_and_near_copies_add_no_question():
    clean = spoilt.rows(spoilt.NONE, 0, 1)
    assert spoilt.rows(spoilt.LEFT_OUT, 100, 1) == clean[:200]
    copies = spoilt.rows(spoilt.COPIES, 100, 1)[200:]
    assert len(set(asked_of(copies))) == 100
    assert len({row["response"] for row in copies}) == spoilt.ORIGINALS


def test_leaked_pairs_are_questions_of_the_evaluation():
    known = {question["prompt"]: question["answer"] for question in questions()}
    leaked = spoilt.rows(spoilt.LEAKED, 100, 1)[200:]
    assert all(known[row["prompt"]] == row["response"] for row in leaked)


def test_an_unseen_defect_changes_every_answer_it_can():
    for name, pairs in unseen_pairs(2).items():
        right_ = spoilt.fact_pairs(2)
        changed = sum(a["response"] != b["response"] for a, b in zip(pairs, right_, strict=True))
        assert changed == 100, name
    assert not set(UNSEEN) & set(DEFECTS)


def test_right_answers_carry_no_label():
    assert right([{"prompt": "?", "response": "no", "right": "yes", "defect": "echo"}]) == [
        {"prompt": "?", "response": "yes", "right": "yes"}
    ]


def test_marks_are_counted_by_kind_in_the_order_of_the_questions():
    asked = [{"kind": kind} for kind in ("b", "a", "b", "a")]
    assert by_kind("1101", asked) == [1, 2]


@pytest.mark.parametrize("module", [experiment, spoilt, real])
def test_every_setting_is_recorded_once_and_no_other(module):
    recorded = [run["settings"] for run in read(module.RECORD)["runs"]]
    wanted = module.settings()
    assert sorted(map(str, recorded)) == sorted(map(str, wanted))
    assert {setting["seed"] for setting in wanted} == set(range(SEEDS))


@pytest.mark.parametrize(("module", "per_kind"), [(experiment, 20), (spoilt, 20), (real, 4)])
def test_counts_are_shares_of_the_questions_of_a_kind(module, per_kind):
    for run in runs(module.RECORD):
        for line in RUBRIC:
            assert len(run[line]) == 27 and all(0 <= n <= per_kind for n in run[line])


@pytest.mark.base
@pytest.mark.thorough
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so some answers may differ."""
    (recorded,) = runs(spoilt.RECORD, defect="echo", bad=100, seed=0)
    found = spoilt.run(defect="echo", bad=100, seed=0)
    for line in RUBRIC:
        assert sum(found[line]) / 540 == pytest.approx(sum(recorded[line]) / 540, abs=0.06)
