"""What the book and the slides share: notebooks read for pages without a network, and a folder of them."""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from sftlab.classroom.catalogue import NOTEBOOKS, notebook, title
from sftlab.errors import WorkbookError

TEMPLATES = Path(__file__).parent / "templates"
# Code first, so that a dollar sign in it is left alone; then $$display$$ and $inline$ formulas.
FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.S)
LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
MARKS = re.compile(r"[*_`\\\[\]]")  # in a formula these are no Markdown
NO_HEADING = re.compile(
    r"^( *)#(?=\d)", re.M
)  # "#34191" at a line's beginning: nbconvert takes it for one


def with_mathml(markdown: str) -> str:
    """LaTeX formulas as MathML, which browsers draw without any script."""

    def drawn(found: re.Match) -> str:
        code, display, inline = found.groups()
        if code:
            return code
        kind = "block" if display else "inline"
        made = convert((display or inline).strip(), display=kind).replace("\n", "")
        return MARKS.sub(lambda mark: f"&#{ord(mark[0])};", made)

    return FORMULA.sub(drawn, markdown)


def prepared(markdown: str) -> str:
    """Markdown of a notebook for pages: formulas are MathML, and a number after # is no heading."""
    return with_mathml(NO_HEADING.sub(r"\1\\#", markdown))


def read(number: str) -> Any:
    """A notebook for pages: links lead to pages, formulas are MathML, pictures carry their words."""
    made = nbformat.read(notebook(number), as_version=4)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"](\1.html)", prepared(cell.source))
        for output in cell.get("outputs", []):
            _describe(output)
    made.metadata["title"] = title(number)
    return made


def _describe(output: Any) -> None:
    """A picture as HTML with its alternative text, which nbconvert would leave out."""
    alt = output.get("metadata", {}).get("image/png", {}).get("alt")
    if alt:
        data = "".join(output.data["image/png"].split())
        picture = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
        output.data = {"text/html": picture, "text/plain": alt}


def exporter(template: str) -> HTMLExporter:
    """nbconvert's exporter with one of our templates, without prompts and paragraph signs."""
    return HTMLExporter(
        template_name=template,
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        anchor_link_text="",
    )


def numbers() -> list[str]:
    """The notebooks that are there, "00" first."""
    return [path.name[:2] for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]


def page_name(number: str) -> str:
    """The file of a notebook's page."""
    return f"{notebook(number).stem}.html"


def chromium() -> str | None:
    """The browser to use: SFTLAB_CHROMIUM, or one on PATH; None where there is none."""
    names = (os.environ.get("SFTLAB_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def claim(folder: Path, own: str) -> None:
    """Refuse a folder that holds something else than an earlier run's pages.

    Args:
        own: a file in it by which an earlier run is known.

    Raises:
        WorkbookError: it holds other files.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / own).exists():
        raise WorkbookError(f"{folder} holds other files: name an empty folder")


def write(folder: Path, texts: dict[str, str], copied: dict[str, Path], own: str) -> list[Path]:
    """Write texts and copy files into a folder, which is made if need be; returns the pages.

    Args:
        texts: file name -> text; those that end in .html are pages.
        copied: path in the folder -> the file to copy.
        own: one of the copied, by which a folder of an earlier run is known.

    Raises:
        WorkbookError: the folder holds something else, or cannot be written.
    """
    claim(folder, own)
    try:
        for name, source in copied.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkbookError(f"{folder} cannot be written: {error.strerror}") from None
    return [folder / name for name in texts if name.endswith(".html")]


def command(
    build: Callable[[Path], list[Path]], what: str, arguments: Sequence[str] | None = None
) -> int:
    """The command line of a builder, ``python -m … FOLDER``. Returns the exit status."""
    parser = argparse.ArgumentParser(description=f"Write {what} into FOLDER.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    try:
        pages = build(folder)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(pages)} pages: open {folder / 'index.html'} in a browser")
    return 0
