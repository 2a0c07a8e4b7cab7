"""The notebooks as a course for nbgrader: ``python -m tools.course FOLDER [NUMBER ...]``.

Each notebook becomes an assignment. ``release/`` is handed out: without stored outputs, and without
solutions unless ``--with-solutions`` is said, for the time after the deadline. Submissions, marks
and the configuration of a course that is there already stay.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools.notebook_metadata import CHECK, REVEAL, derive

MARK = "# A course of the sftlab workbook"
LATER = "*The workbook's own version is given out after the deadline.*"
LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
CONFIGURATION = """{mark}, for nbgrader. It is yours to change; `make course` leaves it alone.
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearOutput,
    GetGrades,
    OverwriteCells,
    OverwriteKernelspec,
)

from tools.autograding import DeduplicateIds

c = get_config()
c.CourseDirectory.course_id = "sftlab"
# The stubs are what students get: there is no solution in them to be cut out.
c.ClearSolutions.enabled = False
# Students may change MODEL, SEED and FULL. Grading puts them back, as it does the checks.
c.LockCells.lock_readonly_cells = False
c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    CheckCellMetadata,
]
# Seconds for one cell, what a loop that never ends costs. The longest experiment takes 30 of them.
c.Execute.timeout = 300
# Seconds until it has stopped, and for the results of any cell to arrive.
c.Execute.iopub_timeout = 30
# exit() in a cell would end the kernel some seconds later, and with it the grading of what follows.
c.Execute.extra_arguments = ["--IPKernelApp.exec_lines=get_ipython().ask_exit = lambda: None"]
# A check that did not run would pass for right.
c.Execute.skip_cells_with_tag = ""
# Students see what a check said, and not the seed.
c.GenerateFeedback.preprocessors = [GetGrades, ClearHiddenTests, CSSHTMLHeaderPreprocessor]
# It decides the random cases that are added for the marks. Keep it to yourself.
c.Course.seed = "{seed}"
"""
SEED = re.compile(r'(?m)^c\.Course\.seed = "(.+)"')
READ_ONLY = {
    "grade": False,
    "grade_id": "parameters",
    "locked": True,
    "schema_version": 3,
    "solution": False,
    "task": False,
}
GRADED = """### BEGIN HIDDEN TESTS
from tools.marking import Marking

check = Marking("{id}", "{seed}")
### END HIDDEN TESTS
{cell}
### BEGIN HIDDEN TESTS
check.points
### END HIDDEN TESTS"""


def assignment(path: Path, seed: str, with_solutions: bool = False) -> Any:
    """A notebook as nbgrader's source, an ``nbformat`` node: what it hands out is without the hidden tests."""
    notebook = nbformat.read(path, as_version=4)
    cells: list = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if REVEAL.search(cell.source) and not with_solutions:
                if cells[-1].source != LATER:
                    cells.append(new_markdown_cell(LATER, id=cell.id))
                continue
        else:
            cell.source = LINK.sub(r"](../\1/\1.ipynb)", cell.source)
        cells.append(cell)
    notebook.cells = cells
    derive(notebook)
    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata["nbgrader"] = READ_ONLY
        elif cell.metadata.get("nbgrader", {}).get("grade"):
            id = CHECK.search(cell.source)[1]
            own = hashlib.sha256(f"{seed}/{id}".encode()).hexdigest()[:16]
            cell.source = GRADED.format(id=id, seed=own, cell=cell.source)
    return notebook


def chosen_notebooks(numbers: Sequence[str]) -> list[Path]:
    """The files of these notebooks, or of all.

    Raises:
        WorkbookError: there is no notebook of that number.
    """
    there = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    unknown = [number for number in numbers if number not in there]
    if unknown:
        raise WorkbookError(
            f"there is no notebook {', '.join(unknown)}; the numbers are {', '.join(there)}"
        )
    return [there[number] for number in sorted(set(numbers))] if numbers else list(there.values())


def build(folder: Path, numbers: Sequence[str] = (), with_solutions: bool = False) -> list[str]:
    """Make the course, or bring its assignments up to date; returns their names.

    Raises:
        WorkbookError: no such notebook, the folder holds something else or cannot be written, or
            nbgrader refused an assignment.
    """
    paths = chosen_notebooks(numbers)
    configuration = folder / "nbgrader_config.py"
    try:
        ours = configuration.exists() and configuration.read_text(encoding="utf-8").startswith(MARK)
        if not ours and folder.exists() and any(folder.iterdir()):
            raise WorkbookError(f"{folder} holds other files: name an empty folder for the course")
        if not ours:
            folder.mkdir(parents=True, exist_ok=True)
            text = CONFIGURATION.format(mark=MARK, seed=secrets.token_hex(8))
            configuration.write_text(text, encoding="utf-8")
        seed = SEED.search(configuration.read_text(encoding="utf-8"))
        if not seed:
            raise WorkbookError(
                f"{configuration} has no line `c.Course.seed = …`: an earlier edition graded in "
                "another way. Make the course in a new folder, and put what was handed in there"
            )
        for path in paths:
            source = folder / "source" / path.stem
            source.mkdir(parents=True, exist_ok=True)
            nbformat.write(assignment(path, seed[1], with_solutions), source / path.name)
    except OSError as error:
        raise WorkbookError(f"{folder} cannot be written: {error.strerror}") from None
    _generate(folder, [path.stem for path in paths])
    return [path.stem for path in paths]


def _generate(folder: Path, names: Sequence[str]) -> None:
    """What ``nbgrader generate_assignment`` does, for many assignments in one process."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.CourseDirectory.root = str(folder.resolve())
    api = NbGraderAPI(config=config, log_level="ERROR")
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"  # it calls `alembic`
    try:
        for name in names:
            done = api.generate_assignment(name)
            if not done["success"]:
                said = done.get("error") or done.get("log")
                raise WorkbookError(f"nbgrader refused {name}: {said}")
    finally:
        os.environ["PATH"] = path


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 when the course is there."""
    parser = argparse.ArgumentParser(prog="python -m tools.course", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="07 12 … (default: all)")
    parser.add_argument("--with-solutions", action="store_true", help="for after the deadline")
    chosen = parser.parse_args(arguments)
    try:
        names = build(chosen.folder, chosen.numbers, chosen.with_solutions)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(names)} assignments: hand out what is in {chosen.folder / 'release'}.")
    print(
        f"What comes back goes to {chosen.folder / 'submitted'}/STUDENT/ASSIGNMENT/. To grade it:"
    )
    print(f"cd {chosen.folder} && nbgrader autograde {names[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
