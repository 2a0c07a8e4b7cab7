"""The workbook as a website that needs no network: ``python -m sftlab.classroom.book FOLDER``.

One page per notebook with its stored outputs, solutions folded, formulas as MathML, and an index.
There are no scripts: explorers show their first picture. It is read before class, or on a telephone.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from sftlab.classroom.catalogue import NOTEBOOKS, QUESTIONS, notebook, title
from sftlab.errors import WorkbookError

TEMPLATES = Path(__file__).parent / "templates"
NOTE = (
    "A stored run. To predict, to move the explorers and to be told what is wrong with your own code, "
    "open it in Jupyter: <code>make lab</code>, then <code>notebooks/{name}</code>."
)
# Code first, so that a dollar sign in it is left alone; then $$display$$ and $inline$ formulas.
FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.S)
LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")


def with_mathml(markdown: str) -> str:
    """LaTeX formulas as MathML, which browsers draw without any script."""

    def drawn(found: re.Match) -> str:
        code, display, inline = found.groups()
        if code:
            return code
        kind = "block" if display else "inline"
        return convert((display or inline).strip(), display=kind).replace("\n", "")

    return FORMULA.sub(drawn, markdown)


def page(path: Path, navigation: str) -> str:
    """A notebook as one HTML page."""
    made = nbformat.read(path, as_version=4)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(LINK.sub(r"](\1.html)", cell.source))
    made.metadata["title"] = title(path.name[:2])
    exporter = HTMLExporter(
        template_name="book",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        anchor_link_text="",
    )
    book = {"navigation": navigation, "note": NOTE.format(name=path.name)}
    text, _ = exporter.from_notebook_node(made, resources={"book": book})
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
    return f'<a href="{notebook(number).stem}.html">{before}{number} · {html.escape(title(number))}{after}</a>'


def index(numbers: Sequence[str]) -> str:
    """The page of contents."""
    rows = "\n".join(
        f'<tr><td>{number}</td><td><a href="{notebook(number).stem}.html">{html.escape(title(number))}</a></td>'
        f"<td>{html.escape(QUESTIONS[number])}</td></tr>"
        for number in numbers
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<title>sftlab: a hands-on workbook on supervised fine-tuning</title>
<link rel="stylesheet" href="book.css">
</head>
<body class="jp-Notebook">
<main id="page">
<h1>A hands-on workbook on supervised fine-tuning</h1>
<p class="stored">These pages show stored runs. The workbook itself asks, lets you try, and tells you what is wrong:
<code>make lab</code> opens it.</p>
<table class="contents">
<thead><tr><th scope="col">No.</th><th scope="col">Notebook</th><th scope="col">What you find out</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
</body>
</html>
"""


def build(folder: Path) -> list[Path]:
    """Write the book into a folder, which is made if need be; returns its pages.

    Raises:
        WorkbookError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "book.css").exists():
        raise WorkbookError(f"{folder} holds other files: name an empty folder for the book")
    numbers = [path.name[:2] for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    pages = {f"{notebook(n).stem}.html": page(notebook(n), navigation(numbers, n)) for n in numbers}
    pages["index.html"] = index(numbers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATES / "book" / "book.css", folder)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkbookError(f"the book cannot be written to {folder}: {error.strerror}") from None
    return [folder / name for name in pages]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 when the book is there."""
    parser = argparse.ArgumentParser(prog="python -m sftlab.classroom.book", description=__doc__)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        pages = build(chosen.folder)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(pages)} pages: open {chosen.folder / 'index.html'} in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
