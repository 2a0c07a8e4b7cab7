"""A show of hands: the presenter counts the class's votes for each option, shown as live bars.

The counts are stored in the progress file, with the presenter's own predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftlab.classroom import html_cards, predictions, progress

# An option may be a sentence, which ipywidgets would cut off at the button's width.
WHOLE_CHOICES = (
    "<style>.sft-choice.jupyter-button {white-space: normal; height: auto; min-height: 2.2em;"
    "line-height: 1.4; text-align: left; padding: .2em .8em}</style>"
)


def show_of_hands(id: str) -> None:
    """Count the class's votes on a prediction, with buttons for each option and a bar chart.

    Args:
        id: id of the prediction, "12.a"; its ``predict`` must have run in this notebook.

    Raises:
        WorkbookError: ``predict`` did not run.
    """
    options = predictions.asked(id, "show_of_hands").options
    counts = counted(id, options)
    lines = [f"  {count:3} {option}" for option, count in zip(options, counts, strict=True)]
    heading = f"Show of hands {id}"
    body = "".join(
        f"<div>{html_cards.inline(option)}{_bar(count, counts)}</div>"
        for option, count in zip(options, counts, strict=True)
    )
    html_cards.show(
        html_cards.card(heading, body), "\n".join([heading, *lines]), _widget(id, options)
    )


def counted(id: str, options: Sequence[str]) -> list[int]:
    """Return the number of votes for each option."""
    stored = progress.load().get("hands", {}).get(id, {})
    return [max(0, int(stored.get(option, 0))) for option in options]


def count(id: str, option: str, change: int) -> None:
    """Add a vote (+1) or take one back (−1); counts never become negative."""

    def store(stored: dict) -> None:
        hands = stored.setdefault("hands", {}).setdefault(id, {})
        hands[option] = max(0, hands.get(option, 0) + change)

    progress.update(store)


def start_anew(id: str) -> None:
    """Delete the votes on one prediction."""
    progress.update(lambda stored: stored.get("hands", {}).pop(id, None))


def _bar(count: int, counts: Sequence[int]) -> str:
    """Return one bar as HTML; ten votes fill it until an option has more."""
    share = 100 * count / max(10, *counts)
    return (
        f'<div style="display:flex;align-items:center;gap:.6em"><b>{count}</b><div style="flex:1;background:#e9edf0">'
        f'<div style="width:{share:.0f}%;height:1.4em;background:#0b57a4"></div></div></div>'
    )


def _widget(id: str, options: Sequence[str]) -> Any:
    from IPython import get_ipython

    if get_ipython() is None:
        return None
    import ipywidgets as widgets

    wide = widgets.Layout(flex="1 1 auto")
    bars = [widgets.HTML(layout=wide) for _ in options]

    def draw() -> None:
        counts = counted(id, options)
        for bar, count in zip(bars, counts, strict=True):
            bar.value = _bar(count, counts)

    def button(text: str, act: Any, **more: Any) -> Any:
        made = widgets.Button(description=text, **more)
        made.on_click(lambda _: (act(), draw()))
        return made

    rows = []
    for option, bar in zip(options, bars, strict=True):
        more = button(
            html_cards.plain(option),
            lambda option=option: count(id, option, 1),
            layout=widgets.Layout(width="38%"),
        )
        more.add_class("sft-choice")
        less = button(
            "−",
            lambda option=option: count(id, option, -1),
            tooltip=f"take back a hand for {html_cards.plain(option)}",
            layout=widgets.Layout(width="3em"),
        )
        rows.append(widgets.HBox([more, bar, less], layout=widgets.Layout(align_items="center")))
    draw()
    rules = widgets.HTML(WHOLE_CHOICES, layout=widgets.Layout(display="none"))
    return widgets.VBox([*rows, button("count anew", lambda: start_anew(id)), rules])
