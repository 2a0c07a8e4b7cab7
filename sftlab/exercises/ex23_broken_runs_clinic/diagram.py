"""The concept diagram of notebook 23: the stages of a run, and what each leaves behind to look at."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Six stages of a run from left to right: file, examples, training step, log, saved adapter, served model. "
    "Under each is what can be looked at: conversations, labels, a gradient, losses, weights, logits and answers. "
    "The losses are orange: they are what most people look at."
)
STAGES = (
    ("file", "conversations"),
    ("examples", "ids and labels"),
    ("training step", "a gradient"),
    ("log", "losses"),
    ("adapter", "weights"),
    ("served model", "logits, answers"),
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(900, 170, ALT)
    for number, (stage, left) in enumerate(STAGES):
        x = 20 + 147 * number
        made.box(x, 24, 116, 42, stage, fill="grey", bold=True)
        made.box(x, 96, 116, 36, left, fill="orange" if stage == "log" else "green")
        made.arrow(x + 58, 66, x + 58, 93, dashed=True)
        if number:
            made.arrow(x - 31, 45, x - 3, 45)
    made.text(20, 156, "Below: what each stage leaves behind. Orange is what most people look at.")
    return made.svg()
