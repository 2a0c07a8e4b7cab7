"""The concept diagram of notebook 24: padded sequences, and the same conversations in one sequence."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Above, three conversations in three sequences of a batch; the shorter two are filled up with padding. Below, "
    "the same three in one sequence without padding. An arrow with a question mark goes from a token of the "
    "second conversation back to the first: may it look there? Question marks stand where the positions of "
    "the second and third conversation begin."
)
LENGTHS = (6, 3, 2)
FILLS = ("blue", "green", "orange")
CELL = 46


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(720, 268, ALT)
    made.text(10, 24, "padded", bold=True)
    for number, (length, fill) in enumerate(zip(LENGTHS, FILLS, strict=True)):
        names = [f"{'abc'[number]}{k + 1}" for k in range(length)] + ["pad"] * (6 - length)
        made.strip(120, 8 + 32 * number, names, [fill] * length + ["grey"] * (6 - length))
    made.text(10, 176, "packed", bold=True)
    made.text(10, 218, "position", bold=True)
    x = 120
    for letter, length, fill in zip("abc", LENGTHS, FILLS, strict=True):
        made.strip(x, 158, [f"{letter}{k + 1}" for k in range(length)], [fill] * length)
        for k in range(length):
            number = str(k) if letter == "a" else "?" if k == 0 else ""
            made.text(x + CELL * (k + 0.5), 218, number, anchor="middle", code=True)
        x += CELL * length
    made.box(120 + CELL * 3.2, 112, CELL * 3.6, 26, "may b2 attend to a3?")
    made.arrow(120 + CELL * 7.5, 156, 120 + CELL * 6.86, 130, dashed=True)
    made.arrow(120 + CELL * 3.14, 130, 120 + CELL * 2.5, 156, dashed=True)
    made.text(
        120,
        250,
        "What must change so that a, b and c are trained as if each had a sequence of its own?",
    )
    return made.svg()
