"""The notebooks for Colab, and badges: ``python -m tools.colab [ADDRESS]``.

Colab opens one notebook and nothing beside it, so its copy begins with a cell that fetches the
workbook from ADDRESS, your copy of it on GitHub: git's origin, if no other is given. Anywhere else
that cell does nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS, title
from sftlab.errors import WorkbookError

# As people write it, and as git does: a name and a password may stand before the "@".
ADDRESS = re.compile(
    r"(?:(?:https|ssh)://(?:[^@/]+@)?github\.com/|git@github\.com:)([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)
# Colab brings PyTorch, NumPy and Jupyter; exchanged under it they would break it.
PACKAGES = ("transformers", "peft", "trl", "accelerate", "bitsandbytes", "gguf", "tokenizers")
PACKAGES += ("filelock", "platformdirs", "pydantic")  # Colab's may be too old
PACKAGES += ("datasets", "datasketch", "ftfy")
FIRST_CELL = """# On Colab this fetches the workbook, a minute or two. Anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    !test -d /content/sftlab || git clone --quiet --depth 1 {address} /content/sftlab
    %pip install --quiet {packages}
    %cd -q /content/sftlab/notebooks
    %env PYTHONPATH=/content/sftlab
    sys.path.insert(0, "/content/sftlab")"""
NOTES = """# The workbook in a browser, without installing anything

Made by `python -m tools.colab {address}`. The links work once this folder is committed there.

All notebooks, on Binder: [![Binder](https://mybinder.org/badge_logo.svg)]({binder})

| | notebook | |
|---|---|---|
{rows}
"""
COLAB = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"


def repository(address: str) -> tuple[str, str]:
    """Owner and name of a repository on GitHub.

    Raises:
        WorkbookError: it is not the address of one.
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise WorkbookError(
            f"{address!r} is not the address of a repository: https://github.com/OWNER/NAME is"
        )
    return found[1], found[2]


def origin() -> str:
    """The address that git keeps as the origin of the workbook's folder.

    Raises:
        WorkbookError: there is no such address on GitHub.
    """
    # A folder above it may belong to git as well; that is another repository.
    command = ["git", "-C", str(ROOT), "--git-dir=.git", "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip()
    except OSError:  # no git
        found = ""
    if not ADDRESS.fullmatch(found):
        raise WorkbookError(
            "git names no origin on GitHub for this folder: give the address of your copy, "
            "python -m tools.colab https://github.com/OWNER/NAME"
        )
    return found


def for_colab(path: Path, address: str) -> Any:
    """A notebook with the cell that fetches the workbook in front; an ``nbformat`` node."""
    notebook = nbformat.read(path, as_version=4)
    packages = " ".join(pinned(name) for name in PACKAGES)
    first = new_code_cell(FIRST_CELL.format(address=address, packages=packages), id="colab")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(0, first)
    return notebook


def on_colab(place: str, branch: str, path: str) -> str:
    """The address at which Colab opens a file of a repository (``OWNER/NAME``)."""
    return f"https://colab.research.google.com/github/{place}/blob/{branch}/{path}"


def on_binder(place: str, branch: str, name: str) -> str:
    """The address at which Binder opens a notebook of the workbook."""
    return f"https://mybinder.org/v2/gh/{place}/{branch}?urlpath=lab/tree/notebooks/{name}"


def pinned(name: str) -> str:
    """The package with its version, from constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"(?m)^{name}==\S+", text)[0]


def build(address: str, folder: Path, branch: str = "main") -> list[Path]:
    """Write the copies and a README.md with badges into a folder; returns the copies.

    Raises:
        WorkbookError: no such address, or the folder cannot be written.
    """
    owner, name = repository(address)
    place = f"{owner}/{name}"
    home = f"https://github.com/{place}"
    made, rows = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
            copy = folder / path.name
            nbformat.write(for_colab(path, home), copy)
            link = on_colab(place, branch, f"{folder.name}/{path.name}")
            rows.append(f"| {path.name[:2]} | {title(path.name[:2])} | {COLAB.format(link)} |")
            made.append(copy)
        binder = on_binder(place, branch, "00_start_here.ipynb")
        notes = NOTES.format(address=home, binder=binder, rows="\n".join(rows))
        (folder / "README.md").write_text(notes, encoding="utf-8")
    except OSError as error:
        raise WorkbookError(f"{folder} cannot be written: {error.strerror}") from None
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 when the copies are there."""
    parser = argparse.ArgumentParser(prog="python -m tools.colab", description=__doc__)
    parser.add_argument(
        "address",
        nargs="?",
        help="of your copy: https://github.com/OWNER/NAME (default: git's origin)",
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "colab")
    parser.add_argument("--branch", default="main")
    chosen = parser.parse_args(arguments)
    try:
        made = build(chosen.address or origin(), chosen.folder, chosen.branch)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(made)} notebooks and their badges are in {chosen.folder}: commit and push it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
