"""The concept diagram of notebook 19: what a training step holds, from when to when."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A training step in three phases from left to right: forward pass, backward pass, optimizer step. Four rows "
    "below it. Weights and optimizer state are held through all three phases. Activations are made in the forward "
    "pass and used up in the backward pass; gradients are made in the backward pass and held until "
    "they are set to zero. Where their sum is highest is a question mark."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(912, 272, ALT)
    for place, phase in enumerate(("forward pass", "backward pass", "optimizer step")):
        made.box(190 + 236 * place, 16, 228, 36, phase, bold=True)
    made.text(20, 90, "weights", bold=True)
    made.box(190, 72, 700, 28, "held all the time", fill="grey")
    made.text(20, 130, "optimizer state", bold=True)
    made.box(190, 112, 700, 28, "held all the time", fill="grey")
    made.text(20, 170, "activations", bold=True)
    made.box(190, 152, 228, 28, "made, one by one", fill="green")
    made.box(426, 152, 228, 28, "used up", fill="plain")
    made.text(20, 210, "gradients", bold=True)
    made.box(426, 192, 228, 28, "made, one by one", fill="orange")
    made.box(662, 192, 228, 28, "held until zero_grad", fill="orange")
    made.text(540, 254, "When is the sum highest, and how high?", bold=True, anchor="middle")
    return made.svg()
