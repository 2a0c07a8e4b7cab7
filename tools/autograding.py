"""What a course adds to ``nbgrader autograde``; its configuration names it."""

from __future__ import annotations

from typing import Any

from nbgrader import preprocessors


class DeduplicateIds(preprocessors.DeduplicateIds):
    """Of copies of a cell the last one counts, and a submission with copies is graded.

    nbgrader 0.9.6 leaves an empty entry with the others. It then takes the notebook for one of an
    old format, and stops grading the class (its issue 1083).
    """

    def preprocess_cell(self, cell: Any, resources: dict, cell_index: int) -> tuple[Any, dict]:
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if "schema_version" not in cell.metadata.get("nbgrader", {}):
            cell.metadata.pop("nbgrader", None)
        return cell, resources
