"""What the classroom shows: small cards as HTML, each with a plain-text twin for where HTML is not.

Colours are set with their background, so a card reads the same on a light and on a dark page.
"""

from __future__ import annotations

import re
from html import escape

# (border, tint): Okabe-Ito hues. A sign and a word always say the same as the colour.
TONES = {
    "neutral": ("#5f6b76", "#f3f5f7"),
    "open": ("#b07d00", "#fdf6e3"),
    "right": ("#007a5a", "#eaf7f2"),
    "wrong": ("#b34700", "#fdf0e8"),
}
INK = "#1b1f24"
# A star that is no product: nothing joins it on the outside, and no space follows on the inside.
STRESS = r"(?<![\w*)\]])\*(?=\S)([^*\n<>]+)(?<=\S)\*(?![\w*(])"


def inline(text: str) -> str:
    """Text as HTML: escaped, with `code` between backticks, **bold**, *stress*, and its line breaks."""
    marked = re.sub(r"`([^`]+)`", _code, escape(text, quote=False))
    marked = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked)
    marked = re.sub(STRESS, r"<em>\1</em>", marked)
    return "<br><br>".join(part.replace("\n", "<br>") for part in re.split(r"\n\s*\n", marked))


def _code(found: re.Match) -> str:
    return f'<code style="background:#e4e8ec;color:{INK};padding:0 .25em">{found[1]}</code>'


def plain(text: str) -> str:
    """The same text without its marks."""
    return re.sub(r"\*\*([^*]+)\*\*", r"\1", text).replace("`", "")


def card(heading: str, body_html: str, tone: str = "neutral") -> str:
    """One card: a bold heading over a body that is HTML already."""
    border, tint = TONES[tone]
    return (
        f'<div style="border-left:4px solid {border};background:{tint};color:{INK};'
        'padding:.6em .9em;margin:.3em 0;max-width:52em;line-height:1.45">'
        f"<div><b>{inline(heading)}</b></div>{body_html}</div>"
    )


def folded(summary: str, body_html: str) -> str:
    """A closed block that unfolds on a click, with no script."""
    return (
        '<details style="margin-top:.4em">'
        f'<summary style="cursor:pointer">{inline(summary)}</summary>'
        f'<div style="margin:.3em 0 .3em 1em">{body_html}</div></details>'
    )


def preformatted(text: str) -> str:
    """Text as it stands, in a fixed-width font."""
    return (
        f'<pre style="background:#e9edf0;color:{INK};padding:.4em .6em;margin:.3em 0;'
        f'white-space:pre-wrap">{escape(text, quote=False)}</pre>'
    )


def show(html: str, text: str, widget=None, **data) -> None:
    """Display a card, or print its text where there is no notebook.

    With a widget, one bundle holds all three: a live notebook shows the widget, a stored one the
    HTML, a terminal the text. ``data`` is what the card says, for programs: it is stored in the
    output's metadata under "sftlab" (see ``stored_data``).
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
    """What a stored output says for programs; {} for one that says nothing."""
    return output.get("metadata", {}).get("sftlab", {})
