"""The course: what is handed out, what is refused, and the points for an answer."""

from __future__ import annotations

import re

import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.answers import RIGHT
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools import course
from tools.marking import NUMBER, Marking

for number in catalogue.numbers():
    catalogue.package(number, "answers")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_an_assignment_shows_neither_results_nor_solutions(path):
    given_out = course.assignment(path, "seed")
    code = [cell for cell in given_out.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any("reveal(" in cell.source for cell in code)
    checks = [cell.source for cell in code if cell.metadata.get("nbgrader", {}).get("grade")]
    assert all(text.count("Marking(") == 1 for text in checks)
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
    assert text.count("reveal(") == len(catalogue.exercises("07"))
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


def by_heart(exercise):
    known = {c.arguments(): c.expected(*c.arguments()) for c in exercise.cases}
    return lambda *sizes: known.get(sizes, 1)


def test_points_are_a_share_of_the_cases_and_the_notebook_goes_on(monkeypatch, tmp_path, capsys):
    id = "07.lora_parameter_count"
    exercises = catalogue.exercises("07")
    exercise = exercises[id]
    monkeypatch.setitem(exercises, id, exercise)  # puts it back
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    large = RIGHT[id][0]

    def wrong_if_small(d_in, d_out, r):
        return large(d_in, d_out, r) + (d_in < 100)

    check = Marking(id, "seed")
    assert len(exercises[id].cases) == len(exercise.cases) + NUMBER

    def marked(answer):
        space = {"check": check, "__name__": "__main__"}
        if answer is not None:
            space[exercise.name] = answer
        exec(f"result = check({id!r})", space)
        captured = capsys.readouterr()
        assert captured.err == ""
        assert f"{id}: {check.points:g} of 1 points" in captured.out
        points, check.points = check.points, 0.0
        return points, space["result"].or_reference()

    ours = exercise.reference
    for answer in (None, ours, by_heart(exercise), lambda *_: 1 / 0):
        assert marked(answer) == (0.0, ours)
    points, goes_on = marked(wrong_if_small)
    assert 0.3 < points < 1 and goes_on is ours
    assert marked(large) == (1.0, large)
