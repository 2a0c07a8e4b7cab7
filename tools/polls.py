"""The predictions of a notebook as polls for slides: buttons that count hands, bars, the answer hidden.

Question and choices are read from the ``predict`` cell, the answer from the stored outcome.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sftlab.classroom import html_cards
from sftlab.classroom.predictions import NOT_SETTLED
from sftlab.errors import WorkbookError


@dataclass(frozen=True)
class Poll:
    """One prediction, with what was measured (an option, or not settled) and why."""

    id: str
    question: str
    options: tuple[str, ...]
    measured: str
    because: str


def polls(cells: Sequence[Any]) -> dict[str, Poll]:
    """All predictions of a notebook, from its cells with their stored outputs.

    Raises:
        WorkbookError: a prediction without a stored outcome.
    """
    told = _outcomes(cells)
    found = {}
    for id, question, options in (call for cell in cells for call in predict_calls(cell)):
        measured = told.get(id, {}).get("measured", "")
        if measured not in options and not measured.startswith(NOT_SETTLED):
            raise WorkbookError(
                f"prediction {id} has no stored outcome: run `make notebooks` first"
            )
        found[id] = Poll(id, question, tuple(options), measured, told[id]["because"])
    return found


def predict_calls(cell: Any) -> list[tuple[str, str, list[str]]]:
    """Id, question and options of each prediction that a cell asks for."""
    if cell.cell_type != "code" or not cell.source.startswith("predict("):
        return []
    calls = [statement.value.args[:3] for statement in ast.parse(cell.source).body]
    return [tuple(map(ast.literal_eval, arguments)) for arguments in calls]


def told_by(cell: Any) -> list[str]:
    """The predictions whose outcome a cell's stored outputs tell."""
    return list(_outcomes([cell]))


def is_outcome(output: Any) -> bool:
    """Whether a stored output is the card that tells a prediction's outcome."""
    return html_cards.stored_data(output).get("kind") == "outcome"


def _outcomes(cells: Sequence[Any]) -> dict[str, dict]:
    """Prediction -> what its stored outcome says."""
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    told = [html_cards.stored_data(output) for output in outputs if is_outcome(output)]
    return {one["id"]: one for one in told}


def as_html(poll: Poll, settled: bool) -> str:
    """The poll of a slide. ``settled``: it follows its experiment, and the next step tells.

    The answer is in the page from the start, and drawn only once the poll has the class ``told``.
    """
    rows = "\n".join(
        f"<li{' class=measured' if option == poll.measured else ''}>"
        f'<button class="hand"><kbd>{place}</kbd> {html_cards.inline(option)}</button>'
        '<span class="track"><span class="bar"></span></span><output>0</output>'
        f'<button class="less" aria-label="take back a hand for {escape(html_cards.plain(option))}">−</button></li>'
        for place, option in enumerate(poll.options, 1)
    )
    step = " fragment" if settled else ""
    return f"""<div class="poll" data-poll="{poll.id}">
<p>{html_cards.inline(poll.question)}</p>
<ol>
{rows}
</ol>
<p class="answer{step}">Measured: <b>{html_cards.inline(poll.measured)}</b>. {html_cards.inline(poll.because)}</p>
<p class="tools"><button class="tell">show the measured answer</button><button class="anew">count anew</button></p>
</div>"""
