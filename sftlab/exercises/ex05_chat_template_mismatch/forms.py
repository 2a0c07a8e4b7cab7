"""Forms of a prompt: as a ChatML model was trained, or changed by text edits; and the score of replies.

Each form is a list of edits of the right text. The forms are grouped by what they destroy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftlab.scoring import names

RIGHT = "ChatML"
TYPED = "special tokens as text"  # the same text; its special tokens are read as ordinary text
LLAMA, BARE = "Llama 3 style", "no template"
ELSEWHERE = "no line break after user"
BOUNDARY, SPACE = "no line break after assistant", "a space before the answer"
SWAPPED, NO_HEADER = "roles swapped", "no generation prompt"

Edits = Sequence[tuple[str, str]]  # regular expressions and what they are replaced with
_BEGIN, _END = r"<\|im_start\|>", r"<\|im_end\|>"
_ASKED = rf"(?s)\A.*{_BEGIN}user\n(.*){_END}\n{_BEGIN}assistant\n\Z"  # the question
_QUESTION_AS = rf"{_BEGIN}user(?=\n)", "<|im_start|>assistant"
_ANSWER_AS = rf"{_BEGIN}assistant\n\Z", "<|im_start|>user\n"

GROUPS: dict[str, dict[str, Edits]] = {
    "nothing": {RIGHT: ()},
    "turn start": {"turn start doubled": [(r"\A", "<|im_start|>")]},
    "role": {
        "question as the assistant's": [_QUESTION_AS],
        "answer as the user's": [_ANSWER_AS],
        SWAPPED: [_ANSWER_AS, (rf"(?s){_BEGIN}user(?=\n.+{_BEGIN})", "<|im_start|>assistant")],
        "roles renamed": [(rf"{_BEGIN}user", "<|im_start|>human"), (rf"{_BEGIN}assistant", "<|im_start|>bot")],
    },
    "turn end": {
        "no end-of-turn token": [(rf"{_END}(?=\n{_BEGIN}assistant)", "")],
        "another end-of-turn token": [(rf"{_END}(?=\n{_BEGIN}assistant)", "</s>")],
        "no line break after the turn": [(rf"\n(?={_BEGIN}assistant)", "")],
    },
    "start of the answer": {
        BOUNDARY: [(r"\n\Z", "")],
        SPACE: [(r"\Z", " ")],
        NO_HEADER: [(rf"{_BEGIN}assistant\n\Z", "")],
    },
    "start of the question": {
        ELSEWHERE: [(rf"({_BEGIN}user)\n", r"\1")],
        "a space before the question": [(rf"({_BEGIN}user\n)", r"\1 ")],
    },
    "family": {
        TYPED: (),
        LLAMA: [(r"\A", "<|begin_of_text|>"), (rf"{_END}\n", "<|eot_id|>"),
                (rf"{_BEGIN}(\w+)\n", r"<|start_header_id|>\1<|end_header_id|>\n\n")],
        "Gemma style": [(r"\A", "<bos>"), (_BEGIN + "assistant", "<start_of_turn>model"),
                        (_BEGIN, "<start_of_turn>"), (_END, "<end_of_turn>")],
        "[INST] style": [(_ASKED, r"<s>[INST] \1 [/INST]")],
        BARE: [(_ASKED, r"\1")],
    },
}  # fmt: skip
FORMS = {form: edits for forms in GROUPS.values() for form, edits in forms.items()}
OUTCOMES = ("right, stops", "right, goes on", "wrong, stops", "wrong, goes on")


def corrupt(text: str, edits: Edits) -> str:
    """Return a prompt in ChatML, up to the assistant header, after edits, such as ``FORMS`` holds."""
    for pattern, replacement in edits:
        text = re.sub(pattern, replacement, text)
    return text


def first_line(text: str) -> str:
    """Return the first line of a reply that is not empty, or an empty text."""
    return next((line for line in text.splitlines() if line.strip()), "")


def stop_and_right(replies: Sequence[tuple[str, bool]], values: Sequence[str]) -> dict[str, float]:
    """Return the share of replies with each of the four outcomes of ``OUTCOMES``.

    A reply (its text, whether the model stopped) is right if its first line that is not empty names
    the value.
    """
    counts = dict.fromkeys(OUTCOMES, 0)
    for (text, stopped), value in zip(replies, values, strict=True):
        right = "right" if names(first_line(text), value) else "wrong"
        counts[f"{right}, {'stops' if stopped else 'goes on'}"] += 1
    return {outcome: count / len(replies) for outcome, count in counts.items()}
