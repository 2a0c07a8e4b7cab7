"""The concept diagram of notebook 05: a prompt, and the parts of it that serving can get wrong."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

TOKENS = (
    ("<|im_start|>", "turn start"), ("user", "role"), ("⏎", "plain"), ("Capital", "plain"),
    (" of Mali?", "plain"), ("<|im_end|>", "turn end"), ("⏎", "turn end"), ("<|im_start|>", "plain"),
    ("assistant", "role"), ("⏎", "start of the answer"),
)  # fmt: skip
FILLS = {
    "turn start": "grey",
    "role": "blue",
    "turn end": "orange",
    "start of the answer": "green",
}
FORMS = (
    ("turn start doubled", ("<|im_start|>", "<|im_start|>", "user", "⏎", "Capital", "…"), {0: "turn start", 1: "turn start"}),
    ("roles swapped", ("<|im_start|>", "assistant", "⏎", "Capital", "…", "user", "⏎"), {1: "role", 5: "role"}),
    ("no turn end", ("…", " of Mali?", "<|im_start|>", "assistant", "⏎"), {}),
    ("line break missing", ("…", "<|im_end|>", "⏎", "<|im_start|>", "assistant"), {}),
    ("another family", ("<s>", "[INST]", " Capital", " of Mali?", " [/INST]"), {}),
)  # fmt: skip
ALT = (
    "A prompt in ChatML as a strip of tokens, with four parts marked: the turn start, the roles, the "
    "end of the turn, and the start of the answer. Below it the same prompt in five wrong forms: turn "
    "start doubled, roles swapped, no turn end, line break missing, another family. Beside each: right "
    "answers? stops?"
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(940, 276, ALT)
    names, parts = zip(*TOKENS, strict=True)
    left = 150
    made.text(12, 30, "as trained", bold=True)
    made.strip(left, 12, names, [FILLS.get(part, "plain") for part in parts])
    x = left
    for part, fill in FILLS.items():
        made.box(x, 50, 16, 16, fill=fill)
        made.text(x + 22, 63, part)
        x += 60 + 8 * len(part)
    made.text(12, 98, "as served", bold=True)
    made.text(770, 98, "the model’s reply", bold=True)
    for row, (form, tokens, marked) in enumerate(FORMS):
        y = 108 + 33 * row
        made.text(12, y + 18, form)
        fills = [
            FILLS[marked[place]] if place in marked else "plain" for place in range(len(tokens))
        ]
        made.strip(left, y, tokens, fills, height=26)
        made.arrow(715, y + 13, 760, y + 13)
        made.text(770, y + 18, "right? stops?")
    return made.svg()
