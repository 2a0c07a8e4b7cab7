"""The concept diagram of notebook 20: two ways to compute a layer, and where the sum is stored."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Left: a layer with an adapter. The input x goes through W, and beside it through A and B; both are "
    "added to y. Middle: the same layer merged, with one weight W + s B A. Right: the numbers that 16 "
    "bits can store, as marks on a line. W lies on a mark, W + s B A between two: which one is stored?"
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(900, 190, ALT)
    made.text(20, 24, "not merged: three products", bold=True)
    made.box(20, 84, 36, 36, "x", bold=True)
    made.box(120, 40, 130, 40, "W", fill="grey", bold=True)
    made.box(100, 128, 70, 40, "A", fill="green", bold=True)
    made.box(200, 128, 70, 40, "B", fill="green", bold=True)
    made.box(316, 84, 36, 36, "y", bold=True)
    made.arrow(56, 94, 116, 66)
    made.arrow(250, 62, 312, 94)
    made.arrow(56, 112, 98, 140)
    made.arrow(170, 148, 197, 148)
    made.arrow(270, 146, 313, 114)
    made.text(400, 24, "merged: one product", bold=True)
    made.box(392, 84, 36, 36, "x", bold=True)
    made.box(456, 80, 110, 44, "W + s·BA", fill="orange", bold=True)
    made.box(596, 84, 36, 36, "y", bold=True)
    made.arrow(428, 102, 453, 102)
    made.arrow(566, 102, 593, 102)
    made.text(668, 24, "stored in 16 bits", bold=True)
    for mark in range(4):
        made.box(674 + 62 * mark, 106, 3, 28, fill="grey")
    made.box(668, 118, 200, 4, fill="grey")
    made.text(737, 92, "W", bold=True, anchor="middle")
    made.text(763, 66, "W + s·BA", bold=True, anchor="start")
    made.arrow(763, 72, 763, 114, dashed=True)
    made.text(668, 160, "one entry: to which mark?")
    return made.svg()
