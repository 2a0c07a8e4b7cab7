"""What an answer is worth for a mark, whatever the notebook around it does."""

from __future__ import annotations

import dataclasses

import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.checking import examine
from tools import grading
from tools.sampled import ARGUMENTS, NUMBER, sampled

ID = "07.break_even_rank"
RIGHT = "def break_even_rank(d_in, d_out):\n    return (d_in * d_out - 1) // (d_in + d_out)"
HEAD = "from sftlab.classroom import check, reveal, start\nfrom sftlab.lora import break_even_rank, lora_parameter_count"
STUB = "def break_even_rank(d_in, d_out):\n    raise NotImplementedError"


def status(*cells: str, id: str = ID) -> str:
    return grading.grade(id, [HEAD, *cells], "seed").status


def test_a_right_answer_earns_the_mark_and_a_wrong_one_its_message():
    assert status(RIGHT) == "right"
    finding = grading.grade(ID, [RIGHT.replace(" - 1", "")], "seed")
    assert finding.status == "wrong"
    assert "exactly as many" in finding.message


def test_an_answer_with_the_cases_of_the_check_by_heart_fails_on_those_drawn():
    table = {
        case.arguments(): case.expected(*case.arguments()) for case in catalogue.exercise(ID).cases
    }
    by_heart = f"KNOWN = {table}\ndef break_even_rank(*sizes):\n    return KNOWN.get(sizes, 1)"
    namespace: dict = {}
    exec(by_heart, namespace)
    assert examine(catalogue.exercise(ID), namespace["break_even_rank"]).status == "right"
    finding = grading.grade(ID, [by_heart], "seed")
    assert finding.status == "wrong"
    assert "drawn for the marks" in finding.case.describe


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [STUB],
        [STUB, f"break_even_rank = check('{ID}', break_even_rank).or_reference()"],
        [f"g = check('{ID}', None).or_reference()\nbreak_even_rank = g"],
    ],
)
def test_what_the_workbook_wrote_earns_nothing(cells):
    assert status(*cells) != "right"


@pytest.mark.parametrize(
    "text",
    [
        "from sftlab.lora import break_even_rank as theirs\ndef break_even_rank(a, b):\n    return theirs(a, b)",
        "import sftlab.lora\ndef break_even_rank(a, b):\n    return sftlab.lora.break_even_rank(a, b)",
        "def break_even_rank(a, b):\n    from sftlab.lora import break_even_rank as r\n    return r(a, b)",
        "break_even_rank = lambda a, b, r=break_even_rank: r(a, b)",
    ],
)
def test_a_borrowed_answer_is_told_so(text):
    finding = grading.grade(ID, [HEAD, text], "seed")
    assert "workbook's own `break_even_rank`" in finding.message


def test_other_functions_of_the_package_may_be_used():
    text = "def break_even_rank(a, b):\n    return (a * b - 1) // lora_parameter_count(a, b, 1)"
    assert status(text) == "right"


def test_checking_in_ones_own_cell_takes_nothing_away():
    assert (
        status(f"{RIGHT}\nbreak_even_rank = check('{ID}', break_even_rank).or_reference()")
        == "right"
    )


@pytest.mark.parametrize(
    "around",
    [
        "while True:\n    pass",
        "import sys; sys.stderr.write('noise')",
        "import sftlab.classroom.checking as c\nc.examine = lambda *_: c.Finding('right', '')",
        "raise SystemExit",
        "this is no Python",
        "def check(*_):\n    raise RuntimeError",
    ],
)
def test_what_an_answer_does_not_need_is_not_run(around):
    assert status(around, RIGHT, around) == "right"
    assert status(around, RIGHT.replace(" - 1", ""), around) == "wrong"


def test_a_cell_that_cannot_be_read_is_the_message():
    finding = grading.grade(ID, [HEAD, "def break_even_rank(a, b:\n    return 1"], "seed")
    assert (finding.status, "cannot read" in finding.message) == ("wrong", True)


def test_an_error_before_the_function_is_there_names_its_line():
    finding = grading.grade(
        ID, ["limit = 1 / 0\ndef break_even_rank(a, b, c=limit):\n    return 1"], "s"
    )
    assert "ZeroDivisionError" in finding.message
    assert "limit = 1 / 0" in finding.message


@pytest.mark.slow
def test_a_process_of_its_own_tells_the_same_and_is_ended_in_time():
    assert grading.grade_apart(ID, [RIGHT], "seed").status == "right"
    finding = grading.grade_apart(
        ID, ["def break_even_rank(a, b):\n    return sum(iter(int, 1))"], "s", 12
    )
    assert (finding.status, "that never ends" in finding.message) == ("wrong", True)
    finding = grading.grade_apart(
        ID, ["import os\ndef break_even_rank(a, b):\n    os._exit(0)"], "s"
    )
    assert finding.message == grading.BROKE_OFF


@pytest.mark.parametrize("id", ARGUMENTS)
def test_drawn_cases_are_of_their_seed_and_the_reference_passes_them(id):
    exercise = catalogue.exercise(id)
    for seed in ("a", "b", "c"):
        cases = sampled(exercise, seed)
        assert len(cases) == NUMBER
        assert [c.describe for c in cases] == [c.describe for c in sampled(exercise, seed)]
        finding = examine(dataclasses.replace(exercise, cases=cases), exercise.reference)
        assert finding.status == "right", finding.message
    assert len({case.describe for seed in "ab" for case in sampled(exercise, seed)}) > 1


def test_every_drawn_exercise_exists():
    for id in ARGUMENTS:
        assert not catalogue.exercise(id).cases[0].judge, id
