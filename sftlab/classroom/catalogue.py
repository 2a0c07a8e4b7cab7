"""Find the notebooks and the folders of their exercises by number.

There is no list of them. A folder ``sftlab/exercises/exNN_name`` belongs to the notebook
``NN_name``.
"""

from __future__ import annotations

import importlib
import json
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType

from sftlab._internal.paths import PACKAGE, ROOT
from sftlab.classroom.checking import Exercise
from sftlab.errors import WorkbookError

NOTEBOOKS = ROOT / "notebooks"


@cache
def _folders() -> dict[str, str]:
    found = sorted((PACKAGE / "exercises").glob("ex[0-9][0-9]_*"))
    return {path.name[2:4]: path.name for path in found if path.is_dir()}


def numbers() -> list[str]:
    """Return the numbers of the notebooks: "00", "01", …"""
    return list(_folders())


def package(number: str, part: str = "") -> ModuleType:
    """Return the package of an exercise, or one of its modules ("check", "explorer").

    Raises:
        WorkbookError: there is no notebook with this number.
    """
    if number not in _folders():
        known = numbers()
        raise WorkbookError(
            f'there is no notebook {number!r}; use two digits, "{known[0]}" to "{known[-1]}"'
        )
    name = f"sftlab.exercises.{_folders()[number]}"
    return importlib.import_module(f"{name}.{part}" if part else name)


def exercises(number: str) -> dict[str, Exercise]:
    """Return the exercises of a notebook by id, in order; empty for a notebook without checks."""
    folder = _folders().get(number)
    if not folder or not (PACKAGE / "exercises" / folder / "check.py").is_file():
        return {}
    return package(number, "check").EXERCISES


def exercise(id: str) -> Exercise:
    """Return the exercise with this id.

    Raises:
        WorkbookError: unknown id; the message lists similar ids.
    """
    own = exercises(id.partition(".")[0])
    if id in own:
        return own[id]
    known = [other for number in numbers() for other in exercises(number)]
    near = get_close_matches(id, known, n=3, cutoff=0.4) or list(own) or known
    raise WorkbookError(f"there is no exercise {id!r}; the nearest are {', '.join(near)}")


def question(number: str) -> str:
    """Return the question that a notebook answers."""
    return (package(number).__doc__ or "").strip()


def notebook(number: str) -> Path | None:
    """Return the path of a notebook, in the workbook's folder or else in the working folder.

    None if there is no such notebook.
    """
    for folder in (NOTEBOOKS, Path.cwd()):
        found = sorted(folder.glob(f"{number}_*.ipynb"))
        if found:
            return found[0]
    return None


def title(number: str) -> str:
    """Return the heading of a notebook without its number; its question if there is no notebook."""
    for heading in re.findall(r"^# (.+)", text(number, "markdown"), re.MULTILINE):
        return re.sub(r"^\d+ · ", "", heading)
    return question(number)


def prediction_ids(number: str) -> list[str]:
    """Return the ids of the predictions in a notebook's cells; empty if there is no notebook."""
    return _ids(number, "predict")


def check_ids(number: str) -> list[str]:
    """Return the ids of the checks in a notebook's cells, without importing its exercises.

    The exercises' own ids if there is no notebook.
    """
    return _ids(number, "check") or list(exercises(number))


def _ids(number: str, function: str) -> list[str]:
    calls = rf"""\b{function}\(\s*["']({number}\.\w+)["']"""
    return list(dict.fromkeys(re.findall(calls, text(number, "code"))))


def text(number: str, kind: str) -> str:
    """Return the source of a notebook's cells of one type; "" if it is missing or unreadable."""
    path = notebook(number)
    try:
        cells = _cells(path, path.stat().st_mtime_ns) if path else ()
    except (OSError, ValueError, KeyError):
        return ""
    return "\n".join(source for type_, source in cells if type_ == kind)


@cache
def _cells(path: Path, changed: int) -> tuple[tuple[str, str], ...]:
    """Return type and source of each cell; the time of the last change makes a new file a new call."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return tuple((cell["cell_type"], "".join(cell["source"])) for cell in cells)


def on_model(number: str, model: str) -> list[str]:
    """Return notes for a notebook that runs on another model than the embedded one.

    Raises:
        WorkbookError: the notebook cannot run on this model.
    """
    if str(model).startswith("almanac"):
        return []
    own = package(number)
    if reason := getattr(own, "EMBEDDED_ALONE", None):
        raise WorkbookError(
            f"notebook {number} does not run on {model}: {reason}. Put  "
            'MODEL = "almanac"  into the first cell'
        )
    minutes = getattr(own, "MINUTES", None)
    if not minutes:
        return [f"MODEL is {model}: what the text says in numbers is about the embedded model."]
    return [
        f"MODEL is {model}: on two cores this notebook takes about {minutes} minutes with 135 "
        "million weights, longer with more. Bars show how far a training is; the stop button ends "
        "it, and its cell can be run again. What the text says in numbers is about the embedded "
        "model."
    ]
