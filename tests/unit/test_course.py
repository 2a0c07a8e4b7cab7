"""The course: what is handed out, and what is refused."""

from __future__ import annotations

import re

import pytest

from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools import course


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_an_assignment_shows_neither_results_nor_solutions(path):
    given_out = course.assignment(path)
    code = [cell for cell in given_out.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any("reveal(" in cell.source for cell in code)
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
    text = "\n".join(cell.source for cell in course.assignment(path, True).cells)
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
