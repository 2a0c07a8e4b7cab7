"""Notebook 12: type a pair, see its mask."""

from __future__ import annotations

from sftlab.chat import user
from sftlab.classroom.explorer import explorer, text_box
from sftlab.classroom.views import View, token_view
from sftlab.masking import build_example


def mask_a_pair(tokenizer) -> None:
    """Type a pair, see which tokens are trained."""

    def draw(prompt: str, response: str) -> View:
        example = build_example(
            tokenizer, [*user(prompt), {"role": "assistant", "content": response}]
        )
        share = example.trained / len(example)
        return token_view(tokenizer, example, f"{share:.0%} of the example is trained")

    controls = {
        "prompt": text_box("List three tips for a job interview:", "Prompt", height="3.5em"),
        "response": text_box(
            "1. Arrive ten minutes early.\n2. Dress neatly and professionally.",
            "Response",
            height="4.5em",
        ),
    }
    explorer(
        controls,
        draw,
        lambda prompt, response: (
            f"The tokens of the pair {prompt!r} and {response!r}, masked and trained."
        ),
        continuous=True,
    )
