"""Views and explorer of notebook 05: prompts as the model reads them, special tokens set apart."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets as widgets
import torch

from sftlab.chat import special_tokens, spot_the_difference
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import FONT, View, visible
from sftlab.compare import logits_of
from sftlab.errors import WorkbookError
from sftlab.exercises.ex05_chat_template_mismatch.experiment import CORRUPTIONS, LIMIT, wrong_prompt
from sftlab.generate import generate

TEXT = "background:rgba(128,128,128,.14);border:1px solid transparent;"
SPECIAL = "background:rgba(0,114,178,.18);border:1px solid #0072B2;font-weight:bold;"
CHANGED = "box-shadow:0 3px 0 #D55E00;"


def prompt_view(
    tokenizer, ids: Sequence[int], title: str, marked: tuple[int, int] = (0, 0)
) -> View:
    """Every token of a prompt. Special tokens are framed and bold (in the text form: ⟦…⟧).

    Args:
        marked: the tokens from the first to before the second are underlined: they differ.
    """
    special = set(tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer))))
    spans, text = [], []
    for place, token in enumerate(ids):
        word = visible(tokenizer.decode([token]))
        changed = marked[0] <= place < marked[1]
        style = (SPECIAL if token in special else TEXT) + (CHANGED if changed else "")
        kind = "special token" if token in special else "text"
        spans.append(
            f'<span title="id {token} · {kind}" style="{style}padding:1px 3px;margin:1px;border-radius:3px;'
            f'display:inline-block;{FONT}">{html.escape(word)}</span>'
        )
        word = f"⟦{word}⟧" if token in special else word
        text.append(f"*{word}*" if changed else word)
    count = sum(token in special for token in ids)
    head = f"{title}: {len(ids)} tokens, {count} of them special"
    return View(
        f'<p style="margin:.4em 0"><b>{html.escape(head)}</b></p><div style="line-height:2.1">{"".join(spans)}</div>',
        f"{head}\n{' '.join(text)}",
    )


def compared_with_right(tokenizer, question: str, how: str) -> View:
    """A corrupted prompt with what differs from the right one underlined."""
    right, wrong = (wrong_prompt(tokenizer, question, name) for name in ("exact template", how))
    start, missing, added = spot_the_difference(right, wrong)
    view = prompt_view(tokenizer, wrong, how, (start, start + len(added)))
    if not (missing or added):
        return view
    gone = " ".join(visible(tokenizer.decode([token])) for token in missing) or "nothing"
    note = f"from token {start} on, the right prompt has here: {gone}"
    return View(f"{view.html}<small>{html.escape(note)}</small>", f"{view.text}\n{note}")


def stacked(*views: View) -> View:
    """Views below each other."""
    return View("".join(v.html for v in views), "\n\n".join(v.text for v in views))


def _answer(model, tokenizer, prompt: list[int]) -> View:
    reply = generate(model, tokenizer, [prompt], max_new_tokens=LIMIT)[0]
    ids = [*reply.ids, *([tokenizer.eos_token_id] if reply.stopped else [])]
    with torch.no_grad():
        chances = logits_of(model, [*prompt, *ids])[len(prompt) - 1 : -1].softmax(-1)
    surest = ", ".join(f"{chances[i, t].item():.2f}" for i, t in enumerate(ids[:3]))
    how = "stops" if reply.stopped else f"is cut off after {LIMIT} tokens"
    note = f"it {how}; probabilities of the first tokens: {surest}"
    return View(
        f'<p style="margin:.8em 0 .2em"><b>The model writes</b></p><pre style="margin:0;white-space:pre-wrap">{html.escape(reply.text)}</pre>'
        f"<small>{note}</small>",
        f"The model writes: {reply.text}\n{note}",
    )


def pick_a_corruption(model, tokenizer, question: str) -> None:
    """Pick what goes wrong and a question; see the tokens and the answer change."""

    def draw(how: str, question: str) -> View:
        if not question.strip():
            raise WorkbookError("type a question")
        prompt = wrong_prompt(tokenizer, question, how)
        return stacked(
            compared_with_right(tokenizer, question, how), _answer(model, tokenizer, prompt)
        )

    controls = {
        "how": widgets.Dropdown(
            options=list(CORRUPTIONS),
            value="no newline after assistant",
            description="template",
            style=DESCRIBED,
        ),
        "question": text_box(question, "Question (Enter to ask)"),
    }
    explorer(
        controls, draw, lambda how, question: f"Tokens and answer for {question!r} under: {how}."
    )
