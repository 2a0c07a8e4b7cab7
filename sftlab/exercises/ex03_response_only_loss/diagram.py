"""The concept diagram of notebook 03: the parts of an example, and which of them an arm trains."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram
from sftlab.exercises.ex03_response_only_loss.experiment import ARMS

TOKENS = (
    ("<|im_start|>", "template"), ("user", "template"), ("⏎", "template"), ("Capital", "question"),
    (" of Mali?", "question"), ("<|im_end|>", "template"), ("⏎", "template"),
    ("<|im_start|>", "template"), ("assistant", "template"), ("⏎", "template"), ("Bamako.", "response"),
    ("<|im_end|>", "response"),
)  # fmt: skip
FILLS = {"template": "grey", "question": "blue", "response": "green"}
ALT = (
    "One training example as a strip of tokens in three parts: the template (special tokens, role "
    "names, line breaks), the question, and the response with its end-of-turn token. Below it, four "
    "rows of labels: response only, response and question, response and template, everything. "
    "Tokens that a row doesn't train, and the first token of all, have the label −100."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(985, 232, ALT)
    names, parts = zip(*TOKENS, strict=True)
    left = 118
    made.text(12, 30, "input_ids", code=True, bold=True)
    widths = made.strip(left, 12, names, [FILLS[part] for part in parts])
    x = left
    for part, text in (
        ("template", "template"),
        ("question", "question"),
        ("response", "response"),
    ):
        made.box(x, 50, 16, 16, fill=FILLS[part])
        made.text(x + 22, 63, text)
        x += 110
    made.text(12, 92, "labels: which tokens carry the loss", bold=True)
    for row, (arm, trained) in enumerate(ARMS.items()):
        y = 102 + 31 * row
        made.text(12, y + 18, arm)
        keep = [place > 0 and part in trained for place, part in enumerate(parts)]
        labels = [name if kept else "−100" for name, kept in zip(names, keep, strict=True)]
        fills = [FILLS[p] if kept else "plain" for p, kept in zip(parts, keep, strict=True)]
        made.strip(left, y, labels, fills, height=26, widths=widths)
    return made.svg()
