"""What a stub's text says and what its check tests are the same, and the cases tell answers apart.

The rules of an exercise are lines of its stub's docstring. Each has a case that a wrong answer fails,
each case tests one of them, and a changed reference is refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import random

import numpy
import pytest
import torch
from mutants import mutants

from sftlab.classroom import catalogue
from sftlab.classroom.answers import EQUIVALENT, RIGHT
from sftlab.classroom.checking import UNCHANGED, attempt, drawn, examine
from sftlab.classroom.first_difference import is_tensor, plain
from sftlab.classroom.watching import look_at

EXERCISES = {id: e for n in catalogue.numbers() for id, e in catalogue.exercises(n).items()}
for number in catalogue.numbers():
    catalogue.package(number, "answers")
by_exercise = pytest.mark.parametrize("id", EXERCISES)


@by_exercise
def test_a_stub_says_what_is_asked_and_its_hints_lead_there(id):
    exercise = EXERCISES[id]
    assert exercise.asks and exercise.rules and exercise.path
    assert len(exercise.hints) == 3
    assert exercise.hints[1][0] in exercise.rules
    code = [line.strip() for line in inspect.getsource(exercise.reference).splitlines()]
    for hint in exercise.hint_texts:
        assert not any(len(line) > 20 and line in hint for line in code)


@by_exercise
def test_that_arguments_stay_as_they_are_is_said_where_it_is_watched(id):
    exercise = EXERCISES[id]
    watched = any(
        look_at(argument) is not None
        for case in exercise.cases
        if case.in_place is not True
        for number, argument in enumerate(case.arguments())
        if number not in (case.in_place or ())
    )
    assert watched == (UNCHANGED in exercise.rules)


@by_exercise
def test_a_reference_that_is_changed_anywhere_is_refused(id):
    exercise = EXERCISES[id]
    cases = [*exercise.cases, *drawn(exercise, "check", 3)]
    limit = 10.0 if all(case.verify for case in exercise.cases) else 3.0  # models that generate
    survivors = {
        name
        for name, mutant in mutants(exercise.reference)
        if all(attempt(exercise, mutant, case, limit=limit).message is None for case in cases)
    }
    assert survivors - set(EQUIVALENT[id]) == set(), "declare with a reason, or add a case"
    assert set(EQUIVALENT[id]) - survivors == set(), "no longer equivalent"


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("id", [id for id in EXERCISES if EXERCISES[id].draw])
def test_right_answers_pass_random_cases(id, count):
    exercise = EXERCISES[id]
    exercise = dataclasses.replace(exercise, cases=drawn(exercise, "200", count), draw=None)
    for answer in (exercise.reference, *RIGHT[id]):
        finding = examine(exercise, answer, limit=60)
        assert finding.status == "right", (answer.__name__, finding.message, finding.case.describe)


# --- a result is the same in any type that holds it ------------------------------------------


def each_number(change):
    """Apply the change to every number of a result, whatever holds it."""

    def changed(value):
        if isinstance(value, (bool, int, float)):
            return change(value)
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(changed(item) for item in value)
        return value

    return changed


def each_sequence(change):
    """Apply the change to the lists and tuples of a result, the outermost first."""

    def changed(value):
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return change(value)
        return value

    return changed


def as_tensor(value):
    """A 0-dim tensor for a number, where float32 or int64 holds it."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def as_numpy(value):
    return numpy.asarray(value)[()]


def numeric(change):
    def changed(value):
        try:
            array = numpy.asarray(value)
        except ValueError:  # of unequal lengths
            return value
        return change(array) if array.dtype.kind in "iufb" and array.size else value

    return changed


def tensor_as(change):
    def changed(value):
        if type(value) in (list, tuple):
            return type(value)(changed(item) for item in value)
        return change(value) if is_tensor(value) else value

    return changed


HOLDERS = {
    "0-dim tensors": each_number(as_tensor),
    "NumPy numbers": each_number(as_numpy),
    "whole floats": each_number(lambda x: float(x) if type(x) is int and abs(x) < 2**53 else x),
    "tuples for lists": each_sequence(tuple),
    "lists for tuples": each_sequence(list),
    "arrays for lists": each_sequence(numeric(lambda a: a)),
    "tensors for lists": each_sequence(numeric(torch.as_tensor)),
    "iterators for lists": lambda v: iter(v) if type(v) is list else v,
}
TENSORS = {
    "lists for tensors": tensor_as(plain),
    "arrays for tensors": tensor_as(lambda t: t.detach().float().numpy() if t.dtype == torch.bfloat16 else t.detach().numpy()),
    "float64 for tensors": tensor_as(lambda t: t.double() if t.is_floating_point() else t),
    "int32 for tensors": tensor_as(lambda t: t.int() if t.dtype == torch.int64 else t),
}  # fmt: skip


@pytest.mark.parametrize(
    "turn", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2))]
)
@pytest.mark.parametrize("holder", HOLDERS | TENSORS)
@by_exercise
def test_a_right_answer_may_return_any_equal_type(id, holder, turn):
    """The exercise's first three answers take turns; in three turns each has had every holder."""
    exercise, holders = EXERCISES[id], HOLDERS | TENSORS
    if holder in TENSORS and exercise.strict:
        pytest.skip("a rule asks for this type")
    answers = [answer for answer in RIGHT[id] if not isinstance(answer, type)][:3]
    if not answers:
        pytest.skip("the answer is a class: it returns nothing")
    answer = answers[(list(holders).index(holder) + turn) % len(answers)]

    def other(*arguments):
        return holders[holder](answer(*arguments))

    finding = examine(exercise, other)
    assert finding.status == "right", (answer.__name__, finding.message)
    used = random.Random(0).choice(exercise.cases)
    if not used.verify and not used.observe:
        value = finding.adapt(other)(*used.arguments())
        assert type(value) is type(used.expected(*used.arguments())) or value is None
