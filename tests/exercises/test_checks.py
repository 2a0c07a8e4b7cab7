"""Each check refuses wrong answers by name, and accepts right ones however written.

The mistakes are those that ``check.py`` of each exercise declares with ``@mistake``; right answers, and
wrong ones that a general rule refuses, stand beside in its ``answers.py``.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import sys
import time

import pytest
import torch

from sftlab.classroom import catalogue, check, check_results, checking
from sftlab.classroom.answers import REFUSED, RIGHT
from sftlab.classroom.checking import examine

EXERCISES = {id: e for n in catalogue.numbers() for id, e in catalogue.exercises(n).items()}
for number in catalogue.numbers():
    catalogue.package(number, "answers")


def cases(declared):
    return [
        pytest.param(id, *parts, id=f"{id}: {parts[0].__name__}")
        for id, answers in declared.items()
        for parts in answers
    ]


@functools.cache
def finding(id, answer):
    return examine(EXERCISES[id], answer)


@pytest.fixture(scope="module", autouse=True)
def known_mistakes_are_tried_once(results_are_kept):
    """An answer is compared with every known mistake: what those do on a case stays as it was.

    The answer itself is tried anew, so that one is found that does not do the same twice.
    """
    named, attempt = checking._named_mistake, checking.attempt
    tried = {}

    def attempt_once(exercise, answer, case, limit, expected):
        if exercise.id not in tried:
            tried.clear()
        key = answer, id(case), limit
        of_this = tried.setdefault(exercise.id, {})
        if key not in of_this:
            of_this[key] = attempt(exercise, answer, case, limit, expected)
        return of_this[key]

    def named_once(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checking, "attempt", attempt_once)
            return named(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "_named_mistake", named_once)
        yield


MISTAKES = [
    pytest.param(id, known.answer, known.message, id=f"{id}: {known.message[:60]}")
    for id, exercise in EXERCISES.items()
    for known in exercise.mistakes
]
by_exercise = pytest.mark.parametrize("id", EXERCISES)


@by_exercise
def test_each_exercise_has_six_wrong_answers_and_four_right_ones(id):
    assert len(EXERCISES[id].mistakes) + len(REFUSED[id]) >= 6
    assert len(RIGHT[id]) >= 4


@pytest.mark.parametrize("number", catalogue.numbers())
@pytest.mark.parametrize("part", ["check", "answers"])
def test_no_function_of_a_file_hides_another(number, part):
    """Decorated functions of one name are all used, but only the last can be called by it."""
    tree = ast.parse(inspect.getsource(catalogue.package(number, part)))
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = [name for name in named if name != "_"]  # as functools.singledispatch has them
    assert sorted(set(names)) == sorted(names)


def test_answers_are_of_exercises_that_exist():
    assert set(RIGHT) | set(REFUSED) <= set(EXERCISES)


@pytest.mark.parametrize(("id", "answer", "message"), MISTAKES)
def test_a_mistake_gets_its_own_message(id, answer, message):
    found = finding(id, answer)
    assert (found.status, found.message) == ("wrong", message)


@pytest.mark.parametrize(("id", "answer", "phrase"), cases(REFUSED))
def test_a_wrong_answer_without_a_name_is_refused_all_the_same(id, answer, phrase, capsys):
    found = finding(id, answer)
    assert found.status == "wrong"
    assert phrase.replace("`", "") in check_results._feedback(found)
    assert capsys.readouterr().err == ""


@by_exercise
def test_every_case_tests_a_rule_and_every_rule_is_broken_by_a_wrong_answer(id):
    exercise = EXERCISES[id]
    assert {case.rule for case in exercise.cases} <= set(exercise.rules)
    wrong = [(known.answer, known.message) for known in exercise.mistakes] + REFUSED[id]
    side_by_side = {
        text: (
            [case.describe for case in exercise.cases if case.rule == key],
            [said for answer, said in wrong if finding(id, answer).rule == text],
        )
        for key, text in exercise.rules.items()
    }
    assert all(answers for _, answers in side_by_side.values()), side_by_side


@pytest.mark.parametrize(
    ("id", "answer"), cases({id: [(a,) for a in answers] for id, answers in RIGHT.items()})
)
def test_a_right_answer_is_accepted_however_it_is_written(id, answer):
    result = check(id, answer)
    assert result.status == "right", result.feedback
    assert result.passed == result.total
    assert result.or_reference() is not EXERCISES[id].reference


@by_exercise
def test_the_reference_is_accepted(id):
    finding = examine(EXERCISES[id], EXERCISES[id].reference)
    assert finding.status == "right", finding.message


@by_exercise
def test_a_callable_of_any_kind_may_be_an_answer(id):
    reference = EXERCISES[id].reference

    class Callable:
        def __call__(self, *arguments):
            return reference(*arguments)

    for answer in (Callable(), lambda *a: reference(*a), functools.partial(reference)):
        assert examine(EXERCISES[id], answer).status == "right"


@by_exercise
def test_cases_make_new_arguments_each_time(id):
    """Otherwise an answer that changes them would spoil the cases that follow.

    A whole model that the task only reads may be shared.
    """
    for case in EXERCISES[id].cases:
        first, second = case.arguments(), case.arguments()
        for a, b in zip(first, second, strict=True):
            assert a is not b or not isinstance(a, (list, dict, torch.Tensor)), case.describe


@by_exercise
def test_messages_are_short_and_calm(id):
    for message in (known.message for known in EXERCISES[id].mistakes):
        assert len(message) < 260, message
        assert "!" not in message.replace("!=", ""), message
        assert "    " not in message and "\n" not in message, message


# --- whatever a student's code does --------------------------------------------------------


def raises(*_):
    raise RuntimeError("out of ideas")


def loops_for_ever(*_):
    while True:
        pass


def loops_and_swallows(*_):
    while True:
        try:
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def prints(*_):
    for number in range(100):
        print("line", number)
    raise ValueError


def writes_to_stderr(*_):
    print("python", file=sys.stderr)
    os.write(2, b"descriptor\n")
    raise ValueError


def exits(*_):
    sys.exit(3)


def interrupts(*_):
    raise KeyboardInterrupt


def recurses(*a):
    return recurses(*a)


def wrong_number_of_arguments(a, b, c, d, e, f):
    return a


class CannotBeShown:
    def __repr__(self):
        raise ValueError

    def __eq__(self, other):
        raise ValueError

    __hash__ = None


SURVIVED = {
    "raising": (raises, "RuntimeError: out of ideas"),
    "endless": (loops_for_ever, "a loop that never ends?"),
    "endless, and deaf": (loops_and_swallows, "a loop that never ends?"),
    "printing": (prints, "line 0"),
    "writing to stderr": (writes_to_stderr, "descriptor"),
    "exiting": (exits, "SystemExit"),
    "interrupting": (interrupts, "KeyboardInterrupt"),
    "recursing": (recurses, "calls itself without end"),
    "other arguments": (wrong_number_of_arguments, "It takes (a, b, c, d, e, f)"),
    "odd result": (lambda *_: CannotBeShown(), "CannotBeShown"),
    "not a function": (42, "should be a function, but a int"),
}


# One check of each kind: of data, of a model, of a class, of random numbers; with and without verify.
KINDS = ("00.count_trained", "12.build_example", "13.train_step", "17.LoRALinear", "23.learned")


@pytest.mark.parametrize("id", KINDS)
@pytest.mark.parametrize("name", SURVIVED)
def test_a_check_survives(id, name, capfd):
    answer, phrase = SURVIVED[name]
    # Only what never ends has to wait for the limit.
    finding = examine(EXERCISES[id], answer, limit=0.3 if "endless" in name else 5.0)
    assert finding.status == "wrong"
    if name != "odd result" or not finding.case.verify:  # these have words of their own for it
        assert phrase in finding.message.replace("`", "") + finding.printed
    assert capfd.readouterr().err == ""


@by_exercise
def test_a_stub_is_not_attempted(id):
    def empty(*_):
        """A docstring is no attempt."""

    def stub(*_):
        raise NotImplementedError

    def dots(*_): ...

    for answer in (stub, dots, empty, None, ...):
        verdict = check(id, answer)
        assert verdict.status == "not attempted"
        assert verdict.or_reference() is EXERCISES[id].reference
