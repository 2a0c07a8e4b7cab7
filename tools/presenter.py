"""What a presenter is told beside a slide: minutes, the measured answer, the mistakes to expect.

All of it is derived: from the words and cells of a section, stored outcomes, and the checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbconvert.filters import markdown2html

from sftlab.classroom import html_cards
from sftlab.classroom.catalogue import exercise
from tools.polls import Poll

WORDS_A_MINUTE = 150
MINUTES_A_PREDICTION = 1  # with its outcome
MINUTES_AN_EXPLORER = 3
LINES_A_MINUTE = 12  # of code, if the class works by itself
MINUTES_A_CHECK = 8


@dataclass
class Load:
    """What takes time in a section or in a notebook."""

    words: int = 0
    predictions: int = 0
    explorers: int = 0
    lines: int = 0
    checks: int = 0

    def __add__(self, other: Load) -> Load:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Load(*(mine + theirs for mine, theirs in pairs))

    @property
    def to_show(self) -> float:
        """Minutes for a presenter."""
        return (
            self.words / WORDS_A_MINUTE
            + self.predictions * MINUTES_A_PREDICTION
            + self.explorers * MINUTES_AN_EXPLORER
        )

    @property
    def to_work_through(self) -> float:
        """Minutes for a class that works by itself."""
        return self.to_show + self.lines / LINES_A_MINUTE + self.checks * MINUTES_A_CHECK


def words(markdown: str) -> int:
    """The words of a text; a formula counts as one."""
    return len(re.sub(r"<math.*?</math>", "x", markdown, flags=re.S).split())


def of_notebook(load: Load) -> str:
    """The note on the first slide."""
    return (
        f"<p>The whole notebook: about {load.to_show:.0f} minutes to show, {load.to_work_through:.0f} "
        "if the class works by itself.</p>"
    )


def of_section(load: Load) -> str:
    """The note on a section's first slide: how long it takes."""
    minutes = max(1, round(load.to_show))
    return f"<p>About {minutes} minute{'s' if minutes > 1 else ''}.</p>"


def of_text(markdown: str) -> str:
    """The note of a text: what is said, and not shown."""
    return markdown2html(markdown)


def of_poll(poll: Poll) -> str:
    """The note of a prediction: what will be measured, and why."""
    return (
        f"<p>Measured: <b>{html_cards.inline(poll.measured)}</b>. {html_cards.inline(poll.because)}</p>"
        "<p>Keys: a number counts a hand, − takes it back, A shows the answer.</p>"
    )


def of_figure(alt: str) -> str:
    """The note of a figure: it in words."""
    return f"<p>The figure: {html_cards.inline(alt)}</p>"


def of_explorer(file: str) -> str:
    """The note of an explorer: where it moves."""
    return f"<p>A still picture. It moves in JupyterLab: <code>notebooks/{file}</code>.</p>"


def of_check(id: str) -> str:
    """The note of a task: the wrong suggestions that the check knows, and its hints."""
    asked = exercise(id)
    mistakes = dict.fromkeys(known.message for known in asked.mistakes)
    named = "".join(f"<li>{html_cards.inline(message)}</li>" for message in mistakes)
    hints = "".join(f"<li>{html_cards.inline(hint)}</li>" for hint in asked.hint_texts)
    expected = f"<p>Wrong suggestions to expect:</p><ul>{named}</ul>" if named else ""
    return f"{expected}<p>Hints, one at a time:</p><ol>{hints}</ol>"
