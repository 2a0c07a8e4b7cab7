"""Instruction-response pairs and held-out questions made from the facts.

Pairs use only subjects of the ``train`` split and kinds marked as asked. Held-out questions use
only ``heldout`` subjects. No subject of a table occurs in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

from sftlab.almanac.facts import Item, capitalised, items, kinds, topics
from sftlab.almanac.skills import NUMBER_WORDS, SKILLS, usable
from sftlab.errors import WorkbookError

ASKED = tuple(kind for kind, spec in kinds().items() if spec["asked"])
SYSTEM_FULL = (
    "Answer in one full sentence.",
    "You are a helpful assistant.",
    "Use full sentences.",
)
# Skills whose answer is not one full sentence; not used with a system turn that asks for one.
NOT_A_SENTENCE = ("tips", "story", "one_word")
SYSTEM_SHORT = ("Answer in one word.", "Be brief.", "Use as few words as you can.")


def row(item: Item, question: str) -> dict:
    """Return an item as a row of data: prompt, response and what scoring needs."""
    found: dict[str, Any] = {
        "prompt": question,
        "response": item.answer,
        "kind": item.kind,
        "subject": item.subject,
        "value": item.value,
    }
    if item.kind == "tips":
        found |= {
            "count": NUMBER_WORDS.index(item.value),
            "allowed": list(topics()[item.subject][0]),
        }
    if item.kind == "one_tip":
        found["allowed"] = list(topics()[item.subject][0])
    return found


def wording(item: Item, rng: Random) -> str:
    """Return the usual question half of the time, otherwise any wording."""
    return item.question if rng.random() < 0.5 else rng.choice(item.questions)


def takers(rng: Random, split: str, skills: Iterable[str]) -> dict[str, Callable[[], Item]]:
    """Return kind -> function that draws an item of that kind; a fact is not drawn twice."""
    drawers: dict[str, Callable[[], Item]] = {}
    for kind in ASKED:
        pool = list(usable(kind, split))
        rng.shuffle(pool)
        drawers[kind] = pool.pop
    for skill in skills:
        drawers[skill] = partial(SKILLS[skill], rng, split)
    return drawers


def pairs(
    count: int, seed: int = 0, skills: Iterable[str] = ("tips", "tips", "one_tip")
) -> list[dict]:
    """Return ``count`` different training pairs, with equally many of each kind while facts last.

    Raises:
        WorkbookError: the tables give fewer pairs.
    """
    rng = Random(f"pairs:{seed}")
    skills = tuple(skills)
    drawers = takers(rng, "train", skills)
    order = [*ASKED, *skills]
    found: list[dict] = []
    asked: set[str] = set()
    empty: set[str] = set()
    rng.shuffle(order)
    while len(found) < count and len(empty) < len(drawers):
        for kind in order:
            if kind in empty or len(found) == count:
                continue
            for _ in range(20):
                try:
                    item = drawers[kind]()
                except IndexError:
                    empty.add(kind)
                    break
                made = row(item, wording(item, rng))
                if made["prompt"] not in asked:
                    asked.add(made["prompt"])
                    found.append(made)
                    break
            else:
                empty.add(kind)  # after twenty repeats, the kind counts as used up
    if len(found) < count:
        raise WorkbookError(
            f"{count} pairs were asked for, but the tables give only {len(found)}; ask for fewer"
        )
    return found


def heldout(seed: int = 0, per_kind: int = 40) -> list[dict]:
    """Return questions on held-out subjects whose facts are known.

    At most ``per_kind`` of each asked kind, and one list of tips for each held-out topic.
    """
    rng = Random(f"heldout:{seed}")
    found = []
    for kind in ASKED:
        pool = list(usable(kind, "heldout"))
        rng.shuffle(pool)
        found += [row(item, wording(item, rng)) for item in pool[:per_kind]]
    for topic, (_, split) in topics().items():
        if split == "heldout":
            item = tips_for(topic, rng)
            found.append(row(item, wording(item, rng)))
    return [{**r, "answer": r["response"]} for r in found]


def tips_for(topic: str, rng: Random) -> Item:
    """Return an item with three tips for a held-out topic."""
    item = SKILLS["tips"](rng, "heldout", count=3)
    while item.subject != topic:
        item = SKILLS["tips"](rng, "heldout", count=3)
    return item


def stratum_questions(stratum: str) -> list[dict]:
    """Return the usual question for each fact of a stratum, "single" or "absent"."""
    found = [i for kind in kinds() for i in items(kind) if i.stratum == stratum]
    return [{**row(i, i.question), "answer": i.answer} for i in found]


def unasked_questions() -> list[dict]:
    """Return questions on known facts of the kinds that no pair asks about."""
    found = [i for kind in kinds() if kind not in ASKED for i in usable(kind)]
    return [{**row(i, i.question), "answer": i.answer} for i in found]


def conversations(count: int, seed: int = 0) -> list[dict]:
    """Return conversations of one to three exchanges; half of them begin with a system turn.

    ``style`` is "short" or "full" if the system turn decides the format of the answers, else
    "none".
    """
    rng = Random(f"conversations:{seed}")
    found = []
    for _ in range(count):
        style = rng.choice(("none", "none", "full", "short"))
        messages = []
        if style == "full":
            messages.append({"role": "system", "content": rng.choice(SYSTEM_FULL)})
        if style == "short":
            messages.append({"role": "system", "content": rng.choice(SYSTEM_SHORT)})
        for _ in range(rng.randint(1, 3)):
            item = rng.choice(usable(rng.choice(ASKED), "train"))
            if style != "short" and rng.random() < 0.35:
                fitting = [s for s in SKILLS if style != "full" or s not in NOT_A_SENTENCE]
                item = SKILLS[rng.choice(fitting)](rng, "train")
            said = f"{capitalised(item.value)}." if style == "short" else item.answer
            messages += [
                {"role": "user", "content": wording(item, rng)},
                {"role": "assistant", "content": said},
            ]
        found.append({"messages": messages, "style": style})
    return found
