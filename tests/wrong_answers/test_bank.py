"""Each check refuses typical wrong answers by name, and accepts right ones however written."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from sftlab.classroom import catalogue, check
from sftlab.classroom.checking import examine
from sftlab.classroom.first_difference import difference

EXERCISES = {
    id: e for number in catalogue.numbers() for id, e in catalogue.exercises(number).items()
}


def load_bank(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    bank = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bank)
    return bank


BANKS = {p.stem[5:]: load_bank(p) for p in sorted(Path(__file__).parent.glob("bank_*.py"))}
WRONG = [
    pytest.param(id, answer, phrase, id=f"{id}: {name}")
    for bank in BANKS.values()
    for id, answers in bank.WRONG.items()
    for name, (answer, phrase) in answers.items()
]
RIGHT = [
    pytest.param(id, answer, id=f"{id}: {name}")
    for bank in BANKS.values()
    for id, answers in bank.RIGHT.items()
    for name, answer in answers.items()
]
by_exercise = pytest.mark.parametrize("id", EXERCISES)


@by_exercise
def test_each_exercise_has_six_wrong_answers_and_two_right_ones(id):
    bank = BANKS.get(id.partition(".")[0])
    assert bank, f"tests/wrong_answers/bank_{id[:2]}.py is missing"
    assert len(bank.WRONG.get(id, ())) >= 6
    assert len(bank.RIGHT.get(id, ())) >= 2


@pytest.mark.parametrize("number", BANKS)
def test_a_bank_speaks_of_exercises_that_exist(number):
    assert set(BANKS[number].WRONG) | set(BANKS[number].RIGHT) <= set(catalogue.exercises(number))


@pytest.mark.parametrize(("id", "answer", "phrase"), WRONG)
def test_a_wrong_answer_is_refused_with_its_own_message(id, answer, phrase, capsys):
    verdict = check(id, answer)
    assert verdict.status == "wrong"
    assert phrase.replace("`", "") in verdict.feedback
    assert verdict.or_reference() is EXERCISES[id].reference
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("id", "answer"), RIGHT)
def test_a_right_answer_is_accepted_however_it_is_written(id, answer):
    verdict = check(id, answer)
    assert verdict.status == "right", verdict.feedback
    assert verdict.or_reference() is answer


@by_exercise
def test_different_mistakes_get_different_messages(id):
    """Mistakes with different phrases are different mistakes: no message may fit two of them."""
    messages: dict[str, str] = {}
    for answer, phrase in BANKS[id[:2]].WRONG[id].values():
        message = examine(EXERCISES[id], answer).message
        assert messages.setdefault(message, phrase) == phrase


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
def test_every_slip_is_wrong_on_some_case(id):
    exercise = EXERCISES[id]
    for slip, message in {m: (s, m) for case in exercise.cases for s, m in case.slips}.values():
        shows = []
        for case in exercise.cases:
            if (slip, message) not in case.slips:
                continue
            try:
                made = slip(*case.arguments())
            except Exception:
                continue
            expected = case.expected(*case.arguments())
            shows.append(difference(made, expected, case.tolerance) is not None)
        assert any(shows), message


@by_exercise
def test_messages_are_short_and_calm(id):
    for case in EXERCISES[id].cases:
        for _, message in case.slips:
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


@by_exercise
@pytest.mark.parametrize("name", SURVIVED)
def test_a_check_survives(id, name, capfd):
    answer, phrase = SURVIVED[name]
    finding = examine(EXERCISES[id], answer, limit=0.3)
    assert finding.status == "wrong"
    if name != "odd result" or not finding.case.judge:  # a judge has words of its own for it
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
