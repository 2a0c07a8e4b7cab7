"""The README's table of notebooks, written from the notebooks themselves."""

from __future__ import annotations

from pathlib import Path

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS, numbers, question, title

TABLE_START, TABLE_END = "<!-- notebooks: begin -->", "<!-- notebooks: end -->"


def readme_table() -> str:
    """The README's table of notebooks, with links to those that are there."""
    lines = ["| | notebook | what you find out |", "|---|---|---|"]
    for number in numbers():
        (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
        lines.append(
            f"| {number} | [{title(number)}](notebooks/{path.name}) | {question(number)} |"
        )
    return "\n".join(lines)


def update_readme(path: Path = ROOT / "README.md") -> bool:
    """Write the table into the README between its two marks. True if that changed the file."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    wanted = f"{before}{TABLE_START}\n{readme_table()}\n{TABLE_END}{after}"
    path.write_text(wanted, encoding="utf-8")
    return wanted != text
