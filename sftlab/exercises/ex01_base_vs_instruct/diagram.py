"""The concept diagram of notebook 01: two models, two renderings of the same prompt."""

from __future__ import annotations

from sftlab.classroom.diagrams import CHARACTER, Diagram

RENDERED = (
    ("bare text", ("Capital of Mali?",), ("blue",)),
    (
        "chat template",
        ("<|im_start|>user⏎", "Capital of Mali?", "<|im_end|>⏎", "<|im_start|>assistant⏎"),
        ("grey", "blue", "grey", "grey"),
    ),
)
MODELS = (
    ("base", "pretrained on documents", "plain"),
    ("chat", "the base after fine-tuning\non prompts and responses", "green"),
)
ALT = (
    "Two renderings of one prompt, bare text and chat template, and a table of two models, base and "
    "chat, by the rendering that they read. In each of its four cells stands the same question: "
    "answered, continued, stopped or unrelated?"
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(745, 288, ALT)
    made.text(12, 22, "one prompt, two renderings", bold=True)
    for row, (name, parts, fills) in enumerate(RENDERED):
        y = 34 + 40 * row
        made.text(12, y + 18, name)
        widths = [len(part) * CHARACTER + 14 for part in parts]
        made.strip(122, y, parts, fills, widths=widths)
    made.text(12, 150, "two models", bold=True)
    for column, (name, _, _) in enumerate(RENDERED):
        made.text(400 + 230 * column, 150, f"reads {name}", anchor="middle", bold=True)
    for row, (name, about, fill) in enumerate(MODELS):
        y = 162 + 62 * row
        made.box(12, y, 230, 52, f"{name}: {about}", fill=fill)
        made.arrow(246, y + 26, 294, y + 26)
        for column in range(len(RENDERED)):
            made.box(300 + 230 * column, y, 200, 52, "answered? continued?\nstopped? unrelated?")
    return made.svg()
