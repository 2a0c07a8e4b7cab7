"""The page of findings says what the notebooks' tables say, and its verdicts follow their words."""

import pytest

from tools.findings import FAILED, HELD, OPEN, PATH, STATEMENTS, found, page, verdict


def test_the_page_is_the_one_that_the_program_writes():
    assert PATH.read_text(encoding="utf-8") == page(), "run `python -m tools.findings`"


def test_every_exercise_of_the_chapter_has_a_statement():
    assert {statement.number for statement in STATEMENTS} == {f"{n:02d}" for n in range(1, 23)}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: f"{s.number}-{s.says[:20]}")
def test_a_statement_points_to_rows_that_are_there(statement):
    rows = found(statement.number)
    assert max(statement.rows) < len(rows)
    assert all(cell for k in statement.rows for cell in rows[k])


def table(number: str, old: str, new: str) -> list[list[str]]:
    return [[cell.replace(old, new) for cell in row] for row in found(number)]


@pytest.mark.parametrize(
    ("number", "k", "old", "new", "then"),
    [
        ("06", 1, "forgets more", "forgets less", HELD),
        ("06", 1, "forgets more", "not settled here", OPEN),
        ("08", 0, "starts at", "starts away from", FAILED),
        ("10", 0, "is higher", "is lower", FAILED),
        ("22", 0, "answers fall", "answers rise", FAILED),
        ("22", 0, "answers rise", "not settled here", HELD),
        ("18", 0, "is higher", "is lower", HELD),
        ("21", 0, "documents higher", "documents lower", HELD),
        ("21", 0, "not settled here", "higher", FAILED),
    ],
)
def test_a_verdict_turns_round_with_the_table(number, k, old, new, then):
    statement = [s for s in STATEMENTS if s.number == number][k]
    assert verdict(statement, table(number, old, new))[0] == then
    assert verdict(statement, found(number))[0] != then
