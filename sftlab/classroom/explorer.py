"""Explorers: a few controls and a picture that follows; on a stored page, the first picture.

`explorer` is what all of them share; those of an exercise are in its ``explorer.py``.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from difflib import get_close_matches
from html import escape
from typing import Any

import ipywidgets as widgets

from sftlab.classroom import catalogue, html_cards, plots
from sftlab.errors import WorkbookError

WIDE = widgets.Layout(width="95%")
DESCRIBED = {"description_width": "initial"}
# A slider's value or a button may be a few words; ipywidgets would cut them off at 148 pixels.
WHOLE_WORDS = (
    "<style>.widget-slider .widget-readout {max-width: none}"
    ".widget-toggle-buttons .widget-toggle-button {width: auto; min-width: 8em}</style>"
)


def explore(id: str, *arguments: Any, **settings: Any) -> None:
    """Show an explorer: ``explore("07.count_parameters")`` calls the function of that name.

    Raises:
        WorkbookError: the exercise has no such explorer; the message names those it has.
    """
    number, _, name = id.partition(".")
    own = catalogue.package(number, "explorer")
    there = [n for n, f in vars(own).items() if callable(f) and f.__module__ == own.__name__]
    if name not in there:
        near = get_close_matches(name, there, n=3, cutoff=0.4) or there
        raise WorkbookError(f"there is no explorer {id!r}; the nearest are {', '.join(near)}")
    getattr(own, name)(*arguments, **settings)


def explorer(
    controls: dict[str, Any],
    draw: Callable[..., Any],
    alt: str | Callable[..., str],
    continuous: bool = False,
) -> None:
    """Show controls over a picture that is drawn again whenever one of them changes.

    One bundle holds the live widget and the first picture: a stored page shows the picture.

    Args:
        controls: argument name of ``draw`` -> ipywidgets control, in the order in which they stand.
        draw: from the controls' values to a matplotlib figure, HTML text, or an object with a
            ``_repr_mimebundle_``. An error in it is shown in place of the picture.
        alt: the picture in words; a function of the controls' values where they matter.
        continuous: draw while a slider moves. Only for draws well under 200 ms; otherwise the
            number beside the slider moves and the picture follows when it is let go.

    Raises:
        Exception: what the first draw raises: a broken explorer should not look like a picture.
    """

    def values() -> dict[str, Any]:
        return {name: control.value for name, control in controls.items()}

    def words() -> str:
        return alt(**values()) if callable(alt) else alt

    still, metadata = _bundle(draw(**values()), words())
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(still["text/plain"])
        return
    for control in controls.values():
        if hasattr(control, "continuous_update"):
            control.continuous_update = continuous
    stage = widgets.HTML(_as_html(still, metadata))
    drawn = values()

    def redraw(*_: Any) -> None:
        nonlocal drawn
        if values() == drawn:  # one gesture may report twice
            return
        drawn = values()
        # One string is swapped for another: no flicker, and nothing stacks up below.
        try:
            stage.value = _as_html(*_bundle(draw(**drawn), words()))
        except Exception as error:
            told = isinstance(error, WorkbookError)  # its text is a sentence of its own
            message = str(error) if told else f"{type(error).__name__}: {error}"
            heading = "This setting cannot be shown"
            stage.value = html_cards.card(heading, html_cards.inline(message), "wrong")

    for control in controls.values():
        control.observe(redraw, names="value")
    rules = widgets.HTML(WHOLE_WORDS, layout=widgets.Layout(display="none"))
    live = widgets.VBox([*controls.values(), stage, rules])
    bundle = {**live._repr_mimebundle_(), **still}
    display(bundle, metadata=metadata, raw=True)


def _bundle(drawn: Any, alt: str) -> tuple[dict, dict]:
    """What ``draw`` returned as a mime bundle with its metadata."""
    if isinstance(drawn, str):
        return {"text/html": drawn, "text/plain": alt}, {}
    if hasattr(drawn, "savefig"):
        import matplotlib.pyplot as plt

        data = plots.png(drawn)
        plt.close(drawn)  # an open figure would be shown a second time, and never be freed
        return plots.picture_bundle(data, alt)
    if hasattr(drawn, "_repr_mimebundle_"):
        own = drawn._repr_mimebundle_()
        return {"text/plain": alt, **own}, {}
    raise TypeError(f"draw returned a {type(drawn).__name__}; return a figure, HTML text or a view")


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack(">II", data[16:24])  # width and height stand first in a PNG's header


def _as_html(bundle: dict, metadata: dict) -> str:
    if "image/png" in bundle:
        alt = escape(metadata["image/png"]["alt"], quote=True)
        source = f"data:image/png;base64,{bundle['image/png']}"
        width, height = _png_size(base64.b64decode(bundle["image/png"]))
        # With its size known and decoding at once, the page does not jump between two pictures.
        return (
            f'<img alt="{alt}" width="{width}" height="{height}" decoding="sync" '
            f'style="max-width:100%;height:auto" src="{source}">'
        )
    return bundle["text/html"]


def text_box(value: str, description: str, height: str | None = None):
    """A text field that reports when Enter is pressed or it is left, not at every key."""
    kind = widgets.Textarea if height else widgets.Text
    layout = widgets.Layout(width="95%", height=height) if height else WIDE
    return kind(
        value=value,
        description=description,
        layout=layout,
        style=DESCRIBED,
        continuous_update=False,
    )
