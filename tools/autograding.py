"""The two steps that a course puts into ``nbgrader autograde``; its configuration names them.

``Restore`` undoes what was done to the cells' metadata. ``Grade`` stands in the place of nbgrader's
``Execute``: it runs no experiments, it tries each answer in a process of its own.
"""

from __future__ import annotations

from typing import Any

from nbformat.v4 import new_code_cell, new_output
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade
from traitlets import Integer, Unicode

from sftlab.classroom.checking import Finding
from tools.grading import grade_apart
from tools.notebook_metadata import CHECK


class Restore(NbGraderPreprocessor):
    """Each cell carries the metadata it was given out with; a check that is missing is put back.

    Of copies of a cell the last one counts, as with nbgrader. It comes before ``OverwriteCells``,
    which restores the text of the checks.
    """

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        asked = resources["nbgrader"]
        with Gradebook(asked["db_url"]) as book:
            released = book.find_notebook(asked["notebook"], asked["assignment"])
            points = {cell.name: cell.max_score for cell in released.grade_cells}
            given_out = {
                cell.name: _metadata(cell, points.get(cell.name)) for cell in released.source_cells
            }
            checks = {c.name: c.source for c in released.source_cells if c.name in points}
        for cell in reversed(nb.cells):
            own = cell.metadata.pop("nbgrader", None)
            id = own.get("grade_id") if isinstance(own, dict) else None
            known = given_out.pop(id, None) if isinstance(id, str) else None
            if known:
                cell.metadata["nbgrader"] = known
        for id in filter(given_out.get, checks):
            self.log.warning("The check %s was missing: it is put back at the end", id)
            nb.cells.append(new_code_cell(checks[id], metadata={"nbgrader": given_out[id]}))
        return nb, resources


def _metadata(cell: Any, points: float | None) -> dict:
    graded = points is not None
    return {
        "grade_id": cell.name,
        "schema_version": 3,
        "grade": graded,
        "solution": not graded,
        "locked": graded,
        "task": False,
        "checksum": cell.checksum,
        "cell_type": cell.cell_type,
        **({"points": points} if graded else {}),
    }


class Grade(NbGraderPreprocessor):
    """Give each check cell the output that decides its points: an error means none."""

    seed = Unicode("", help="decides the cases that are drawn for the marks").tag(config=True)
    limit = Integer(120, help="seconds for one answer").tag(config=True)

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        before: list[str] = []
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            asked = CHECK.search(cell.source) if is_grade(cell) else None
            if asked:
                finding = grade_apart(asked[1], before, self.seed, self.limit)
                self.log.info("%s: %s", asked[1], finding.status)
                cell.outputs = [_output(asked[1], finding)]
            before.append(cell.source)
        return nb, resources


def _output(id: str, finding: Finding) -> Any:
    if finding.status == "right":
        return new_output("stream", name="stdout", text=f"{id}: right\n")
    text = f"{id}: {finding.status}\n{finding.message}"
    if finding.printed:
        text += f"\nIt printed: {finding.printed}"
    return new_output("error", ename="CheckFailed", evalue=text, traceback=text.splitlines())
