"""A course from beginning to end: made, handed out, handed in by four students, graded by nbgrader."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue
from sftlab.classroom.catalogue import NOTEBOOKS
from tools import course, grading
from tools.notebook_metadata import CHECK

sys.path.append(str(ROOT / "tests" / "browser"))
from answers import answers

NAME = "07_lora_parameter_count"
COUNT, RANK = "07.lora_parameter_count", "07.break_even_rank"
PATCHES = """
import sftlab.classroom, sftlab.classroom.checking, sftlab.classroom.check_results, sftlab.lora
class Passed:
    status = "right"
    def or_reference(self): return print
def check(*_): return Passed()
sftlab.classroom.check = sftlab.classroom.check_results.check = check
sftlab.classroom.checking.examine = lambda *_, **__: sftlab.classroom.checking.Finding("right", "")
sftlab.lora.break_even_rank = lambda d_in, d_out: 7
get_ipython().ast_transformers.append(print)
"""
NOISE = "import sys, warnings\nprint('noise', file=sys.stderr)\nwarnings.warn('more noise')"


def right(id: str) -> str:
    return answers(id[:2], "RIGHT", id)[0][0]


def wrong(id: str) -> str:
    return answers(id[:2], "WRONG", id)[0][0]


def cell_of(notebook, id: str, kind: str):
    """The stub ("answer") or the check of an exercise."""
    wanted = f"{id.replace('.', '-')}-{kind}"
    return next(
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == wanted
    )


def honest(released, count: str, rank: str):
    notebook = copy.deepcopy(released)
    cell_of(notebook, COUNT, "answer").source = count
    cell_of(notebook, RANK, "answer").source = rank
    return notebook


def hostile(released):
    """A right count amid noise; loops, here and there; and a check that was made easier."""
    endless = "def break_even_rank(d_in, d_out):\n    while True:\n        try:\n            pass\n        except:\n            pass"
    notebook = honest(released, f"{NOISE}\n{right(COUNT)}\n{NOISE}", endless)
    easier = cell_of(notebook, RANK, "check")
    easier.source = "print('passed')"
    easier.metadata["nbgrader"]["points"] = 100
    notebook.cells.insert(0, new_code_cell("while True:\n    pass"))
    notebook.cells.insert(3, new_code_cell(PATCHES))
    return notebook


def tampered(released):
    """Wrong answers, the workbook patched, one check deleted and the other one no longer a check."""
    notebook = honest(
        released, wrong(COUNT), f"def break_even_rank(d_in, d_out):\n    return 7\n{PATCHES}"
    )
    notebook.cells.insert(0, new_code_cell(PATCHES))
    notebook.cells.remove(cell_of(notebook, COUNT, "check"))
    unchecked = cell_of(notebook, RANK, "check")
    unchecked.metadata["nbgrader"].update(grade=False, locked=False, solution=True)
    unchecked.source = "1"
    return notebook


SUBMISSIONS = {
    "anna": (lambda released: honest(released, right(COUNT), right(RANK)), 2),
    "ben": (lambda released: honest(released, right(COUNT), wrong(RANK)), 1),
    "cora": (hostile, 1),
    "dora": (tampered, 0),
    "emil": (copy.deepcopy, 0),  # nothing was written
}


def nbgrader(folder: Path, *arguments: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests" / "no_network"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course of one assignment after grading: its folder."""
    folder = tmp_path_factory.mktemp("course") / "course"
    course.build(folder, ["07"])
    released = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    for student, (made, _) in SUBMISSIONS.items():
        place = folder / "submitted" / student / NAME
        place.mkdir(parents=True)
        nbformat.write(made(released), place / f"{NAME}.ipynb")
    nbgrader(folder, "autograde", NAME)
    return folder


@pytest.mark.slow
def test_each_submission_gets_the_marks_that_it_earned(graded):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}") as book:
        found = {s.student.id: (s.score, s.max_score) for s in book.assignment_submissions(NAME)}
        waiting = [s.student.id for s in book.assignment_submissions(NAME) if s.needs_manual_grade]
    assert found == {student: (marks, 2) for student, (_, marks) in SUBMISSIONS.items()}
    assert not waiting


@pytest.mark.slow
def test_the_feedback_names_the_mistake(graded):
    def said(student: str, id: str) -> str:
        path = graded / "autograded" / student / NAME / f"{NAME}.ipynb"
        (output,) = cell_of(nbformat.read(path, as_version=4), id, "check").outputs
        return output.get("evalue") or output.text

    assert said("anna", RANK) == f"{RANK}: right\n"
    phrase = answers("07", "WRONG", RANK)[0][1]
    assert phrase in said("ben", RANK)
    assert "a loop that never ends?" in said("cora", RANK)
    assert said("emil", COUNT).startswith(f"{COUNT}: not attempted")


@pytest.mark.slow
def test_solutions_can_be_given_out_later_and_nothing_is_lost(graded):
    before = (graded / "nbgrader_config.py").read_text()
    course.build(graded, ["07"], with_solutions=True)
    assert "reveal(" in (graded / "release" / NAME / f"{NAME}.ipynb").read_text()
    assert (graded / "nbgrader_config.py").read_text() == before
    assert (graded / "submitted" / "anna" / NAME / f"{NAME}.ipynb").exists()


EXERCISES = [id for number in catalogue.numbers() for id in catalogue.exercises(number)]


@pytest.mark.slow
@pytest.mark.parametrize("id", EXERCISES)
def test_a_right_answer_in_its_notebook_earns_the_mark_and_the_stub_does_not(id):
    """Nothing of the experiments is needed for it, and no right answer of the bank is called borrowed."""
    (path,) = NOTEBOOKS.glob(f"{id[:2]}_*.ipynb")
    notebook = course.assignment(path)
    check = cell_of(notebook, id, "check")
    assert CHECK.search(check.source)[1] == id
    before = notebook.cells[: notebook.cells.index(check)]
    assert grading.grade(id, _code(before), "seed").status == "not attempted"
    if not answers(id[:2], "RIGHT", id):
        pytest.skip("the bank makes its right answers of this one by a function")
    cell_of(notebook, id, "answer").source = right(id)
    finding = grading.grade(id, _code(before), "seed")
    assert finding.status == "right", finding.message


def _code(cells) -> list[str]:
    return [cell.source for cell in cells if cell.cell_type == "code"]
