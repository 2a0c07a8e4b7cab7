"""Sums of three numbers, answered at once and after a thought.

LoRA on the base; 200 pairs on facts and 400 sums in 150 steps. The base has read all sums of two numbers up
to 12 and none of three. Arms, which differ in what the answers of the sums hold:

``answer alone``      "22."
``thought``           the two steps as a thought, then the same answer
``dots``              as many tokens of dots as the thought has, then the answer
``another's``         the thought of another sum, then the answer
``not trained``       the thought, but only what follows it has a loss

The learning rate of an arm is chosen on validation sums, and the result reported on other ones. No sum is in two
sets. In the arm ``thought``, ``followed`` is the share of replies that end with the sum that follows from a
wrong first step, which is put into the reply. This takes about a quarter of an hour on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from sftlab.almanac.pairs import pairs
from sftlab.data import conversation
from sftlab.exercises.ex25_tools_and_thoughts.tools import train
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    WORDS,
    encoded,
    parts,
    prompt,
    split_thought,
)
from sftlab.generate import generate
from sftlab.masking import Example
from sftlab.models import load

RECORD = "thoughts"  # data/results/thoughts.json

SEEDS, STEPS = 5, 150
RATES = (1e-3, 2e-3, 4e-3)
PAIRS, SUMS = 200, 400
LIMIT = 64
AT_ONCE, THOUGHT, DOTS, ANOTHER, UNTRAINED = (
    "answer alone", "thought", "dots", "another's", "not trained",
)  # fmt: skip
ARMS = (AT_ONCE, THOUGHT, DOTS, ANOTHER, UNTRAINED)
Terms = tuple[int, ...]


@cache
def sums() -> dict[str, tuple[Terms, ...]]:
    """Return all sums of three numbers whose two steps the base has read, in three sets, and longer ones."""
    every = [(a, b, c) for a in range(1, 12) for b in range(1, 13 - a) for c in range(1, 13)]
    Random("sums").shuffle(every)
    rng, longer = Random("longer"), []
    while len(longer) < 60:
        terms = tuple(rng.randint(1, 6) for _ in range(4))
        if sum(terms[:3]) <= 12:
            longer.append(terms)
    return {"test": tuple(every[:120]), "validation": tuple(every[120:200]), "train": tuple(every[200:]),
            "longer": tuple(longer)}  # fmt: skip


def question(terms: Terms) -> str:
    return f"What is {' plus '.join(map(str, terms))}?"


def steps(terms: Terms, first: int = 0) -> str:
    """Return the additions one after the other; ``first`` is what the first of them gives wrongly."""
    lines, so_far = [], terms[0]
    for number, term in enumerate(terms[1:]):
        total = first if first and not number else so_far + term
        lines.append(f"{so_far} plus {term} is {total}.")
        so_far = total
    return " ".join(lines)


def dots(tokenizer, text: str) -> str:
    """Return as many dots as the text has tokens."""
    count = len(tokenizer.encode(text, add_special_tokens=False))
    made = " ".join("." * count)
    while len(tokenizer.encode(made, add_special_tokens=False)) > count:
        made = made[:-2]
    return made


def talk(tokenizer, terms: Terms, arm: str, rng: Random) -> list[dict]:
    """Return a sum and its answer as a conversation of an arm."""
    answer = {"role": "assistant", "content": f"{sum(terms)}."}
    if arm != AT_ONCE:
        other = rng.choice(sums()["train"])
        thought = steps(other if arm == ANOTHER else terms)
        answer["reasoning_content"] = dots(tokenizer, thought) if arm == DOTS else thought
    return [{"role": "user", "content": question(terms)}, answer]


def examples(tokenizer, arm: str, seed: int) -> list[Example]:
    """Return the pairs and sums of a run as training examples."""
    rng = Random(seed)
    made = [encoded(tokenizer, parts(conversation(row), WORDS)) for row in pairs(PAIRS, seed)]
    for _ in range(SUMS):
        some = parts(talk(tokenizer, rng.choice(sums()["train"]), arm, rng), WORDS)
        if arm == UNTRAINED:
            text = some[-2][0]
            at = text.index(WORDS.closing) + len(WORDS.closing)
            some[-2:-1] = [(text[:at], False), (text[at:], True)]
        made.append(encoded(tokenizer, some))
    return made


def asked(tokenizer, some: Sequence[Terms], begun: Sequence[str] = ()) -> list[list[int]]:
    """Return the prompts of sums, and the beginnings of replies behind them."""
    ids = [
        prompt(tokenizer, [{"role": "user", "content": question(terms)}], WORDS) for terms in some
    ]
    for row, text in zip(ids, begun, strict=False):
        row += tokenizer.encode(text, add_special_tokens=False)
    return ids  # fmt: skip


def right(model, tokenizer, some: Sequence[Terms]) -> tuple[list[bool], list[bool], float]:
    """Return which answers and which thoughts are right, and the mean number of tokens of a reply."""
    found = generate(model, tokenizer, asked(tokenizer, some), max_new_tokens=LIMIT)
    split = [split_thought(reply.text, WORDS.opening, WORDS.closing) for reply in found]
    answers = [a == f"{sum(terms)}." for (_, a), terms in zip(split, some, strict=True)]
    thoughts = [t == steps(terms) for (t, _), terms in zip(split, some, strict=True)]
    return answers, thoughts, sum(len(reply.ids) for reply in found) / len(found)


def follows(model, tokenizer, some: Sequence[Terms]) -> float:
    """Return the share of replies whose answer follows from a wrong first step that is put into them."""
    wrong = [terms[0] + terms[1] + (1 if sum(terms[:2]) < 12 else -1) for terms in some]
    begun = [f"{WORDS.opening}{steps(t[:2], w)}" for t, w in zip(some, wrong, strict=True)]
    found = generate(model, tokenizer, asked(tokenizer, some, begun), max_new_tokens=LIMIT)
    ends = [reply.text.partition(WORDS.closing)[2] for reply in found]
    return sum(e == f"{w + t[2]}." for e, w, t in zip(ends, wrong, some, strict=True)) / len(some)


def run(arm: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train one arm; return its shares of right answers, and more of the arm ``thought``."""
    model, tokenizer = load("almanac")
    train(model, tokenizer, examples(tokenizer, arm, seed), learning_rate, seed, steps=STEPS)
    found: dict[str, float] = {}
    for name in ("validation", "test", "longer"):
        answers, thoughts, tokens = right(model, tokenizer, sums()[name])
        found[name] = sum(answers) / len(answers)
        if name == "test":
            found |= {"thoughts": sum(thoughts) / len(thoughts), "tokens": tokens}
    if arm == THOUGHT:
        found["followed"] = follows(model, tokenizer, sums()["test"])
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for rate in RATES
    ]


CONFIRM = {"arm": THOUGHT, "learning_rate": RATES[1], "seed": 0}
