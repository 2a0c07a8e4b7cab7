"""The almanac's facts: tables of real facts, read as questions with one right answer each.

``data/almanac`` contains one CSV table per domain and ``kinds.json``. For each *kind* of fact
(capital, habitat, past tense, ...), ``kinds.json`` gives the columns of subject and value and the
wordings for documents and questions. Two columns of the tables define the experiments:

``split``     ``heldout`` subjects never occur in an SFT pair; ``train`` subjects may.
``stratum``   what pretraining contains of the table's kind with ``"strata": true``:
              ``known`` (many paraphrases), ``single`` (one fixed record sentence, always the
              same) or ``absent`` (the name occurs, the fact never).

A fourth stratum, *known but never asked*, is a property of the kind: ``"asked": false``.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache

from sftlab._internal.paths import DATA

STRATA = ("known", "single", "absent")
SPLITS = ("train", "heldout")
VOWELS = "aeiou"


@dataclass(frozen=True)
class Item:
    """One question with its one right answer, and all wordings that the corpus may use for it."""

    kind: str
    subject: str
    value: str
    questions: tuple[str, ...]  # the first is the usual wording
    answer: str  # the exact answer
    statements: tuple[str, ...] = ()  # the fact in full sentences
    continuations: tuple[str, ...] = ()  # the fact below a heading with the subject
    record: str = ""  # the fixed sentence of the stratum "single"
    stratum: str = "known"
    split: str = "train"
    asked: bool = True

    @property
    def question(self) -> str:
        return self.questions[0]


def with_article(noun: str) -> str:
    """Return ``noun`` with "a" or "an" by its first letter; correct for all nouns of the tables."""
    return f"{'an' if noun[0].lower() in VOWELS else 'a'} {noun}"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of ``data/almanac/<name>.csv``; ``sums`` is computed, not stored."""
    if name == "sums":
        return tuple(sums())
    with open(DATA / "almanac" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def sums(largest: int = 12):
    """Yield all sums of two numbers from 1 to ``largest``.

    Two of five sums, spread evenly, are held out.
    """
    for a in range(1, largest + 1):
        for b in range(1, largest + 1):
            split = "heldout" if (a + 2 * b) % 5 < 2 else "train"
            yield {"sum": f"{a} plus {b}", "total": str(a + b), "split": split}


@cache
def kinds() -> dict[str, dict]:
    return json.loads((DATA / "almanac" / "kinds.json").read_text(encoding="utf-8"))


def make_item(kind: str, row: dict[str, str]) -> Item:
    spec = kinds()[kind]
    subject, value = row[spec["subject"]], row[spec["value"]]
    words = {
        **row,
        "s": subject, "S": capitalised(subject), "A_s": capitalised(with_article(subject)),
        "v": value, "V": capitalised(value), "a_v": with_article(value),
    }  # fmt: skip

    def fill(wordings: list[str]) -> tuple[str, ...]:
        return tuple(wording.format_map(words) for wording in wordings)

    return Item(
        kind=kind,
        subject=subject,
        value=value,
        questions=fill(spec["questions"]),
        answer=spec["answer"].format_map(words),
        statements=fill(spec["statements"]),
        continuations=fill(spec["continuations"]),
        record=spec.get("record", "").format_map(words),
        stratum=row["stratum"] if spec.get("strata") else "known",
        split=row["split"],
        asked=spec["asked"],
    )


@cache
def items(kind: str) -> tuple[Item, ...]:
    """Return all facts of a kind. Opposites are included in both directions."""
    rows = table(kinds()[kind]["table"])
    found = [make_item(kind, row) for row in rows]
    if kind == "opposite":
        turned = [{**row, "word": row["opposite"], "opposite": row["word"]} for row in rows]
        found += [make_item(kind, row) for row in turned]
    return tuple(found)


@cache
def all_items() -> tuple[Item, ...]:
    return tuple(item for kind in kinds() for item in items(kind))


@cache
def topics() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return topic -> (its eight tips, its split)."""
    return {
        row["topic"]: (tuple(row[f"tip{i}"] for i in range(1, 9)), row["split"])
        for row in table("topics")
    }
