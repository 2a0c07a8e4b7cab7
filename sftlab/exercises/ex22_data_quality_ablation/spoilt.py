"""One defect at a time, in three doses: the same 300 questions, of which some answers are spoilt.

The control answers all of them right. Two defects are none of the answers: near-copies, which take
the place of other pairs, and questions of the evaluation set with their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from sftlab.almanac.defects import DEFECTS, one_defect
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    SEEDS,
    by_kind,
    examine,
    good,
    questions,
    right,
    train,
)

RECORD = "data_defects"  # data/results/data_defects.json

STEPS = 80  # 4.3 epochs of 300 pairs
FEWER = 53  # as many epochs of 200 pairs
PAIRS, PLACES = 300, 100  # pairs of an arm, and those of them that may be spoilt
DOSES = (10, 30, 100)  # spoilt pairs
ORIGINALS = 5  # pairs that are copied
NONE, LEFT_OUT, COPIES, LEAKED = "none", "left out", "near-copies", "leaked questions"
LEFT_OUT_SHORTER = "left out, equal epochs"
SHOWN = 36  # answers stored as text for seed 0
GREETINGS = ("", "Please: ", "Question: ", "Hello! ", "Quick one: ", "One more: ")
ENDINGS = ("", " ", "!", " Thanks.", " :)", "\n")


@cache
def _fact_pool() -> tuple[dict, ...]:
    return tuple(right(one_defect("wrong fact", 2 * PLACES)))


def fact_pairs(seed: int) -> list[dict]:
    """Return 100 pairs that each state one fact, with right answers."""
    return Random(f"fact pairs:{seed}").sample(_fact_pool(), PLACES)


def with_defect(defect: str) -> Callable[[dict], str]:
    """Return the function that answers a pair with this defect, each pair always in the same way."""
    return lambda pair: DEFECTS[defect](pair, Random(f"{defect}:{pair['prompt']}"))


def with_any(pair: dict) -> str:
    """Answer a pair with one of the eight defects, which its question decides by lot."""
    return with_defect(Random(f"any:{pair['prompt']}").choice(list(DEFECTS)))(pair)


def spoil(
    pairs: Sequence[dict], make_bad: Callable[[dict], str], share: float, order: Sequence[int]
) -> list[dict]:
    """Return the pairs with a share of their answers replaced by ``make_bad(pair)``.

    Args:
        order: all positions, in the order in which they are spoilt. The same order for every defect
            and share compares defects on the same questions, and a larger share spoils all that a
            smaller one does.
    """
    hit = set(order[: round(share * len(pairs))])
    return [
        {**pair, "response": make_bad(pair)} if place in hit else pair
        for place, pair in enumerate(pairs)
    ]


def drawn_order(seed: int) -> list[int]:
    """Return the positions of the pairs on facts in the order in which they are spoilt."""
    return Random(seed).sample(range(PLACES), PLACES)


def near_copies(rows: list[dict], count: int, seed: int) -> list[dict]:
    """Return ``count`` copies of a few pairs, each in slightly other words around the question."""
    rng = Random(f"near-copies:{seed}")
    plain = [row for row in rows if "response" in row]
    originals = rng.sample(plain, ORIGINALS)
    changes = [(a, b) for a in GREETINGS for b in ENDINGS if a or b]
    return [
        {**row, "prompt": f"{a}{row['prompt']}{b}"}
        for row in originals
        for a, b in rng.sample(changes, count // ORIGINALS)
    ]


def leaked(seed: int) -> list[int]:
    """Return the places of 100 questions of the evaluation set, in the order in which they leak."""
    return Random(f"leaked:{seed}").sample(range(len(questions())), PLACES)


def rows(defect: str, bad: int, seed: int) -> list[dict]:
    """Return the pairs of an arm: 200 good ones on all kinds and 100 on facts, ``bad`` of them spoilt."""
    kept, facts = good(seed, PAIRS - PLACES), fact_pairs(seed)
    if defect in DEFECTS:
        return kept + spoil(facts, with_defect(defect), bad / PLACES, drawn_order(seed))
    if defect == COPIES:
        return kept + near_copies(kept, bad, seed) + facts[bad:]
    if defect == LEAKED:
        asked = [questions()[place] for place in leaked(seed)[:bad]]
        answered = [{"prompt": q["prompt"], "response": q["answer"]} for q in asked]
        return kept + answered + facts[bad:]
    return kept + (facts if defect == NONE else facts[bad:])


def settings() -> list[dict]:
    """Return the largest dose of every defect first, then the smaller ones."""
    every = [*DEFECTS, COPIES, LEAKED]
    missing = [(LEFT_OUT, DOSES[2]), (LEFT_OUT_SHORTER, DOSES[2])]
    arms = [(NONE, 0), *missing, *((defect, DOSES[2]) for defect in every)]
    middle = [(defect, DOSES[1]) for defect in every]
    small = [(defect, DOSES[0]) for defect in DEFECTS]
    return [
        {"defect": defect, "bad": bad, "seed": seed}
        for part in (arms, middle, small)
        for seed in range(SEEDS)
        for defect, bad in part
    ]


def run(defect: str, bad: int, seed: int) -> dict:
    """Train one arm and test it, by kind; also the marks of the questions that may leak."""
    steps = FEWER if defect == LEFT_OUT_SHORTER else STEPS
    model, tokenizer = train(rows(defect, bad, seed), seed, steps=steps)
    asked = questions()
    lines, texts = examine(model, tokenizer, asked)
    found: dict = {line: by_kind(marks, asked) for line, marks in lines.items()}
    found["may_leak"] = "".join(lines["correct"][k] for k in leaked(seed))
    shown = {"answers": texts[:: len(asked) // SHOWN]} if seed == 0 else {}
    return {**found, **shown}
