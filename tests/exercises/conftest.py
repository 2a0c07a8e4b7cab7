"""What tests of many answers to one exercise can share: cases, and what the reference makes of them."""

from __future__ import annotations

import pytest

from sftlab.classroom import checking


@pytest.fixture(scope="module")
def results_are_kept():
    """Draw an exercise's random cases once, and let the reference solve each case once.

    The results of one exercise are kept at a time: there are models among them.
    """
    drawn, compare = checking.drawn, checking._compare
    cases, right, kept = {}, {}, {}

    def drawn_once(exercise, seed, number):
        key = exercise.id, seed, number
        if key not in cases:
            cases[key] = drawn(exercise, seed, number)
        return cases[key]

    def compare_once(exercise, tried, given, limit, known):
        if exercise.id not in right:
            right.clear()
            kept.clear()
        kept[id(tried.case)] = tried.case  # so that no other case gets its number
        compare(exercise, tried, given, limit, right.setdefault(exercise.id, {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "drawn", drawn_once)
        patch.setattr(checking, "_compare", compare_once)
        yield
