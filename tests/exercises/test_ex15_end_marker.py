"""The recorded runs of the end marker: a part of them is measured again."""

from __future__ import annotations

import pytest

from sftlab.exercises.ex15_multi_turn_masking.experiment import ARMS, questions, run, settings
from sftlab.exercises.record import runs


def test_both_arms_are_recorded_for_every_seed():
    found = runs("end_marker")
    keys = {(row["end_marker"], row["seed"]) for row in found}
    assert keys == {(s["end_marker"], s["seed"]) for s in settings()}
    assert all(row["questions"] == 200 for row in found)


def test_the_questions_have_one_right_answer_and_are_the_same_each_time():
    assert questions(20) == questions(20)
    assert all("allowed" not in question for question in questions())


@pytest.mark.base
@pytest.mark.parametrize("arm", ARMS)
def test_a_run_measured_again_gives_what_is_recorded(arm):
    (recorded,) = runs("end_marker", end_marker=arm, seed=0)
    found = run(arm, 0)
    for name, value in found.items():  # the last digits of training differ between processors
        assert found[name] == pytest.approx(recorded[name], abs=0.05), (name, value)
