"""What a notebook's cells carry beside their text, derived from the cells by rule.

Slides, nbgrader's metadata, hidden sources, cell ids, concept diagrams and the docstrings of stubs all
follow from what a cell contains, so nobody sets them by hand and they cannot drift.
"""

from __future__ import annotations

import ast
import base64
import re
import textwrap
from typing import Any

import matplotlib
from resvg_py import svg_to_bytes

from sftlab.classroom.catalogue import exercise, package
from sftlab.classroom.checking import Exercise
from sftlab.errors import WorkbookError

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {  # without the version, which differs between machines
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
CHECK = re.compile(r"""(?<!\w)check\(\s*["'](\d\d\.\w+)["']""")
REVEAL = re.compile(r"""(?<!\w)reveal\(\s*["'](\d\d\.\w+)["']""")
EXPLORE = re.compile(r"""(?<!\w)explore\(\s*["'](\d\d\.\w+)["']""")
START = re.compile(r"""(?<!\w)start\(\s*["'](\d\d)["']""")
DIAGRAM = "attachment:diagram.png"  # the notebook's concept diagram, in a cell of text
# What only asks, grades, reveals or shows: a cell of nothing else is folded. One click opens it.
FOLDED = {"predict", "outcome", "check", "reveal", "explore", "show", "start", "show_progress", "show_of_hands"}  # fmt: skip


def derive(notebook: Any) -> None:
    """Set ids, metadata and the stubs' docstrings of a notebook (an ``nbformat`` node) in place.

    Raises:
        WorkbookError: a check without a cell before it that defines the checked function.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    stamp = {k: v for k, v in notebook.metadata.items() if k == "sftlab"}  # see publish
    notebook.metadata.clear()
    notebook.metadata.update(kernelspec=KERNELSPEC, language_info=LANGUAGE, **stamp)
    _set_ids(notebook.cells)
    graded = _graded(notebook.cells)
    for index, cell in enumerate(notebook.cells):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "stub"]
        own = graded.get(index)
        if own and own["solution"]:
            tags.append("stub")
        cell.metadata.clear()
        if tags:
            cell.metadata["tags"] = tags
        cell.metadata["slideshow"] = {"slide_type": slide_type(cell, tags)}
        if own:
            cell.metadata["nbgrader"] = own
        if cell.cell_type == "code" and ("hide" in tags or only_shows(cell.source)):
            cell.metadata["jupyter"] = {"source_hidden": True}
    for number in START.findall("\n".join(c.source for c in notebook.cells))[:1]:
        _set_diagram(notebook.cells, number)


def only_shows(source: str) -> bool:
    """Whether a cell does nothing but import, ask, grade, reveal or show."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell magic
        return False
    calls = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return bool(calls) and all(_called(node) in FOLDED for node in calls)


def _called(node: ast.AST) -> str:
    """The function that a statement calls: ``check`` in ``f = check("…").or_reference()``."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        value = value.func.value
    return value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""


def _set_diagram(cells: list, number: str) -> None:
    """Store the drawing of the exercise's ``diagram.py`` in the cell that shows it."""
    for cell in cells:
        cell.pop("attachments", None)
        if cell.cell_type == "markdown" and DIAGRAM in cell.source:
            drawn = _png(package(number, "diagram").draw())
            cell["attachments"] = {"diagram.png": {"image/png": base64.b64encode(drawn).decode()}}


def _png(svg: str) -> bytes:
    """Draw an SVG, twice as large: JupyterLab 4 shows no SVG that is attached to a cell.

    With the fonts that come with matplotlib, a drawing is the same on every machine.
    """
    return svg_to_bytes(
        svg, zoom=2, skip_system_fonts=True, font_dirs=[f"{matplotlib.get_data_path()}/fonts/ttf"],
        sans_serif_family="DejaVu Sans", monospace_family="DejaVu Sans Mono",
    )  # fmt: skip


def slide_type(cell: Any, tags: list[str]) -> str:
    """Headings begin slides, what follows comes in fragments, set-up is skipped.

    A reveal stands on a slide below its task: the class goes down to it when it is ready.
    """
    if cell.cell_type == "markdown":
        heading = re.match(r"(#+) ", cell.source)
        level = len(heading[1]) if heading else 0
        return "slide" if level in (1, 2) else "subslide" if level == 3 else "fragment"
    if "parameters" in tags or START.search(cell.source):
        return "skip"
    return "subslide" if REVEAL.search(cell.source) else "fragment"


def defined_names(source: str) -> list[str]:
    """The functions and classes that a cell defines at its top level."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell magic
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds)]


def _set_ids(cells: list) -> None:
    """Valid ids stay; a missing, malformed or repeated one is made from the cell's position."""
    seen: set[str] = set()
    for index, cell in enumerate(cells):
        if not re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell.get("id", "")) or cell.id in seen:
            cell["id"] = next(
                name
                for name in (f"cell-{index:02d}{more}" for more in ("", *"abcdefgh"))
                if name not in seen and all(other.get("id") != name for other in cells)
            )
        seen.add(cell.id)


def _graded(cells: list) -> dict[int, dict]:
    """nbgrader's metadata, schema 3, by cell number: exactly the keys that it accepts."""
    found: dict[int, dict] = {}
    for index, cell in enumerate(cells):
        named = CHECK.search(cell.source) if cell.cell_type == "code" else None
        if not named:
            continue
        asked = exercise(named[1])
        stub = next(
            (
                before
                for before in range(index - 1, -1, -1)
                if cells[before].cell_type == "code"
                and asked.name in defined_names(cells[before].source)
            ),
            None,
        )
        if stub is None:
            raise WorkbookError(
                f"cell {index + 1} checks {asked.id}, but no cell before it defines {asked.name}"
            )
        cells[stub].source = _with_docstring(cells[stub].source, asked)
        grade_id = asked.id.replace(".", "-")  # nbgrader allows no dots
        common = {"schema_version": 3, "task": False}
        found[stub] = common | {
            "grade": False,
            "grade_id": f"{grade_id}-answer",
            "locked": False,
            "solution": True,
        }
        found[index] = common | {
            "grade": True,
            "grade_id": f"{grade_id}-check",
            "locked": True,
            "points": asked.points,
            "solution": False,
        }
    return found


def _with_docstring(source: str, exercise: Exercise) -> str:
    """Return the source of a stub's cell with the exercise's docstring."""
    found = next(
        node for node in ast.parse(source).body if getattr(node, "name", "") == exercise.name
    )
    first = found.body[0]
    lines = source.splitlines()
    text = exercise.docstring()
    closing = "\n" if "\n" in text else ""
    made = textwrap.indent(f'"""{text}{closing}"""', " " * first.col_offset)
    has_one = ast.get_docstring(found) is not None
    lines[first.lineno - 1 : first.end_lineno if has_one else first.lineno - 1] = made.splitlines()
    return "\n".join(lines)
