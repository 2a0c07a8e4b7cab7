"""The concept diagram of notebook 07: a weight, its update, and the two thin matrices of LoRA."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "On the left full fine-tuning: a weight W, d_out by d_in, plus an update ΔW of the same size. On the "
    "right LoRA: the same W, plus the product of a tall thin matrix B, d_out by r, and a flat one, A, r by "
    "d_in. A question mark stands between both updates."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(912, 216, ALT)
    made.text(20, 28, "full fine-tuning", bold=True)
    made.box(20, 58, 150, 112, "W", fill="grey", bold=True)
    made.text(190, 120, "+", size=20)
    made.box(220, 58, 150, 112, "ΔW", fill="blue", bold=True)
    made.text(295, 194, "d_in", anchor="middle")
    made.text(378, 120, "d_out")
    made.text(462, 122, "?", size=30, bold=True, anchor="middle")
    made.text(510, 28, "LoRA", bold=True)
    made.box(510, 58, 150, 112, "W", fill="grey", bold=True)
    made.text(674, 120, "+", size=20)
    made.box(700, 58, 22, 112, "B", fill="orange", bold=True)
    made.text(728, 120, "·", size=20)
    made.box(742, 58, 150, 22, "A", fill="green", bold=True)
    made.text(711, 194, "d_out × r", anchor="middle")
    made.text(817, 102, "r × d_in", anchor="middle")
    return made.svg()
