"""The course: what is handed out, what is refused, and the cases that are drawn for the marks."""

from __future__ import annotations

import dataclasses
import re

import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.answers import RIGHT
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.classroom.checking import examine
from sftlab.errors import WorkbookError
from tools import course
from tools.sampled import ARGUMENTS, NUMBER, marking, sampled

for number in catalogue.numbers():
    catalogue.package(number, "answers")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_an_assignment_shows_neither_results_nor_solutions(path):
    given_out = course.assignment(path, "seed")
    code = [cell for cell in given_out.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any("reveal(" in cell.source for cell in code)
    checks = [cell.source for cell in code if cell.metadata.get("nbgrader", {}).get("grade")]
    assert all(text.count("marking(globals(), ") == 1 for text in checks)
    assert any(cell.source == course.LATER for cell in given_out.cells)
    ids = [c.metadata["nbgrader"]["grade_id"] for c in code if "nbgrader" in c.metadata]
    assert ids
    assert len(set(ids)) == len(ids)
    assert len({cell.id for cell in given_out.cells}) == len(given_out.cells)
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(c.source for c in given_out.cells)):
        assert (NOTEBOOKS / link.rpartition("/")[2]).exists()
        assert re.fullmatch(r"\.\./(\w+)/\1\.ipynb", link)


def test_with_solutions_every_check_has_its_reveal():
    (path,) = NOTEBOOKS.glob("07_*.ipynb")
    text = "\n".join(cell.source for cell in course.assignment(path, "seed", True).cells)
    assert text.count("reveal(") == 2
    assert course.LATER not in text


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert course.main([str(tmp_path), "07"]) == 1
    assert "name an empty folder" in capsys.readouterr().err
    (tmp_path / "nbgrader_config.py").write_text("# another course")
    with pytest.raises(WorkbookError, match="empty folder"):
        course.build(tmp_path, ["07"])
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "nbgrader_config.py"}


def test_a_course_of_an_earlier_edition_is_told_so(tmp_path, capsys):
    (tmp_path / "nbgrader_config.py").write_text(f'{course.MARK}\nc.Grade.seed = "1"\n')
    assert course.main([str(tmp_path), "07"]) == 1
    assert "Make the course in a new folder" in capsys.readouterr().err


def test_an_unknown_number_is_named_before_anything_is_written(tmp_path, capsys):
    assert course.main([str(tmp_path / "course"), "07", "77"]) == 1
    told = capsys.readouterr().err
    assert "there is no notebook 77" in told
    assert "07, 08" in told
    assert not (tmp_path / "course").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert course.main([str(tmp_path / "file" / "course"), "07"]) == 1
    assert re.fullmatch(r".* cannot be written: .*\n", capsys.readouterr().err)
    assert course.main([str(tmp_path / "file"), "07"]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("id", ARGUMENTS)
def test_drawn_cases_are_of_their_seed_and_right_answers_pass_them(id):
    exercise = catalogue.exercise(id)
    assert not exercise.cases[0].verify
    for seed in ("a", "b", "c"):
        cases = sampled(exercise, seed)
        assert len(cases) == NUMBER
        assert [c.describe for c in cases] == [c.describe for c in sampled(exercise, seed)]
        for answer in (exercise.reference, *RIGHT[id]):
            finding = examine(dataclasses.replace(exercise, cases=cases), answer)
            assert finding.status == "right", (answer, finding.message)
    assert len({case.describe for seed in "ab" for case in sampled(exercise, seed)}) > 1


def test_a_failed_check_costs_its_points_and_the_notebook_goes_on(monkeypatch, tmp_path, capsys):
    id = "07.break_even_rank"
    exercises = catalogue.exercises("07")
    monkeypatch.setitem(exercises, id, exercises[id])  # puts it back
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    names: dict = {}
    check = marking(names, id, "seed")
    assert names == {"break_even_rank": None}
    ours = exercises[id].reference
    by_heart = {c.arguments(): c.expected(*c.arguments()) for c in exercises[id].cases[:-NUMBER]}
    for answer, status in (
        (names["break_even_rank"], "not attempted"),
        (ours, "not attempted"),
        (lambda *sizes: by_heart.get(sizes, 1), "wrong"),
    ):
        assert check(id, answer).or_reference() is ours
        assert capsys.readouterr().err == f"{id}: {status}, no points\n"
    right = RIGHT[id][0]
    assert check(id, right).or_reference() is right
    assert capsys.readouterr().err == ""
