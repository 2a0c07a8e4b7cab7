"""The concept diagram of notebook 26: the way from a file to a server, with five gates."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "The way of a model: your file, split, training, merged model, GGUF file, server. Between them stand "
    "five gates: data, leak, score, answers and template. The template is used twice, in training and by "
    "the server, and a question mark asks whether it is the same."
)
STEPS = ("your file", "split", "training", "merge", "GGUF file", "server")
GATES = {0: "data", 1: "leak", 2: "score", 4: "answers"}  # before which step's end


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(972, 200, ALT)
    width, gap, y = 104, 62, 20
    for number, step in enumerate(STEPS):
        x = 12 + number * (width + gap)
        fill = "blue" if step in ("training", "server") else "grey"
        made.box(x, y, width, 46, step, fill=fill, bold=True)
        if number + 1 < len(STEPS):
            made.arrow(x + width, y + 23, x + width + gap - 4, y + 23)
        if number in GATES:
            made.box(x + width - 8, y + 56, gap + 16, 28, GATES[number], fill="orange")
    training, server = (12 + k * (width + gap) + width / 2 for k in (2, 5))
    middle = (training + server) / 2
    for x in (training, server):
        made.arrow(x, 150, x, y + 50, dashed=True)
        made.box(x - 62, 150, 124, 34, "chat template", fill="green")
    made.box(middle - 90, 150, 180, 34, "template: the same?", fill="orange")
    return made.svg()
