"""The workbook as a website that needs no network: ``python -m tools.book FOLDER``.

Sphinx writes it from the notebooks with their stored outputs: side bar, search, light and dark.
Predictions can be made, and tell their outcome; explorers move, but for those that need a model. On
one page both embedded models answer, computed by the browser. It is read before class, or on a telephone.
"""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_output
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue, html_cards
from sftlab.errors import WorkbookError
from tools import colab, explorers, live, polls, website
from tools.notebook_metadata import DIAGRAM, REVEAL, START

# The side bar: in each part the order in which its notebooks build on one another.
PARTS = {
    "Begin here": "00",
    "What fine-tuning changes": "01 02 13 03",
    "Loss, masks, templates": "04 12 15 14 05",
    "LoRA": "06 07 17 08 09 10 18 20",
    "Memory and four bits": "19 11 21",
    "The run, its data, its failures": "16 22 23",
    "Beyond the chapter": "24 25 26",
}
DOCUMENTS = ("findings", "claims", "students")  # pages of docs/ that belong to the book
NOTE = (
    "A stored run: choose an option of a prediction, and its outcome is told; most explorers move. To be told "
    "what is wrong with your own code, open it in Jupyter: <code>make lab</code>, then <code>{name}</code>."
)
INTRODUCTION = """# Supervised fine-tuning, hands on

These pages show stored runs. The workbook itself lets you try, and tells you what is wrong with your code: `make lab` opens it.

**[Ask both models](live.md)**: the base and the chat model answer what you type, here in your browser.
"""
MOVED = f'<p class="stored">This is its first picture. {live.MOVES}</p>'
FIRST = (
    '<p class="stored">This is its first picture. In Jupyter it moves: <code>make lab</code>.</p>'
)
# What the card of an outcome says to somebody who ran the notebook without a prediction.
UNASKED = re.compile(r"You made no prediction here\.(.*?) Next time commit first: [^.]*\.", re.S)
SETTINGS = {
    "project": "Supervised fine-tuning, hands on",
    "html_title": "Supervised fine-tuning, hands on",
    "extensions": ["myst_nb"],
    "nb_execution_mode": "off",
    "nb_code_prompt_show": "code",
    "nb_code_prompt_hide": "code",
    "myst_heading_anchors": 3,
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "show_toc_level": 2,
        "use_download_button": False,
        "home_page_in_toc": True,
        "search_bar_text": "Search the book",
        "back_to_top_button": False,
        "footer_content_items": [],
        "navbar_persistent": [],  # the side bar has a search already
    },
    "html_context": {"default_mode": "auto"},
    "html_css_files": ["book.css", "live.css"],
    "html_js_files": [("book.js", {"defer": "defer"})],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_copyright": False,
    "html_use_index": False,
    "smartquotes": False,
}


class Pictures:
    """The pictures of the pages: files of their own, which a browser fetches when they are seen."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)

    def stored(self, name: str, data: str, alt: str) -> str:
        """Write one (base64 of a PNG), and return the HTML that shows it."""
        content = base64.b64decode(data)
        (self.folder / f"{name}.png").write_bytes(content)
        width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
        return (
            f'<img alt="{html.escape(alt)}" src="_static/pictures/{name}.png" loading="lazy" '
            f'width="{width}" height="{height}">'
        )


def page(number: str, pictures: Pictures) -> Any:
    """A notebook as Sphinx reads it: pictures as files, formulas as MathML, predictions to click."""
    made = nbformat.read(catalogue.notebook(number), as_version=4)
    for place, cell in enumerate(made.cells):
        if cell.cell_type == "markdown":
            cell.source = website.prepared(_diagram(cell, number, pictures))
        for rank, output in enumerate(cell.get("outputs", [])):
            _as_file(output, f"{number}-{place}-{rank}", pictures)
    _ask(made.cells)
    name = catalogue.notebook(number).name
    note = f'<p class="stored">{NOTE.format(name=name)}{_elsewhere(name)}</p>'
    heading, _, rest = made.cells[0].source.partition("\n")
    made.cells[0] = new_markdown_cell(f"{heading}\n\n{note}\n\n{rest}")
    return made


def _elsewhere(name: str) -> str:
    """Where a notebook runs without installing anything: for a workbook that is kept on GitHub."""
    try:
        place = "/".join(colab.repository(colab.origin()))
    except WorkbookError:
        return ""
    places = {"Binder": colab.on_binder(place, "main", name)}
    if (ROOT / "colab" / name).is_file():
        places["Colab"] = colab.on_colab(place, "main", f"colab/{name}")
    links = " or ".join(f'<a href="{address}">{label}</a>' for label, address in places.items())
    return f" Without installing anything: {links}."


def _diagram(cell: Any, number: str, pictures: Pictures) -> str:
    """The source of a cell, in which the concept diagram is a file."""
    name = DIAGRAM.partition(":")[2]
    attached = cell.get("attachments", {}).get(name)
    if not attached:
        return cell.source

    def file(found: re.Match) -> str:
        return pictures.stored(f"{number}-diagram", attached["image/png"], found[1])

    return re.sub(rf"!\[([^\]]*)\]\({re.escape(DIAGRAM)}\)", file, cell.source)


def _as_file(output: Any, name: str, pictures: Pictures) -> None:
    """Leave one format of an output, for a page without a kernel."""
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata["image/png"]["alt"]
        data["text/html"] = pictures.stored(name, data["image/png"], alt)
    if "text/html" in data:
        output.data = {"text/html": "".join(data["text/html"])}
    elif "text/markdown" in data:
        output.data = {"text/markdown": website.prepared("".join(data["text/markdown"]))}


def _ask(cells: Sequence[Any]) -> None:
    """Make predictions that can be clicked, and outcomes that repeat the choice."""
    found = polls.polls(cells)
    for cell in cells:
        asked = polls.predict_calls(cell)
        if asked:
            shown = "".join(_question(found[id]) for id, *_ in asked)
            cell.outputs = [new_output("display_data", {"text/html": shown})]
        if asked or REVEAL.match(cell.source):
            cell.metadata["tags"] = ["remove-input"]
        elif cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = ["hide-input"]
        for output in cell.get("outputs", []):
            if polls.is_outcome(output):
                id = html_cards.stored_data(output)["id"]
                yours = f'<span class="yours" data-poll="{id}" id="outcome-{id}"></span>'
                output.data["text/html"] = UNASKED.sub(rf"{yours}\1", output.data["text/html"])
        if cell.cell_type == "code" and START.search(cell.source):
            cell.outputs = []  # what is done, which only the one who ran it wants to know
        if cell.cell_type == "code" and explorers.CALL.search(cell.source):
            moving = explorers.html(cell)
            told = MOVED if live.EXPLORERS.search(cell.source) else FIRST
            kept = [] if moving else cell.outputs
            cell.outputs = [*kept, new_output("display_data", {"text/html": moving or told})]


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


def contents() -> str:
    """The first page in Markdown: the notebooks by part, and the side bar's order."""
    there, lines = set(website.numbers()), [INTRODUCTION]
    for part, those in PARTS.items():
        own = [number for number in those.split() if number in there]
        lines += [
            f"## {part}",
            "",
            '<div class="contents">',
            "",
            "| | notebook | what you find out |",
            "|---|---|---|",
        ]
        lines += [
            f"| {n} | [{catalogue.title(n)}]({catalogue.notebook(n).name}) | {catalogue.question(n)} |"
            for n in own
        ]
        lines += ["", "</div>", "", *_toctree(part, [catalogue.notebook(n).stem for n in own])]
    return "\n".join([*lines, *_toctree("More", ["live", *DOCUMENTS])])


def _toctree(caption: str, pages: Sequence[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]


def _document(name: str) -> str:
    """A page of docs/, with links that hold where all pages lie side by side."""
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    return text.replace("](../notebooks/", "](")


def _write_sources(source: Path) -> None:
    """Write what Sphinx reads: pages, pictures, and files to be copied."""
    pictures = Pictures(source / "static" / "pictures")
    for number in website.numbers():
        name = f"{catalogue.notebook(number).stem}.ipynb"
        nbformat.write(page(number, pictures), source / name)
    for name in DOCUMENTS:
        (source / f"{name}.md").write_text(_document(name), encoding="utf-8")
    (source / "index.md").write_text(contents(), encoding="utf-8")
    (source / "live.md").write_text(f"# {live.TITLE}\n\n````{{raw}} html\n{live.body()}\n````\n")
    # The theme's icons are in a font as well as in 1.5 MB of script: the font will do.
    (source / "static" / "scripts").mkdir()
    (source / "static" / "scripts" / "fontawesome.js").write_text("// icons: see the fonts\n")
    for file in (*(website.TEMPLATES / "book").iterdir(), live.FOLDER / "live.css"):
        shutil.copy(file, source / "static")
    (source / "extra").mkdir()
    for name, text in live.files().items():
        (source / "extra" / name).write_text(text, encoding="utf-8")
    explorers.build(source / "extra")


def build(folder: Path) -> list[Path]:
    """Write the book into a folder, which is made if need be; returns its pages.

    Raises:
        WorkbookError: the folder holds something else, cannot be written, or Sphinx complains.
    """
    website.claim(folder, own="searchindex.js")
    told = io.StringIO()
    with TemporaryDirectory() as place, patch_docutils(), docutils_namespace():
        source = Path(place) / "source"
        source.mkdir()
        _write_sources(source)
        paths = {
            "html_static_path": [str(source / "static")],
            "html_extra_path": [str(source / "extra")],
        }
        try:
            Sphinx(
                source, None, folder, Path(place) / "doctrees", "html",
                SETTINGS | paths, status=None, warning=told,
            ).build(force_all=True)  # fmt: skip
        except OSError as error:
            raise WorkbookError(f"{folder} cannot be written: {error.strerror}") from None
    if told.getvalue():
        raise WorkbookError(f"Sphinx found fault with the pages:\n{told.getvalue()}")
    return sorted(folder.glob("*.html"))


if __name__ == "__main__":
    sys.exit(website.command(build, "the book"))
