"""How high a cell is likely to be on a slide of 1280 by 720 pixels. The browser tests measure it."""

from __future__ import annotations

import base64
import re
import struct
from typing import Any

ROOM = 560  # pixels below the heading
TIGHT = 660  # what still fits if all of it is drawn a sixth smaller
PART = 420  # of a table that is spread over slides: leaves room for what leads to it
FOLDED = 44
BREADTH = 1160  # pixels of the slide between its margins
FIGURE = 400  # the least at which a figure is read from the last row; it takes what is left
LINE, LETTERS = 36, 92  # of text: pixels high, letters that fit into it
ROW, ROW_LINE = 38, 29  # of a table: a row, and each further line in it
WIDTH, APART = 104, 3  # letters that fit into a row, those between two columns
CODE_LINE, CODE_LETTERS = 28, 92
PRINT_LINE, PRINT_LETTERS = 25, 102
TABLE = re.compile(r"<table.*?</table>", re.S)
CELL = re.compile(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", re.S)
TAG = re.compile(r"<[^>]+>")


def slide_height(cell: Any) -> int:
    """Pixels of a text, of open code, or of an output; of folded code if there is no cell."""
    if cell is None:
        return FOLDED
    if cell.cell_type == "markdown":
        return _text(cell.source)
    if not cell.outputs:
        return 34 + _lines(cell.source, CODE_LINE, CODE_LETTERS)
    data = cell.outputs[0].get("data", {})
    if "<img" in data.get("text/html", ""):
        return _figure(data["text/html"])
    if "text/html" in data:
        return _html(data["text/html"])
    printed = cell.outputs[0].get("text", "") or data.get("text/plain", "")
    return 30 + _lines(printed, PRINT_LINE, PRINT_LETTERS)


def _lines(text: str, height: int, letters: int) -> int:
    """Text in a fixed width, where long lines are broken."""
    return height * sum(1 + len(line) // letters for line in text.rstrip().splitlines())


def _text(markdown: str) -> int:
    plain = re.sub(r"<math.*?</math>", "xxxxxx", markdown, flags=re.S)
    plain = re.sub(r"\]\([^)]*\)", "", plain)
    if plain.startswith("|"):
        return 20 + ROW * sum(1 + len(row) // WIDTH for row in plain.splitlines())
    if plain.startswith("```"):
        return _lines(plain, PRINT_LINE, PRINT_LETTERS)
    items = re.split(r"\n(?=\s*(?:[-*]|\d+\.) )", plain)
    return 16 + sum(LINE * (1 + len(item) // LETTERS) + 6 for item in items)


def _figure(html: str) -> int:
    """A wide figure is as high as its width allows."""
    header = base64.b64decode(html.partition("base64,")[2][:32])
    width, height = struct.unpack(">II", header[16:])
    return min(FIGURE, BREADTH * height // width)


def _html(text: str) -> int:
    lines = TAG.sub("", re.sub(r"<br>|</p>|</div>|</li>", "\n", TABLE.sub("", text))).splitlines()
    around = sum(LINE * (1 + len(line) // LETTERS) for line in lines if line.strip())
    return sum(map(_table, TABLE.findall(text)), around + 30 * bool(around))


def _table(text: str) -> int:
    """Columns as wide as their longest lines; where these do not fit side by side, lines are broken."""
    cells = [[TAG.sub("", c).splitlines() or [""] for c in CELL.findall(row)] for row in rows(text)]
    most = max(map(len, cells))  # a header over several columns, or an index over several rows
    cells = [[[""]] * (most - len(row)) + row for row in cells]
    widths = [
        max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)
    ]
    shrunk = max(1, sum(widths) / (WIDTH - APART * len(widths)))
    height = 20 + ROW * ("<caption" in text)
    for row in cells:
        broken = [
            sum(1 + int(shrunk * len(line) / (1 + width)) for line in cell)
            for cell, width in zip(row, widths, strict=True)
        ]
        height += ROW + ROW_LINE * (max(broken) - 1)
    return height


def rows(table: str) -> list[str]:
    """The rows of a table in HTML."""
    return re.findall(r"<tr.*?</tr>", table, re.S)


def parts(html: str) -> list[str]:
    """A table that is too high for a slide as tables of some rows each, all with its headers."""
    found = re.fullmatch(r"(<table.*<tbody>)(.*)(</tbody></table>)", html, re.S)
    if not found or html.count("<table") > 1 or _table(html) <= ROOM:
        return [html]
    opening, body, closing = found.groups()
    each = _table(body) / -(-_table(body) // PART)  # about equally high
    spread: list[str] = [""]
    for row in rows(body):
        if spread[-1] and _table(spread[-1] + row) > each + ROW:
            spread.append("")
        spread[-1] += row
    return [opening + some + closing for some in spread]
