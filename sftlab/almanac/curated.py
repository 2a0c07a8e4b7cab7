"""Instruction sets of the data-quality exercises: good pairs of many kinds, and the evaluation set.

Every answer follows from the fact tables, so tests can check each one. Subjects of the ``heldout``
split occur in the evaluation only. Three kinds occur in the evaluation and in no training pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from sftlab.almanac.facts import Item, items, with_article
from sftlab.almanac.pairs import ASKED, conversations, row, wording
from sftlab.almanac.skills import NUMBER_WORDS, SKILLS, usable

# Invented names that occur in no table, document or dictionary.
UNHEARD = {
    "country": (
        "Velmora", "Tarquinia Minor", "Osterlind", "Brovania", "Kelandria", "Morvesta", "Zanturia",
        "Pelagonia Nova", "Drasnia", "Ulvenmark", "Sorrelia", "Canthea", "Ibrenia", "Lostavia",
        "Quorra", "Mirelund",
    ),
    "animal": (
        "grumbat", "snorvel", "plinthowl", "wexel", "tarnfish", "mubbit", "crandle", "dorvine",
        "flitterhog", "skellop", "brantle", "jundra", "nalloo", "perrigan", "voskit", "thrumbeast",
    ),
    "book": (
        "The Salt Clockmaker", "Nine Blue Doors", "A Winter of Keys", "The Paper Lighthouse",
        "Under the Copper Hill", "The Last Umbrella", "Letters to a Mill", "The Quiet Orchardist",
        "Seven Tin Boats", "The Velvet Map", "A House for Rain", "The Glass Ferryman",
        "Songs of the Kiln", "The Borrowed Hour", "Dust and Marigold", "The Unwound Road",
    ),
}  # fmt: skip
HELDOUT_UNHEARD = 6  # number of names of each list reserved for the evaluation
UNKNOWN = {
    "country": (("What is the capital of {s}?", "I do not know the capital of {s}."),
                ("What language do people speak in {s}?", "I do not know the language of {s}.")),
    "animal": (("Where does the {s} live?", "I do not know where the {s} lives."),
               ("What does the {s} eat?", "I do not know what the {s} eats.")),
    "book": (("Who wrote {s}?", "I do not know who wrote {s}."),),
}  # fmt: skip

# Kind of instruction -> relative share of the curated pairs.
PARTS = {**dict.fromkeys(ASKED, 2), "tips": 6, "one_tip": 2, "yes_no": 3, "classify": 3,
         "compare": 3, "rewrite": 2, "pattern": 3, "count": 3, "story": 3, "one_word": 3,
         "unknown": 3, "multi_turn": 4}  # fmt: skip
# Kinds invented for each question, without a subject that belongs to a split.
OWN_ROWS = ("pattern", "count", "larger")
# In the evaluation but in no training pair: a skill and two kinds of facts that the base model
# knows.
NEVER_TRAINED = ("larger", "currency", "young")


def unknown(rng: Random, split: str | None = None) -> Item:
    """Return a question about something invented; the right answer is that one does not know."""
    what = rng.choice(list(UNHEARD))
    names = {"train": UNHEARD[what][HELDOUT_UNHEARD:], "heldout": UNHEARD[what][:HELDOUT_UNHEARD]}
    where = split or rng.choice(("train", "heldout"))
    name = rng.choice(names[where])
    question, answer = rng.choice(UNKNOWN[what])
    return Item(
        "unknown", name, "know", (question.format(s=name),), answer.format(s=name), split=where
    )


def compared(rng: Random, split: str) -> Item:
    """Return a question about two subjects of the split that have something in common.

    Subjects are drawn from all splits until two of the split match, because a subject may have no
    partner within its split.
    """
    splits = {item.subject: item.split for kind in ("continent", "class") for item in items(kind)}
    while True:
        item = SKILLS["compare"](rng)
        names = [name.removeprefix("the ") for name in item.subject.split(" and ")]
        for i in range(1, len(names)):  # a name may contain "and"
            both = " and ".join(names[:i]), " and ".join(names[i:])
            if {splits.get(name) for name in both} == {split}:
                return item


def drawer(kind: str, rng: Random, split: str) -> Callable[[], dict]:
    """Return a function that draws a row of a kind. A plain fact is never drawn twice."""
    if kind == "multi_turn":
        return lambda: {**conversations(1, seed=rng.getrandbits(32))[0], "kind": kind}
    if kind == "compare":
        return lambda: _made(compared(rng, split), rng)
    if kind == "unknown" or kind in SKILLS:
        skill = unknown if kind == "unknown" else SKILLS[kind]
        return lambda: _made(skill(rng, split), rng)
    pool = list(usable(kind, split))
    rng.shuffle(pool)
    return lambda: _made(pool.pop(), rng)


def _made(item: Item, rng: Random) -> dict:
    made = row(item, wording(item, rng))
    if item.kind == "story":
        food = next(i for i in items("food") if i.subject == item.subject)
        made["must"] = [item.value, food.value]
    return made


def draw(parts: dict[str, int], count: int, seed: str, split: str, taken: set[str]) -> list[dict]:
    """Draw ``count`` rows of kinds in proportion to ``parts``.

    No prompt repeats or is in ``taken``, to which the new prompts are added. A kind whose facts are
    used up is skipped. The rows for a smaller count are the first rows for a larger one.
    """
    rng = Random(seed)
    drawers = {kind: drawer(kind, rng, split) for kind in parts}
    order = [kind for kind, part in parts.items() for _ in range(part)]
    rng.shuffle(order)
    found: list[dict] = []
    while len(found) < count and drawers:
        for kind in order:
            made = _fresh(drawers, kind, taken)
            if made and len(found) < count:
                taken.update(_asked(made))
                found.append(made)
    return found


def _fresh(drawers: dict, kind: str, taken: set[str]) -> dict | None:
    for _ in range(20):  # after twenty repeats, the kind counts as used up
        try:
            made = drawers[kind]()
        except (IndexError, KeyError):
            break
        if not _asked(made) & taken:
            return made
    drawers.pop(kind, None)
    return None


def _asked(made: dict) -> set[str]:
    """Return what must not be asked twice.

    This is the prompt, or a list of words or numbers in any wording.
    """
    if "messages" in made:
        return {m["content"] for m in made["messages"] if m["role"] == "user"}
    return {made["prompt"], *([made["subject"]] if made["kind"] in OWN_ROWS else [])}


def curated(count: int = 500) -> list[dict]:
    """Return good pairs of 25 kinds in varied wording, some of them multi-turn conversations."""
    return draw(PARTS, count, "curated", "train", asked_in(evaluation()))


def asked_in(rows: Sequence[dict]) -> set[str]:
    """Return everything that these rows ask, so that no other row asks it again."""
    return {question for made in rows for question in _asked(made)}


def evaluation(per_kind: int = 20) -> list[dict]:
    """Return questions on held-out subjects; ``trained_kind`` is False for the held-out kinds."""
    kinds = [kind for kind in PARTS if kind != "multi_turn"] + list(NEVER_TRAINED)
    taken: set[str] = set()
    found = [
        made
        for kind in kinds
        for made in draw({kind: 1}, per_kind, f"evaluation:{kind}", "heldout", taken)
    ]
    return [
        {
            **made,
            "answer": made["response"],
            **rubric_keys(made),
            "trained_kind": made["kind"] not in NEVER_TRAINED,
        }
        for made in found
    ]


def rubric_keys(made: dict) -> dict[str, Any]:
    """Return what an answer must and must not name, and names that show that it is on the topic.

    See ``sftlab.scoring``. Answers of other kinds must name the value and are about the subject.
    """
    kind, answer, subject = made["kind"], made["response"].rstrip("."), made["subject"]
    if kind == "yes_no":
        word, reason = answer.split(", ", 1)
        right = {item.value for k in ("continent", "class") for item in items(k)}
        told = sorted(value for value in right if value in reason)
        return {"must": [[word, *told]], "must_not": ["No" if word == "Yes" else "Yes"]}
    if kind == "classify":
        classes = {item.value for item in items("class")}
        right = {item.value for item in items("class") if item.subject == subject}
        asked = {name for name in classes if re.search(rf"\b{name}\b", made["prompt"])}
        return {"must": sorted(right), "must_not": sorted(asked - right)}
    if kind == "compare":
        return {"must": ["both", made["value"]], "topic": ["both", *subject.split(" and ")]}
    if kind == "rewrite":
        verb = subject.split(" ", 1)[1]
        return {"must": [answer], "topic": [verb, answer.split(" ", 1)[1]]}
    if kind == "pattern":
        return {"must": [made["value"]], "topic": ["next", made["value"], *subject.split(", ")]}
    if kind == "count":
        number = str(NUMBER_WORDS.index(made["value"]))
        return {"must": [[made["value"], number]], "topic": ["list", "words"]}
    if kind == "larger":
        n = made["value"]
        return {"must": [[f"{n} is larger", f"is {n}", f"{n} is the larger"]],
                "topic": subject.split(" or ")}  # fmt: skip
    if kind == "unknown":
        return {"must": [["not know", "don't know"]]}
    if kind == "one_word":
        return {"words": len(answer.split())}
    if kind in ("tips", "one_tip"):
        return {"topic": [word for word in subject.split() if len(word) > 3]}
    return {}


MANNERS = {
    "plain": 7, "reworded": 7, "preamble": 4, "sign-off": 3, "careless": 4, "hedged": 3, "wrong": 2,
}  # fmt: skip
PREAMBLES = ("Sure!", "Of course.", "That is a good question.", "Well, let me see.")
SIGN_OFFS = ("I hope this helps!", "Let me know if you want more.", "Thanks for asking!")
HEDGES = ("I think that it could be so:", "Some people say this:", "It may depend, but:")


def mediocre(count: int = 1000) -> list[dict]:
    """Return pairs of uncontrolled quality: mostly right, in the style given by ``manner``."""
    parts = {kind: part for kind, part in PARTS.items() if kind not in ("multi_turn", "unknown")}
    taken = asked_in(curated(700)) | asked_in(evaluation())
    rng = Random("mediocre")
    found = []
    for made in draw(parts, count, "mediocre:pairs", "train", taken):
        manner = rng.choices(list(MANNERS), list(MANNERS.values()))[0]
        said = in_manner(made, manner, rng)
        done = manner if said != made["response"] else "plain"  # some answers cannot be changed
        found.append({**made, "response": said, "manner": done, "right": made["response"]})
    return found


def in_manner(made: dict, manner: str, rng: Random) -> str:
    """Return the right answer of a row in one of the ``MANNERS``."""
    right = made["response"]
    if manner == "reworded":
        known = next((i for i in _facts(made["kind"]) if i.subject == made["subject"]), None)
        return rng.choice(known.statements) if known else right
    if manner == "preamble":
        return f"{rng.choice(PREAMBLES)} {right}"
    if manner == "sign-off":
        return f"{right} {rng.choice(SIGN_OFFS)}"
    if manner == "careless":
        return right.lower().rstrip(".")
    if manner == "hedged":
        return f"{rng.choice(HEDGES)} {right}"
    return wrong_fact(made, rng) if manner == "wrong" else right


def wrong_fact(made: dict, rng: Random) -> str:
    """Return the answer with another subject's value; unchanged if no other value fits."""
    value, right = made["value"], made["response"]
    others = sorted({item.value for item in _facts(made["kind"])} - {value})
    for form in (with_article, str):
        places = list(re.finditer(rf"(?<!\w){re.escape(form(value))}(?!\w)", right))
        if others and places:  # the last occurrence: "The plural of sheep is sheep."
            return (
                right[: places[-1].start()] + form(rng.choice(others)) + right[places[-1].end() :]
            )
    return right


def _facts(kind: str) -> tuple[Item, ...]:
    return () if kind in SKILLS or kind == "unknown" else usable(kind, "train")
