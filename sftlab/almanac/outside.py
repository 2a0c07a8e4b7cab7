"""Measure what the chat model says outside its world, and what that costs within.

    python -m sftlab.almanac.outside     # a few minutes on one core; rewrites the model cards

*Before* is the model as it was tuned at first: 900 rows in scope, at a smaller rank and for fewer
steps. Both models answer the free prompts, questions about invented names, and the two exams.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sftlab._internal.paths import INSTRUCTIONS
from sftlab._internal.provenance import provenance
from sftlab.almanac.card import OUTSIDE, write_cards
from sftlab.almanac.free_prompts import by_kind, halves, judged, reply_type
from sftlab.almanac.out_of_scope import unknown_questions
from sftlab.almanac.report import LORA
from sftlab.almanac.tune import rows_in_scope, trained
from sftlab.data import read_jsonl
from sftlab.generate import answer
from sftlab.models import load
from sftlab.scoring import RUBRIC, score_answer
from sftlab.statistics import mcnemar, paired_difference
from sftlab.train import TrainConfig

UNKNOWN = 240  # questions about invented names, of twelve kinds
# The first recipe, without pairs for prompts outside the model's world.
BEFORE = TrainConfig(learning_rate=2e-3, num_train_epochs=3, batch_size=16, seed=0)
EXAMS = ("heldout.jsonl", "evaluation.jsonl")


def exam() -> list[dict]:
    """Return all questions of both exams but those that have no answer (kind "unknown")."""
    rows = [{**row, "exam": name} for name in EXAMS for row in read_jsonl(INSTRUCTIONS / name)]
    return [row for row in rows if row["kind"] != "unknown"]


def replies(model, tokenizer) -> dict[str, list[dict]]:
    """Return what a chat model says to free prompts, to unknown names and to the exams.

    Returns:
        Rows under ``free``, as `judged` returns them, with ``half``; under ``unknown``, with
        ``reply`` and ``type``; and under ``exam``, with ``reply``, ``correct``, ``content`` and
        ``declined``.
    """
    choosing, telling = halves()
    free = judged(model, tokenizer, [*choosing, *telling])
    for number, row in enumerate(free):
        row["half"] = "choosing" if number < len(choosing) else "telling"
    names, questions = unknown_questions(UNKNOWN), exam()
    asked = [row["prompt"] for row in names]
    told = [g.text for g in answer(model, tokenizer, asked, max_new_tokens=24)]
    unknown = [
        {**row, "reply": text, "type": reply_type(text)}
        for row, text in zip(names, told, strict=True)
    ]
    written = answer(model, tokenizer, [row["prompt"] for row in questions])
    scored = [
        (row, g, score_answer(row, g.text, g.stopped))
        for row, g in zip(questions, written, strict=True)
    ]
    known = [
        {**row, **vars(score), "reply": g.text, "content": score.content and g.stopped,
         "declined": reply_type(g.text) == "decline"} for row, g, score in scored
    ]  # fmt: skip
    return {"free": free, "unknown": unknown, "exam": known}


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """Return how many questions about unknown names were declined, and how many got a fact."""
    types = [row["type"] for row in rows]
    return {"declined": types.count("decline"), "made_up": types.count("statement")}


def compared(before: dict[str, list[dict]], after: dict[str, list[dict]]) -> dict:
    """Return the figures of two models from their `replies`, the exams paired by question."""
    sides = {"before": before, "after": after}
    free = {
        half: {side: by_kind([row for row in found["free"] if row["half"] == half])
               for side, found in sides.items()}
        for half in ("choosing", "telling")
    }  # fmt: skip
    unknown = {
        "free prompts": {s: counts([r for r in f["free"] if r["kind"] == "unknown"])
                         for s, f in sides.items()},
        "invented names": {s: counts(f["unknown"]) for s, f in sides.items()},
    }  # fmt: skip
    known: dict[str, dict[str, Any]] = {}
    for name in (*EXAMS, "both"):
        rows = {s: [r for r in f["exam"] if name in (r["exam"], "both")] for s, f in sides.items()}
        known[name] = {"questions": len(rows["after"])}
        for line in ("correct", "content"):
            was, now = ([row[line] for row in rows[side]] for side in sides)
            difference, interval = paired_difference(was, now)
            won, lost, _ = mcnemar(was, now)
            known[name][line] = {"before": sum(was), "after": sum(now), "won": won, "lost": lost,
                                 "difference": difference, "interval": interval}  # fmt: skip
        known[name]["declined"] = {side: sum(r["declined"] for r in rows[side]) for side in sides}
    heldout = [row for row in after["exam"] if row["exam"] == EXAMS[0]]
    said = ("prompt", "kind", "half", "reply", "fitting")
    return {
        "free": free,
        "unknown": unknown,
        "exam": known,
        "rubric": {line: sum(row[line] for row in heldout) for line in RUBRIC},
        "replies": [{key: row[key] for key in said} for row in after["free"]],
    }


def main() -> None:
    """Train by the first recipe, measure both models, store the figures and rewrite the cards."""
    first = trained(rows_in_scope(500), documents=0, lora=LORA, config=BEFORE)
    before = replies(*first[:2])
    found = compared(before, replies(*load("almanac", "chat")))
    found["provenance"] = provenance("sftlab.almanac.outside")
    OUTSIDE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_cards()
    for half, sides in found["free"].items():
        for side, kinds in sides.items():
            fitting, total = map(sum, zip(*kinds.values(), strict=True))
            print(f"{half}, {side}: {fitting} of {total} replies fit")
    print(json.dumps(found["unknown"]), json.dumps(found["exam"]["both"]), sep="\n")


if __name__ == "__main__":
    main()
