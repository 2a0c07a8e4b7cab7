"""The explorer of notebook 14: a template's rendering against one typed by hand."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.chat import encode, render, user
from sftlab.chatml import STYLES, with_style
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.rendering import difference_view, ids_view
from sftlab.classroom.views import View
from sftlab.errors import WorkbookError

MINE = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>userWhat is the capital of France?<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def type_by_hand(tokenizer) -> None:
    """Pick a family, edit the messages, type a version: differences in characters and tokens."""
    copies = {family: with_style(tokenizer, family) for family in STYLES}

    def draw(family: str, system: str, question: str, prompted: bool, mine: str) -> View:
        if not question.strip():
            raise WorkbookError("type a question: a chat without a user's turn has nothing to show")
        talk = [{"role": "system", "content": system}] if system.strip() else []
        talk += user(question)
        chosen = copies[family]
        ids = encode(chosen, talk, prompted)
        views = (
            ids_view(chosen, ids, f"{family}, by the template"),
            difference_view(render(chosen, talk, prompted), mine, "Your version, in characters"),
            difference_view(
                ids, chosen.encode(mine), "Your version, in tokens", lambda i: chosen.decode([i])
            ),
        )
        return View("".join(v.html for v in views), "\n\n".join(v.text for v in views))

    controls = {
        "family": widgets.Dropdown(options=list(STYLES), description="family"),
        "system": text_box("Be brief.", "System turn"),
        "question": text_box("What is the capital of France?", "User's turn"),
        "prompted": widgets.Checkbox(value=True, description="with the generation prompt"),
        "mine": text_box(MINE, "Your version, by hand", height="6.5em"),
    }
    controls["family"].style = DESCRIBED
    explorer(
        controls,
        draw,
        lambda family, **_: f"The rendering in the style of {family} against one typed by hand.",
        continuous=True,
    )
