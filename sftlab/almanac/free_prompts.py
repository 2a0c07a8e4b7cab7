"""Free prompts: what a class types first, and whether a reply fits.

``data/instructions/free_prompts.jsonl`` was written by hand, before and apart from the training
pairs of ``out_of_scope``. Each row has a ``prompt``, a ``kind`` and ``fits``, the types of reply
that fit: greeting, thanks, self (says what it is or what can be asked), decline (says that it does
not know) or fact. A fact must name what ``must`` lists, and nothing of ``must_not``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import read_jsonl
from sftlab.generate import Generation, answer
from sftlab.scoring import repeats, right_content

FILE = INSTRUCTIONS / "free_prompts.jsonl"
# Tried in this order; whatever is none of these is a statement.
TYPES = {
    "decline": r"\b(do not|don't|cannot|can't|can not) (know|say|tell|answer|help|speak|do)\b",
    "thanks": r"^(you are|you're) (very )?welcome\b|\bi am glad\b",
    "self": r"\bi am (a|an|the)\b|\bmy name\b",
    "greeting": r"^(hello|hi|hey|good (day|morning|evening|night)|goodbye|welcome)\b|^you can ask\b",
}


@cache
def free_prompts() -> tuple[dict, ...]:
    """Return the rows of the file."""
    return tuple(read_jsonl(FILE))


def halves() -> tuple[list[dict], list[dict]]:
    """Return half of the prompts of each kind, to choose settings on, and the other half."""
    choosing, telling = [], []
    for kind in dict.fromkeys(row["kind"] for row in free_prompts()):
        rows = [row for row in free_prompts() if row["kind"] == kind]
        Random(f"halves:{kind}").shuffle(rows)
        choosing += rows[: len(rows) // 2]
        telling += rows[len(rows) // 2 :]
    return choosing, telling


def reply_type(text: str) -> str:
    """Return the type of a reply: decline, thanks, self, greeting, statement or nothing."""
    if not text.strip():
        return "nothing"
    found = (name for name, form in TYPES.items() if re.search(form, text.strip(), re.IGNORECASE))
    return next(found, "statement")


def fits(row: dict, reply: Generation) -> bool:
    """Return whether a reply fits: it ends, does not repeat itself and is of a type that fits."""
    if not reply.stopped or repeats(reply.text):
        return False
    found = reply_type(reply.text)
    return found in row["fits"] or (
        "fact" in row["fits"] and found == "statement" and right_content({**row, "answer": ""}, reply.text)
    )  # fmt: skip


def judged(model, tokenizer, rows: Sequence[dict] | None = None) -> list[dict]:
    """Let a chat model answer free prompts; return the rows with ``reply``, ``type``, ``fitting``."""
    rows = free_prompts() if rows is None else rows
    replies = answer(model, tokenizer, [row["prompt"] for row in rows], max_new_tokens=40)
    return [
        {**row, "reply": reply.text, "type": reply_type(reply.text), "fitting": fits(row, reply)}
        for row, reply in zip(rows, replies, strict=True)
    ]


def by_kind(found: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """Return kind -> (fitting replies, prompts)."""
    kinds = dict.fromkeys(row["kind"] for row in found)
    some = {kind: [row["fitting"] for row in found if row["kind"] == kind] for kind in kinds}
    return {kind: (sum(values), len(values)) for kind, values in some.items()}
