"""The concept diagram of notebook 10: what one step of AdamW moves, with and without LoRA."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Two rows. Full fine-tuning: the learning rate sets the step of every entry of W. LoRA: the learning "
    "rate sets the step of every entry of A and B, their product times alpha over r is added to W, and "
    "how far W moves is marked with a question mark."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(760, 190, ALT)
    for y, name in ((20, "full fine-tuning"), (110, "LoRA")):
        made.text(10, y + 24, name.replace(" ", "\n"), bold=True)
        made.box(120, y, 130, 50, "learning rate", fill="orange")
    made.arrow(250, 45, 586, 45)
    made.box(590, 20, 150, 50, "step of W", fill="green", bold=True)
    made.arrow(250, 135, 286, 135)
    made.box(290, 110, 130, 50, "steps of A, B", fill="green")
    made.arrow(420, 135, 456, 135)
    made.box(460, 110, 90, 50, "× α/r", fill="blue")
    made.arrow(550, 135, 586, 135)
    made.box(590, 110, 150, 50, "step of W: ?", fill="green", bold=True)
    return made.svg()
