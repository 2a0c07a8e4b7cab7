"""Score answers automatically: several rubric lines, each a property that holds or not.

A *question* is a dictionary with ``prompt`` and ``answer`` (the exact answer). If several answers
are right, ``allowed`` lists them, and ``count`` is the required length of a list. Optional keys for
the other rubric lines: ``must``, what an answer has to name (default ``value``; a list within it
contains alternatives); ``must_not``; ``words``, the largest number of words; and ``topic``, names
that show that an answer is on the topic (default ``subject``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from sftlab._internal.paths import DATA

LABELLED = DATA / "scoring" / "labelled_answers.jsonl"  # answers scored by a person
RUBRIC = ("correct", "content", "format", "stops", "on_topic", "no_echo", "no_repetition")
# What may precede an instruction on its line: a number, a bullet, a speaker, a quotation mark.
PREFIX = re.compile(r"(?:(?:\d+[.)]|[-*•]|[qa]\.|\w+:|[\"'“])\s*)*")
QUESTION = re.compile(r"(what|which|who|where|when|why|how|is|are|do|does|did|can|could)\b")
# An imperative alone is not an instruction: "Write the guest list early." is a tip, so an answer.
NUMBER = r"(\d+|one|two|three|four|five|six|seven|eight|nine|ten|some)"
COMMAND = re.compile(
    rf"(name|list|give|give me|write|write down) {NUMBER}\b|name the\b|(give|tell) me\b"
    r"|(tell|write) (me )?an? (short )?(story|poem|essay|sentence)\b"
    r"|(put|rewrite|translate) (this|these|in|into)\b|count these\b|continue the\b"
    r"|explain (how|why|the difference)\b|(answer )?in one word\b"
)


@dataclass(frozen=True)
class Score:
    """The rubric lines of one answer: ``correct`` is an exact match, ``content`` is any wording."""

    correct: bool
    content: bool
    format: bool
    stops: bool
    on_topic: bool
    no_echo: bool
    no_repetition: bool

    @property
    def all(self) -> bool:
        return all(getattr(self, line) for line in RUBRIC)


def list_items(text: str) -> list[str]:
    """Return the items of a numbered list 1. 2. 3. ..., or [] if any line is not an item."""
    lines = text.strip().split("\n")
    matches = [re.fullmatch(rf"{i}\. (\S.*)", line.strip()) for i, line in enumerate(lines, 1)]
    return [m[1] for m in matches if m] if all(matches) else []


def format_compliance(text: str, count: int | None = None) -> bool:
    """Return whether the answer has the requested format.

    With ``count``: a numbered list of exactly that many lines. Otherwise: one paragraph that begins
    with a capital letter or a digit, ends with a period or an exclamation mark (a closing quote or
    parenthesis may follow), and contains no question mark.
    """
    text = text.strip()
    if count:
        return len(list_items(text)) == count
    begins = text[:1].isupper() or text[:1].isdigit()
    return begins and bool(re.fullmatch(r"[^\n?]*[.!][)\"”]?", text))


def score_answer(question: dict, text: str, stopped: bool = True) -> Score:
    """Score one answer to a question; the module docstring describes the keys of a question.

    A list is correct if it has the required number of items, all different and all allowed.

    Args:
        stopped: whether the model ended the answer. An answer that reached the limit is not
            correct.
    """
    text = text.strip()
    count = question.get("count")
    if count:
        items = list_items(text)
        allowed = set(question["allowed"])
        correct = len(items) == count == len(set(items)) and set(items) <= allowed
    elif "allowed" in question:
        correct = text in question["allowed"]
    else:
        correct = text == question["answer"]
    content = correct or right_content(question, text)
    return Score(
        correct=correct and stopped,
        content=content,
        format=format_compliance(text, count) and len(text.split()) <= question.get("words", 1000),
        stops=stopped,
        on_topic=content or is_on_topic(question, text),
        no_echo=question["prompt"].strip().lower() not in text.lower(),
        no_repetition=not repeats(text),
    )


def right_content(question: dict, text: str) -> bool:
    """Return whether the answer contains the requested content in any wording.

    The prompt is removed first, so repeating it does not count. A list counts if it names the
    required number of allowed items, in any layout.
    """
    text = text.replace(question["prompt"].strip(), " ")
    if "allowed" in question:
        told = sum(names(text, item.rstrip(".")) for item in question["allowed"])
        return told == question["count"] if "count" in question else told > 0
    must = question.get("must") or [question.get("value") or question["answer"].rstrip(".")]
    wrong = any(names(text, word) for word in question.get("must_not", []))
    return not wrong and all(
        any(names(text, word) for word in ([told] if isinstance(told, str) else told))
        for told in must
    )


def is_on_topic(question: dict, text: str) -> bool:
    """Return whether the answer names the question's topic or any of the allowed answers."""
    about = question.get("topic") or [question["subject"]] if "subject" in question else []
    return any(names(text, word) for word in [*about, *question.get("allowed", [])])


def names(text: str, words: str) -> bool:
    """Return whether the words occur in the text as whole words; short words are case-sensitive.

    Up to two characters are case-sensitive because they can be symbols: "I" is not only iodine's.
    """
    flags = re.IGNORECASE if len(words) > 2 else 0
    return bool(re.search(rf"(?<!\w){re.escape(words.rstrip('.'))}(?!\w)", text, flags))


def repeats(text: str) -> bool:
    """Return whether the text repeats itself.

    It does if a sentence or line of more than 8 characters occurs twice, or any phrase of up to
    twelve words occurs three times in a row.
    """
    text = re.sub(r"(?m)^\d+[.)]", "", text.lower())  # list numbers
    parts = [part.strip() for part in re.split(r"[.!?\n]+", text)]
    long = [part for part in parts if len(part) > 8]
    if len(set(long)) < len(long):
        return True
    words = re.findall(r"\d[\d.,]*|\w+", text)
    return any(
        words[i : i + n] == words[i + n : i + 2 * n] == words[i + 2 * n : i + 3 * n]
        for n in range(1, 13)
        for i in range(len(words) - 3 * n + 1)
    )


def is_instruction(line: str) -> bool:
    """Return whether the line is a question or a command, complete or cut off, numbered or not."""
    line = line.strip().lower()
    if line.endswith("?"):
        return True
    if prefix := PREFIX.match(line):
        line = line[prefix.end() :]
    asks = QUESTION.match(line) and ("?" in line or not line.endswith((".", "!")))
    return bool(asks or COMMAND.match(line))


def behaviour(text: str, answer: str = "", value: str = "") -> str:
    """Return what a model did after a bare instruction: "answered", "continued" or "stopped".

    Answered: the exact ``answer`` or the ``value`` occurs before any further instruction, or the
    text begins with something new that is not an instruction. Continued: it goes on with more
    instructions, like a page of questions, or extends the instruction itself. Stopped: the text is
    empty.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "stopped"
    told = "\n".join(takewhile(lambda line: not is_instruction(line), lines))
    if answer and answer.lower() in told.lower():
        return "answered"
    # Case-sensitive: "as" does not name the element As.
    forms = "|".join(re.escape(form) for form in {value, value[:1].upper() + value[1:]})
    if value and re.search(rf"(?<!\w)({forms})(?!\w)", told):
        return "answered"
    if is_instruction(lines[0]):
        return "continued"
    # Without a leading line break, the text may continue the sentence of the instruction.
    first = lines[0].strip()
    adds = first[0] in ",.;:?!)\"'”" or (text[0] == " " and first[0].islower())
    return "continued" if adds and not text.startswith("\n") else "answered"


LETTERS = {"C": "content", "F": "format", "S": "stops", "T": "on_topic", "E": "no_echo",
           "R": "no_repetition"}  # fmt: skip


def agreement(labelled: Sequence[dict], questions: Sequence[dict]) -> dict[str, float]:
    """Return how often the automatic scores agree with a person, for each rubric line.

    Args:
        labelled: dictionaries with ``prompt``, ``text``, ``stopped`` and ``fails``, the `LETTERS`
            of the lines that the person scored as failed. ``correct`` is an exact match and needs
            no person.
    """
    asked = {question["prompt"]: question for question in questions}
    scores = [score_answer(asked[row["prompt"]], row["text"], row["stopped"]) for row in labelled]
    return {
        line: float(np.mean([getattr(score, line) == (letter not in row["fails"])
                             for row, score in zip(labelled, scores, strict=True)]))
        for letter, line in LETTERS.items()
    }  # fmt: skip
