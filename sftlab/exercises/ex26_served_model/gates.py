"""What notebook 26 asks for: groups of alike questions, the template's gate, and the decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from sftlab.loss import IGNORE_INDEX
from sftlab.statistics import paired_difference
from sftlab.survey import words

HELD_OUT = 30  # rows


def alike(one: str, other: str) -> bool:
    """Return whether two questions share 80% of their words, without case and punctuation."""
    first, second = set(words(one)), set(words(other))
    return len(first & second) >= 0.8 * len(first | second)


def groups(questions: Sequence[str], alike: Callable[[str, str], bool]) -> list[int]:
    """Return for each question the index of the first question of its group."""
    found = list(range(len(questions)))
    for late in range(len(questions)):
        for early in range(late):
            if found[early] != found[late] and alike(questions[early], questions[late]):
                first, second = sorted((found[early], found[late]))
                found = [first if group == second else group for group in found]
    return found


def split(
    rows: Sequence[dict], group_of: Sequence[Any], seed: int, held_out: int = HELD_OUT
) -> tuple[list[dict], list[dict]]:
    """Return rows for training and held-out rows; a group is on one side."""
    order = sorted(set(group_of))
    Random(seed).shuffle(order)
    chosen: set = set()
    while sum(group in chosen for group in group_of) < held_out:
        chosen.add(order.pop())
    sides: tuple[list[dict], list[dict]] = ([], [])
    for row, group in zip(rows, group_of, strict=True):
        sides[group in chosen].append(row)
    return sides


def template_mismatch(
    input_ids: Sequence[int], labels: Sequence[int], served: Sequence[int]
) -> int | None:
    """Return where a served prompt leaves what was trained before the last answer, or None."""
    end = len(labels)
    while labels[end - 1] == IGNORE_INDEX:
        end -= 1
    while labels[end - 1] != IGNORE_INDEX:
        end -= 1
    trained = list(input_ids[:end])
    if trained == list(served):
        return None
    same = 0
    for a, b in zip(trained, served, strict=False):
        if a != b:
            break
        same += 1
    return same


def ready(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the gates that stop a model."""
    low, _ = paired_difference(report["base"], report["tuned"])[1]
    stops = {
        "data": report["broken"] > 0,
        "leak": report["leaked"] > 0,
        "score": low <= 0,
        "template": any(place is not None for place in report["mismatches"]),
        "answers": any(
            list(a) != list(b) for a, b in zip(report["trained"], report["served"], strict=True)
        ),
    }
    return [gate for gate, stop in stops.items() if stop]
