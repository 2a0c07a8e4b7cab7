"""The concept diagram of notebook 17: a LoRA layer, with the places where it can be wrong, and a test."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A LoRA layer. The input x goes through the frozen base, with weight W and bias, and beside it through "
    "dropout, A, B and the factor. Both results are added to y. Seven numbered places can be wrong: 1 the base, "
    "2 dropout, 3 A, 4 B, 5 the factor, 6 the sum, 7 the gradient on its way back. Below it, a test takes a class "
    "and accepts or refuses it."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(880, 268, ALT)
    made.box(20, 74, 50, 40, "x", bold=True)
    made.box(250, 20, 230, 46, "① base: W and bias, frozen", fill="grey", bold=True)
    made.box(130, 122, 110, 46, "② dropout", bold=True)
    made.box(285, 122, 70, 46, "③ A", fill="green", bold=True)
    made.box(400, 122, 70, 46, "④ B", fill="orange", bold=True)
    made.box(515, 122, 110, 46, "⑤ factor", fill="blue", bold=True)
    made.box(680, 74, 64, 40, "⑥ +", bold=True)
    made.box(800, 74, 50, 40, "y", bold=True)
    for x, y, to_x, to_y in (
        (70, 86, 246, 46), (480, 44, 676, 86), (70, 102, 126, 138), (240, 145, 281, 145), (355, 145, 396, 145),
        (470, 145, 511, 145), (625, 140, 676, 108), (744, 94, 796, 94),
    ):  # fmt: skip
        made.arrow(x, y, to_x, to_y)
    made.arrow(800, 120, 632, 160, dashed=True)
    made.text(728, 158, "⑦ gradient\non its way back")
    made.box(130, 206, 110, 40, "a class", bold=True)
    made.box(320, 206, 150, 40, "your test", fill="green", bold=True)
    made.box(550, 206, 200, 40, "accepted, or refused", bold=True)
    made.arrow(240, 226, 316, 226)
    made.arrow(470, 226, 546, 226)
    return made.svg()
