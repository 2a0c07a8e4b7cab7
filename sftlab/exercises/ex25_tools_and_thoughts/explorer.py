"""The explorer of notebook 25: a sum, with the beginning of a thought; how does the model go on?"""

from __future__ import annotations

import html

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer, text_box
from sftlab.classroom.views import View
from sftlab.exercises.ex25_tools_and_thoughts.thoughts import question
from sftlab.exercises.ex25_tools_and_thoughts.tools import replies
from sftlab.exercises.ex25_tools_and_thoughts.traces import WORDS


def think(model, tokenizer, terms: tuple[int, int, int] = (7, 4, 6)) -> None:
    """Choose a sum and the beginning of a thought; see what the model makes of it."""

    def draw(a: int, b: int, c: int, begun: str) -> View:
        begin = f"{WORDS.opening}{begun}" if begun else ""
        talk = [{"role": "user", "content": question((a, b, c))}]
        (reply,) = replies(model, tokenizer, [talk], WORDS, [begin])
        given, written = html.escape(begin), html.escape(reply)
        shown = (
            f'<pre style="margin:.8em 0;white-space:pre-wrap">{html.escape(question((a, b, c)))}\n'
            f"{given}<b>{written}</b></pre><small>The model wrote what is in bold.</small>"
        )
        return View(shown, f"{question((a, b, c))}\n{begin}[{reply}]")

    controls = {
        **{
            name: widgets.IntSlider(value=value, min=1, max=most, description=f"number {n}", style=DESCRIBED, layout=WIDE)
            for n, (name, value, most) in enumerate(zip("abc", terms, (8, 4, 12), strict=True), 1)
        },
        "begun": text_box(f"{terms[0]} plus {terms[1]} is 12.", "The thought begins with (Enter to use)"),
    }  # fmt: skip
    explorer(controls, draw, lambda a, b, c, begun: f"The model goes on with {question((a, b, c))}")
