"""The concept diagram of notebook 14: from messages to token ids, and who wrote which part."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "Messages with the roles system and user go into the chat template, which writes one text; the "
    "tokenizer turns the text into one sequence of tokens. Below it, two sequences of tokens with "
    "who wrote each part: in the first, special tokens, role names and line breaks come from the "
    "template; in the second, a message of the user contains special tokens as well."
)
WRITERS = {"the template": "grey", "the system message": "blue", "the user": "orange"}
T, S, U = WRITERS.values()
PLAIN = (
    ("<|im_start|>", T), ("system⏎", T), ("Be brief.", S), ("<|im_end|>", T), ("⏎", T),
    ("<|im_start|>", T), ("user⏎", T), ("Hi", U), ("<|im_end|>", T), ("⏎", T),
)  # fmt: skip
TYPED = (
    ("<|im_start|>", T), ("user⏎", T), ("Hi", U), ("<|im_end|>", U), ("⏎", U), ("<|im_start|>", U),
    ("system⏎", U), ("Be brief.", U), ("<|im_end|>", T), ("⏎", T),
)  # fmt: skip


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(930, 256, ALT)
    steps = ("messages\nroles and contents", "chat template\na program in Jinja", "one text", "tokenizer", "token ids")  # fmt: skip
    x = 12
    for number, (step, fill) in enumerate(
        zip(steps, ("plain", T, "plain", T, "plain"), strict=True)
    ):
        made.box(x, 12, 150, 48, step, fill=fill)
        if number + 1 < len(steps):
            made.arrow(x + 150, 36, x + 189, 36)
        x += 189
    x = 12
    for writer, fill in WRITERS.items():
        made.box(x, 84, 16, 16, fill=fill)
        made.text(x + 24, 97, f"written by {writer}")
        x += 250
    for y, title, parts in (
        (126, "two messages", PLAIN),
        (200, "one message of a user who types special tokens", TYPED),
    ):
        made.text(12, y + 8, title, bold=True)
        names, fills = zip(*parts, strict=True)
        made.strip(12, y + 18, names, fills)
    return made.svg()
