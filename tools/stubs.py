"""Write the docstring of each stub into its notebook: ``python -m tools.stubs [--check] [NUMBER ...]``.

What a stub asks and its rules stand in the exercise's ``check.py``; the docstring in the notebook is
made from them.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Sequence

import nbformat

from sftlab.classroom import catalogue
from sftlab.classroom.checking import Exercise


def with_docstring(source: str, exercise: Exercise) -> str:
    """Return the source of a stub's cell with the exercise's docstring.

    Raises:
        StopIteration: the cell does not define the exercise's function or class.
    """
    found = next(
        node for node in ast.parse(source).body if getattr(node, "name", "") == exercise.name
    )
    first = found.body[0]
    lines = source.splitlines()
    text = exercise.docstring()
    if not text:
        return source
    closing = "\n" if "\n" in text else ""
    made = textwrap.indent(f'"""{text}{closing}"""', " " * first.col_offset)
    has_one = ast.get_docstring(found) is not None
    lines[first.lineno - 1 : first.end_lineno if has_one else first.lineno - 1] = made.splitlines()
    return "\n".join(lines)


def update(number: str, write: bool = True) -> list[str]:
    """Return the ids of the stubs of a notebook whose docstring is not the exercise's.

    Args:
        write: also write the docstrings into the notebook.
    """
    path = catalogue.notebook(number)
    if path is None:
        return []
    notebook = nbformat.read(path, as_version=4)
    changed = []
    for exercise in catalogue.exercises(number).values():
        cell = next(
            cell
            for cell in notebook.cells
            if "stub" in cell.metadata.get("tags", [])
            and any(f"{kind} {exercise.name}(" in cell.source for kind in ("def", "class"))
        )
        if (source := with_docstring(cell.source, exercise)) != cell.source:
            cell.source = source
            changed.append(exercise.id)
    if changed and write:
        nbformat.write(notebook, path)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if ``--check`` finds a docstring that is not the exercise's."""
    parser = argparse.ArgumentParser(prog="python -m tools.stubs", description=__doc__)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="07 12 … (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    chosen = parser.parse_args(arguments)
    changed = [
        id
        for number in chosen.numbers or catalogue.numbers()
        for id in update(number, write=not chosen.check)
    ]
    for id in changed:
        print(f"{id}: the docstring in the notebook {'is old' if chosen.check else 'is new'}")
    return int(chosen.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
