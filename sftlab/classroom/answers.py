"""Answers that the tests put to the checks: right ones, however written, and wrong ones without a name.

They stand in ``answers.py`` of an exercise, beside its ``check.py``, which declares the mistakes that
have a message of their own. No notebook loads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

Answer = Callable[..., Any]
RIGHT: defaultdict[str, list[Answer]] = defaultdict(list)
REFUSED: defaultdict[str, list[tuple[Answer, str]]] = defaultdict(list)
EQUIVALENT: defaultdict[str, dict[str, str]] = defaultdict(dict)


def right(id: str) -> Callable[[Answer], Answer]:
    """Declare the function below to be a right answer to exercise ``id``."""

    def declare(answer: Answer) -> Answer:
        RIGHT[id].append(answer)
        return answer

    return declare


def refused(id: str, phrase: str) -> Callable[[Answer], Answer]:
    """Declare the function below to be wrong, refused by a rule that holds for many answers.

    ``phrase`` is a part of what the check says: the error that was raised, the kind of result, the
    rule of an open answer that is broken.
    """

    def declare(answer: Answer) -> Answer:
        REFUSED[id].append((answer, phrase))
        return answer

    return declare


def equivalent(id: str, reason: str, *changes: str) -> None:
    """Declare changes to the reference of an exercise that no valid input can show.

    The tests change the reference in every place, and expect that the check refuses each result
    except these.

    Args:
        reason: why the changed function is right as well.
        changes: as the test names them.
    """
    EQUIVALENT[id].update(dict.fromkeys(changes, reason))
