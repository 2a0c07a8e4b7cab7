"""Data quality against quantity: the same base model and recipe with different training pairs.

A seed draws the pairs, the initial adapter and the order of the examples. All arms of a seed share
what they can: 100 good pairs are part of its 500, and its bad pairs have a twin with the right
answers. So a difference between two arms is due to what their names say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import curated, mediocre
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs
from sftlab.exercises.recipes import suited
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import RUBRIC, score_answer
from sftlab.train import TrainConfig, sft_train

RECORD = "data_quality"  # data/results/data_quality.json

BATCH = 16
STEPS = 120  # 3.84 epochs of 500 pairs
LONGER = 168  # as many epochs of 700 pairs
SHORTER = 24  # as many epochs of 100 pairs
SEEDS = 5
PER_DEFECT = 25  # bad pairs of each of the eight defects
SHOWN = 60  # answers stored as text for seed 0, spread over all questions

MAIN = ("500 good", "500 good + 200 bad", "500 good + 200 right")


def good(seed: int, count: int) -> list[dict]:
    """Return good pairs; those of a smaller count are the first of a larger one."""
    return Random(f"good pairs:{seed}").sample(curated(700), 700)[:count]


@cache
def _bad_pool() -> tuple[dict, ...]:
    return tuple(low_quality(2 * PER_DEFECT))


def bad(seed: int) -> list[dict]:
    """Return 200 bad pairs, equally many of each defect; ``right`` is the right answer."""
    rng = Random(f"bad pairs:{seed}")
    found = [
        row
        for defect in DEFECTS
        for row in rng.sample([r for r in _bad_pool() if r["defect"] == defect], PER_DEFECT)
    ]
    rng.shuffle(found)
    return found


def right(rows: list[dict]) -> list[dict]:
    """Return bad pairs with their right answers: the same questions, nothing wrong."""
    return [
        {key: value for key, value in {**row, "response": row["right"]}.items() if key != "defect"}
        for row in rows
    ]


def thinned(seed: int) -> list[dict]:
    """Return as many of the 700 pairs as the filter keeps, chosen by lot instead."""
    rows = ARMS[MAIN[1]](seed)
    keep = set(Random(f"thinned:{seed}").sample(range(len(rows)), len(filter_pairs(rows))))
    return [row for number, row in enumerate(rows) if number in keep]


ARMS: dict[str, Callable[[int], list[dict]]] = {
    "500 good": lambda seed: good(seed, 500),
    "500 good + 200 bad": lambda seed: good(seed, 500) + bad(seed),
    "500 good + 200 right": lambda seed: good(seed, 500) + right(bad(seed)),
    "100 good": lambda seed: good(seed, 100),
    "100 good + 200 bad": lambda seed: good(seed, 100) + bad(seed),
    "100 good + 200 right": lambda seed: good(seed, 100) + right(bad(seed)),
    "300 good + 200 bad": lambda seed: good(seed, 300) + bad(seed),
    "filtered": lambda seed: filter_pairs(good(seed, 500) + bad(seed)),
    "thinned by lot": thinned,
    "1,000 mediocre": lambda seed: mediocre(),
}


def settings() -> list[dict]:
    """Return every arm at equal steps, and those that are compared at equal epochs as well."""
    runs = [(arm, STEPS) for arm in ARMS]
    runs += [(arm, LONGER) for arm in MAIN]
    runs += [(arm, SHORTER) for arm in ("500 good", "100 good")]
    return [
        {"arm": arm, "steps": steps, "seed": seed} for seed in range(SEEDS) for arm, steps in runs
    ]


def train(
    rows: list[dict], seed: int, name: str = "almanac", progress: bool = False, steps: int = STEPS
):
    """Return the base model tuned on these rows, and its tokenizer."""
    model, tokenizer = load(name)
    examples = tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    passes = -(-steps * BATCH // len(rows)) + 1
    config = TrainConfig(
        learning_rate=2e-3, num_train_epochs=passes, max_steps=steps, batch_size=BATCH, seed=seed
    )
    sft_train(model, examples, suited(config, model), tokenizer.pad_token_id, progress=progress)
    return model, tokenizer


@cache
def _questions() -> tuple[dict, ...]:
    return tuple(read_jsonl(INSTRUCTIONS / "evaluation.jsonl"))


def questions() -> list[dict]:
    """Return the evaluation set: every question of ``evaluation.jsonl``, in order."""
    return list(_questions())


def examine(
    model, tokenizer, asked: list[dict], limit: int = 80
) -> tuple[dict[str, str], list[str]]:
    """Return a string for each rubric line, with "1" where it holds, and the answers.

    Each string has one character per question. Only the end-of-turn token ends an answer, as in a
    server of chat models.
    """
    strict = copy.deepcopy(tokenizer)
    strict.bos_token = None
    replies = answer(model, strict, [q["prompt"] for q in asked], max_new_tokens=limit)
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    lines = {line: "".join(str(int(getattr(s, line))) for s in scores) for line in RUBRIC}
    return lines, [g.text for g in replies]


def by_kind(marks: str, asked: list[dict]) -> list[int]:
    """Return how many questions of each kind hold, in the order in which the kinds first occur."""
    counts: dict[str, int] = {}
    for mark, question in zip(marks, asked, strict=True):
        counts[question["kind"]] = counts.get(question["kind"], 0) + int(mark)
    return list(counts.values())


def run(arm: str, steps: int, seed: int) -> dict:
    """Train one arm and test it: for each rubric line, the number of answers of each kind."""
    rows = ARMS[arm](seed)
    model, tokenizer = train(rows, seed, steps=steps)
    asked = questions()
    lines, texts = examine(model, tokenizer, asked)
    found = {line: by_kind(marks, asked) for line, marks in lines.items()}
    shown = {"answers": texts[:: len(asked) // SHOWN]} if seed == 0 else {}
    return {"pairs": len(rows), **found, **shown}
