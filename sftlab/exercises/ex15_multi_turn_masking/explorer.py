"""The explorer of notebook 15: edit a conversation, see its mask."""

from __future__ import annotations

from collections import Counter

import ipywidgets as widgets

from sftlab.chat import end_of_turn_id
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.rendering import token_roles
from sftlab.classroom.views import View, table, token_view
from sftlab.errors import WorkbookError
from sftlab.exercises.ex15_multi_turn_masking.experiment import mask_token
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example, mask_all_but_assistant

WAYS = {
    "every answer, with its end marker": mask_all_but_assistant,
    "only the last answer": build_example,
    "every answer, end markers masked": lambda tokenizer, talk: mask_token(
        [mask_all_but_assistant(tokenizer, talk)], end_of_turn_id(tokenizer)
    )[0],
    "everything": lambda tokenizer, talk: _everything(mask_all_but_assistant(tokenizer, talk)),
}


def _everything(example: Example) -> Example:
    return Example(example.input_ids, list(example.input_ids))


def edit_a_conversation(tokenizer) -> None:
    """Up to two exchanges and a system turn; four ways to mask them; counts by role."""

    def draw(way: str, system: str, first: str, reply: str, second: str, last: str) -> View:
        talk = [{"role": "system", "content": system}] if system.strip() else []
        for asked, told in ((first, reply), (second, last)):
            if bool(asked.strip()) != bool(told.strip()):
                raise WorkbookError("an exchange needs both a question and an answer, or neither")
            if asked.strip():
                talk += [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
        example = WAYS[way](tokenizer, talk)
        roles = [role for role, _ in token_roles(tokenizer, talk)]
        trained = Counter(
            role for role, label in zip(roles, example.labels, strict=True) if label != IGNORE_INDEX
        )
        rows = [[role, count, trained[role]] for role, count in Counter(roles).items()]
        tokens = token_view(tokenizer, example, f"{example.trained / len(example):.0%} of the row")
        counts = table(rows, ["role", "tokens", "trained"])
        return View(tokens.html + counts.html, f"{tokens.text}\n\n{counts.text}")

    controls = {
        "way": widgets.Dropdown(options=list(WAYS), description="train", style=DESCRIBED),
        "system": text_box("Be brief.", "System"),
        "first": text_box("What does the owl eat?", "User"),
        "reply": text_box("Mice.", "Assistant"),
        "second": text_box("And the frog?", "User"),
        "last": text_box("Insects.", "Assistant"),
    }
    explorer(
        controls,
        draw,
        lambda way, **_: f"The tokens of a conversation, trained: {way}.",
        continuous=True,
    )
