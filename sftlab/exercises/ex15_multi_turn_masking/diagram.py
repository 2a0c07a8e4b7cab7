"""The concept diagram of notebook 15: one conversation, and four choices of what is trained in it."""

from __future__ import annotations

from collections.abc import Callable

from sftlab.classroom.diagrams import Diagram

TURNS = (
    ("system", "Be brief."),
    ("user", "The owl eats?"),
    ("assistant", "Mice."),
    ("user", "The cow?"),
    ("assistant", "Grass."),
)
FILLS = {"system": "grey", "user": "blue", "assistant": "green"}
# choice -> whether a part of a turn is trained: (role, part, number of the turn)
CHOICES: dict[str, Callable[[str, str, int], bool]] = {
    "every token": lambda role, part, turn: True,
    "every answer": lambda role, part, turn: role == "assistant" and part != "header",
    "last answer only": lambda role, part, turn: turn == len(TURNS) - 1 and part != "header",
    "end token masked": lambda role, part, turn: role == "assistant" and part == "text",
}
ALT = (
    "One conversation as a strip: a system turn, a user turn, an assistant turn, a user turn and a "
    "second assistant turn. Each turn has a header, a text and an end-of-turn token. Below it, four "
    "rows of labels: every token, every answer, the last answer only, and every answer without its "
    "end-of-turn token. Parts that a row doesn't train have the label −100."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(962, 236, ALT)
    parts = [
        (role, part, text, turn)
        for turn, (role, words) in enumerate(TURNS)
        for part, text in (("header", f"<{role}>"), ("text", words), ("end", "<end>"))
    ]
    widths = [max(38, len(text) * 6.4 + 8) for _, _, text, _ in parts]
    left = 138

    def strip(y: float, name: str, kept: Callable[[str, str, int], bool] | None) -> None:
        made.text(12, y + 18, name, bold=kept is None)
        x = left
        for (role, part, text, turn), width in zip(parts, widths, strict=True):
            on = kept is None or kept(role, part, turn)
            fill = (FILLS[role] if part == "text" else "orange") if on else "plain"
            made.box(x, y, width, 26, text if on else "−100", fill=fill, code=True, size=10)
            x += width

    strip(12, "input_ids", None)
    made.text(12, 66, "labels: which parts carry the loss", bold=True)
    for row, (name, kept) in enumerate(CHOICES.items()):
        strip(78 + 32 * row, name, kept)
    made.text(12, 226, "<user> is the header of a turn, <end> its end-of-turn token; line breaks are left out. The first token never has a loss.", size=11.5)  # fmt: skip
    return made.svg()
