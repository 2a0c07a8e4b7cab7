"""The concept diagram of notebook 25: a conversation with a call and a thought, and who writes which part."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A conversation as boxes from left to right: the question, written by the user; a thought and a call, written "
    "by the model; the result, written by the tool; a thought and the answer, written by the model. An arrow goes "
    "from the call to the tool and from its result back. Below each box stands a question mark: is it trained?"
)
BOXES = (
    ("question", "user", "grey"), ("thought", "model", "blue"), ("call", "model", "blue"),
    ("result", "tool", "orange"), ("thought", "model", "blue"), ("answer", "model", "blue"),
)  # fmt: skip


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(900, 190, ALT)
    width, gap, y = 124, 24, 40
    for number, (name, writer, fill) in enumerate(BOXES):
        x = 12 + number * (width + gap)
        middle = x + width / 2
        made.text(middle, 26, f"the {writer} writes", size=12, anchor="middle")
        made.box(x, y, width, 44, name, fill=fill, bold=True)
        made.arrow(middle, y + 92, middle, y + 48, dashed=True)
        made.text(middle, y + 112, "trained?", anchor="middle")
        if number + 1 < len(BOXES):
            made.arrow(x + width, y + 22, x + width + gap - 4, y + 22)
    return made.svg()
