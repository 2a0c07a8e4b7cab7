"""The concept diagram of notebook 06: what a training holds in memory, what it stores, what it changes."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Full fine-tuning above, LoRA below. Each has five boxes: weights, gradients, optimizer state, "
    "activations, and a file per task. Above, the weights are trained. Below, the "
    "weights are frozen, A and B are trained beside them, and the other boxes hold question marks."
)
PARTS = ("gradients", "optimizer state", "activations", "file per task")


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(760, 250, ALT)
    for y, name in ((30, "full fine-tuning"), (130, "LoRA")):
        full = y == 30
        made.text(10, y + 24, name.replace(" ", "\n"), bold=True)
        made.box(100, y, 120, 50, "weights,\ntrained" if full else "weights,\nfrozen", fill="green" if full else "grey")  # fmt: skip
        if not full:
            made.box(100, y + 56, 120, 26, "A, B, trained", fill="green")
        for k, part in enumerate(PARTS):
            made.box(235 + 130 * k, y, 120, 50, part if full else f"{part}: ?", fill="blue" if k < 3 else "orange")  # fmt: skip
    made.text(100, 20, "in memory during training", size=12)
    made.text(625, 20, "on disk", size=12)
    made.text(10, 238, "And what is left of what the base knew, once both have learned the same?")
    return made.svg()
