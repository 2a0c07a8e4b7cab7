"""How high a cell is likely to be on a slide of 1280 by 720 pixels. The browser tests measure it."""

from __future__ import annotations

import re
from typing import Any

ROOM = 560  # pixels below the heading
FOLDED = 44
FIGURE = 400  # the least at which a figure is read from the last row; it takes what is left
LINE, LETTERS = 36, 92  # of text: pixels high, letters that fit into it
ROW, WIDTH = 40, 100  # of a table
CODE_LINE, CODE_LETTERS = 25, 104


def extent(cell: Any) -> int:
    """Pixels of a text, of open code, or of an output; of folded code if there is no cell."""
    if cell is None:
        return FOLDED
    if cell.cell_type == "markdown":
        return _text(cell.source)
    if not cell.outputs:
        return 40 + _lines(cell.source)
    data = cell.outputs[0].get("data", {})
    if "<img" in data.get("text/html", ""):
        return FIGURE
    if "text/html" in data:
        return _html(data["text/html"])
    return 24 + _lines(cell.outputs[0].get("text", "") or data.get("text/plain", ""))


def _lines(text: str) -> int:
    """Text in a fixed width, where long lines are broken."""
    return CODE_LINE * sum(1 + len(line) // CODE_LETTERS for line in text.rstrip().splitlines())


def _text(markdown: str) -> int:
    plain = re.sub(r"<math.*?</math>", "xxxxxx", markdown, flags=re.S)
    plain = re.sub(r"\]\([^)]*\)", "", plain)
    if plain.startswith("|"):
        return 20 + ROW * sum(1 + len(row) // WIDTH for row in plain.splitlines())
    if plain.startswith("```"):
        return 24 + _lines(plain)
    items = re.split(r"\n(?=\s*(?:[-*]|\d+\.) )", plain)
    return 16 + sum(LINE * (1 + len(item) // LETTERS) + 6 for item in items)


def _html(text: str) -> int:
    rows = re.split(r"<tr[ >]", text)[1:]
    if not rows:
        plain = re.sub(r"<[^>]+>", "", re.sub(r"<br>|</p>|</div>|</li>", "\n", text))
        return 30 + LINE * sum(1 + len(line) // LETTERS for line in plain.splitlines() if line)
    height = 40
    for row in rows:
        cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.split(r"<t[dh][ >]", row)[1:]]
        share = WIDTH // max(1, len(cells))
        height += ROW + 28 * max((len(cell) // (2 * share) for cell in cells), default=0)
    return height
