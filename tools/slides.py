"""The notebooks as slides that need no network: ``python -m tools.slides FOLDER``.

One deck per notebook for reveal.js, with presenter notes, and an index. The class's hands are counted
on the slides of the predictions; answers and solutions are hidden until they are asked for.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from nbformat.v4 import new_markdown_cell
from pygments.formatters import HtmlFormatter
from tqdm import tqdm

from sftlab.classroom import html_cards
from sftlab.classroom.catalogue import question, title
from sftlab.errors import WorkbookError
from tools import live, website
from tools.slide_layout import Deck, Piece, Slide

TEMPLATE = website.TEMPLATES / "slides"
# The package that carries reveal.js 5.2 and its notes plugin; nothing else of it is used.
CARRIER = "sphinx_revealjs"
REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
INTRODUCTION = """<p class="stored">Arrow keys or a clicker turn the slides. <kbd>S</kbd> opens the presenter's view with notes and
minutes, <kbd>F</kbd> fills the screen, <kbd>Esc</kbd> shows all slides, <kbd>C</kbd> unfolds code or a solution, <kbd>?</kbd> lists all keys. On a
prediction, <kbd>1</kbd> to <kbd>9</kbd> count a hand, <kbd>−</kbd> takes it back, and <kbd>A</kbd> shows what was measured.</p>
<p><a href="live.html"><strong>Ask both models</strong></a>: the base and the chat model answer what the room calls out, here in the browser.</p>"""


def page(number: str) -> str:
    """The deck of a notebook as one HTML page."""
    deck = Deck(number)
    deck.made.cells = []
    for before, slide in pairwise([deck.slides[0], *deck.slides]):
        cells = _cells(slide)
        if before.part != slide.part:  # each part is a column of the overview
            cells[0].metadata.before = f"</section><section>{cells[0].metadata.before}"
        deck.made.cells += cells
    colours = HtmlFormatter(style="vs").get_style_defs(".highlight")
    resources = {"colours": colours}
    return website.exporter("slides").from_notebook_node(deck.made, resources=resources)[0]


def _cells(slide: Slide) -> list[Any]:
    """The cells of a slide, the first and the last with what opens and closes it."""
    first = slide.level == 1 and not slide.goes_on
    mark = "#" if first else "##"
    kinds = " ".join(filter(None, [slide.kind, "title" * first, "more" * slide.goes_on]))
    part = slide.part if slide.part != slide.heading else ""
    heading = new_markdown_cell(f"{mark} {slide.heading}")
    heading.metadata.before = (
        f'<section><div class="slide {kinds}"><p class="part">{html_cards.inline(part)}</p>'
    )
    heading.metadata.after = '<div class="body" tabindex="0">'
    cells = [heading, *map(_framed, slide.pieces)]
    notes = "\n".join(slide.notes)
    cells[-1].metadata.after += (
        '</div><span class="further">more below: ↓</span></div>'
        f'<aside class="notes">{notes}</aside></section>'
    )
    return cells


def _framed(piece: Piece) -> Any:
    """The cell of a piece with the HTML around it."""
    cell = piece.cell
    picture = any("<img" in o.get("data", {}).get("text/html", "") for o in cell.get("outputs", []))
    opening, closing = ('<div class="picture">', "</div>") if picture else ("", "")
    cell.metadata.before, cell.metadata.after = piece.before + opening, closing + piece.after
    return cell


def reveal_files() -> Path:
    """The folder of reveal.js in the package that carries it.

    Raises:
        WorkbookError: it is not installed.
    """
    found = find_spec(CARRIER)
    folder = found and Path(found.origin).parent / "_static" / "revealjs"
    if not folder or not all((folder / name).exists() for name in REVEAL):
        raise WorkbookError("reveal.js is not installed, which the slides need: run `make slides`")
    return folder


def build(folder: Path) -> list[Path]:
    """Write the decks into a folder, which is made if need be; returns their pages.

    Raises:
        WorkbookError: reveal.js is missing, the folder holds something else, or cannot be written.
    """
    source = reveal_files()
    copied = {f"reveal/{name}": source / name for name in REVEAL}
    copied |= {name: TEMPLATE / name for name in ("slides.css", "slides.js", "pages.css")}
    copied["live.css"] = live.FOLDER / "live.css"
    pages = {website.page_name(number): page(number) for number in website.numbers()}
    pages["index.html"] = _plain_page("A hands-on workbook on supervised fine-tuning", _contents())
    pages["live.html"] = _plain_page(live.TITLE, live.body())
    return website.write(folder, pages | live.files(), copied, own="slides.js")


def print_pdfs(pages: Sequence[Path]) -> list[Path]:
    """Print decks into PDF files beside them, by chromium; returns the files.

    Answers of predictions stand where their experiment has been made, solutions stay folded.

    Raises:
        WorkbookError: there is no chromium.
    """
    from playwright.sync_api import sync_playwright

    found = website.chromium()
    if not found:
        raise WorkbookError(
            "no chromium on PATH, which prints the slides (or name one: SFTLAB_CHROMIUM=…)"
        )
    made = []
    with sync_playwright() as playwright:
        # As root, in a container say, chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        window = browser.new_page()
        for page in tqdm(pages, desc="printing", unit="deck"):
            window.goto(f"{page.resolve().as_uri()}?print-pdf")
            window.wait_for_selector("html[data-printable]")
            made.append(page.with_suffix(".pdf"))
            window.pdf(path=made[-1], prefer_css_page_size=True, print_background=True)
        browser.close()
    return made


def _contents() -> str:
    """The table of the decks, below what the keys do."""
    rows = "\n".join(
        f'<tr><td>{n}</td><td><a href="{website.page_name(n)}">{html.escape(title(n))}</a></td>'
        f"<td>{html.escape(question(n))}</td></tr>"
        for n in website.numbers()
    )
    return f"""{INTRODUCTION}
<table class="contents">
<thead><tr><th scope="col">No.</th><th scope="col">Slides</th><th scope="col">What you find out</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>"""


def _plain_page(heading: str, body: str) -> str:
    """A page beside the decks."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<title>{heading}</title>
<link rel="stylesheet" href="pages.css">
<link rel="stylesheet" href="live.css">
</head>
<body>
<a class="skip" href="#page">To the text</a>
<nav aria-label="Pages"><a href="index.html">Contents</a></nav>
<main id="page">
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""


def build_and_print(folder: Path) -> list[Path]:
    """The decks, and a PDF of each."""
    pages = build(folder)
    print_pdfs([page for page in pages if page.name[:2].isdigit()])
    return pages


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--pdf"]
    builder = build if arguments == sys.argv[1:] else build_and_print
    sys.exit(website.command(builder, "the slides (with --pdf: also as PDF)", arguments))
