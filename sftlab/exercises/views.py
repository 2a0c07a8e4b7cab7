"""Views that several exercises show: the tokens of a prompt, and views below each other."""

from __future__ import annotations

import html
from collections.abc import Sequence

from sftlab.chat import special_tokens
from sftlab.classroom.views import FONT, View, visible

TEXT = "background:rgba(128,128,128,.14);border:1px solid transparent;"
SPECIAL = "background:rgba(0,114,178,.18);border:1px solid #0072B2;font-weight:bold;"
CHANGED = "box-shadow:0 3px 0 #D55E00;"


def stacked(*views: View) -> View:
    """Return one view of several, below each other."""
    return View("".join(v.html for v in views), "\n\n".join(v.text for v in views))


def prompt_view(
    tokenizer, ids: Sequence[int], title: str, marked: tuple[int, int] = (0, 0)
) -> View:
    """Return a view of the tokens of a prompt. Special tokens are framed and bold (in the text form: ⟦…⟧).

    Args:
        marked: the tokens from the first to before the second are underlined: they differ from another prompt.
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
