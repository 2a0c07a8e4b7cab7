"""Grading one answer in a process of its own: ``python -m tools.grading``.

The workbook's part is loaded first, then the statements that the answer needs, then it is tried on
the cases of its check and on cases that are drawn with the instructor's seed. What a submission
prints, loops over or breaks stays in that process.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import linecache
import os
import secrets
import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence

from sftlab.classroom.checking import Exercise, Finding, error_message, examine
from sftlab.classroom.sandbox import run
from tools.slicing import Statement, needed, statements

TOO_LONG = "It took longer than {} seconds in all and was ended: is there a loop that never ends?"
BORROWED = "It hands the task to the workbook's own `{}`. Write it yourself."
BROKE_OFF = "Its process ended before it came to a result."


def grade(id: str, cells: Sequence[str], seed: str) -> Finding:
    """What an answer is worth, in this process: ``right``, ``wrong`` or ``not attempted``.

    Args:
        id: of the exercise.
        cells: the code cells of the notebook that stand before its check.
        seed: of the cases that are drawn for the marks.
    """
    from sftlab.classroom.catalogue import exercise as find
    from tools.sampled import sampled

    exercise = find(id)
    exercise = dataclasses.replace(exercise, cases=[*exercise.cases, *sampled(exercise, seed)])
    found, broken = statements(cells, leave_out=id)
    used = needed(found, exercise.name)
    if borrowed := _borrowed(used, exercise):
        return Finding("wrong", BORROWED.format(borrowed))
    outcome = run(lambda: _execute(cells, used).get(exercise.name), limit=30)
    if outcome.timed_out:
        return Finding("wrong", "Its cells ran for more than 30 seconds before it was defined.")
    if outcome.error is not None:
        return Finding("wrong", error_message(outcome.error))
    answer = outcome.value
    finding = examine(exercise, None if answer is exercise.reference else answer)
    if finding.status == "not attempted" and broken:
        return Finding("wrong", broken[-1])
    return finding


def grade_apart(id: str, cells: Sequence[str], seed: str, limit: int = 120) -> Finding:
    """The same in a fresh process, which is ended after ``limit`` seconds."""
    token = secrets.token_hex(16)
    request = json.dumps({"id": id, "cells": list(cells), "seed": seed, "token": token})
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SFTLAB_PROGRESS": os.path.join(folder, "progress.json")}
        environment.pop("NBGRADER_EXECUTION", None)
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "tools.grading"],
                input=request,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=limit,
                cwd=folder,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return Finding("wrong", TOO_LONG.format(limit))
    try:
        said = json.loads(ended.stdout.rpartition("\n")[2])
        if said.pop("token") == token:
            return Finding(**said)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Finding("wrong", BROKE_OFF)


def main() -> None:
    """Read a request from stdin; its last line on stdout is the answer."""
    request = json.loads(sys.stdin.read())
    token = request.pop("token")
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    finding = grade(**request)
    message = finding.message
    if finding.case:
        message += f"\nTried: {finding.case.describe}"
    said = {"status": finding.status, "message": message, "printed": finding.printed[:2000]}
    os.write(out, ("\n" + json.dumps(said | {"token": token})).encode())
    os._exit(0)  # nothing that a submission left behind runs any more


def _execute(cells: Sequence[str], used: Sequence[Statement]) -> dict:
    module = types.ModuleType("submission")
    sys.modules["submission"] = module
    for number, text in enumerate(cells):
        linecache.cache[f"<cell {number + 1}>"] = (len(text), None, text.splitlines(True), "")
    for statement in used:
        exec(statement.code, vars(module))
    return vars(module)


def _borrowed(used: Sequence[Statement], exercise: Exercise) -> str | None:
    """The name of the reference if the statements fetch it from the package: the plain ways only."""
    name, ours = exercise.reference.__name__, set()
    now = {read for statement in used for read in statement.now}
    # A function that reads its own name calls itself.
    read = now | {read for s in used for read in s.later if read != exercise.name}
    for statement in used:
        for node in ast.walk(statement.node):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if not (getattr(node, "module", None) or node.names[0].name).startswith("sftlab"):
                continue
            for alias in node.names:
                bound = (alias.asname or alias.name).partition(".")[0]
                ours.add(bound)
                # In a list of imports at the top of a cell it may stand for other reasons.
                if alias.name == name and (node is not statement.node or bound in read):
                    return name
    for statement in used:
        for node in ast.walk(statement.node):
            if isinstance(node, ast.Attribute) and node.attr == name and _root(node) in ours:
                return name
    return None


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


if __name__ == "__main__":
    main()
