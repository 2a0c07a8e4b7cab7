"""The explorer of notebook 05: the tokens of a prompt in one form, and what a model replies."""

from __future__ import annotations

import html

import ipywidgets as widgets

from sftlab.chat import spot_the_difference
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import View, visible
from sftlab.errors import WorkbookError
from sftlab.exercises.ex05_chat_template_mismatch.experiment import LIMIT, prompt_ids, replies
from sftlab.exercises.ex05_chat_template_mismatch.forms import ELSEWHERE, FORMS, RIGHT
from sftlab.exercises.views import prompt_view, stacked


def compared(tokenizer, question: str, form: str) -> View:
    """Return a prompt in a form, with what differs from the right one underlined."""
    right, wrong = (prompt_ids(tokenizer, question, name) for name in (RIGHT, form))
    start, missing, added = spot_the_difference(right, wrong)
    view = prompt_view(tokenizer, wrong, form, (start, start + len(added)))
    if not (missing or added):
        return view
    gone = " ".join(visible(tokenizer.decode([token])) for token in missing) or "nothing"
    note = f"from token {start} on, the right prompt has here: {gone}"
    return View(f"{view.html}<small>{html.escape(note)}</small>", f"{view.text}\n{note}")


def pick_a_form(model, tokenizer, question: str) -> None:
    """Pick the form of a prompt and a question; see the tokens and the reply change."""

    def draw(form: str, question: str) -> View:
        if not question.strip():
            raise WorkbookError("type a question")
        ((text, stopped),) = replies(model, tokenizer, [prompt_ids(tokenizer, question, form)])
        ends = "stops" if stopped else f"is cut off after {LIMIT} tokens"
        reply = View(
            f'<pre style="margin:.8em 0;white-space:pre-wrap">{html.escape(text)}</pre><small>The model {ends}.</small>',
            f"{text}\nThe model {ends}.",
        )
        return stacked(compared(tokenizer, question, form), reply)

    controls = {
        "form": widgets.Dropdown(options=list(FORMS), value=ELSEWHERE, description="form", style=DESCRIBED),
        "question": text_box(question, "Question (Enter to ask)"),
    }  # fmt: skip
    explorer(controls, draw, lambda form, question: f"Tokens and reply for {question!r}: {form}.")
