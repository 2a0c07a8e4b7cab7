"""Explorers that move on the pages of the book: every state is made beforehand, or the browser draws it.

``html`` gives what stands on a page: controls like those of the notebook, and the first picture.
``build`` writes what they show into ``explorers/`` beside the pages. An explorer stays as it is: it is
called with arguments made here, and hands over its controls, its ``draw`` and its words.

* Tables: the HTML of every state is kept.
* Figures: the numbers and texts of every state are kept, and ``explorers.js`` draws them at any width.
* Three are computed in ``explorers.js``: a slider for each probability has too many states to keep, and
  what is typed has no states at all. The tokens are those of ``almanac.js``.

The rest needs a model, or more of the tokenizer's families: it shows its first picture.
"""

from __future__ import annotations

import base64
import gzip
import html as markup
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from sftlab.classroom import catalogue
from tools import explorer_arguments, explorer_charts
from tools.website import TEMPLATES

CALL = re.compile(r"""explore\(\s*["'](\d\d\.\w+)["']""")
FOLDER = "explorers"
TYPED = ("12.mask_a_pair",)  # needs the tokenizer
HEAD = '<link rel="stylesheet" href="explorers.css"><script src="explorers.js" defer></script>'


@dataclass(frozen=True)
class Explorer:
    """What an explorer shows: controls by argument name, what draws a state, and its words."""

    id: str
    controls: Mapping[str, widgets.Widget]
    draw: Callable[..., Any]
    alt: str | Callable[..., str]

    def first(self) -> dict[str, Any]:
        """Return the values with which the explorer begins."""
        return {name: control.value for name, control in self.controls.items()}

    def states(self) -> Iterator[dict[str, Any]]:
        """Give the values of every state; those of the last control change fastest."""
        for values in product(*(choices(control)[1] for control in self.controls.values())):
            yield dict(zip(self.controls, values, strict=True))

    def count(self) -> int:
        """Return the number of states."""
        return prod(len(choices(control)[1]) for control in self.controls.values())

    def words(self, values: Mapping[str, Any]) -> str:
        """Return a state in words."""
        return self.alt(**values) if callable(self.alt) else self.alt


def choices(control: widgets.Widget) -> tuple[list[str], list[Any], int]:
    """Return a control's labels, its values, and which of them it has at first.

    Raises:
        TypeError: a control that has no list of values.
    """
    if isinstance(control, widgets.Checkbox):
        return ["no", "yes"], [False, True], int(control.value)
    if isinstance(control, widgets.IntSlider):
        values = list(range(control.min, control.max + 1, control.step))
        return [str(value) for value in values], values, values.index(control.value)
    if isinstance(control, widgets.SelectionSlider | widgets.Dropdown | widgets.ToggleButtons):
        labels, values = list(control._options_labels), list(control._options_values)
        return labels, values, control.index
    if isinstance(control, widgets.FloatLogSlider):
        count = round((control.max - control.min) / control.step)
        powers = [control.min + control.step * k for k in range(count + 1)]
        values = [control.base**power for power in powers]
        nearest = min(range(count + 1), key=lambda k: abs(values[k] / control.value - 1))
        return [f"{value:{control.readout_format}}" for value in values], values, nearest
    raise TypeError(f"a {type(control).__name__} has no list of values")


@cache
def captured(id: str) -> Explorer:
    """Return an explorer of the book: its own function is called, and what it would show is taken."""
    number, name = id.split(".")
    own, found = catalogue.package(number, "explorer"), []

    def take(controls, draw, alt, continuous=False) -> None:
        found.append(Explorer(id, controls, draw, alt))

    shown, own.explorer = own.explorer, take
    try:
        with explorer_arguments.quick(id):
            getattr(own, name)(*explorer_arguments.ARGUMENTS[id]())
    finally:
        own.explorer = shown
    return found[0]


@cache
def kind(id: str) -> str:
    """Return how an explorer moves: "computed", "charts", or "tables".

    Raises:
        ValueError: its figure is of a type that ``explorer_charts`` does not know.
    """
    if id in explorer_arguments.TABLES:
        return "computed"
    explorer = captured(id)
    with explorer_charts.as_data(), explorer_arguments.quick(id):
        drawn = explorer.draw(**explorer.first())
    if isinstance(drawn, explorer_charts.Chart):
        return "charts"
    if hasattr(drawn, "savefig"):
        raise ValueError(f"{id} draws a figure that explorer_charts does not know")
    return "tables"


# --- on the page ---------------------------------------------------------------------------------


def html(cell: Any) -> str | None:
    """Return what replaces the outputs of a cell that shows an explorer; None if it does not move."""
    called = CALL.search(cell.source)
    if not called or called[1] not in explorer_arguments.ARGUMENTS:
        return None
    explorer = captured(called[1])
    controls = "\n".join(
        _control(f"{explorer.id}.{name}", control) for name, control in explorer.controls.items()
    )
    tokenizer = '<script src="almanac.js" defer></script>' if explorer.id in TYPED else ""
    return f"""{HEAD}{tokenizer}
<div class="moving" data-explorer="{explorer.id}" role="group" aria-label="Explorer">
<div class="moving-controls">
{controls}
</div>
<div class="moving-stage">{_stored(cell)}</div>
<p class="moving-told" role="status"></p>
</div>"""


def _stored(cell: Any) -> str:
    """The stored picture of a cell as HTML."""
    (output,) = cell.outputs
    data = output.data
    if "text/html" in data:
        return "".join(data["text/html"])
    words = markup.escape("".join(data["text/plain"]), quote=True)
    return f'<img alt="{words}" src="data:image/png;base64,{"".join(data["image/png"].split())}">'


def _control(id: str, control: widgets.Widget) -> str:
    """A control as HTML with a number as its value: which of the choices it has. Text is its own value."""
    told = markup.escape(control.description or "")
    if isinstance(control, widgets.Textarea):
        rows = 1 + control.value.count("\n") + len(control.value) // 90
        return f'<label class="moving-text"><span>{told}</span> <textarea rows="{rows + 1}" autocomplete="off">{markup.escape(control.value)}</textarea></label>'
    labels, values, at = choices(control)
    if isinstance(control, widgets.Checkbox):
        checked = " checked" if at else ""
        return f'<label class="moving-box"><input type="checkbox"{checked} data-first="{at}"> {told}</label>'
    if isinstance(control, widgets.Dropdown):
        options = "".join(
            f"<option{' selected' * (k == at)}>{markup.escape(label)}</option>"
            for k, label in enumerate(labels)
        )
        return f'<label class="moving-menu"><span>{told}</span> <select data-first="{at}" autocomplete="off">{options}</select></label>'
    if isinstance(control, widgets.ToggleButtons):
        options = "".join(
            f'<label><input type="radio" name="{id}"{" checked" * (k == at)} autocomplete="off"> <span>{markup.escape(label)}</span></label>'
            for k, label in enumerate(labels)
        )
        legend = f"<legend>{told}</legend>" if told else '<legend class="unseen">show</legend>'
        return f'<fieldset class="moving-buttons" data-first="{at}">{legend}<div>{options}</div></fieldset>'
    exact = ""
    if isinstance(control, widgets.FloatLogSlider):  # it may begin between two of its steps
        labels = [*labels[:at], f"{control.value:{control.readout_format}}", *labels[at + 1 :]]
        exact = f' data-values="{json.dumps(values)}" data-exact="{control.value!r}"'
    listed = markup.escape(json.dumps(labels, ensure_ascii=False), quote=True)
    return (
        f'<label class="moving-slider"><span>{told}</span> <input type="range" min="0" max="{len(values) - 1}" value="{at}" '
        f'data-first="{at}" data-labels="{listed}"{exact} aria-valuetext="{markup.escape(labels[at])}" autocomplete="off"> '
        f"<output>{markup.escape(labels[at])}</output></label>"
    )


# --- what is shown -------------------------------------------------------------------------------


def data(explorer: Explorer) -> dict[str, Any]:
    """Return what the page needs to show every state."""
    if kind(explorer.id) == "computed":
        return {"tables": explorer_arguments.TABLES[explorer.id](explorer)}
    with explorer_charts.as_data(), explorer_arguments.quick(explorer.id):
        drawn = [explorer.draw(**values) for values in explorer.states()]
    if kind(explorer.id) == "tables":
        return {"html": [view if isinstance(view, str) else view.html for view in drawn]}
    same = {k: v for k, v in drawn[0].items() if all(chart[k] == v for chart in drawn)}
    each = [{k: v for k, v in chart.items() if k not in same} for chart in drawn]
    return {"same": same, "charts": each}


def script(id: str, made: Mapping[str, Any]) -> str:
    """Return what an explorer shows as a script: packed (gzip), and as text (base64)."""
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    return f'window.explorers.data["{id}"] = "{packed}";\n'


def build(folder: Path, ids: Iterable[str] = explorer_arguments.ARGUMENTS) -> list[Path]:
    """Write style, script and all states into a folder that exists; returns the scripts with the states."""
    for name in ("explorers.css", "explorers.js"):
        (folder / name).write_text((TEMPLATES / "explorers" / name).read_text("utf-8"), "utf-8")
    (folder / FOLDER).mkdir(exist_ok=True)
    written = []
    for id in ids:
        written.append(folder / FOLDER / f"{id}.js")
        written[-1].write_text(script(id, data(captured(id))), encoding="utf-8")
    return written
