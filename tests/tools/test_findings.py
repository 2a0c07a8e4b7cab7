"""The pages of findings and claims say what the notebooks' tables say, and verdicts follow their words."""

import re

import pytest

from tools.findings import (
    CLAIMS,
    FAILED,
    HELD,
    OPEN,
    PART,
    PATH,
    STATEMENTS,
    claims_page,
    found,
    page,
    shortened,
    update_findings,
    verdict,
)


@pytest.mark.parametrize(("path", "text"), [(PATH, page), (CLAIMS, claims_page)])
def test_a_page_is_the_one_that_the_program_writes(path, text):
    assert path.read_text(encoding="utf-8") == text(), "run `python -m tools.findings`"


def test_every_row_of_every_table_is_a_claim_of_the_page():
    told = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in claims_page().splitlines()
        if line.startswith("| ") and not line.startswith(("| claim |", "| ---"))
    ]
    rows = [row for statement in {s.number for s in STATEMENTS} for row in found(statement)]
    for row in rows:
        assert [cell.replace("|", "\\|").strip() for cell in row] in told


def test_a_page_is_written_once_and_again_only_if_it_differs(tmp_path):
    assert update_findings(tmp_path)
    assert not update_findings(tmp_path)
    (tmp_path / CLAIMS.name).write_text("old")
    assert update_findings(tmp_path)
    assert not update_findings(tmp_path / "missing")


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
        ("05", 0, "within 5 points", "fewer right answers", HELD),
        ("20", 0, "changed no answer", "changed some answers", FAILED),
        ("16", 0, "240 pairs fewer", "240 pairs more", HELD),
        ("21", 0, "is higher", "is lower", HELD),
        ("21", 0, "not settled here", "higher", FAILED),
    ],
)
def test_a_verdict_turns_round_with_the_table(number, k, old, new, then):
    statement = [s for s in STATEMENTS if s.number == number][k]
    assert verdict(statement, table(number, old, new))[0] == then
    assert verdict(statement, found(number))[0] != then


@pytest.mark.parametrize(
    ("number", "old", "new", "was"),
    [
        ("18", "exactly right: -0.5 points (-6.1 to", "exactly right: -0.5 points (-6.1 or", "exact answers not settled"),
        ("16", "240 pairs fewer", "240 pairs not settled here", "answers more"),
    ],
)  # fmt: skip
def test_a_comment_turns_round_with_the_table(number, old, new, was):
    (statement,) = (s for s in STATEMENTS if s.number == number)
    before = verdict(statement, found(number))
    after = verdict(statement, table(number, old, new))
    assert before[0] == after[0] == PART
    assert was in before[1] and was not in after[1]


def test_the_page_has_two_pages_at_most():
    read = re.sub(r"\]\([^)]*\)", "]", page())  # links are not read
    assert len(read.split()) <= 1400
    assert shortened("first; second", 20) == "first; second"
    assert shortened("first; second; third", 10) == "first"
