"""Token views and tables in HTML, each also as plain text.

Colors are translucent, so that they work on light and dark pages. They never carry meaning alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

FONT = "font-family:var(--jp-code-font-family,monospace);font-size:13px;"
CELL = "text-align:left;vertical-align:top;padding:4px 10px;border-bottom:1px solid rgba(128,128,128,.3);white-space:pre-wrap;"
TRAINED = "background:rgba(0,158,115,.28);border-bottom:2px solid #009e73;"
MASKED = "background:rgba(128,128,128,.14);opacity:.75;border-bottom:2px solid transparent;"


@dataclass(frozen=True)
class View:
    """A view in two formats: notebooks display ``html``, terminals and diffs ``text``."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def visible(token: str) -> str:
    """Return a token with visible spaces and line breaks."""
    return token.replace("\n", "⏎").replace(" ", "·") or "∅"


def _breakable(cell: str) -> str:
    """Return a cell as HTML in which lines may break after visible spaces."""
    return re.sub(r"(?<=\S)([·⏎])(?=\S)", r"\1<wbr>", html.escape(cell))


def table(rows: Sequence[Sequence], headers: Sequence[str], caption: str = "") -> View:
    """Return a table of printable values; floats are shown with four significant digits."""
    shown = [
        [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows
    ]
    head = "".join(
        f'<th scope="col" style="{CELL}font-weight:600">{html.escape(h)}</th>' for h in headers
    )
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{_breakable(cell)}</td>' for cell in row) + "</tr>"
        for row in shown
    )
    title = (
        f'<caption style="text-align:left;padding:4px 10px;font-style:italic">{html.escape(caption)}</caption>'
        if caption
        else ""
    )
    markup = f'<table style="border-collapse:collapse;margin:.5em 0">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    flat = [[cell.replace("\n", " / ") for cell in cells] for cells in [list(headers), *shown]]
    widths = [max(len(cells[i]) for cells in flat) for i in range(len(headers))]
    text = "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()
        for cells in flat
    )
    return View(markup, f"{caption}\n{text}" if caption else text)


def token_view(tokenizer, example: Example, note: str = "") -> View:
    """Return a view of an example's tokens: masked ones gray, trained ones green and underlined.

    Hover over a token to see its id and label.
    """
    spans, text = [], []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        word = tokenizer.decode([token])
        trained = label != IGNORE_INDEX
        title = f"id {token} · label {label if trained else 'masked (-100)'}"
        spans.append(
            f'<span title="{title}" style="{TRAINED if trained else MASKED}padding:1px 3px;margin:1px;border-radius:3px;'
            f'display:inline-block;{FONT}">{html.escape(visible(word))}</span>'
            + ("<br>" if word.endswith("\n") else "")
        )
        text.append(f"[{visible(word)}]" if trained else visible(word))
    total, trained = len(example), example.trained
    legend = (
        f'<div style="margin:.4em 0"><span style="{TRAINED}padding:1px 6px">trained</span> {trained} of {total} tokens · '
        f'<span style="{MASKED}padding:1px 6px">masked</span> {total - trained}{" · " + html.escape(note) if note else ""}</div>'
    )
    plain = f"trained [in brackets]: {trained} of {total} tokens{' · ' + note if note else ''}\n{' '.join(text)}"
    return View(f'<div style="line-height:2">{"".join(spans)}</div>{legend}', plain)


def probability_view(
    tokenizer, ids: Sequence[int], probabilities: Sequence[float], title: str
) -> View:
    """Return a view of generated tokens, in a stronger color for a higher probability.

    Hover over a token to see its probability.
    """
    spans = "".join(
        f'<span title="p = {p:.2f}" style="background:rgba(0,114,178,{0.06 + 0.5 * p:.2f});padding:1px 2px;margin:1px;'
        f'border-radius:3px;display:inline-block;{FONT}">{html.escape(visible(tokenizer.decode([i])))}</span>'
        + ("<br>" if "\n" in tokenizer.decode([i]) else "")
        for i, p in zip(ids, probabilities, strict=True)
    )
    text = " ".join(
        f"{visible(tokenizer.decode([i]))}({p:.2f})"
        for i, p in zip(ids, probabilities, strict=True)
    )
    return View(
        f'<p style="margin:.3em 0"><b>{html.escape(title)}</b></p><div style="line-height:2">{spans}</div>',
        f"{title}\n{text}",
    )


def beside(*views: View) -> View:
    """Return the views side by side; below each other on a narrow page."""
    cells = "".join(
        f'<div style="flex:1 1 20em;min-width:18em">{view.html}</div>' for view in views
    )
    return View(
        f'<div style="display:flex;flex-wrap:wrap;gap:2em">{cells}</div>',
        "\n\n".join(v.text for v in views),
    )
