"""Notebook 01: ask both models anything."""

from __future__ import annotations

import ipywidgets as widgets
import torch

from sftlab.chat import encode, user
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import View, beside, probability_view
from sftlab.compare import logits_of
from sftlab.errors import WorkbookError
from sftlab.generate import generate


@torch.no_grad()
def _written(model, tokenizer, prompt: list[int], label: str) -> View:
    """What a model writes after a prompt, each token shaded by its probability."""
    reply = generate(model, tokenizer, [prompt], max_new_tokens=40)[0]
    ids = [*reply.ids, *([tokenizer.eos_token_id] if reply.stopped else [])]
    chances = logits_of(model, [*prompt, *ids])[len(prompt) - 1 : -1].softmax(-1)
    return probability_view(
        tokenizer, ids, [chances[i, token].item() for i, token in enumerate(ids)], label
    )


def ask_both(base, chat, tokenizer, prompt: str) -> None:
    """A free prompt, answered by both models side by side."""

    def draw(prompt: str, form: str) -> View:
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        bare = tokenizer.encode(prompt)
        framed = encode(tokenizer, user(prompt), add_generation_prompt=True)
        return beside(
            _written(base, tokenizer, bare, "base, bare text"),
            _written(
                chat, tokenizer, framed if form == "in its template" else bare, f"chat, {form}"
            ),
        )

    controls = {
        "prompt": text_box(prompt, "Prompt (Enter to ask)"),
        "form": widgets.ToggleButtons(
            options=["in its template", "bare text"], description="chat reads it", style=DESCRIBED
        ),
    }
    explorer(controls, draw, lambda prompt, form: f"What both models write after {prompt!r}.")
