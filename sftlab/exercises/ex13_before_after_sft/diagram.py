"""The concept diagram of notebook 13: three ways to ask a base, and a control."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Four ways to ask the same held-out question. First: the base as it is. Second: the base after "
    "four examples in its prompt, without training. Third: the base after 24 training steps on 32 "
    "pairs. Fourth, the control: the same training on pairs whose answers name wrong values."
)
ROWS = (
    ("base", "grey", "", "question"),
    ("few-shot", "grey", "", "4 pairs, question"),
    ("32 pairs", "green", "24 steps on 32 pairs\n“The symbol for rhodium is Rh.”", "question"),
    ("wrong values", "orange", "24 steps on the same pairs\n“The symbol for rhodium is Hg.”", "question"),
)  # fmt: skip


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(880, 270, ALT)
    made.text(150, 24, "training", bold=True)
    made.text(452, 24, "prompt", bold=True)
    made.text(652, 24, "held-out questions", bold=True)
    for row, (arm, fill, training, prompt) in enumerate(ROWS):
        y = 36 + 58 * row
        made.text(12, y + 26, arm, bold=True)
        if training:
            made.box(120, y, 250, 42, training, fill=fill, size=12)
            made.arrow(372, y + 21, 448, y + 21)
        else:
            made.text(150, y + 26, "none")
        made.box(452, y, 140, 42, prompt, fill="blue", size=12)
        made.arrow(594, y + 21, 648, y + 21)
        made.box(652, y, 216, 42, "right fact?   exactly right?", size=12)
    return made.svg()
