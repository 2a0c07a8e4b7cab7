"""Notebook 01: ask both models anything, in any rendering."""

from __future__ import annotations

import ipywidgets as widgets
import torch

from sftlab.almanac.vocabulary import unread
from sftlab.chat import special_tokens
from sftlab.classroom import html_cards
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import View, beside, probability_view
from sftlab.compare import logits_of
from sftlab.errors import WorkbookError
from sftlab.exercises.ex01_base_vs_instruct.experiment import (
    BARE,
    LIMIT,
    PAGE,
    TEMPLATE,
    renderings,
)
from sftlab.generate import generate

KNOWN = (
    "What is the capital of France?",
    "What does the owl eat?",
    "List three tips for a picnic:",
)
OWN = "base: bare text, chat: template"
READ = {OWN: (BARE, TEMPLATE), f"both: {BARE}": (BARE, BARE), f"both: {TEMPLATE}": (TEMPLATE, TEMPLATE),
        f"both: {PAGE}": (PAGE, PAGE)}  # fmt: skip


@torch.no_grad()
def _written(model, tokenizer, prompt: list[int], label: str) -> View:
    """What a model writes after a prompt, each token shaded by its probability."""
    reply = generate(model, tokenizer, [prompt], max_new_tokens=LIMIT)[0]
    ids = list(reply.ids)
    chances = logits_of(model, [*prompt, *ids]).softmax(-1)
    found = [chances[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)]
    if reply.stopped:  # the stop token is the likeliest there: decoding is greedy
        found.append(chances[-1].max().item())
        ids.append(int(chances[-1].argmax()))
    return probability_view(tokenizer, ids, found, label)


def notes(tokenizer, prompt: str) -> list[str]:
    """Return what a reader should know about a prompt before comparing the replies."""
    said = []
    if typed := [token for token in special_tokens(tokenizer) if token in prompt]:
        said.append(
            f"Your text contains {', '.join(f'`{t}`' for t in typed)}. The tokenizer makes one special token "
            "of it, as it does for those of the template: the models cannot see who wrote it."
        )  # fmt: skip
    plain = prompt
    for token in typed:
        plain = plain.replace(token, " ")
    if words := unread(tokenizer, plain):
        more = f" and {len(words) - 8} more" if len(words) > 8 else ""
        listed = ", ".join(f"“{word[:30]}”" for word in words[:8])
        said.append(
            f"The base never read {listed}{more} in its documents: what it writes about that is a guess. The chat "
            f"model can have learned it in fine-tuning only. Prompts that both can read: {' · '.join(KNOWN)}"
        )  # fmt: skip
    return said


def _note(text: str) -> View:
    return View(html_cards.card("About this prompt", html_cards.inline(text), "neutral"), text)


def replies(base, chat, tokenizer, prompt: str, read: str = OWN) -> View:
    """Return what both models write after a prompt, side by side, with notes on the prompt.

    Raises:
        WorkbookError: the prompt is empty, or longer than the models can read.
    """
    if not prompt.strip():
        raise WorkbookError("The prompt is empty: type something to ask")
    shown = []
    for name, model, rendering in zip(("base", "chat"), (base, chat), READ[read], strict=True):
        ids = renderings(tokenizer)[rendering](prompt)
        room = model.config.max_position_embeddings - LIMIT
        if len(ids) > room:
            raise WorkbookError(
                f"The prompt has {len(ids):,} tokens in this rendering; with {LIMIT} tokens for the reply the "
                f"model can read {room:,}: shorten the prompt"
            )  # fmt: skip
        shown.append(_written(model, tokenizer, ids, f"{name}, {rendering}"))
    said = [_note(text) for text in notes(tokenizer, prompt)]
    both = beside(*shown)
    return View("".join(n.html for n in said) + both.html, "\n\n".join([*(n.text for n in said), both.text]))  # fmt: skip


def ask_both(base, chat, tokenizer, prompt: str) -> None:
    """A free prompt, answered by both models side by side."""
    controls = {
        "prompt": text_box(prompt, "Prompt (Enter to ask)"),
        "read": widgets.ToggleButtons(options=list(READ), description="read as", style=DESCRIBED),
    }
    explorer(
        controls,
        lambda prompt, read: replies(base, chat, tokenizer, prompt, read),
        lambda prompt, read: f"What both models write after {prompt!r}; {read}.",
    )
