"""Cards in HTML, each with the same content as plain text for outputs without HTML.

Text and background colors are set together, so a card is readable on light and dark pages.
"""

from __future__ import annotations

import re
from html import escape

# (border, tint) in Okabe-Ito hues. A symbol and a word always repeat the meaning of the color.
TONES = {
    "neutral": ("#5f6b76", "#f3f5f7"),
    "open": ("#b07d00", "#fdf6e3"),
    "right": ("#007a5a", "#eaf7f2"),
    "wrong": ("#b34700", "#fdf0e8"),
}
INK = "#1b1f24"
# *Emphasis*, not multiplication: no word character or bracket touches the stars from outside, and
# no space from inside.
STRESS = r"(?<![\w*)\]])\*(?=\S)([^*\n<>]+)(?<=\S)\*(?![\w*(])"


def inline(text: str) -> str:
    """Return text as HTML: escaped, with `code`, **bold**, *emphasis* and line breaks."""
    marked = re.sub(r"`([^`]+)`", _code, escape(text, quote=False))
    marked = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked)
    marked = re.sub(STRESS, r"<em>\1</em>", marked)
    return "<br><br>".join(part.replace("\n", "<br>") for part in re.split(r"\n\s*\n", marked))


def _code(found: re.Match) -> str:
    return f'<code style="background:#e4e8ec;color:{INK};padding:0 .25em">{found[1]}</code>'


def plain(text: str) -> str:
    """Return the text without its backticks and double asterisks."""
    return re.sub(r"\*\*([^*]+)\*\*", r"\1", text).replace("`", "")


def card(heading: str, body_html: str, tone: str = "neutral") -> str:
    """Return one card: a bold heading above a body that is already HTML."""
    border, tint = TONES[tone]
    return (
        f'<div style="border-left:4px solid {border};background:{tint};color:{INK};'
        'padding:.6em .9em;margin:.3em 0;max-width:52em;line-height:1.45">'
        f"<div><b>{inline(heading)}</b></div>{body_html}</div>"
    )


def folded(summary: str, body_html: str) -> str:
    """Return a closed block that unfolds on a click, without scripts."""
    return (
        '<details style="margin-top:.4em">'
        f'<summary style="cursor:pointer">{inline(summary)}</summary>'
        f'<div style="margin:.3em 0 .3em 1em">{body_html}</div></details>'
    )


def preformatted(text: str) -> str:
    """Return text unchanged in a fixed-width font."""
    return (
        f'<pre style="background:#e9edf0;color:{INK};padding:.4em .6em;margin:.3em 0;'
        f'white-space:pre-wrap">{escape(text, quote=False)}</pre>'
    )


def show(html: str, text: str, widget=None, **data) -> None:
    """Display a card, or print its text outside of a notebook.

    With a widget, one output contains all three formats: a live notebook shows the widget, a stored
    one the HTML, a terminal the text.

    Args:
        data: the content of the card for programs, stored in the output's metadata under "sftlab"
            (see ``stored_data``).
    """
    try:
        from IPython import get_ipython
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(text)
        return
    from IPython.display import display

    bundle = {"text/html": html, "text/plain": text}
    if widget is not None:
        live = widget._repr_mimebundle_()
        bundle = {**live, **bundle}
    display(bundle, raw=True, metadata={"sftlab": data} if data else None)


def stored_data(output) -> dict:
    """Return the data that ``show`` stored in an output, or {} if there is none."""
    return output.get("metadata", {}).get("sftlab", {})
