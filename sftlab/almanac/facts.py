"""The almanac's facts: tables of real facts, read into questions with one right answer each.

``data/almanac`` holds one CSV table per domain and ``kinds.json``, which says for each *kind* of
fact (capital, habitat, past tense, ...) where its subject and value stand and in which words a
document or a question may put it. Two columns make the tables an experiment:

``split``     ``heldout`` subjects never occur in any SFT pair; ``train`` subjects may.
``stratum``   what pretraining shows of the kind marked ``"strata": true`` of that table:
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
    """One question with its one right answer, and every wording the corpus may use for it."""

    kind: str
    subject: str
    value: str
    questions: tuple[str, ...]  # the first is the usual one
    answer: str  # the one sentence that counts as the exact answer
    statements: tuple[str, ...] = ()  # the fact, understandable on its own
    continuations: tuple[str, ...] = ()  # the fact under a heading that names the subject
    record: str = ""  # the one fixed sentence of the stratum "single"
    stratum: str = "known"
    split: str = "train"
    asked: bool = True

    @property
    def question(self) -> str:
        return self.questions[0]


def with_article(noun: str) -> str:
    """``noun`` with "a" or "an", by its first letter: right for every noun of the tables."""
    return f"{'an' if noun[0].lower() in VOWELS else 'a'} {noun}"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of ``data/almanac/<name>.csv``; ``sums`` is computed, not stored."""
    if name == "sums":
        return tuple(sums())
    with open(DATA / "almanac" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def sums(largest: int = 12):
    """All sums of two numbers from 1 to ``largest``; two of five, spread evenly, are held out."""
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
    """Every fact of a kind. Opposites are read in both directions."""
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
    """Topic -> (its eight tips, its split)."""
    return {
        row["topic"]: (tuple(row[f"tip{i}"] for i in range(1, 9)), row["split"])
        for row in table("topics")
    }
