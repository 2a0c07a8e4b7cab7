"""How figures look, and how they are shown: style, titles that fit, PNG with the words beside it."""

from __future__ import annotations

import io
import textwrap
from typing import Any

from sftlab.classroom import html_cards

# Okabe and Ito's palette, in the order in which neighbours differ in brightness as well.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")


def use_style() -> None:
    """Set matplotlib's defaults for the workbook. Line styles vary with the colours."""
    import matplotlib as mpl
    from cycler import cycler

    dashes = ("-", "--", "-.", ":", "-", "--", "-.")
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=dashes),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "font.size": 10.5,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.figsize": (7.0, 3.6),
            "figure.facecolor": "white",
            "image.cmap": "cividis",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "savefig.dpi": 110,
            "svg.hashsalt": "sftlab",
        }
    )


def png(figure: Any) -> bytes:
    """The figure as PNG. No date and no version are stored, so equal plots are equal bytes."""
    wrap_titles(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def wrap_titles(figure: Any) -> None:
    """Break titles that would run out of the picture into lines that fit. Others stay as they are.

    A title states a finding, often with measured numbers in it: nobody knows its length beforehand.
    """
    from matplotlib.text import Text

    figure.draw_without_rendering()  # places everything, so that extents are known
    right = figure.bbox.x1 - 4  # pixels
    for axis in figure.axes:
        text = axis.get_title(loc="left")
        drawn = [t for t in axis.get_children() if isinstance(t, Text) and t.get_text() == text]
        extent = drawn[0].get_window_extent() if text and drawn else None
        if extent and extent.x1 > right:
            axis.set_title(_folded(text, extent, right), loc="left")
    above = [t for t in figure.texts if t.get_text() and t.get_text() == figure.get_suptitle()]
    for drawn in above:
        extent = drawn.get_window_extent()
        if extent.x1 > right:
            drawn.set_text(_folded(drawn.get_text(), extent, right))


def _folded(text: str, extent: Any, right: float) -> str:
    return textwrap.fill(text, int(len(text) * (right - extent.x0) / extent.width))


def show(figure: Any, alt: str = "", in_words: bool = True) -> None:
    """Show a matplotlib figure as PNG with its text, and close it.

    The text stands in ``metadata["image/png"]["alt"]``, where nbconvert finds it. JupyterLab reads
    no such field, so the same text follows, folded, under the picture (``in_words=False`` leaves
    it out).

    Args:
        alt: what the picture shows, as you would tell it on the telephone: the finding first. The
            figures of `sftlab.classroom.figures` carry it with them, in ``figure.alt``.

    Raises:
        ValueError: there is no such text.
    """
    alt = alt or getattr(figure, "alt", "")
    if not alt.strip():
        raise ValueError("show needs alt: say in a sentence what the figure shows")
    import matplotlib.pyplot as plt

    data = png(figure)
    plt.close(figure)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(alt)
        return
    bundle, metadata = picture_bundle(data, alt)
    display(bundle, metadata=metadata, raw=True)
    if in_words:
        words = html_cards.folded("This figure in words", html_cards.inline(alt))
        html_cards.show(f"<small>{words}</small>", f"This figure in words: {alt}")


def picture_bundle(data: bytes, alt: str) -> tuple[dict, dict]:
    """The mime bundle of a PNG and its metadata, with the text as what plain readers get."""
    import base64

    encoded = base64.b64encode(data).decode()
    return {"image/png": encoded, "text/plain": alt}, {"image/png": {"alt": alt}}
