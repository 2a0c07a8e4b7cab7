"""Check a student's answer on small cases and recognize typical mistakes.

An exercise consists of a reference, cases and known mistakes. A known mistake is a wrong answer,
declared with `mistake` together with a message that explains it. If the student's result equals the
result of a mistake, the student gets its message.
"""

from __future__ import annotations

import dis
import functools
import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.classroom.first_difference import difference, is_tensor, shorten
from sftlab.classroom.sandbox import Run, run


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, and the message for students who give it."""

    answer: Callable[..., Any]
    message: str


_MISTAKES: dict[str, list[Mistake]] = {}


def mistake(id: str, message: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated function to be a known mistake of exercise ``id``.

    The tests check every declared mistake and expect exactly its message.

    Args:
        message: what was seen and what to look at.
    """

    def declare(answer: Callable[..., Any]) -> Callable[..., Any]:
        _MISTAKES.setdefault(id, []).append(Mistake(answer, message))
        return answer

    return declare


@dataclass(frozen=True)
class Case:
    """One call to check, and its expected result.

    Attributes:
        describe: the call in one line, for the student.
        arguments: returns the arguments, *new objects each time*, so that changes to them are
            detected.
        expected: computes the right result from the arguments; usually the reference itself.
        tolerance: numbers agree if |got − expected| ≤ tolerance · (1 + |expected|).
        verify: for answers with no single right result, instead of ``expected``: takes (result,
            arguments after the call) and returns None or a message. It may call what the student
            returned and runs with the same protection.
        in_place: the exercise is supposed to change its arguments.
    """

    describe: str
    arguments: Callable[[], tuple]
    expected: Callable[..., Any] | None = None
    tolerance: float = 0.0
    verify: Callable[[Any, tuple], str | None] | None = None
    in_place: bool = False


@dataclass(frozen=True)
class Exercise:
    """The data of an exercise. ``shows`` are additional functions that ``reveal`` shows."""

    id: str
    title: str
    reference: Callable[..., Any]
    cases: Sequence[Case]
    hints: Sequence[str]
    why: str
    points: int = 1
    shows: Sequence[Callable[..., Any]] = ()

    @property
    def name(self) -> str:
        """The name of the function that the student writes."""
        return self.id.partition(".")[2]

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """The mistakes declared with `mistake`, in the order of the file."""
        return tuple(_MISTAKES.get(self.id, ()))


@dataclass(frozen=True)
class Finding:
    """The result of examining an answer: its ``status`` and the message for the student."""

    status: str
    message: str
    case: Case | None = None
    printed: str = ""


def examine(exercise: Exercise, answer: Any, limit: float = 5.0) -> Finding:
    """Check the answer on every case, stop at the first failure, and name the mistake.

    Args:
        answer: any object; only a callable can be right.
        limit: time limit for each call, in seconds.
    """
    if answer is None or answer is Ellipsis or _is_empty(answer):
        return Finding("not attempted", "")
    if not callable(answer):
        return Finding(
            "wrong",
            f"`{exercise.name}` should be a function, but a `{type(answer).__name__}` was handed "
            "in. Hand in its name alone, without calling it.",
        )
    printed = ""
    for number, case in enumerate(exercise.cases):
        given = case.arguments()
        message = _signature_message(exercise, answer, given)
        if message is None:
            outcome = run(functools.partial(_attempt, answer, given, case), limit)
            if number == 0 and _is_stub_error(outcome.error):
                return Finding("not attempted", "")
            message = _failure(outcome, limit) or _message_for(
                exercise, answer, case, given, outcome
            )
            printed = printed or outcome.printed
        if message:
            return Finding("wrong", message, case, printed)
    return Finding("right", "", printed=printed)


def _attempt(answer: Callable[..., Any], given: tuple, case: Case) -> tuple[Any, str | None]:
    """Call the answer and ``verify``, which may call the student's code again."""
    value = answer(*given)
    return value, case.verify(value, given) if case.verify else None


def _failure(outcome: Run, limit: float) -> str | None:
    if outcome.timed_out:
        return f"It ran for more than {limit:g} seconds: is there a loop that never ends?"
    return None if outcome.error is None else error_message(outcome.error)


def _message_for(
    exercise: Exercise, answer: Any, case: Case, given: tuple, outcome: Run
) -> str | None:
    """Return what is wrong with the result of a completed call, or None."""
    value, told = outcome.value
    changed = None if case.in_place else _changed_argument(case, given)
    if case.verify:
        return told or changed
    expected = case.expected(*case.arguments())
    # Comparing may run the student's code too: `==` or `repr` of the result.
    compared = run(lambda: difference(value, expected, case.tolerance))
    if compared.error is not None or compared.timed_out:
        kind = type(value).__name__
        return f"The result, a `{kind}`, could not be compared with the expected one."
    if compared.value is None:
        return changed
    return _named_mistake(exercise, answer, case, value) or changed or compared.value


def _named_mistake(exercise: Exercise, answer: Any, failing: Case, value: Any) -> str | None:
    """Return the message of the known mistake that gives this result.

    If several mistakes give the same result on this case, the one that agrees on most cases is
    named.
    """
    found = [known for known in exercise.mistakes if _shows_as(known, failing, value)]
    if len(found) > 1:
        others = [case for case in exercise.cases if case is not failing and not case.verify]
        results = [(case, run(lambda case=case: answer(*case.arguments()))) for case in others]
        agreeing = [
            sum(_gives(known, case, result.value) for case, result in results if not result.error)
            for known in found
        ]
        return found[agreeing.index(max(agreeing))].message
    return found[0].message if found else None


def _gives(known: Mistake, case: Case, value: Any) -> bool:
    """Return whether the mistake gives this result on the case."""
    found = run(lambda: difference(value, known.answer(*case.arguments()), case.tolerance))
    return found.value is None and found.error is None and not found.timed_out


def _shows_as(known: Mistake, case: Case, value: Any) -> bool:
    """Return whether the mistake gives this result and differs from the expected result.

    On some cases a mistake leads to the right result.
    """
    return _gives(known, case, value) and not _gives(known, case, case.expected(*case.arguments()))


def _changed_argument(case: Case, given: tuple) -> str | None:
    """Return a message if the call changed its arguments. Only plain data is compared."""
    for number, (after, before) in enumerate(zip(given, case.arguments(), strict=True), 1):
        plain = is_tensor(before) or isinstance(before, (list, tuple, dict))
        if plain and difference(after, before) is not None:
            return (
                f"It changes its own input (argument {number}): whoever called it would find the "
                f"data altered. It was `{shorten(before, 80)}` and became `{shorten(after, 80)}`. "
                "Work on a copy."
            )
    return None


def _signature_message(exercise: Exercise, answer: Callable[..., Any], given: tuple) -> str | None:
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    try:
        signature.bind(*given)
    except TypeError:
        wanted = inspect.signature(exercise.reference)
        names = ", ".join(list(wanted.parameters)[: len(given)])
        mine = ", ".join(signature.parameters) or "nothing"
        return f"It takes ({mine}), but it is called with {len(given)} arguments: ({names})."
    return None


def _is_empty(answer: Any) -> bool:
    """Return whether it is a function with an empty body: ``...``, ``pass`` or a docstring."""
    if not inspect.isfunction(answer) or answer.__name__ == "<lambda>":  # stubs are never lambdas
        return False
    harmless = {"RESUME", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "NOP"}
    code = list(dis.get_instructions(answer))
    loaded = {step.argval for step in code if step.opname in ("LOAD_CONST", "RETURN_CONST")}
    return all(step.opname in harmless for step in code) and loaded <= {None, Ellipsis}


def _is_stub_error(error: BaseException | None) -> bool:
    """Return whether the stub's own NotImplementedError was raised, not one from a library."""
    if not isinstance(error, NotImplementedError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = last.line or linecache.getline(last.filename, last.lineno or 0)
    return _is_theirs(last) and (not str(error) or "raise" in line)


def error_message(error: BaseException) -> str:
    """Return one sentence about an error in a student's code, with the line that raised it."""
    text = str(error).strip().rstrip(".")
    text = f"{text[:160]} …" if len(text) > 160 else text
    message = f"It stopped with `{type(error).__name__}`{': ' + text if text else ''}."
    if isinstance(error, RecursionError):
        message = "It calls itself without end (`RecursionError`). What ends the recursion?"
    elif isinstance(error, SystemExit):
        message = "It tries to end the program (`SystemExit`). Return a value instead."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame)]
    if frames and frames[-1].line:
        message += f" This happened in line {frames[-1].lineno} of your cell: `{frames[-1].line}`"
    return message


def _is_theirs(frame: traceback.FrameSummary) -> bool:
    libraries = ("site-packages", "dist-packages", "<frozen")
    if any(part in frame.filename for part in libraries):
        return False
    return not any(frame.filename.startswith(folder) for folder in (_OURS, _STANDARD_LIBRARY))


_OURS = __file__.rpartition("/classroom/")[0] or __file__.rpartition("\\classroom\\")[0]
_STANDARD_LIBRARY = inspect.getfile(inspect).rpartition("inspect.py")[0]
