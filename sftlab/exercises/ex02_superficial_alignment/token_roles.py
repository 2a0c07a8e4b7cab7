"""Which tokens of a reply SFT shifts: those of its subject, of its value, or the others.

Three arms of 128 pairs. ``answers`` and ``shuffled`` are those of ``experiment``. A shuffled response
is still a true sentence, about another subject. Therefore a third arm, ``wrong values``: the subject
of the question stays, and the value is that of another pair, so that the sentence is false.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from random import Random

from sftlab.almanac.facts import VOWELS, Item, all_items
from sftlab.almanac.pairs import ASKED
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    ask,
    base_ranks,
    questions,
    training_pairs,
    tuned,
)
from sftlab.scoring import right_content

RECORD = "superficial_tokens"  # data/results/superficial_tokens.json

ARMS = ("answers", "shuffled", "wrong values")
ROLES = {"S": "first token of the subject", "V": "first token of the value", "o": "other tokens"}
PAIRS = 128
SEEDS = 5


def pairs_of(arm: str, seed: int) -> list[dict]:
    """Return a seed's pairs in one of the three arms; all arms have the same prompts."""
    if arm != "wrong values":
        return training_pairs(arm, PAIRS, seed)
    return wrong_values(training_pairs("answers", PAIRS, seed), Random(f"wrong values:{seed}"))


def wrong_values(pairs: Sequence[dict], rng: Random) -> list[dict]:
    """Return the pairs with a wrong value in each response on a fact: the value of another fact.

    Pairs of other kinds (lists, stories, comparisons …) stay as they are.
    """
    found = []
    for pair in pairs:
        if pair["kind"] in ASKED:
            own = pair["value"]
            others = {item.value for item in known(pair["kind"])} - {own}
            # "a" stays before a consonant, and "an" before a vowel.
            values = [v for v in sorted(others) if (v[0] in VOWELS) == (own[0] in VOWELS)]
            before, _, after = pair["response"].rpartition(own)
            pair = {**pair, "response": before + rng.choice(values) + after}
        found.append(pair)
    return found


def known(kind: str) -> list[Item]:
    """Return the facts of a kind that the base's documents state in many wordings."""
    return [item for item in all_items() if item.kind == kind and item.stratum == "known"]


@cache
def patterns(kind: str) -> tuple[re.Pattern, ...]:
    """Return the sentences in which facts of a kind are answered, open in subject and value."""
    found = set()
    for item in known(kind):
        # The value first: it may be inside the subject, but is never before the place meant here.
        before, _, after = item.answer.rpartition(item.value)
        text = f"{before}\0{after}"
        subject = re.search(rf"(?<!\w){re.escape(item.subject)}(?!\w)", text, re.IGNORECASE)
        if subject:
            text = f"{text[: subject.start()]}\1{text[subject.end() :]}"
            made = re.escape(text).replace("\0", "(?P<value>.+)").replace("\1", "(?P<subject>.+)")
            found.add(made)
    return tuple(re.compile(made) for made in sorted(found))


def stated(kind: str, text: str) -> re.Match | None:
    """Return subject and value of a reply that states a fact of a kind in the usual sentence."""
    return next(filter(None, (pattern.fullmatch(text) for pattern in patterns(kind))), None)


def is_true(kind: str, said: re.Match) -> bool:
    """Return whether a stated fact is one that the base's documents hold, whoever was asked about."""
    facts = {(item.subject.lower(), item.value) for item in known(kind)}
    return (said["subject"].lower(), said["value"]) in facts


def roles(said: re.Match, tokens: Sequence[str]) -> str:
    """Return the role of each token of a reply, one character each; see ``ROLES``.

    Further tokens of subject and value are "s" and "v".
    """
    found, end = "", 0
    for token in tokens:
        start, end = end + len(token) - len(token.lstrip()), end + len(token)
        role = "o"
        for name in ("subject", "value"):
            if start < said.end(name) and end > said.start(name):
                role = name[0].upper() if name[0].upper() not in found else name[0]
        found += role
    return found


def run(arm: str, seed: int) -> dict:
    """Train, ask the questions on known facts, and rank the tokens of every fourth reply.

    ``right`` and ``true`` have one character per question: does the reply have the content asked
    for, and is it a true statement about whatever subject it names?
    """
    model, tokenizer = tuned(pairs_of(arm, seed), seed)
    asked = [q for q in questions() if q["group"] == "facts"]
    replies = ask(model, tokenizer, asked)
    said = [stated(q["kind"], reply.text) for q, reply in zip(asked, replies, strict=True)]
    found: dict = {"right": "", "true": "", "roles": [], "ranks": []}
    for question, reply, fact in zip(asked, replies, said, strict=True):
        found["right"] += str(int(right_content(question, reply.text)))
        found["true"] += str(int(fact is not None and is_true(question["kind"], fact)))
    for question, reply, fact in list(zip(asked, replies, said, strict=True))[::4]:
        if reply.stopped and fact:
            (ranks,) = base_ranks(model, tokenizer, [question], [reply])
            found["roles"].append(roles(fact, [tokenizer.decode([i]) for i in reply.ids]))
            found["ranks"].append(ranks[:-1])  # without the end-of-turn token
    return {**found, "answers": [reply.text for reply in replies[::20]]}


def settings() -> list[dict]:
    """Seed by seed, the three arms."""
    return [{"arm": arm, "seed": seed} for seed in range(SEEDS) for arm in ARMS]
