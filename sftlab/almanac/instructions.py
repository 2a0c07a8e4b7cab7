"""Write the files of ``data/instructions`` and their data card.

    python -m sftlab.almanac.instructions      # rewrites all files, always with the same bytes

No figure of the card is typed by hand: `card` counts the rows of the files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import NEVER_TRAINED, curated, evaluation, mediocre
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.almanac.facts import all_items, topics
from sftlab.almanac.free_prompts import free_prompts
from sftlab.almanac.out_of_scope import out_of_scope
from sftlab.almanac.pairs import conversations, heldout, pairs
from sftlab.almanac.tune import DOSE
from sftlab.data import write_jsonl

CARD = INSTRUCTIONS / "README.md"
WHAT = {
    "handful.jsonl": "pairs enough to turn continuing into answering (notebook 13)",
    "pairs.jsonl": "pairs on facts and lists of tips",
    "curated.jsonl": "good pairs of many kinds, some talks of several turns",
    "low_quality.jsonl": "bad pairs; `defect` names what is wrong, `right` holds the good answer",
    "mediocre.jsonl": "pairs as they come when nobody looks; `manner` names how they are said",
    "conversations.jsonl": "talks of one to three exchanges, half of them with a system turn",
    "out_of_scope.jsonl": "what to say outside the model's world, and known facts in careless words",
    "heldout.jsonl": "questions on held-out subjects, of the kinds that `pairs.jsonl` asks",
    "evaluation.jsonl": "questions on held-out subjects, of all kinds and of three never trained",
}
TRAINING = tuple(name for name in WHAT if name not in ("heldout.jsonl", "evaluation.jsonl"))


def files() -> dict[str, list[dict]]:
    """Return file name -> rows."""
    return {
        "handful.jsonl": pairs(32),
        "pairs.jsonl": pairs(200),
        "curated.jsonl": curated(),
        "low_quality.jsonl": low_quality(),
        "mediocre.jsonl": mediocre(),
        "conversations.jsonl": conversations(300),
        "out_of_scope.jsonl": out_of_scope(DOSE),
        "heldout.jsonl": heldout(),
        "evaluation.jsonl": evaluation(),
    }


def said(row: dict, role: str) -> str:
    """Return all text of one role in a row."""
    if "messages" in row:
        return "\n".join(m["content"] for m in row["messages"] if m["role"] == role)
    return row["prompt" if role == "user" else "response"]


def asked_kind(row: dict) -> str | None:
    """Return the kind of the row's fact: in ``out_of_scope.jsonl``, ``asks`` has it."""
    return row.get("asks", row.get("kind"))


def about(row: dict) -> tuple:
    """Return (kind, subject, value) of a row; the value only for the kind "one_word".

    In this kind, the same subject can have several questions: "love" is a verb and has an opposite.
    """
    value = row.get("value") if row.get("kind") == "one_word" else None
    return asked_kind(row), row.get("subject"), value


def leaks(training: Sequence[dict], exam: Sequence[dict]) -> list[str]:
    """Return the questions of ``exam`` that a training row asks or whose subject it is about.

    Names are compared with the subjects of rows of the same kind, not with every word. The mouse in
    a held-out question about an animal is no leak if a training pair asks for the plural of mouse.
    """
    told = {about(row) for row in training if "subject" in row}
    asked = {said(row, "user") for row in training}
    return [row["prompt"] for row in exam if row["prompt"] in asked or about(row) in told]


def names_told(training: Sequence[dict]) -> set[str]:
    """Return the held-out names of countries, works and topics that occur in any training text.

    Texts about where animals live and what they eat are left out: Australia may be a habitat there.
    """
    names = {i.subject for i in all_items() if i.split == "heldout" and i.kind in NAMED}
    names |= {topic for topic, (_, split) in topics().items() if split == "heldout"}
    rows = [row for row in training if asked_kind(row) not in ("habitat", "food", "story")]
    text = "\n".join(said(row, role) for row in rows for role in ("user", "assistant"))
    return {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}


NAMED = ("capital", "maker")  # kinds whose subjects are names, not common words


def card() -> str:
    """Return the data card in Markdown."""
    made = files()
    lines = [
        "# The instruction sets",
        "",
        "Written by `python -m sftlab.almanac.instructions` from the tables in `data/almanac`, this",
        "page included. English; MIT licence, as the workbook. The answers are facts that the",
        "embedded base model has read; they are short, of one style, and true only as far as the",
        "tables go. Lengths are words, as medians with the 5th and 95th percentile.",
        "",
        "| file | rows | kinds | prompt | response | what it is for |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in made.items():
        kinds = len({row.get("kind") for row in rows} - {None})
        lines.append(
            f"| `{name}` | {len(rows)} | {kinds or '–'} | {_lengths(rows, 'user')} "
            f"| {_lengths(rows, 'assistant')} | {WHAT[name]} |"
        )
    exam = [*made["heldout.jsonl"], *made["evaluation.jsonl"]]
    lines += [
        "",
        "## No leak",
        "",
        "| training file | exam questions it asks or subjects it is about | held-out names in its text |",
        "|---|---|---|",
    ]
    for name in TRAINING:
        lines.append(
            f"| `{name}` | {len(leaks(made[name], exam))} | {len(names_told(made[name]))} |"
        )
    lines += [
        "",
        f"Of {len(made['evaluation.jsonl'])} questions in `evaluation.jsonl`, "
        f"{sum(not row['trained_kind'] for row in made['evaluation.jsonl'])} are of kinds that no "
        f"pair has: {', '.join(NEVER_TRAINED)}.",
        "",
        "## Curated pairs by kind",
        "",
        _counts(made["curated.jsonl"], "kind"),
        "",
        "## Outside the model's world",
        "",
        _counts(made["out_of_scope.jsonl"], "kind"),
        "",
        "`free_prompts.jsonl`, on which these pairs are measured, is written by hand: "
        f"{len(free_prompts())} prompts in {len({r['kind'] for r in free_prompts()})} kinds, each with the "
        "types of reply that fit (`sftlab.almanac.free_prompts`). No training pair has one of its prompts or "
        "invented names.",
        "",
        "## Defects of the bad pairs",
        "",
        "| defect | rows | an example |",
        "|---|---|---|",
    ]
    for defect in DEFECTS:
        rows = [row for row in made["low_quality.jsonl"] if row["defect"] == defect]
        shown = min(rows, key=lambda row: len(row["prompt"]) + len(row["response"]))
        lines.append(
            f"| {defect} | {len(rows)} | {_cell(shown['prompt'])} → {_cell(shown['response'])} |"
        )
    lines += ["", "## Manners of the mediocre pairs", "", _counts(made["mediocre.jsonl"], "manner")]
    return "\n".join(lines) + "\n"


def _lengths(rows: Sequence[dict], role: str) -> str:
    words = [len(said(row, role).split()) for row in rows]
    low, middle, high = np.percentile(words, (5, 50, 95))
    return f"{middle:.0f} ({low:.0f}–{high:.0f})"


def _counts(rows: Sequence[dict], key: str) -> str:
    return ", ".join(f"{name} {n}" for name, n in Counter(row[key] for row in rows).most_common())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ⏎ ")


def main() -> None:
    """Write all files and the data card."""
    INSTRUCTIONS.mkdir(parents=True, exist_ok=True)
    for name, rows in files().items():
        write_jsonl(INSTRUCTIONS / name, rows)
        print(f"{name}: {len(rows)} rows")
    CARD.write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    main()
