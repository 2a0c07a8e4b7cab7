"""The concept diagram of notebook 12: a prompt and its answer, the border between them, the labels."""

from __future__ import annotations

from sftlab.classroom.diagrams import LINE, Diagram

TOKENS = ("<|im_start|>", "user", "⏎", "Hot?", "<|im_end|>", "⏎", "<|im_start|>", "assistant", "⏎",
          "Cold", ".", "<|im_end|>", "⏎")  # fmt: skip
PROMPT, END = 9, 12
ALT = (
    "One training example as a strip of tokens above its labels. A dashed line, the border, divides it "
    "after the assistant header. The prompt on its left has the label −100 everywhere. On its right, "
    "the answer and its end-of-turn token have labels, and the newline after them has none."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(1010, 176, ALT)
    trained = [PROMPT <= place < END for place in range(len(TOKENS))]
    made.text(12, 64, "input_ids", code=True, bold=True)
    made.text(12, 126, "labels", code=True, bold=True)
    widths = made.shifted_labels(96, 46, TOKENS, trained)
    border = 96 + sum(widths[:PROMPT])
    made.text(border - 8, 28, "prompt, with the assistant header", anchor="end")
    made.text(border + 8, 28, "answer")
    made.parts.append(
        f'<path d="M{border:g},14 V150" stroke="{LINE}" stroke-width="2" stroke-dasharray="6 4"/>'
    )
    made.text(border, 166, "the border", anchor="middle", bold=True)
    return made.svg()
