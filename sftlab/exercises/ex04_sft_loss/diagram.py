"""The concept diagram of notebook 04: one example, its labels, and the shift by one position."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

TOKENS = ("<|im_start|>", "user", "⏎", "2 + 2?", "<|im_end|>", "⏎", "<|im_start|>", "assistant", "⏎",
          "Four", ".", "<|im_end|>")  # fmt: skip
ALT = (
    "One training example as a strip of twelve tokens, with its labels below. The prompt and the "
    "assistant header have the label −100. The three tokens of the response, Four, the full stop and "
    "the end-of-turn token, have their own ids as labels. An arrow leads to each of them from the "
    "token one position before it, whose logits predict it."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(980, 150, ALT)
    made.text(12, 42, "input_ids", code=True, bold=True)
    made.text(12, 104, "labels", code=True, bold=True)
    made.shifted_labels(96, 24, TOKENS, [place > 8 for place in range(len(TOKENS))])
    made.text(96, 138, "Arrow: the logits at one position predict the token at the next position. "
              "−100: no prediction is scored here.")  # fmt: skip
    return made.svg()
