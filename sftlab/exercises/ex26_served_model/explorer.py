"""The explorer of notebook 26: a server's chat template, what the model reads, and what it answers."""

from __future__ import annotations

import html

import ipywidgets as widgets

from sftlab.chat import CHATML
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import View
from sftlab.errors import WorkbookError
from sftlab.exercises.ex26_served_model.experiment import (
    SERVED,
    TRAINED,
    examples,
    prompt_ids,
    replies,
)
from sftlab.exercises.ex26_served_model.gates import template_mismatch
from sftlab.exercises.views import prompt_view, stacked

OWN = "yours, below"


def serve(model, tokenizer, question: str) -> None:
    """Choose or write a server's template and a question; see what is read and answered."""

    def chosen(template: str, written: str) -> str | None:
        return None if template == TRAINED else written if template == OWN else SERVED[template]

    def draw(template: str, question: str, written: str) -> View:
        if not question.strip():
            raise WorkbookError("type a question")
        ids = prompt_ids(tokenizer, question, chosen(template, written))
        row = {"prompt": question, "response": "?"}
        (example,) = examples(tokenizer, [row])
        place = template_mismatch(example.input_ids, example.labels, ids)
        (reply,) = replies(model, tokenizer, [row], chosen(template, written))
        view = prompt_view(tokenizer, ids, template, (0, 0) if place is None else (place, len(ids)))
        gate = "as trained" if place is None else f"not as trained, from token {place} on"
        ends = "stops" if reply.stopped else "does not stop"
        told = f"The prompt is {gate}. The model {ends}."
        shown = f'<pre style="margin:.8em 0;white-space:pre-wrap">{html.escape(reply.text)}</pre><small>{html.escape(told)}</small>'
        return stacked(view, View(shown, f"{reply.text}\n{told}"))

    controls = {
        "template": widgets.Dropdown(options=[TRAINED, *SERVED, OWN], value="default system turn", description="template", style=DESCRIBED),
        "question": text_box(question, "Question (Enter to ask)"),
        "written": text_box(CHATML, "Your template (Enter to use)", "5em"),
    }  # fmt: skip
    explorer(controls, draw, lambda template, question, written: f"Prompt and answer to {question!r}, served with: {template}.")  # fmt: skip
