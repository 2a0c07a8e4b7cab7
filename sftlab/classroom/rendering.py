"""Views of chat template renderings: token tables and differences between two sequences."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from sftlab.chat import Message, difference, encode, special_tokens
from sftlab.classroom.views import FONT, View, table, visible

SPECIAL = "background:rgba(0,114,178,.20);border:1px solid #0072b2;font-weight:600;"
PLAIN = "background:rgba(128,128,128,.10);border:1px solid transparent;"
MISSING = "background:rgba(213,94,0,.20);border:1px solid #d55e00;text-decoration:line-through;"
ADDED = "background:rgba(230,159,0,.28);border:1px solid #b07d00;font-weight:600;"


def token_roles(
    tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
) -> list[tuple[str, int]]:
    """Return each token id of the rendering with the role whose message added it.

    Renders one more message at a time; the added tokens belong to that message. Tokens of the
    generation prompt have the role "(generation prompt)".
    """
    found: list[tuple[str, int]] = []
    for k in range(1, len(messages) + 1):
        ids = encode(tokenizer, list(messages[:k]))
        found += [(messages[k - 1]["role"], token) for token in ids[len(found) :]]
    if add_generation_prompt:
        ids = encode(tokenizer, list(messages), add_generation_prompt=True)
        found += [("(generation prompt)", token) for token in ids[len(found) :]]
    return found


def token_table(
    tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
) -> View:
    """Return a table of the tokens: position, role, text, id, and whether the token is special."""
    special = set(tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer))))
    rows = [
        [place, role, visible(tokenizer.decode([token])), token, "special" if token in special else ""]
        for place, (role, token) in enumerate(token_roles(tokenizer, messages, add_generation_prompt))
    ]  # fmt: skip
    return table(rows, ["#", "role", "token", "id", ""])


def _span(text: str, style: str, title: str = "") -> str:
    shown = html.escape(visible(text))
    return (
        f'<span title="{html.escape(title, quote=True)}" style="{style}{FONT}padding:1px 3px;margin:1px;'
        f'border-radius:3px;display:inline-block">{shown}</span>'
    )


def ids_view(tokenizer, ids: Sequence[int], title: str) -> View:
    """Return a view of a token sequence, with special tokens framed and bold.

    In plain text, special tokens are [in brackets].
    """
    special = set(tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer))))
    spans, text = [], []
    for token in ids:
        word = tokenizer.decode([token])
        spans.append(_span(word, SPECIAL if token in special else PLAIN, f"id {token}"))
        spans.append("<br>" if word.endswith("\n") else "")
        text.append(f"[{visible(word)}]" if token in special else visible(word))
    count = sum(token in special for token in ids)
    head = f"{title}: {len(ids)} tokens, {count} of them special"
    return View(
        f'<p style="margin:.3em 0"><b>{html.escape(head)}</b></p>'
        f'<div style="line-height:2">{"".join(spans)}</div>',
        f"{head}\n{' '.join(text)}",
    )


def difference_view(
    right: Sequence, wrong: Sequence, title: str, show: Callable[[object], str] = str
) -> View:
    """Return a view of what is missing from ``wrong`` (struck out) and what it has instead (bold).

    Long equal parts are shortened to their ends. In plain text, the marks are [-missing-] and
    {+added+}.

    Args:
        show: converts one item to text, such as the tokenizer's ``decode`` for ids.
    """
    spans, text = [], []
    missing = added = 0
    for what, a, b in difference(right, wrong):
        if what == "equal":
            kept = [show(item) for item in a]
            if len(kept) > 12:
                kept = [*kept[:4], "…", *kept[-4:]]
            spans += [_span(item, PLAIN) for item in kept]
            text += [visible(item) for item in kept]
            continue
        missing, added = missing + len(a), added + len(b)
        spans += [_span(show(item), MISSING, "missing") for item in a]
        spans += [_span(show(item), ADDED, "added") for item in b]
        text += [f"[-{visible(show(item))}-]" for item in a]
        text += [f"{{+{visible(show(item))}+}}" for item in b]
    head = f"{title}: {missing} missing, {added} added"
    head = f"{title}: no difference" if not missing + added else head
    return View(
        f'<p style="margin:.3em 0"><b>{html.escape(head)}</b></p>'
        f'<div style="line-height:2">{"".join(spans)}</div>',
        f"{head}\n{' '.join(text)}",
    )


def compare_ids(right: Sequence[int], wrong: Sequence[int]) -> tuple[int, int]:
    """Return how many items of ``right`` are missing from ``wrong``, and how many it adds."""
    parts = [part for part in difference(right, wrong) if part[0] != "equal"]
    return sum(len(a) for _, a, _ in parts), sum(len(b) for _, _, b in parts)
