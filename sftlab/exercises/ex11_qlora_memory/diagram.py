"""The concept diagram of notebook 11: a block of weights, its indices and scale, and the code."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A block of weights in 16 bits each, such as 0.021, −0.043, 0.007, becomes a row of indices of 4 bits "
    "each, such as 12, 0, 9, and one scale for the whole block, 0.043. An index points to one of 16 places "
    "on a line from −1 to 1; which 16 values stand there is a question mark. A weight is read back as "
    "value times scale."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(912, 268, ALT)
    made.text(20, 28, "a block of weights, 16 bits each", bold=True)
    made.strip(20, 42, ["0.021", "−0.043", "0.007", "−0.016", "…"], ["plain"] * 5)
    made.arrow(330, 56, 396, 56)
    made.text(410, 28, "an index of 4 bits for each", bold=True)
    made.strip(410, 42, ["12", "0", "9", "3", "…"], ["blue"] * 5)
    made.text(690, 28, "one scale for all", bold=True)
    made.strip(690, 42, ["0.043"], ["orange"])
    made.text(20, 128, "the code: 16 values, the same for every block", bold=True)
    made.arrow(438, 72, 590, 148)
    names = [str(i) for i in range(16)]
    made.strip(20, 152, names, ["blue" if n == "12" else "grey" for n in names])
    made.strip(20, 180, ["−1", *["?"] * 14, "1"], ["plain"] * 16)
    made.text(770, 200, "which values?", bold=True)
    made.text(20, 246, "read back:  weight ≈ value × scale", code=True)
    return made.svg()
