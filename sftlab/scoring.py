"""Score answers by program: one rubric line per property, and intervals for the shares.

A *question* is a dictionary with ``prompt`` and ``answer`` (the exact answer); where several
answers are right, ``allowed`` holds them, and ``count`` says how many a list must have. For the
other lines it may hold more: ``must``, what has to be named (``value`` if it is not there; a list
within it holds alternatives); ``must_not``; ``words``, at most so many; and ``topic``, names of
what it is about (``subject`` if it is not there).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from sftlab._internal.paths import DATA

LABELLED = DATA / "scoring" / "labelled_answers.jsonl"  # answers scored line by line by a person
RUBRIC = ("correct", "content", "format", "stops", "on_topic", "no_echo", "no_repetition")
# What may stand before an instruction on its line: a number, a bullet, a speaker, a quotation mark.
PREFIX = re.compile(r"(?:(?:\d+[.)]|[-*•]|[qa]\.|\w+:|[\"'“])\s*)*")
QUESTION = re.compile(r"(what|which|who|where|when|why|how|is|are|do|does|did|can|could)\b")
# An imperative alone is not enough: "Write the guest list early." is a tip, that is, an answer.
NUMBER = r"(\d+|one|two|three|four|five|six|seven|eight|nine|ten|some)"
COMMAND = re.compile(
    rf"(name|list|give|give me|write|write down) {NUMBER}\b|name the\b|(give|tell) me\b"
    r"|(tell|write) (me )?an? (short )?(story|poem|essay|sentence)\b"
    r"|(put|rewrite|translate) (this|these|in|into)\b|count these\b|continue the\b"
    r"|explain (how|why|the difference)\b|(answer )?in one word\b"
)


@dataclass(frozen=True)
class Score:
    """One answer, line by line: ``correct`` to the word, or right in ``content`` however said."""

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
    """The items of a numbered list 1. 2. 3. ..., or [] if any line is something else."""
    lines = text.strip().split("\n")
    matches = [re.fullmatch(rf"{i}\. (\S.*)", line.strip()) for i, line in enumerate(lines, 1)]
    return [m[1] for m in matches if m] if all(matches) else []


def format_compliance(text: str, count: int | None = None) -> bool:
    """Is it in the form that was asked for?

    ``count`` items: a numbered list of exactly so many lines. Otherwise one paragraph that begins
    with a capital or a digit and ends as a sentence does, without a question.
    """
    text = text.strip()
    if count:
        return len(list_items(text)) == count
    begins = text[:1].isupper() or text[:1].isdigit()
    return begins and bool(re.fullmatch(r"[^\n?]*[.!][)\"”]?", text))


def score_answer(question: dict, text: str, stopped: bool = True) -> Score:
    """Score one answer to a question (see the module's head for its keys).

    ``stopped`` says whether the model ended the answer itself; one that ran into the limit is not
    correct. A list is, if it has as many different items as asked for, all of them allowed.
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
    """Does the answer tell what was asked for, in whatever words? A repeated prompt tells nothing.

    A list does with as many allowed items as asked for, in whatever layout.
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
    """Does the answer name what the question is about, or any of the allowed answers?"""
    about = question.get("topic") or [question["subject"]] if "subject" in question else []
    return any(names(text, word) for word in [*about, *question.get("allowed", [])])


def names(text: str, words: str) -> bool:
    """Do the words stand in the text, whole? Case counts for symbols: "I" is not iodine's only."""
    flags = re.IGNORECASE if len(words) > 2 else 0
    return bool(re.search(rf"(?<!\w){re.escape(words.rstrip('.'))}(?!\w)", text, flags))


def repeats(text: str) -> bool:
    """Does the text go in circles?

    It does if a sentence or line of some length comes twice, or any phrase of up to twelve words
    comes three times in a row.
    """
    text = re.sub(r"(?m)^\d+[.)]", "", text.lower())  # the numbers of a list
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
    """Is the line a question or a command, whole or cut off, numbered or not?"""
    line = line.strip().lower()
    if line.endswith("?"):
        return True
    if prefix := PREFIX.match(line):
        line = line[prefix.end() :]
    asks = QUESTION.match(line) and ("?" in line or not line.endswith((".", "!")))
    return bool(asks or COMMAND.match(line))


def behaviour(text: str, answer: str = "", value: str = "") -> str:
    """What a model did after a bare instruction: "answered", "continued" or "stopped".

    Answered: the exact ``answer`` or the asked-for ``value`` comes before any further instruction,
    or else the text begins as something of its own that is no instruction. Continued: it goes on
    with more instructions, as a page of questions would, or adds to the instruction itself.
    Stopped: it wrote nothing.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "stopped"
    told = "\n".join(takewhile(lambda line: not is_instruction(line), lines))
    if answer and answer.lower() in told.lower():
        return "answered"
    # The case counts: "as" does not name the element As.
    forms = "|".join(re.escape(form) for form in {value, value[:1].upper() + value[1:]})
    if value and re.search(rf"(?<!\w)({forms})(?!\w)", told):
        return "answered"
    if is_instruction(lines[0]):
        return "continued"
    # Without a line break first, the text may go on in the instruction's own sentence.
    first = lines[0].strip()
    adds = first[0] in ",.;:?!)\"'”" or (text[0] == " " and first[0].islower())
    return "continued" if adds and not text.startswith("\n") else "answered"


LETTERS = {"C": "content", "F": "format", "S": "stops", "T": "on_topic", "E": "no_echo",
           "R": "no_repetition"}  # fmt: skip


def agreement(labelled: Sequence[dict], questions: Sequence[dict]) -> dict[str, float]:
    """How often the judge says what a person said, line by line.

    `labelled` rows hold ``prompt``, ``text``, ``stopped`` and ``fails``, the `LETTERS` of the lines
    that a person found wanting; whether an answer is right to the word needs no person.
    """
    asked = {question["prompt"]: question for question in questions}
    scores = [score_answer(asked[row["prompt"]], row["text"], row["stopped"]) for row in labelled]
    return {
        line: float(np.mean([getattr(score, line) == (letter not in row["fails"])
                             for row, score in zip(labelled, scores, strict=True)]))
        for letter, line in LETTERS.items()
    }  # fmt: skip
