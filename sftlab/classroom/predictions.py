"""Predictions: the student chooses an answer before the notebook shows the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import inf
from typing import Any

from sftlab.classroom import html_cards, progress
from sftlab.errors import WorkbookError

Range = tuple[float, float]  # lower end (included), upper end (excluded)
NOT_SETTLED = (
    "not settled: "  # begins a stored outcome; the options that the interval reaches follow
)


@dataclass
class _Asked:
    """A question of the running notebook and its widget, which ``outcome`` locks."""

    question: str
    options: tuple[str, ...]
    ranges: dict[str, Range] = field(default_factory=dict)
    widget: Any = None


_asked: dict[str, _Asked] = {}


def predict(
    id: str,
    question: str,
    options: Sequence[str] | Mapping[str, Range],
    answer: str | None = None,
) -> None:
    """Ask for a prediction and store it at once. It can be changed until its outcome is shown.

    Args:
        id: exercise and letter, "12.a".
        question: the question, or a sentence that the options complete.
        options: the possible answers, at least two. For a number to be measured, a dictionary with
            the range of each option, lower end included, upper end excluded: ``{"less than half":
            (0, 0.5), …}``.
        answer: one of the options, to answer without the widget.

    Raises:
        WorkbookError: there are fewer than two options, options repeat, ranges overlap, or the
            answer is not one of the options.
    """
    ranges = dict(options) if isinstance(options, Mapping) else {}
    options = tuple(options)
    if len(options) < 2:
        raise WorkbookError(f"prediction {id} has {len(options)} options; it needs at least two")
    if len(set(options)) < len(options):
        raise WorkbookError(f"prediction {id} offers the same option twice: {', '.join(options)}")
    if not all(isinstance(option, str) and option for option in options):
        raise WorkbookError(f"prediction {id}: every option must be a text")
    _check_ranges(id, ranges)
    asked = _asked[id] = _Asked(question, options, ranges)
    notice = _choose(id, answer) if answer is not None else ""
    entry = progress.load()["predictions"].get(id, {})
    _show_question(id, asked, entry, notice)


def outcome(
    id: str, measured: str | float, interval: Range | None = None, because: str = ""
) -> None:
    """Show the measurement next to the prediction, store whether it was right, and lock it.

    A number is assigned to the option whose range contains it. If its interval overlaps the range
    of another option, the outcome is "not settled", and a choice among those options counts as
    neither right nor wrong.

    Args:
        id: id of the prediction; its ``predict`` must have run in this notebook.
        measured: the measured number if the options have ranges, otherwise the right option.
        interval: lower and upper end of the measured number's interval.
        because: an explanation in one or two sentences.

    Raises:
        WorkbookError: ``predict`` did not run, ``measured`` is not one of the options or in none of
            their ranges, or the interval does not contain the number or is given without ranges.
    """
    question = asked(id, "outcome")
    found = _options_measured(id, question, measured, interval)
    settled = len(found) == 1
    result = found[0] if settled else NOT_SETTLED + " or ".join(found)
    told: dict = {}

    def settle(stored: dict) -> None:
        entry = stored["predictions"].setdefault(id, {"question": question.question})
        choice = entry.get("choice")
        if choice not in question.options:  # none was made, or the question has changed
            choice = None
        entry["measured"] = result
        entry["right"] = choice == found[0] if settled or choice not in found else None
        if choice is None:
            entry["right"] = None
        entry.setdefault("shown", progress.now())
        told.update(entry, choice=choice)

    notice = progress.update(settle)
    if question.widget is not None:
        question.widget.disabled = True
    body = f"{_lead(told)} {_measured(measured, interval, found)}"
    if told["choice"] is None:
        body += " Next time commit first: a guess that fails teaches more than one never made."
    for more in (because, notice):
        body += f"\n\n{more}" if more else ""
    tone = {True: "right", False: "wrong", None: "neutral"}[told["right"]]
    heading = f"Prediction {id}"
    html = html_cards.card(heading, html_cards.inline(body), tone)
    text = html_cards.plain(f"{heading}\n{question.question}\n{body}")
    html_cards.show(html, text, kind="outcome", id=id, measured=result, because=because)


def _lead(told: dict) -> str:
    if told["choice"] is None:
        return "You made no prediction here."
    if told["right"] is None:
        return f"You predicted **{told['choice']}**, and that may be."
    so = "and so it is." if told["right"] else "It turned out otherwise."
    return f"You predicted **{told['choice']}**{', ' if told['right'] else '. '}{so}"


def _measured(measured: str | float, interval: Range | None, found: Sequence[str]) -> str:
    words = " or ".join(f"**{option}**" for option in found)
    if isinstance(measured, str):
        return f"Measured: {words}."
    number = f"{measured:.3g}" + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")
    if len(found) == 1:
        return f"Measured: {number}, {words}."
    return f"Measured: {number}. This is not settled: the interval holds {words}."


def _options_measured(
    id: str, question: _Asked, measured: str | float, interval: Range | None
) -> list[str]:
    """Return the options that agree with a measurement: one, or all that its interval overlaps."""
    if isinstance(measured, str):
        if interval:
            raise WorkbookError(f"prediction {id}: an interval needs a number, not {measured!r}")
        _must_be_option(id, measured, question.options)
        return [measured]
    if not question.ranges:
        raise WorkbookError(
            f"prediction {id}: {measured!r} is a number, but the options have no ranges; give "
            'predict() options such as {"less than half": (0, 0.5), "half or more": (0.5, 1)}'
        )
    low, high = interval or (measured, measured)
    if not low <= measured <= high:
        raise WorkbookError(f"prediction {id}: {measured} is not between {low} and {high}")
    own = [o for o, (start, end) in question.ranges.items() if start <= measured < end]
    if not own:
        raise WorkbookError(f"prediction {id}: {measured} is in none of the options' ranges")
    reached = [o for o, (start, end) in question.ranges.items() if low < end and high >= start]
    return own if not interval else reached


def _check_ranges(id: str, ranges: Mapping[str, Range]) -> None:
    ordered = sorted(ranges.values())
    for (start, end), (following, _) in zip(ordered, [*ordered, (inf, inf)][1:], strict=True):
        if not start < end <= following:
            raise WorkbookError(
                f"prediction {id}: the ranges {ordered} must each go up, and not overlap"
            )


def asked(id: str, caller: str) -> _Asked:
    """Return the question of a prediction that ran in this notebook.

    Args:
        caller: name of the calling function, for the error message.

    Raises:
        WorkbookError: ``predict`` did not run.
    """
    if id not in _asked:
        raise WorkbookError(
            f'{caller}({id!r}) comes before predict("{id}", …): run that cell first'
        )
    return _asked[id]


def _must_be_option(id: str, given: str, options: Sequence[str]) -> None:
    if given not in options:
        raise WorkbookError(
            f"prediction {id}: {given!r} is none of the options: {', '.join(map(repr, options))}"
        )


def _choose(id: str, choice: str) -> str:
    """Store a choice unless the outcome was shown; return a notice for the student, or ""."""
    asked = _asked[id]
    _must_be_option(id, choice, asked.options)
    told = []

    def store(stored: dict) -> None:
        entry = stored["predictions"].get(id, {})
        if "measured" in entry:
            if entry.get("choice") != choice:
                told.append("The result has been shown, so this prediction stays as it was.")
            return
        stored["predictions"][id] = {
            "question": asked.question,
            "choice": choice,
            "time": progress.now(),
        }

    notice = progress.update(store)
    return " ".join([notice, *told]).strip()


def _state(entry: dict) -> str:
    if "measured" in entry:
        if entry.get("choice") is None:
            return "The result was shown before you chose."
        return f"Your prediction: {entry['choice']}. The result has been shown: it stays."
    if entry.get("choice") is not None:
        return f"Your prediction: {entry['choice']}. It can be changed until the result is shown."
    return "Choose before you go on: your choice is stored, and can be changed until the result."


def _show_question(id: str, asked: _Asked, entry: dict, notice: str) -> None:
    chosen = entry.get("choice")
    heading = f"Prediction {id}"
    rows = "".join(
        f"<li>{'<b>' if o == chosen else ''}{html_cards.inline(o)}{'</b>' if o == chosen else ''}</li>"
        for o in asked.options
    )
    state = "\n\n".join(filter(None, [_state(entry), notice]))
    html = html_cards.card(
        heading,
        f"{html_cards.inline(asked.question)}<ul style='margin:.3em 0'>{rows}</ul>"
        f"<small>{html_cards.inline(state)}</small>",
        "open" if "measured" not in entry else "neutral",
    )
    listed = "\n".join(f"  {'(x)' if o == chosen else '( )'} {o}" for o in asked.options)
    text = html_cards.plain(f"{heading}\n{asked.question}\n{listed}\n{state}")
    html_cards.show(html, text, _widget(id, asked, entry, notice))


def _widget(id: str, asked: _Asked, entry: dict, notice: str) -> Any:
    """Return the radio buttons, or None outside of a notebook."""
    from IPython import get_ipython

    if get_ipython() is None:
        return None
    import ipywidgets

    wide = ipywidgets.Layout(width="auto")
    chosen = entry.get("choice")
    radio = ipywidgets.RadioButtons(
        options=[(option, option) for option in asked.options],
        value=chosen if chosen in asked.options else None,
        disabled="measured" in entry,
        layout=wide,
    )
    state = ipywidgets.HTML(_small(_state(entry), notice))

    def chose(event: dict) -> None:
        told = _choose(id, event["new"])
        now = progress.load()["predictions"].get(id, {})
        state.value = _small(_state(now), told)

    radio.observe(chose, names="value")
    asked.widget = radio
    question = ipywidgets.HTML(
        f"<b>Prediction {escape(id)}</b><br>{html_cards.inline(asked.question)}"
    )
    return ipywidgets.VBox([question, radio, state])


def _small(*lines: str) -> str:
    return "<br>".join(f"<small>{html_cards.inline(line)}</small>" for line in lines if line)
