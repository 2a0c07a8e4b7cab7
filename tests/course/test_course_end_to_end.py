"""A course from beginning to end: made, handed out, handed in by a class, graded by nbgrader."""

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
from tools import course

pytestmark = pytest.mark.thorough

NAME = "07_lora_parameter_count"
COUNT, ENERGY = "07.lora_parameter_count", "07.energy_kept"
RIGHT = "def lora_parameter_count(d_in, d_out, r):\n    return r * (d_in + d_out)"
SQUARE = "def lora_parameter_count(d_in, d_out, r):\n    return 2 * d_in * r"
ON_COUNT = """def energy_kept(matrices, ranks):
    import torch
    one = lora_parameter_count(1, 0, 1)  # an answer may lean on the one before
    squares = [torch.linalg.svdvals(matrix) ** 2 for matrix in matrices]
    whole = sum(s.sum() for s in squares)
    return {r: one * sum(s[:r].sum() for s in squares) / whole for r in ranks}"""
ENDLESS = """def energy_kept(matrices, ranks):
    while True:
        try:
            pass
        except:
            pass"""
KNOWN = {c.arguments(): c.expected(*c.arguments()) for c in catalogue.exercise(COUNT).cases}
IMPORTED = "from sftlab.exercises.ex07_lora_parameter_count.spectra import energy_kept"
BY_HEART = f"KNOWN = {KNOWN}\ndef lora_parameter_count(*given):\n    return KNOWN.get(given, 1)"


def cell_of(notebook, id: str, kind: str):
    """The stub ("answer") or the check of an exercise."""
    wanted = f"{id.replace('.', '-')}-{kind}"
    return next(
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == wanted
    )


def submission(released, count: str, energy: str, whole: bool = False):
    """The notebook with these answers. Experiments count for nothing; most students leave them out."""
    notebook = copy.deepcopy(released)
    cell_of(notebook, COUNT, "answer").source = count
    cell_of(notebook, ENERGY, "answer").source = energy
    if not whole:
        own = [c for c in notebook.cells if "nbgrader" in c.metadata or "start(" in c.source]
        notebook.cells = own
    return notebook


def diligent(released):
    """Right, with a draft in a copy of the answer's cell, on another model, and a noisy library."""
    notebook = submission(released, RIGHT, ON_COUNT, whole=True)
    answer = cell_of(notebook, COUNT, "answer")
    draft = new_code_cell(SQUARE, metadata=copy.deepcopy(answer.metadata))
    notebook.cells.insert(notebook.cells.index(answer), draft)
    notebook.cells[1].source = 'MODEL = "a-model-that-is-not-there"'
    notebook.cells.insert(2, new_code_cell("import sys\nprint('noise', file=sys.stderr)"))
    return notebook


def hostile(released):
    """A right count after cells that loop, raise and exit; an endless energy, its check made easier."""
    notebook = submission(released, RIGHT, ENDLESS)
    easier = cell_of(notebook, ENERGY, "check")
    easier.source = "print('passed')"
    easier.metadata["nbgrader"]["points"] = 100
    easier.metadata["tags"] = ["skip-execution"]
    cells = "while True:\n    pass", "1 / 0", "def check(*_):\n    raise ValueError", "exit()"
    notebook.cells[2:2] = [new_code_cell(text) for text in cells]
    return notebook


def unchecked(released):
    """A right answer, but its check was deleted: that is for the instructor to judge."""
    notebook = submission(released, RIGHT, ON_COUNT)
    notebook.cells.remove(cell_of(notebook, COUNT, "check"))
    return notebook


SUBMISSIONS = {  # the marks, None where nbgrader gives none
    "anna": (diligent, 2),
    "ben": (lambda released: submission(released, SQUARE, ON_COUNT), 1),
    "cora": (hostile, 1),
    "dora": (unchecked, 1),
    "emil": (lambda released: submission(released, "def lora_parameter_count(:", "..."), 0),
    "fred": (lambda released: submission(released, "import os\nos._exit(0)", ON_COUNT), None),
    "gina": (lambda r: submission(r, BY_HEART, IMPORTED), 0),
}


def nbgrader(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests" / "no_network"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course of one assignment after grading: its folder, and what nbgrader said."""
    folder = tmp_path_factory.mktemp("course") / "course"
    course.build(folder, ["07"])
    released = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    for student, (made, _) in SUBMISSIONS.items():
        place = folder / "submitted" / student / NAME
        place.mkdir(parents=True)
        nbformat.write(made(released), place / f"{NAME}.ipynb")
    done = nbgrader(folder, "autograde", NAME, "--Execute.timeout=20")
    return folder, done.stderr


def test_each_submission_gets_the_marks_that_it_earned(graded):
    from nbgrader.api import Gradebook

    folder, said = graded
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        found = {s.student.id: (s.score, s.max_score) for s in book.assignment_submissions(NAME)}
        waiting = {s.student.id for s in book.assignment_submissions(NAME) if s.needs_manual_grade}
    assert found == {
        student: (marks or 0, len(catalogue.exercises("07")))
        for student, (_, marks) in SUBMISSIONS.items()
    }, said
    assert waiting == {"dora", "fred"}
    assert said.count("There was an error processing assignment") == 2  # once with its traceback
    assert f"There was an error processing assignment '{NAME}' for student 'fred'" in said


def test_what_students_get_names_the_mistake_and_not_the_seed(graded):
    folder, _ = graded
    done = nbgrader(folder, "generate_feedback", NAME)
    assert done.returncode == 0, done.stderr
    seed = course.SEED.search((folder / "nbgrader_config.py").read_text())[1]
    (source,) = (folder / "source").rglob("*.ipynb")
    drawn = source.read_text().count("Marking(")
    assert drawn == len(catalogue.exercises("07"))
    (released,) = (folder / "release").rglob("*.ipynb")
    pages = {path.parts[-3]: path.read_text() for path in (folder / "feedback").rglob("*.html")}
    assert set(pages) == set(SUBMISSIONS) - {"fred"}
    for text in (released.read_text(), *pages.values()):
        assert not any(secret in text for secret in ("Marking(", "HIDDEN TESTS", seed))
    for student, said in {
        "ben": "The same width is used for A and for B",
        "cora": "is there a loop that never ends?",
        "emil": f"{COUNT}: 0 of 1 points",
        "gina": "on random values",
    }.items():
        assert said in pages[student], student


def test_solutions_can_be_given_out_later_and_nothing_is_lost(graded):
    folder, _ = graded
    before = (folder / "nbgrader_config.py").read_text()
    course.build(folder, ["07"], with_solutions=True)
    released = (folder / "release" / NAME / f"{NAME}.ipynb").read_text()
    assert "reveal(" in released
    assert "Marking(" not in released
    assert (folder / "nbgrader_config.py").read_text() == before
    assert (folder / "submitted" / "anna" / NAME / f"{NAME}.ipynb").exists()
