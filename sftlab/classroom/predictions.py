"""Predictions: the student commits to an answer before the notebook shows what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sftlab.classroom import html_cards, progress
from sftlab.errors import WorkbookError


@dataclass
class _Asked:
    """A question of the running notebook, with its widget, so that ``outcome`` can lock it."""

    question: str
    options: tuple[str, ...]
    widget: Any = None


_asked: dict[str, _Asked] = {}


def predict(id: str, question: str, options: Sequence[str], answer: str | None = None) -> None:
    """Ask for a prediction and store it at once. It can be changed until its outcome was shown.

    Args:
        id: exercise and letter, "12.a".
        question: what is asked, or a sentence that the options complete.
        options: the possible answers, at least two.
        answer: one of the options, to answer without the widget.

    Raises:
        WorkbookError: fewer than two options, options that repeat, an answer that is none of them.
    """
    options = tuple(options)
    if len(options) < 2:
        raise WorkbookError(f"prediction {id} has {len(options)} options; it needs at least two")
    if len(set(options)) < len(options):
        raise WorkbookError(f"prediction {id} offers the same option twice: {', '.join(options)}")
    if not all(isinstance(option, str) and option for option in options):
        raise WorkbookError(f"prediction {id}: every option must be a text")
    asked = _asked[id] = _Asked(question, options)
    notice = _choose(id, answer) if answer is not None else ""
    entry = progress.load()["predictions"].get(id, {})
    _show_question(id, asked, entry, notice)


def outcome(id: str, measured: str, because: str = "") -> None:
    """Show what was measured beside the prediction, store whether it was right, and lock it.

    Args:
        id: the prediction's id; its ``predict`` must have run in this notebook.
        measured: the option that the measurement turned out to be.
        because: one or two sentences of why.

    Raises:
        WorkbookError: the prediction was not asked, or ``measured`` is none of its options.
    """
    question = asked(id, "outcome")
    _must_be_option(id, measured, question.options)
    told: dict = {}

    def settle(stored: dict) -> None:
        entry = stored["predictions"].setdefault(id, {"question": question.question})
        choice = entry.get("choice")
        if choice not in question.options:  # none made, or the question changed since
            choice = None
        entry["measured"] = measured
        entry["right"] = None if choice is None else choice == measured
        entry.setdefault("shown", progress.now())
        told.update(entry, choice=choice)

    notice = progress.update(settle)
    if question.widget is not None:
        question.widget.disabled = True
    if told["right"] is None:
        tone, lead = "neutral", "You made no prediction here."
    elif told["right"]:
        tone, lead = "right", f"You predicted **{told['choice']}**, and so it is."
    else:
        tone, lead = "wrong", f"You predicted **{told['choice']}**. It turned out otherwise."
    body = f"{lead} Measured: **{measured}**."
    if told["right"] is None:
        body += " Next time commit first: a guess that fails teaches more than one never made."
    for more in (because, notice):
        body += f"\n\n{more}" if more else ""
    heading = f"Prediction {id}"
    html = html_cards.card(heading, html_cards.inline(body), tone)
    text = html_cards.plain(f"{heading}\n{question.question}\n{body}")
    html_cards.show(html, text, kind="outcome", id=id, measured=measured, because=because)


def asked(id: str, caller: str) -> _Asked:
    """The question of a prediction that this notebook asked, for ``caller`` to go on with.

    Raises:
        WorkbookError: the prediction was not asked.
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
    """Store a choice unless the outcome was shown. Returns a notice for the student, or ""."""
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
    """The radio buttons. Only built in a notebook: nobody could click them elsewhere."""
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
