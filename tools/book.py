"""The workbook as a website that needs no network: ``python -m tools.book FOLDER``.

One page per notebook with its stored outputs, solutions folded, formulas as MathML, and an index.
Predictions can be made, and tell their outcome; explorers show their first picture. On one page more
both embedded models answer, computed by the browser. It is read before class, or on a telephone.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbformat.v4 import new_output

from sftlab.classroom import html_cards
from sftlab.classroom.catalogue import notebook, title
from tools import live, polls, website
from tools.notebook_metadata import REVEAL, START

NOTE = (
    "A stored run: choose an option of a prediction, and its outcome is told. To move the explorers and to "
    "be told what is wrong with your own code, open it in Jupyter: <code>make lab</code>, then <code>{name}</code>."
)
INTRODUCTION = """<p class="stored">These pages show stored runs. The workbook itself lets you try, and tells you what is wrong with your code:
<code>make lab</code> opens it.</p>
<p><a href="live.html"><strong>Ask both models</strong></a>: the base and the chat model answer what you type, here in your browser.</p>"""


LIVE = '<a href="live.html">Ask both models</a>'
MOVED = f'<p class="stored">This is its first picture. {live.MOVES}</p>'
# What the card of an outcome says to somebody who ran the notebook without a prediction.
UNASKED = re.compile(r"You made no prediction here\.(.*?) Next time commit first: [^.]*\.", re.S)


def page(number: str, navigation: str) -> str:
    """A notebook as one HTML page."""
    book = {"navigation": navigation, "note": NOTE.format(name=notebook(number).name)}
    made = website.read(number)
    _ask(made.cells)
    text, _ = website.exporter("book").from_notebook_node(made, resources={"book": book})
    # What is wider than the page scrolls, and keys must be able to scroll it as well.
    return re.sub(r"<pre(?=[ >])(?![^>]*tabindex)", '<pre tabindex="0"', text)


def _ask(cells: Sequence[Any]) -> None:
    """Make predictions that can be clicked, and outcomes that repeat the choice."""
    found = polls.polls(cells)
    for cell in cells:
        asked = polls.predict_calls(cell)
        if asked:
            shown = "".join(_question(found[id]) for id, *_ in asked)
            cell.outputs = [new_output("display_data", {"text/html": shown})]
        if asked or REVEAL.match(cell.source):
            cell.metadata["only_output"] = True
        for output in cell.get("outputs", []):
            if polls.is_outcome(output):
                id = html_cards.stored_data(output)["id"]
                yours = f'<span class="yours" data-poll="{id}" id="outcome-{id}"></span>'
                text = "".join(output.data["text/html"])
                output.data["text/html"] = UNASKED.sub(rf"{yours}\1", text)
        if cell.cell_type == "code" and START.search(cell.source):
            cell.outputs = []  # what is done, which only the one who ran it wants to know
        if cell.cell_type == "code" and live.EXPLORERS.search(cell.source):
            cell.outputs.append(new_output("display_data", {"text/html": MOVED}))


def _question(poll: polls.Poll) -> str:
    options = "\n".join(
        f'<button type="button" aria-pressed="false"{" data-measured=yes" * (option == poll.measured)}>'
        f"{html_cards.inline(option)}</button>"
        for option in poll.options
    )
    return f"""<div class="ask" data-poll="{poll.id}" data-settled="{"yes" if poll.measured in poll.options else "no"}">
<p><b>Prediction {poll.id}</b><br>{html_cards.inline(poll.question)}</p>
<div role="group" aria-label="Prediction {poll.id}">
{options}
</div>
<p class="answer" role="status" hidden><b class="verdict"></b> Measured: <b>{html_cards.inline(poll.measured)}</b>.
{html_cards.inline(poll.because)} <a href="#outcome-{poll.id}">How it was measured</a></p>
</div>"""


def navigation(numbers: Sequence[str], number: str) -> str:
    """Links to the page before, the index, and the page after."""
    place = numbers.index(number)
    links = ['<a href="index.html">Contents</a>', LIVE]
    if place:
        links.insert(0, _link(numbers[place - 1], "← "))
    if place + 1 < len(numbers):
        links.append(_link(numbers[place + 1], "", " →"))
    return "\n".join(links)


def _link(number: str, before: str = "", after: str = "") -> str:
    label = f"{before}{number} · {html.escape(title(number))}{after}"
    return f'<a href="{website.page_name(number)}">{label}</a>'


def build(folder: Path) -> list[Path]:
    """Write the book into a folder, which is made if need be; returns its pages.

    Raises:
        WorkbookError: the folder holds something else, or cannot be written.
    """
    numbers = website.numbers()
    pages = {website.page_name(n): page(n, navigation(numbers, n)) for n in numbers}
    pages["index.html"] = website.contents("book.css", INTRODUCTION)
    script = website.TEMPLATES / "book" / "book.js"
    return [*live.build(folder), *website.write(folder, pages, {"book.js": script}, own="book.css")]


if __name__ == "__main__":
    sys.exit(website.command(build, "the book"))
