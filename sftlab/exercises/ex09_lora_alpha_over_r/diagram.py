"""The concept diagram of notebook 09: ΔW as a sum of r terms, and a factor in front."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "ΔW as a sum. Term 1 is column 1 of B times row 1 of A, term 2 is column 2 times row 2, and so on to "
    "term r. The r terms are added up and multiplied by a factor: α/r, α/√r or α. How large ΔW is, and "
    "how far it moves the output, is marked with question marks."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(830, 190, ALT)
    for y, name in ((12, "1"), (68, "2"), (136, "r")):
        made.box(10, y, 190, 40, f"column {name} of B\n× row {name} of A", fill="green")
        made.arrow(200, y + 20, 266, 92 + (y - 74) / 8)
    made.text(105, 127, "…", anchor="middle", bold=True)
    made.box(270, 70, 110, 46, "sum of r terms", bold=True)
    made.arrow(380, 93, 416, 93)
    made.box(420, 70, 130, 46, "× factor\nα/r, α/√r or α", fill="blue")
    made.arrow(550, 93, 586, 93)
    made.box(590, 70, 60, 46, "ΔW", fill="orange", bold=True)
    made.arrow(650, 86, 692, 58)
    made.arrow(650, 100, 692, 128)
    made.text(698, 56, "how large?")
    made.text(698, 136, "how far does\nthe output move?")
    return made.svg()
