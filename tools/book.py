"""The workbook as a website that needs no network: ``python -m tools.book FOLDER``.

One page per notebook with its stored outputs, solutions folded, formulas as MathML, and an index.
There are no scripts: explorers show their first picture. It is read before class, or on a telephone.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sftlab.classroom.catalogue import notebook, title
from tools import website

NOTE = (
    "A stored run. To predict, to move the explorers and to be told what is wrong with your own code, "
    "open it in Jupyter: <code>make lab</code>, then <code>{name}</code>."
)
INTRODUCTION = """<p class="stored">These pages show stored runs. The workbook itself asks, lets you try, and tells you what is wrong:
<code>make lab</code> opens it.</p>"""


def page(number: str, navigation: str) -> str:
    """A notebook as one HTML page."""
    book = {"navigation": navigation, "note": NOTE.format(name=notebook(number).name)}
    text, _ = website.exporter("book").from_notebook_node(
        website.read(number), resources={"book": book}
    )
    # What is wider than the page scrolls, and keys must be able to scroll it as well.
    return re.sub(r"<pre(?=[ >])(?![^>]*tabindex)", '<pre tabindex="0"', text)


def navigation(numbers: Sequence[str], number: str) -> str:
    """Links to the page before, the index, and the page after."""
    place = numbers.index(number)
    links = ['<a href="index.html">Contents</a>']
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
    style = website.TEMPLATES / "book" / "book.css"
    return website.write(folder, pages, {"book.css": style}, own="book.css")


if __name__ == "__main__":
    sys.exit(website.command(build, "the book"))
