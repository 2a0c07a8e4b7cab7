"""The concept diagram of notebook 08: the way forward and back through A and B."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A LoRA layer. The input x goes through the frozen weight W, and beside it through A and then B. "
    "Both results are added to y. Dashed arrows show the gradient on its way back: from y through B to "
    "A. A and B are marked with question marks: zero, or random?"
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(760, 210, ALT)
    made.box(20, 82, 60, 40, "x", bold=True)
    made.box(300, 20, 150, 46, "W, frozen", fill="grey", bold=True)
    made.box(200, 130, 110, 46, "A: ?", fill="green", bold=True)
    made.box(440, 130, 110, 46, "B: ?", fill="orange", bold=True)
    made.box(650, 82, 60, 40, "y", bold=True)
    made.arrow(80, 94, 296, 46)
    made.arrow(450, 44, 646, 94)
    made.arrow(80, 110, 196, 146)
    made.arrow(310, 148, 436, 148)
    made.arrow(550, 148, 646, 112)
    made.arrow(660, 124, 556, 168, dashed=True)
    made.arrow(436, 166, 314, 166, dashed=True)
    made.text(
        200, 200, "solid: forward.   dashed: the gradient.   ? : zero or random, small or large"
    )
    return made.svg()
