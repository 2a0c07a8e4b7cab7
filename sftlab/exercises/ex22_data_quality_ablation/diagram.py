"""The concept diagram of notebook 22: three training sets that differ in 200 answers."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Three training sets. All hold the same 500 good pairs. The first has nothing else. The second has 200 more "
    "pairs with bad answers. The third has the same 200 questions with right answers. Each set trains the same "
    "base with the same recipe, and the same held-out questions are asked afterwards."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(860, 210, ALT)
    sets = (
        ("", ""),
        ("200 bad answers", "orange"),
        ("the same 200 questions,\nright answers", "green"),
    )
    for row, (more, fill) in enumerate(sets):
        y = 12 + 66 * row
        made.box(12, y, 280, 46, "500 good pairs", fill="blue", bold=True)
        if more:
            made.box(294, y, 200, 46, more, fill=fill)
        made.arrow(500, y + 23, 556, y + 23)
        made.box(560, y, 130, 46, "the same base,\nthe same recipe")
        made.arrow(692, y + 23, 726, y + 23)
        made.box(730, y, 118, 46, "540 questions,\nheld out", fill="grey")
    return made.svg()
