"""The explorer of notebook 15: edit a conversation, and see which of its tokens a choice trains."""

from __future__ import annotations

from collections import Counter

import ipywidgets as widgets

from sftlab.chat import end_of_turn_id
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.rendering import token_roles
from sftlab.classroom.views import View, table, token_view
from sftlab.errors import WorkbookError
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import last_only
from sftlab.exercises.ex15_multi_turn_masking.experiment import mask_token
from sftlab.exercises.ex15_multi_turn_masking.masks import mask_all_but_assistant
from sftlab.exercises.recipes import unmasked
from sftlab.loss import IGNORE_INDEX

EVERY, LAST = "every answer", "last answer only"
CHOICES = {
    EVERY: mask_all_but_assistant,
    LAST: lambda tokenizer, talk: mask_all_but_assistant(tokenizer, last_only(talk)),
    "end-of-turn token masked": lambda tokenizer, talk: mask_token(
        mask_all_but_assistant(tokenizer, talk), end_of_turn_id(tokenizer)
    ),
    "every token": lambda tokenizer, talk: unmasked(mask_all_but_assistant(tokenizer, talk)),
}


def edit_a_conversation(tokenizer) -> None:
    """Up to two exchanges and a system turn; four choices of what is trained; counts by role."""

    def draw(choice: str, system: str, first: str, reply: str, second: str, last: str) -> View:
        talk = [{"role": "system", "content": system}] if system.strip() else []
        for asked, told in ((first, reply), (second, last)):
            if bool(asked.strip()) != bool(told.strip()):
                raise WorkbookError("an exchange needs both a question and an answer, or neither")
            if asked.strip():
                talk += [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
        example = CHOICES[choice](tokenizer, talk)
        every = CHOICES[EVERY](tokenizer, talk).trained
        roles = [role for role, _ in token_roles(tokenizer, talk)]
        trained = Counter(
            role for role, label in zip(roles, example.labels, strict=True) if label != IGNORE_INDEX
        )
        rows = [[role, count, trained[role]] for role, count in Counter(roles).items()]
        share = f"{example.trained / every:.0%} of the tokens that “{EVERY}” trains"
        tokens, counts = (
            token_view(tokenizer, example, share),
            table(rows, ["role", "tokens", "trained"]),
        )
        return View(tokens.html + counts.html, f"{tokens.text}\n\n{counts.text}")

    controls = {
        "choice": widgets.Dropdown(options=list(CHOICES), value=LAST, description="train", style=DESCRIBED),
        "system": text_box("Be brief.", "System"),
        "first": text_box("What does the owl eat?", "User"),
        "reply": text_box("Mice.", "Assistant"),
        "second": text_box("And the frog?", "User"),
        "last": text_box("Insects.", "Assistant"),
    }  # fmt: skip
    explorer(
        controls,
        draw,
        lambda choice, **_: f"The tokens of a conversation; trained: {choice}.",
        continuous=True,
    )
