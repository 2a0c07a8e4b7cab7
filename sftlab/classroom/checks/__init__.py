"""The exercises: ``exNN.py`` holds those of notebook NN in its dictionary ``EXERCISES``."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from pathlib import Path

from sftlab.classroom.checking import Exercise
from sftlab.errors import WorkbookError


def numbers() -> list[str]:
    """The notebooks that have checks: "04", "12", …"""
    return sorted(path.stem[2:] for path in Path(__file__).parent.glob("ex[0-9][0-9].py"))


def exercises(number: str) -> dict[str, Exercise]:
    """The exercises of one notebook by id, in its order; none for a notebook without checks."""
    if number not in numbers():
        return {}
    return importlib.import_module(f"{__name__}.ex{number}").EXERCISES


def exercise(id: str) -> Exercise:
    """The exercise of that id.

    Raises:
        WorkbookError: there is none; the message names the nearest ids.
    """
    own = exercises(id.partition(".")[0])
    if id in own:
        return own[id]
    known = [other for number in numbers() for other in exercises(number)]
    near = get_close_matches(id, known, n=3, cutoff=0.4) or list(own) or known
    raise WorkbookError(f"there is no exercise {id!r}; the nearest are {', '.join(near)}")
