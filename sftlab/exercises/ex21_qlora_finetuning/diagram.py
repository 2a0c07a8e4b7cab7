"""The concept diagram of notebook 21: LoRA and QLoRA, and what a training step holds."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Two layers. LoRA: x goes through W in 16 bits to y, and beside it through A and B. QLoRA: the same, but W "
    "is stored in 4 bits and unpacked when the layer is used. Below: linear layers, embedding and head, A and B, "
    "gradients, moments of AdamW, and what is saved for the backward pass; in which dtype each is held is asked."
)
HELD = (
    ("linear layers", 130, "blue"),
    ("embedding, head", 140, "grey"),
    ("A and B", 100, "green"),
    ("gradients", 110, "green"),
    ("moments of AdamW", 170, "green"),
    ("saved for backward", 170, "grey"),
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(900, 236, ALT)
    for left, name in ((20, "LoRA"), (470, "QLoRA")):
        made.text(left, 24, name, bold=True)
        made.box(left, 46, 36, 36, "x", bold=True)
        made.arrow(left + 36, 64, left + 76, 64)
        if name == "LoRA":
            made.box(left + 80, 44, 250, 40, "W in 16 bits", fill="blue")
        else:
            made.box(left + 80, 44, 100, 40, "W in 4 bits", fill="blue")
            made.arrow(left + 180, 64, left + 206, 64)
            made.box(left + 210, 44, 120, 40, "W, unpacked")
        made.arrow(left + 330, 64, left + 370, 64)
        made.box(left + 374, 46, 36, 36, "y", bold=True)
        made.box(left + 110, 108, 70, 34, "A", fill="green", bold=True)
        made.box(left + 230, 108, 70, 34, "B", fill="green", bold=True)
        made.arrow(left + 36, 76, left + 106, 122)
        made.arrow(left + 180, 125, left + 226, 125)
        made.arrow(left + 300, 122, left + 372, 78)
    made.text(20, 178, "held during a training step: in which dtype?", bold=True)
    left = 20
    for name, width, fill in HELD:
        made.box(left, 190, width, 34, name, fill=fill)
        left += width + 8
    return made.svg()
