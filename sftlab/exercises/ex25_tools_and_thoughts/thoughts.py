"""Sums of three numbers, answered at once and after a thought.

LoRA on the base; 200 pairs on facts and 400 sums. The base has read the sums of two numbers from 1 to 12, and
none of three. Arms, which differ in what the answers of the sums hold:

``answer alone``      "22."
``thought``           the two additions as a thought, then the same answer
``dots``              as many tokens of dots as the thought has, then the answer
``another's``         the thought of another sum, then the answer
``not trained``       the thought, but only what follows it has a loss
``additions apart``   the answer alone; both additions are 800 further examples, each with its own question

All arms have the same sums in a seed. The learning rate of an arm is chosen on validation sums, and the result
reported on other ones. No sum is in two sets, in any order of its numbers. Measured on the test sums: the share of right
answers (``test``) and thoughts, the log-probability of the right answer behind what the model wrote before it
(``nats``), right answers with the right thought given (``given``), right answers on trained sums (``trained``),
and, with a wrong first addition in the thought, the shares of answers that follow from it, give the true total, or
something else. ``answer alone`` and ``dots`` are trained in four times as many steps, too. This takes about an hour
on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from sftlab.almanac.pairs import pairs
from sftlab.data import conversation
from sftlab.exercises.ex25_tools_and_thoughts.tools import log_probability, replies, train
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    END,
    WORDS,
    Message,
    encoded,
    parts,
    prompt,
    split_thought,
)
from sftlab.masking import Example
from sftlab.models import load

RECORD = "thoughts"  # data/results/thoughts.json

SEEDS, STEPS = 5, 150
RATES = (1e-3, 2e-3, 4e-3)
PAIRS, SUMS = 200, 400
AT_ONCE, THOUGHT, DOTS, ANOTHER, UNTRAINED, APART = (
    "answer alone", "thought", "dots", "another's", "not trained", "additions apart",
)  # fmt: skip
ARMS = (AT_ONCE, THOUGHT, DOTS, ANOTHER, UNTRAINED, APART)
LONGER = (AT_ONCE, DOTS)  # also in four times as many steps
Terms = tuple[int, ...]


@cache
def sums() -> dict[str, tuple[Terms, ...]]:
    """Return all sums of three numbers whose two additions the base has read, in three sets, and longer ones."""
    every = [(a, b, c) for a in range(1, 12) for b in range(1, 13 - a) for c in range(1, 13)]
    numbers = sorted({tuple(sorted(terms)) for terms in every})
    Random("sums").shuffle(numbers)
    ends = {"test": 36, "validation": 60, "train": len(numbers)}
    found, begin = {}, 0
    for name, end in ends.items():
        chosen = set(numbers[begin:end])
        found[name] = tuple(terms for terms in every if tuple(sorted(terms)) in chosen)
        begin = end
    rng, longer = Random("longer"), []
    while len(longer) < 60:
        terms = tuple(rng.randint(1, 6) for _ in range(4))
        if sum(terms[:3]) <= 12:
            longer.append(terms)
    return found | {"longer": tuple(longer)}


def question(terms: Terms) -> str:
    return f"What is {' plus '.join(map(str, terms))}?"


def additions(terms: Terms, first: int = 0) -> list[str]:
    """Return the additions one after the other; ``first`` is what the first of them gives wrongly."""
    lines, so_far = [], terms[0]
    for number, term in enumerate(terms[1:]):
        total = first if first and not number else so_far + term
        lines.append(f"{so_far} plus {term} is {total}.")
        so_far = total
    return lines


def dots(tokenizer, text: str) -> str:
    """Return as many dots as the text has tokens."""
    count = len(tokenizer.encode(text, add_special_tokens=False))
    made = " ".join("." * count)
    while len(tokenizer.encode(made, add_special_tokens=False)) > count:
        made = made[:-2]
    return made


def drawn(seed: int) -> list[Terms]:
    """Return the sums that every arm of a seed is trained on."""
    return Random(f"sums {seed}").choices(sums()["train"], k=SUMS)


def sum_conversation(tokenizer, terms: Terms, arm: str, other: Terms) -> list[Message]:
    """Return a sum and its answer as an arm has it; ``other`` is the sum of another thought."""
    answer = {"role": "assistant", "content": f"{sum(terms)}."}
    if arm not in (AT_ONCE, APART):
        thought = " ".join(additions(other if arm == ANOTHER else terms))
        answer["reasoning_content"] = dots(tokenizer, thought) if arm == DOTS else thought
    return [{"role": "user", "content": question(terms)}, answer]


def examples(tokenizer, arm: str, seed: int) -> list[Example]:
    """Return the pairs and sums of a run as training examples."""
    made = [encoded(tokenizer, parts(conversation(row), WORDS)) for row in pairs(PAIRS, seed)]
    others = Random(f"others {seed}")
    for terms in drawn(seed):
        other = others.choice(sums()["train"])
        some = parts(sum_conversation(tokenizer, terms, arm, other), WORDS)
        if arm == UNTRAINED:
            text = some[-2][0]
            at = text.index(WORDS.closing) + len(WORDS.closing)
            some[-2:-1] = [(text[:at], False), (text[at:], True)]
        made.append(encoded(tokenizer, some))
        if arm == APART:
            for line in additions(terms):
                asked = f"What is {line.partition(' is ')[0]}?"
                row = {"prompt": asked, "response": f"{line.rpartition(' ')[2]}"}
                made.append(encoded(tokenizer, parts(conversation(row), WORDS)))
    return made


def answers(model, tokenizer, some: Sequence[Terms], begun: Sequence[str] = ()) -> list[tuple[str, str]]:  # fmt: skip
    """Return thought and answer of each reply; ``begun`` is a beginning that is put into the reply."""
    talks = [[{"role": "user", "content": question(terms)}] for terms in some]
    found = replies(model, tokenizer, talks, WORDS, begun)
    starts = begun or [""] * len(found)
    return [
        split_thought(b + reply, WORDS.opening, WORDS.closing)
        for b, reply in zip(starts, found, strict=True)
    ]


def share(found: Sequence[tuple[str, str]], totals: Sequence[int]) -> float:
    return sum(
        answer == f"{total}." for (_, answer), total in zip(found, totals, strict=True)
    ) / len(totals)


def nats(model, tokenizer, some: Sequence[Terms], found: Sequence[tuple[str, str]]) -> float:
    """Return the mean log-probability of the right answers behind the thoughts that were written."""
    total = 0.0
    for terms, (thought, _) in zip(some, found, strict=True):
        begun = WORDS.thought(thought) if thought else ""
        ids = prompt(tokenizer, [{"role": "user", "content": question(terms)}], WORDS, begun)
        total += log_probability(model, tokenizer, ids, f"{sum(terms)}.{END}")
    return total / len(some)


def wrong_steps(model, tokenizer, some: Sequence[Terms]) -> dict[str, float]:
    """Return what becomes of a wrong first addition in the thought."""
    wrong = [a + b + (1 if a + b < 12 else -1) for a, b, _ in some]
    begun = [f"{WORDS.opening}{additions(t[:2], w)[0]}" for t, w in zip(some, wrong, strict=True)]
    found = answers(model, tokenizer, some, begun)
    follows = share(found, [w + t[2] for w, t in zip(wrong, some, strict=True)])
    true = share(found, [sum(t) for t in some])
    return {"followed": follows, "corrected": true, "other": 1 - follows - true}


def run(arm: str, learning_rate: float, seed: int, times: int = 1) -> dict[str, float]:
    """Train one arm in ``times`` as many steps; return what the module docstring names."""
    model, tokenizer = load("almanac")
    train(
        model, tokenizer, examples(tokenizer, arm, seed), learning_rate, seed, steps=times * STEPS
    )
    sets = {name: sums()[name] for name in ("validation", "test", "longer")}
    sets["trained"] = tuple(drawn(seed)[:60])
    replied = {name: answers(model, tokenizer, some) for name, some in sets.items()}
    found = {name: share(replied[name], list(map(sum, some))) for name, some in sets.items()}
    test = sets["test"]
    found["thoughts"] = sum(
        t == " ".join(additions(terms)) for (t, _), terms in zip(replied["test"], test, strict=True)
    ) / len(test)  # fmt: skip
    found["nats"] = nats(model, tokenizer, test, replied["test"])
    if arm not in (AT_ONCE, APART):
        right = [WORDS.thought(" ".join(additions(terms))) for terms in test]
        found["given"] = share(answers(model, tokenizer, test, right), list(map(sum, test)))
    if arm == THOUGHT:
        found |= wrong_steps(model, tokenizer, test)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    found = []
    for seed in range(SEEDS):
        for arm in ARMS:
            found += [{"arm": arm, "learning_rate": rate, "seed": seed} for rate in RATES]
            if arm in LONGER:
                found += [{"arm": arm, "learning_rate": rate, "seed": seed, "times": 4} for rate in RATES[:2]]  # fmt: skip
    return found


CONFIRM = {"arm": THOUGHT, "learning_rate": RATES[1], "seed": 0}
