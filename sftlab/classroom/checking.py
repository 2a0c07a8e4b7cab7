"""Check a student's answer on small cases and recognize typical mistakes.

An exercise consists of a reference, the rules that its text states, cases that test them, and known
mistakes. A known mistake is a wrong answer, declared with `mistake` together with a message that
explains it. A student gets the message of a mistake only if the answer behaves like that mistake on
*every* case; otherwise the student is told what was seen on the first case that fails.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import linecache
import random
import textwrap
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sftlab.classroom.first_difference import (
    NO_RETURN,
    STRICT,
    Broken,
    cast,
    difference,
    is_plain_sequence,
    is_tensor,
    plain,
    shorten,
    tensors_in,
)
from sftlab.classroom.sandbox import run
from sftlab.classroom.watching import watch

DRAWN = 3  # random cases of every check, where an exercise can draw some
UNCHANGED = "unchanged"  # the key of the rule that arguments stay as they are
SEED = "seed"  # the key of the rule about reseeding the random generators


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
            detected. A model or tokenizer that the answer only reads may be shared.
        expected: computes the right result from the arguments; usually the reference itself.
        tolerance: numbers agree if |got − expected| ≤ tolerance · (1 + |expected|).
        verify: for answers with no single right result, instead of ``expected``: takes (result,
            arguments after the call) and returns None or a message, a `Broken` if it is about
            another rule than the case's own. It may call what the student returned.
        in_place: positions of the arguments that the answer may change; True for all.
        rule: key of the rule that this case tests.
        observe: takes (result, arguments after the call) and returns what is compared instead of
            the result, for an answer that acts on its arguments.
        look: takes (result, fresh arguments) and returns lines that show a wrong result in full.
    """

    describe: str
    arguments: Callable[[], tuple]
    expected: Callable[..., Any] | None = None
    tolerance: float = 0.0
    verify: Callable[[Any, tuple], str | None] | None = None
    in_place: bool | Sequence[int] = False
    rule: str = ""
    observe: Callable[[Any, tuple], Any] | None = None
    look: Callable[[Any, tuple], str] | None = None


@dataclass(frozen=True)
class Exercise:
    """The data of an exercise.

    Attributes:
        hints: from the idea to the place, never the code. One that begins with a rule's key, as
            (key, text), points to that line of the docstring.
        why: why the workbook's version is written this way, for `reveal`.
        shows: additional functions that `reveal` shows.
        asks: the first lines of the stub's docstring: what is asked, the arguments, the result.
        rules: the further lines of it, by key. Everything that a case tests stands here.
        path: how one gets to the solution, for `reveal`: what to notice, in which order, and the
            usual wrong turn.
        draw: returns arguments for a random case. It gets a generator and the arguments of the
            first case.
    """

    id: str
    title: str
    reference: Callable[..., Any]
    cases: Sequence[Case]
    hints: Sequence[str | tuple[str, str]]
    why: str
    points: int = 1
    shows: Sequence[Callable[..., Any]] = ()
    asks: str = ""
    rules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    path: str = ""
    draw: Callable[..., tuple] | None = None

    @property
    def name(self) -> str:
        """The name of the function that the student writes."""
        return self.id.partition(".")[2]

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """The mistakes declared with `mistake`, in the order of the file."""
        return tuple(_MISTAKES.get(self.id, ()))

    @property
    def strict(self) -> tuple[str, ...]:
        """What is compared beyond the values, because a rule asks for it."""
        return tuple(key for key in STRICT if key in self.rules)

    def docstring(self, width: int = 88) -> str:
        """Return the docstring of the stub: what is asked, and one line for each rule."""
        fill = functools.partial(textwrap.fill, width=width, break_on_hyphens=False)
        lines = [fill(line) for line in self.asks.splitlines()]
        rules = [fill(f"- {rule}", subsequent_indent="  ") for rule in self.rules.values()]
        return "\n".join([*lines, "", *rules] if rules else lines)

    @property
    def hint_texts(self) -> list[str]:
        """The hints as text; the rule that a hint points to is quoted."""
        return [
            hint if isinstance(hint, str) else f"Read again: “{self.rules[hint[0]]}” {hint[1]}"
            for hint in self.hints
        ]


@dataclass(frozen=True)
class Finding:
    """The result of examining an answer: its ``status`` and the message for the student.

    ``rule`` is the text of the rule that the failing case tests; ``alone`` says that it is this rule
    that is broken: no known mistake was found, and all failing cases test it. ``adapt`` turns the
    answer into one whose results have the types that the next cells expect. ``view`` shows the wrong
    result in full, if the case can.
    """

    status: str
    message: str
    case: Case | None = None
    printed: str = ""
    rule: str = ""
    passed: int = 0
    total: int = 0
    alone: bool = False
    note: str = ""
    view: str = ""
    adapt: Callable[[Any], Any] = lambda answer: answer


@dataclass
class Attempt:
    """What an answer did on one case. ``message`` is None if that is right."""

    case: Case
    value: Any = None
    error: BaseException | None = None
    message: str | None = None
    changed: bool = False
    told: str | None = None
    stopped: bool = False
    printed: str = ""
    cast_like: Any = None


def drawn(exercise: Exercise, seed: str, number: int) -> list[Case]:
    """Return random cases, the same for the same seed; none for an exercise that cannot draw."""
    return [
        _drawn(exercise, f"{seed}/{exercise.id}/{k}") for k in range(number * bool(exercise.draw))
    ]


def _drawn(exercise: Exercise, seed: str) -> Case:
    model = next(case for case in exercise.cases if not case.verify)

    def arguments() -> tuple:
        return exercise.draw(random.Random(seed), *model.arguments())

    data = (
        a for a in arguments() if is_tensor(a) or isinstance(a, int | float | str | list | dict)
    )
    shown = ", ".join(shorten(argument, 60) for argument in data)
    # Of large numbers two right ways differ in the last digits.
    loose = max([1e-5, model.tolerance]) if any(c.tolerance for c in exercise.cases) else 0.0
    return dataclasses.replace(
        model,
        describe=f"`{exercise.name}` on random values: {shown}".removesuffix(": "),
        arguments=arguments,
        tolerance=loose,
        rule="",
    )


def examine(exercise: Exercise, answer: Any, limit: float = 5.0) -> Finding:
    """Check the answer on every case, and name the mistake.

    Args:
        answer: any object; only a callable can be right.
        limit: time limit for each call, in seconds. After a call that exceeds it, or after three
            times as long in all, no further case is tried. The whole is counted in seconds of the
            processor: a right answer is not too slow because the machine has other work.
    """
    if answer is None or answer is Ellipsis or _is_empty(answer):
        return Finding("not attempted", "")
    if message := _not_a_function(exercise, answer):
        return Finding("wrong", message)
    cases = [*exercise.cases, *drawn(exercise, "check", DRAWN)]
    attempts: list[Attempt] = []
    expected: dict[int, tuple] = {}
    end = time.thread_time() + 3 * limit
    for case in cases:
        attempts.append(attempt(exercise, answer, case, limit, expected))
        if len(attempts) == 1 and _is_stub_error(attempts[0].error):
            return Finding("not attempted", "")
        if attempts[-1].stopped:
            break
        if time.thread_time() > end:
            attempts[-1].stopped = True
            attempts[-1].message = attempts[-1].message or (
                f"{len(attempts)} of {len(cases)} small cases took more than {3 * limit:g} seconds: "
                "it is too slow."
            )
            break
    printed = next((tried.printed for tried in attempts if tried.printed), "")
    failed = [tried for tried in attempts if tried.message]
    passed = len(attempts) - len(failed)
    outside = _outside_data(answer)
    counts = {"printed": printed, "passed": passed, "total": len(cases), "note": outside}
    if not failed:
        return Finding("right", "", **counts, adapt=_adapter(attempts))
    first = failed[0]
    named = _named_mistake(exercise, attempts, limit, expected)
    message = named or first.message
    if any(like is None for like, *_ in expected.values()) and not isinstance(message, Broken):
        message = message.replace(NO_RETURN, ".")  # None is a right result elsewhere
    broken = isinstance(message, Broken)
    rule = message.rule if broken else "" if first.stopped else first.case.rule
    own = {tried.case.rule for tried in failed if tried.case in exercise.cases}
    alone = not named and (broken or own == {rule})
    text = exercise.rules.get(rule, "")
    view = _view(first, limit)
    return Finding("wrong", str(message), first.case, **counts, rule=text, alone=alone, view=view)


def _view(tried: Attempt, limit: float) -> str:
    """Return what the case shows of a wrong result; nothing if it cannot be shown."""
    look = tried.case.look
    if look is None or tried.error is not None or tried.stopped:
        return ""
    return run(lambda: look(tried.value, tried.case.arguments()), limit).value or ""


def attempt(
    exercise: Exercise,
    answer: Callable[..., Any],
    case: Case,
    limit: float = 5.0,
    expected: dict[int, tuple] | None = None,
) -> Attempt:
    """Call the answer on one case, and judge what it returns and what it changes.

    Args:
        expected: the right results by the cases' ids, to which this one is added.
    """
    given = case.arguments()
    tried = Attempt(case, message=_signature_message(exercise, answer, given))
    if tried.message:
        tried.error = TypeError()
        return tried
    names = [*_parameters(answer), *map(str, range(len(given)))]
    allowed = range(len(given)) if case.in_place is True else case.in_place or ()
    changed = watch(given, names, allowed)
    outcome = run(lambda: _materialized(answer(*given)), limit)
    tried.printed, tried.error, tried.value = outcome.printed, outcome.error, outcome.value
    if outcome.timed_out:
        tried.stopped, tried.error = True, TimeoutError()
        tried.message = _TOO_LONG.format(limit)
    elif outcome.error is not None:
        tried.message = error_message(outcome.error)
    elif message := _odd_result(tried):
        tried.message, tried.error = message, TypeError()
    else:
        _look(tried, given, limit)
    found = changed()  # before the reference gets a model that cases share
    if tried.message is None and not case.verify:
        _compare(exercise, tried, given, limit, {} if expected is None else expected)
    tried.changed = found is not None
    if SEED in exercise.rules and outcome.reseeded and not tried.message:
        tried.message = Broken(SEED, f"It sets the random seed itself ({outcome.reseeded}).")
    elif (
        case.rule == SEED
        and not tried.message
        and _repeats(answer, case, limit)
        and not _repeats(exercise.reference, case, limit)
    ):
        tried.message = "Each call draws the same numbers: it has a seed of its own."
    if found and outcome.error is None and not outcome.timed_out:
        tried.message = Broken(UNCHANGED, found)
    return tried


_TOO_LONG = "It ran for more than {:g} seconds: is there a loop that never ends?"


def _repeats(answer: Callable[..., Any], case: Case, limit: float) -> bool:
    """Return whether two calls draw the same numbers from different states of the generators."""
    results = []
    for seed in (1, 2):
        given = case.arguments()
        outcome = run(lambda given=given: answer(*given), limit, seed)
        results.append([plain(tensor) for tensor in tensors_in((outcome.value, given))])
    return results[0] == results[1]


def _look(tried: Attempt, given: tuple, limit: float) -> None:
    """Let the case verify or observe the result; the student's objects may run code again."""
    case = tried.case
    judge = case.verify or case.observe
    if judge is None:
        return
    seen = run(lambda: judge(tried.value, given), limit)
    tried.message = _second_failure(seen, type(tried.value).__name__, limit)
    tried.stopped = seen.timed_out
    if tried.message:
        tried.told, tried.error = tried.message, None if case.verify else seen.error
    elif case.verify:
        tried.told = tried.message = seen.value
    else:
        tried.value = seen.value


def _compare(
    exercise: Exercise, tried: Attempt, given: tuple, limit: float, known: dict[int, tuple]
) -> None:
    """Compare the value, or what was observed, with the expected one."""
    case = tried.case
    if id(case) not in known:
        fresh = case.arguments()
        like = expected = case.expected(*fresh)
        known[id(case)] = like, case.observe(expected, fresh) if case.observe else expected, fresh
    tried.cast_like, expected, fresh = known[id(case)]

    def compare() -> str | None:
        if isinstance(tried.value, _Materialized) and not isinstance(expected, Collection):
            return "A call returns an iterator and not one value: leave out `yield`."
        found = difference(tried.value, expected, case.tolerance, exercise.strict)
        if found is None and "gradient" in exercise.rules:
            found = _gradient_difference(tried.value, given, expected, fresh, case.tolerance)
        return found

    compared = run(compare, limit)
    if compared.error is not None or compared.timed_out:
        kind = type(tried.value).__name__
        tried.message = f"The result, a `{kind}`, could not be compared with the expected one."
    else:
        tried.message = compared.value


def _second_failure(outcome: Any, kind: str, limit: float) -> str | None:
    """Return a message if what the answer returned fails when it is used."""
    if outcome.timed_out:
        return _TOO_LONG.format(limit)
    if outcome.error is None:
        return None
    if _their_frames(outcome.error):
        return error_message(outcome.error)
    if kind == "NoneType":
        return "It returns nothing (None): is a `return` missing?"
    return f"The result, a `{kind}`, cannot be used: {error_message(outcome.error)}"


def _gradient_difference(
    got: Any, given: tuple, expected: Any, fresh: tuple, tolerance: float
) -> str | None:
    """Compare the gradients of a result with respect to the arguments that require one."""
    mine, theirs = _gradients(got, given), _gradients(expected, fresh)
    if difference(mine, theirs, max(tolerance, 1e-5)) is None:
        return None
    return Broken(
        "gradient", "The value is right, but its gradient with respect to the input is not."
    )


def _gradients(value: Any, arguments: tuple) -> list[Any]:
    import torch

    if not is_tensor(value) or not value.requires_grad:
        return []
    leaves = [t for t in tensors_in(arguments) if t.requires_grad]
    if not leaves:
        return []
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True, retain_graph=True)
    pairs = zip(found, leaves, strict=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in pairs]


def _materialized(value: Any) -> Any:
    """Return a generator, a filter or another iterator as a list, while the answer is guarded."""
    if inspect.iscoroutine(value):
        value.close()
        return value
    is_view = isinstance(value, (type({}.keys()), type({}.values())))
    return _Materialized(value) if isinstance(value, Iterator) or is_view else value


class _Materialized(list):
    """The items of an iterator. Its type tells that the answer did not return a list."""


def _odd_result(tried: Attempt) -> str | None:
    """Return a message about a result that shows a slip in the writing of the function."""
    value = tried.value
    if inspect.iscoroutine(value):
        return "It is `async`, so a call returns a coroutine and no result. Leave out `async`."
    if value is None and tried.printed.strip() and not tried.case.in_place:
        return "It prints, but it returns nothing (None). Put `return` in place of `print`."
    return None


def _named_mistake(
    exercise: Exercise, attempts: Sequence[Attempt], limit: float, expected: dict[int, tuple]
) -> str | None:
    """Return the message of the mistake that does the same on every case that was tried."""
    if any(tried.stopped for tried in attempts):
        return None
    order = sorted(attempts, key=lambda tried: tried.message is None)  # failures tell most
    for known in exercise.mistakes:
        if all(
            alike(exercise, tried, attempt(exercise, known.answer, tried.case, limit, expected))
            for tried in order
        ):
            return known.message
    return None


def alike(exercise: Exercise, one: Attempt, other: Attempt) -> bool:
    """Return whether two answers did the same on a case."""
    if one.error is not None or other.error is not None:
        return (type(one.error), str(one.error)) == (type(other.error), str(other.error))
    if one.case.verify:
        return one.told == other.told and one.changed == other.changed
    if (one.message is None) != (other.message is None) or one.changed != other.changed:
        return False
    both = (one.value, other.value, one.case.tolerance, exercise.strict)
    found = run(lambda: difference(*both))
    return found.value is None and found.error is None and not found.timed_out


def _adapter(attempts: Sequence[Attempt]) -> Callable[[Any], Any]:
    """Return a function that makes an answer return the types of the reference, if it does not."""
    pairs = [
        (a.value, a.cast_like) for a in attempts if a.cast_like is not None and not a.case.observe
    ]
    if not any(_other_kind(value, like) for value, like in pairs):
        return lambda answer: answer
    like = max((like for _, like in pairs), key=lambda like: len(repr(like)))

    def adapt(answer: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(answer)
        def adapted(*arguments: Any, **named: Any) -> Any:
            return cast(_materialized(answer(*arguments, **named)), like)

        return adapted

    return adapt


def _other_kind(value: Any, like: Any) -> bool:
    if is_plain_sequence(value) and is_plain_sequence(like) and type(value) is type(like):
        return any(_other_kind(a, b) for a, b in zip(value, like, strict=False))
    if isinstance(value, dict) and isinstance(like, dict):
        return any(_other_kind(value[key], like[key]) for key in like if key in value)
    if dataclasses.is_dataclass(like) and type(value) is type(like):
        return any(
            _other_kind(getattr(value, f.name), getattr(like, f.name))
            for f in dataclasses.fields(like)
        )
    return type(value) is not type(like)


def _not_a_function(exercise: Exercise, answer: Any) -> str | None:
    name = exercise.name
    if not callable(answer):
        return (
            f"`{name}` should be a function, but a `{type(answer).__name__}` was handed in. Hand in "
            "its name alone, without calling it."
        )
    wants_class = isinstance(exercise.reference, type)
    if isinstance(answer, type) and not wants_class:
        return f"`{name}` should be a function, but `{answer.__name__}` is a class."
    return None


def _signature_message(exercise: Exercise, answer: Callable[..., Any], given: tuple) -> str | None:
    try:
        inspect.signature(answer).bind(*given)
    except ValueError:  # some built-in functions have no signature
        return None
    except TypeError:
        names = ", ".join(_parameters(exercise.reference)[: len(given)])
        mine = ", ".join(_parameters(answer)) or "nothing"
        return f"It takes ({mine}), but it is called with ({names})."
    return None


def _parameters(answer: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):
        return []


def _outside_data(answer: Any) -> str:
    """Return a note if the function reads data of the notebook that are not among its arguments."""
    if not inspect.isfunction(answer) or answer.__module__ != "__main__":
        return ""
    used = [s.argval for s in dis.get_instructions(answer) if s.opname == "LOAD_GLOBAL"]
    found = [
        name
        for name in dict.fromkeys(used)
        if name in answer.__globals__
        and not name.isupper()
        and not callable(answer.__globals__[name])
        and not isinstance(answer.__globals__[name], ModuleType)
    ]
    if not found:
        return ""
    return (
        f"It reads `{found[0]}` from the notebook: the value comes from another cell and is no "
        "argument of the function."
    )


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
    elif isinstance(error, MemoryError) or "allocate memory" in text:
        message = f"It asks for more memory than there is (`{type(error).__name__}`)."
    elif isinstance(error, UnboundLocalError):
        message += " A variable is read before the function gives it a value."
    elif isinstance(error, NameError):
        message += " Import it, or take it from the arguments."
    if (frames := _their_frames(error)) and frames[-1].line:
        message += f" This happened in line {frames[-1].lineno} of your cell: `{frames[-1].line}`"
    return message


def _their_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame)]


def _is_theirs(frame: traceback.FrameSummary) -> bool:
    libraries = ("site-packages", "dist-packages", "<frozen")
    if any(part in frame.filename for part in libraries):
        return False
    return not any(frame.filename.startswith(folder) for folder in (_OURS, _STANDARD_LIBRARY))


_OURS = __file__.rpartition("/classroom/")[0] or __file__.rpartition("\\classroom\\")[0]
_STANDARD_LIBRARY = inspect.getfile(inspect).rpartition("inspect.py")[0]
