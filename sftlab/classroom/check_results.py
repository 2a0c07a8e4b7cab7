"""``check``: check a student's answer, name the mistake, and let the notebook continue."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sftlab.classroom import catalogue, html_cards, progress
from sftlab.classroom.checking import Exercise, Finding, examine
from sftlab.classroom.first_difference import shorten


class CheckFailed(AssertionError):
    """Raised for an answer that is not right, only under nbgrader; the message is the feedback."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. ``status`` is "right", "wrong" or "not attempted".

    ``passed`` of ``total`` cases give the right result.
    """

    id: str
    status: str
    feedback: str = field(repr=False)  # shown on the page already
    passed: int = field(repr=False)
    total: int = field(repr=False)
    _answer: Any = field(repr=False)
    _reference: Any = field(repr=False)

    def or_reference(self) -> Any:
        """Return the student's object if it is right, otherwise the workbook's version.

        If the answer returns other types than the workbook's version (a tuple for a list, say),
        the results are converted, because the next cells expect that version's types.
        """
        return self._answer if self.status == "right" else self._reference


_LOOK_UP = object()


def check(id: str, answer: Any = _LOOK_UP, names: dict[str, Any] | None = None) -> CheckResult:
    """Check ``answer`` on the cases of an exercise and show the feedback.

    The answer may raise an exception, loop, print or exit; the notebook is not affected. An
    unchanged stub counts as "not attempted". The result is stored in the progress file.

    Args:
        answer: default: the function of the exercise's name among ``names``.
        names: default: those of the notebook that calls this.

    Raises:
        WorkbookError: there is no such exercise.
        CheckFailed: the answer is not right (only under nbgrader).
    """
    exercise = catalogue.exercise(id)
    if answer is _LOOK_UP:
        names = sys._getframe(1).f_globals if names is None else names
        answer = names.get(exercise.name, _LOOK_UP)
        unknown = answer is _LOOK_UP or answer is exercise.reference
        finding = _missing(exercise, names) if unknown else None
    else:
        finding = _own_version(exercise) if answer is exercise.reference else None
    finding = finding or examine(exercise, answer)
    notice = _store(id, finding.status)
    result = CheckResult(
        id,
        finding.status,
        _feedback(finding),
        finding.passed,
        finding.total,
        finding.adapt(answer),
        exercise.reference,
    )
    _show(exercise, finding, notice)
    if result.status != "right" and os.environ.get("NBGRADER_EXECUTION") in _GRADING:
        raise CheckFailed(f"{id}: {result.feedback}")
    return result


def _own_version(exercise: Exercise) -> Finding:
    """The cell `f = check(id).or_reference()` ran a second time: this is not the student's work."""
    return Finding(
        "not attempted",
        f"This is the workbook's own `{exercise.name}`. To try yours, run the cell in which "
        "you define it again, and then this one.",
    )


def _missing(exercise: Exercise, names: dict[str, Any]) -> Finding:
    """The notebook has no answer under the exercise's name; perhaps it was renamed."""
    written = [
        name
        for name, value in names.items()
        if callable(value) and getattr(value, "__module__", "") == "__main__" and name[0] != "_"
    ]
    if near := get_close_matches(exercise.name, written, n=1, cutoff=0.6):
        return Finding(
            "wrong",
            f"The notebook defines `{near[0]}`, but the cells below use `{exercise.name}`: keep the "
            "name of the stub.",
        )
    if exercise.name in names:
        return _own_version(exercise)
    return Finding(
        "not attempted",
        f"There is no `{exercise.name}` yet: run the cell in which it is defined, and keep its name.",
    )


_GRADING = ("autograde", "validate")  # set by nbgrader while it runs a notebook

_HEADINGS = {
    "right": "✓ {}: right",
    "wrong": "✗ {}: not yet",
    "not attempted": "○ {}: not attempted yet",
}
_GOES_ON = {
    "right": "From here on the notebook uses yours.",
    "wrong": "The notebook goes on with the workbook's version; yours is not used.",
    "not attempted": "Until you write yours, the notebook goes on with the workbook's version.",
}


def _store(id: str, status: str) -> str:
    """Store the result. A solved check stays solved if an old version runs again."""
    if status == "not attempted":
        return ""

    def note(stored: dict) -> None:
        entry = stored["checks"].setdefault(id, {"solved": False, "tries": 0})
        if not entry["solved"]:
            entry["tries"] += 1
            entry["time"] = progress.now()
        entry["solved"] = entry["solved"] or status == "right"
        entry["last"] = status

    return progress.update(note)


def _details(finding: Finding) -> list[str]:
    """Return what the feedback says after the message, in lines."""
    if finding.case is None:
        return [finding.note]
    rule = [f"The rule: {finding.rule}"] if finding.rule and finding.alone else []
    count = f"{finding.passed} of {finding.total} cases pass."
    return [f"Tried: {finding.case.describe}", *rule, count, finding.note]


def _feedback(finding: Finding) -> str:
    parts = [finding.message, *_details(finding), finding.view]
    if finding.printed:
        parts.append(f"It printed: {shorten(finding.printed.strip(), 300)}")
    parts.append(_GOES_ON[finding.status])
    return html_cards.plain("\n".join(filter(None, parts)))


def _show(exercise: Exercise, finding: Finding, notice: str) -> None:
    heading = _HEADINGS[finding.status].format(exercise.name)
    tone = "open" if finding.status == "not attempted" else finding.status
    lines = filter(None, [finding.message, *_details(finding)])
    body = "".join(f"<div>{html_cards.inline(line)}</div>" for line in lines)
    if finding.view:
        body += html_cards.preformatted(finding.view)
    if finding.printed:
        body += "<div>It printed:</div>"
        body += html_cards.preformatted(shorten_lines(finding.printed))
    body += f"<div><small>{html_cards.inline(_GOES_ON[finding.status])}</small></div>"
    text = f"{heading}\n{_feedback(finding)}"
    if finding.status == "wrong" and exercise.hints:
        body += _nested_hints(exercise.hint_texts)
        text += f"\nHints: {len(exercise.hints)}, to be unfolded one by one in the notebook."
    if notice:
        body += f"<div>{html_cards.inline(notice)}</div>"
        text += f"\n{notice}"
    html_cards.show(
        html_cards.card(heading, body, tone),
        text,
        kind="check",
        id=exercise.id,
        status=finding.status,
    )


def _nested_hints(hints: Any) -> str:
    """Return the hints as HTML, each folded inside the one before it."""
    html = ""
    for number in range(len(hints), 0, -1):
        title = "A hint" if number == 1 else "One more hint"
        html = html_cards.folded(title, html_cards.inline(hints[number - 1]) + html)
    return html


def shorten_lines(text: str, lines: int = 8) -> str:
    """Return the first lines of the printed text, each cut at 100 characters."""
    kept = [line[:100] for line in text.strip().splitlines()]
    more = len(kept) - lines
    return "\n".join(kept[:lines]) + (f"\n… and {more} more lines" if more > 0 else "")
