"""The answers that exercises declare as text, to be typed into a stub, with all that they lean on."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from needed_cells import bound, used

from sftlab.classroom import catalogue
from sftlab.classroom.answers import REFUSED, RIGHT


def answers(number: str, kind: str, id: str) -> list[tuple[str, str]]:
    """The answers to one check that can be typed: (cell, what the feedback says of it).

    Args:
        number: of the notebook, "07".
        kind: "WRONG" or "RIGHT"; of a right answer the feedback is "".
        id: of the check, "07.lora_parameter_count".
    """
    catalogue.package(number, "answers")
    declared = [(known.answer, known.message) for known in catalogue.exercise(id).mistakes]
    chosen = [*declared, *REFUSED[id]] if kind == "WRONG" else [(a, "") for a in RIGHT[id]]
    found = []
    for answer, phrase in chosen:
        if not hasattr(answer, "__name__"):  # made by functools.partial
            continue
        statements = _statements(answer.__module__)
        if any(answer.__name__ in bound(part) for part in statements):  # not made by a function
            cell = _cell(statements, answer.__name__, id.partition(".")[2])
            found += [(cell, phrase)] if cell else []
    return found


@cache
def _statements(module: str) -> list[str]:
    """The statements of a module as text."""
    text = inspect.getsource(sys.modules[module])
    return [ast.get_source_segment(text, statement) for statement in ast.parse(text).body]


def _cell(around: list[str], answer: str, name: str) -> str | None:
    """The statements that an answer needs, and the answer under the stub's name.

    None if they use that name for something of their own, which the stub would hide.
    """
    chosen: set[int] = set()
    wanted = {answer}
    while more := {i for i, part in enumerate(around) if bound(part) & wanted} - chosen:
        chosen |= more
        wanted |= set().union(*(used(around[i]) for i in more))
    parts = [around[index] for index in sorted(chosen)]
    if any(name in bound(part) for part in parts):
        return "\n".join(parts) if answer == name else None
    return "\n".join([*parts, f"{name} = {answer}"])
