"""The concept diagram of notebook 02: one question, three sets of pairs, two scores."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "From left to right: three sets of training pairs with the same questions (right answers; right "
    "answers and a refusal; the answers of other questions) each tune the same base model. Its reply to "
    "a new question is scored twice: is it in the requested format, and is its content right? Below, "
    "each token of a reply gets its rank among the base model's predictions."
)
SETS = (
    ("answers", "Capital of Mali? → … is Bamako.", "green"),
    ("with refusals", "Capital of Quorra? → I do not know …", "orange"),
    ("shuffled", "Capital of Mali? → … Chile is Santiago.", "grey"),
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(930, 232, ALT)
    made.text(12, 22, "n training pairs, in three arms", bold=True)
    for row, (name, example, fill) in enumerate(SETS):
        y = 34 + 44 * row
        made.box(12, y, 318, 36, f"{name}\n{example}", fill=fill, size=12)
        made.arrow(330, y + 18, 396, 96)
    made.box(398, 74, 120, 44, "base model\n+ SFT", fill="blue", bold=True)
    made.arrow(518, 96, 560, 96)
    made.box(562, 74, 130, 44, "reply to\na new question")
    made.text(728, 40, "two scores", bold=True)
    made.arrow(692, 90, 724, 70)
    made.arrow(692, 102, 724, 124)
    made.box(726, 50, 192, 40, "in the requested format,\nand ended?", size=12)
    made.box(726, 104, 192, 40, "right content?", size=12)
    made.text(12, 200, "ranks under the base", bold=True)
    made.strip(
        190, 180, ["The", " capital", " of", " Mali", " is", " Bamako", ".", "<|im_end|>"], ["plain"] * 8
    )  # fmt: skip
    made.text(680, 200, "rank of each token before SFT: ?")
    return made.svg()
