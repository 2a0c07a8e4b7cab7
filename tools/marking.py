"""The ``check`` of a graded cell: more random cases, decided by the course's seed, and points for a part.

Nobody can know the random cases by heart. They are of the kind that a task's text promises, no
harder than the cases of its check.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from contextlib import redirect_stderr
from typing import Any

from sftlab.classroom import catalogue, check_results
from sftlab.classroom.checking import drawn, examine

NUMBER = 5  # of random cases


class Marking:
    """Stands in for ``check`` in one cell; the cell's last line gives ``points`` to nbgrader.

    Points are in proportion to the cases that pass. An answer that passes no random case has none,
    because it may know the others by heart.

    A check that is not right must not raise: the notebook goes on with the workbook's version, as
    it does in class, for the answers that build on this one.
    """

    points = 0.0

    def __init__(self, id: str, seed: str):
        exercises = catalogue.exercises(id.partition(".")[0])
        self.exercise = exercises[id]
        self.random = drawn(self.exercise, seed, NUMBER)
        more = [*self.exercise.cases, *self.random]
        exercises[id] = dataclasses.replace(self.exercise, cases=more)
        os.environ.pop("NBGRADER_EXECUTION", None)  # with it a check would raise

    def __call__(self, id: str) -> check_results.CheckResult:
        names = sys._getframe(1).f_globals
        with redirect_stderr(sys.stdout):  # a library's warning on stderr would cost all points
            result = check_results.check(id, names=names)
            if result.status == "right":
                self.points = float(self.exercise.points)
            elif result.passed and self._passes_a_random_case(names[self.exercise.name]):
                share = self.exercise.points * result.passed / result.total
                self.points = min(round(share, 2), self.exercise.points - 0.01)
            print(f"{id}: {self.points:g} of {self.exercise.points} points")
        return result

    def _passes_a_random_case(self, answer: Any) -> bool:
        tried = dataclasses.replace(self.exercise, cases=self.random, draw=None)
        return not self.random or examine(tried, answer).passed > 0
