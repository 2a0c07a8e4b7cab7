"""The concept diagram of notebook 13: four ways to ask a base, two trainings."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Six ways to ask the same held-out question. Without training: in the chat template, in the "
    "template after four examples, between Q and A, and between Q and A after four examples. After "
    "24 training steps, in the template: on 32 pairs, or on the same pairs with wrong values."
)
ROWS = (
    ("base", "grey", "", "template"),
    ("template, 4 examples", "grey", "", "4 pairs, template"),
    ("Q and A", "grey", "", "Q: … A:"),
    ("Q and A, 4 examples", "grey", "", "4 pairs, Q: … A:"),
    ("32 pairs", "green", "24 steps on 32 pairs\n“The symbol for rhodium is Rh.”", "template"),
    ("wrong values", "orange", "24 steps on the same pairs\n“The symbol for rhodium is Hg.”", "template"),
)  # fmt: skip


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(930, 356, ALT)
    made.text(190, 24, "training", bold=True)
    made.text(502, 24, "prompt", bold=True)
    made.text(702, 24, "held-out questions", bold=True)
    for row, (arm, fill, training, prompt) in enumerate(ROWS):
        y = 36 + 53 * row
        made.text(12, y + 26, arm, bold=True)
        if training:
            made.box(170, y, 250, 42, training, fill=fill, size=12)
            made.arrow(422, y + 21, 498, y + 21)
        else:
            made.text(190, y + 26, "none")
        made.box(502, y, 140, 42, prompt, fill="blue", size=12)
        made.arrow(644, y + 21, 698, y + 21)
        made.box(702, y, 216, 42, "right fact?   exactly right?", size=12)
    return made.svg()
