"""Concept diagrams: boxes, arrows, and strips of tokens as SVG, drawn by the exercises' `diagram.py`.

`tools.notebook_metadata` stores the drawing in the notebook, as PNG in a cell of text. Fills differ in
their pattern as well as in color, so that a diagram can be read without color.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

INK, LINE, PAPER = "#1b1f24", "#5f6b76", "#ffffff"
# name -> background, and the pattern drawn on it
FILLS = {
    "plain": ("#ffffff", ""),
    "grey": ("#e4e7ea", ""),
    "green": ("#bfe5d8", "M0,8 L8,0"),  # slanted lines
    "blue": ("#c6dff0", "M4,3 v2 M3,4 h2"),  # small crosses
    "orange": ("#fbe3b3", "M0,4 H8"),  # horizontal lines
}
SIZE = 13  # of the text, in pixels
CHARACTER = 7.9  # width of one character of the fixed-width font at this size


class Diagram:
    """A drawing of a given width and height in pixels. Positions are of upper left corners."""

    def __init__(self, width: int, height: int, alt: str):
        self.width, self.height, self.alt = width, height, alt
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, bold: bool = False, code: bool = False,
        anchor: str = "start", size: float = SIZE, color: str = INK,
    ) -> None:  # fmt: skip
        """Write lines of text; y is the baseline of the first."""
        font = "monospace" if code else "sans-serif"
        weight = ' font-weight="bold"' if bold else ""
        for number, line in enumerate(text.split("\n")):
            self.parts.append(
                f'<text x="{x:g}" y="{y + number * size * 1.3:g}" font-family="{font}" '
                f'font-size="{size:g}" text-anchor="{anchor}" fill="{color}"{weight}>'
                f"{escape(line)}</text>"
            )

    def box(
        self, x: float, y: float, width: float, height: float, text: str = "", *,
        fill: str = "plain", code: bool = False, bold: bool = False, size: float = SIZE,
    ) -> None:  # fmt: skip
        """Draw a rounded box with centered text."""
        color, pattern = FILLS[fill]
        shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"'
        self.parts.append(f'<rect {shape} fill="{color}" stroke="{LINE}"/>')
        if pattern:
            self.parts.append(f'<rect {shape} fill="url(#{fill})"/>')
        lines = text.split("\n")
        top = y + height / 2 + size * 0.36 - (len(lines) - 1) * size * 0.65
        self.text(x + width / 2, top, text, code=code, bold=bold, anchor="middle", size=size)

    def arrow(self, x: float, y: float, to_x: float, to_y: float, dashed: bool = False) -> None:
        """Draw a straight arrow."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{x:g},{y:g} L{to_x:g},{to_y:g}" stroke="{LINE}" stroke-width="1.8" '
            f'fill="none" marker-end="url(#head)"{dash}/>'
        )

    def strip(
        self, x: float, y: float, tokens: Sequence[str], fills: Sequence[str], height: float = 28,
        widths: Sequence[float] | None = None,
    ) -> list[float]:  # fmt: skip
        """Draw tokens side by side, each as wide as its text; return their widths.

        Args:
            widths: those of another strip, to stand below it.
        """
        found = (
            [max(46, len(token) * CHARACTER + 10) for token in tokens] if widths is None else widths
        )
        for token, fill, width in zip(tokens, fills, found, strict=True):
            self.box(x, y, width, height, token, fill=fill, code=True)
            x += width
        return list(found)

    def shifted_labels(
        self, x: float, y: float, tokens: Sequence[str], trained: Sequence[bool], gap: float = 34
    ) -> list[float]:
        """Draw tokens above their labels, with an arrow from each token to the label it predicts.

        That label stands one position further on. Trained labels show their token and are slanted
        green; the others show −100, with no arrow. Returns the widths of the strip.
        """
        fills = ["green" if kept else "grey" for kept in trained]
        widths = self.strip(x, y, tokens, ["plain"] * len(tokens))
        labels = [token if kept else "−100" for token, kept in zip(tokens, trained, strict=True)]
        self.strip(x, y + 28 + gap, labels, fills, widths=widths)
        for place, width in enumerate(widths[:-1]):
            middle, x = x + width / 2, x + width
            if trained[place + 1]:
                self.arrow(middle, y + 29, x + widths[place + 1] / 2, y + 27 + gap)
        return widths

    def svg(self) -> str:
        """Return the drawing as SVG on white paper, so that it is readable on dark pages too."""
        patterns = "".join(
            f'<pattern id="{name}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<path d="{path}" stroke="{LINE}" stroke-width="0.7" opacity="0.45"/></pattern>'
            for name, (_, path) in FILLS.items()
            if path
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.alt)}">'
            f"<title>{escape(self.alt)}</title>"
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker>'
            f'{patterns}</defs><rect width="{self.width}" height="{self.height}" rx="6" '
            f'fill="{PAPER}"/>{"".join(self.parts)}</svg>'
        )
