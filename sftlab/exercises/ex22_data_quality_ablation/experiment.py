"""Data quality against quantity: the same base model and recipe with different pairs.

Answers are scored question by question. Every arm trains for the same number of steps, so that none
gets more updates. The share of bad pairs in an arm's name is their share of its rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import curated, mediocre
from sftlab.almanac.defects import DEFECTS, low_quality, one_defect
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs
from sftlab.exercises.recipes import suited
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import RUBRIC, score_answer
from sftlab.train import TrainConfig, sft_train

RECORD = "data_quality"  # data/results/data_quality.json

STEPS = 120  # of 16 examples: 3.8 epochs of 500 pairs
DOSES = (0, 5, 10, 25, 50)  # percent of 400 pairs
SHOWN = 60  # number of answers stored as text, spread over all questions


def dose(percent: int) -> list[dict]:
    """Return 400 pairs, ``percent`` percent of them bad."""
    count = 400 * percent // 100
    return curated(400 - count) + low_quality()[:count]


ARMS: dict[str, Callable[[], list[dict]]] = {
    "500 good": lambda: curated(500),
    "500 good + 200 bad": lambda: curated(500) + low_quality(),
    "700 good": lambda: curated(700),
    "300 good": lambda: curated(300),
    "300 good + 200 bad": lambda: curated(300) + low_quality(),
    "100 good": lambda: curated(100),
    "1,000 mediocre": mediocre,
    "500 good + 200 bad, filtered": lambda: filter_pairs(curated(500) + low_quality()),
    **{f"{percent}% bad": lambda percent=percent: dose(percent) for percent in DOSES},
    **{
        f"200 good + 100 {name}": lambda name=name: curated(200) + one_defect(name)
        for name in DEFECTS
    },
}
MAIN = ("500 good", "500 good + 200 bad")


def settings() -> list[dict]:
    """Return three seeds of every arm and five of the main pair, seed by seed."""
    found = [{"arm": arm, "seed": seed} for seed in range(3) for arm in ARMS]
    return found + [{"arm": arm, "seed": seed} for seed in (3, 4) for arm in MAIN]


def train(
    rows: list[dict], seed: int, name: str = "almanac", progress: bool = False, steps: int = STEPS
):
    """Return the base model tuned on these rows, and its tokenizer."""
    model, tokenizer = load(name)
    examples = tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    passes = -(-steps * 16 // len(rows)) + 1
    config = TrainConfig(learning_rate=2e-3, num_train_epochs=passes, max_steps=steps, seed=seed)
    sft_train(model, examples, suited(config, model), tokenizer.pad_token_id, progress=progress)
    return model, tokenizer


def questions() -> list[dict]:
    """Return the evaluation set: every question of ``evaluation.jsonl``, in order."""
    return read_jsonl(INSTRUCTIONS / "evaluation.jsonl")


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


def run(arm: str, seed: int) -> dict:
    """Train one arm and test it."""
    rows = ARMS[arm]()
    model, tokenizer = train(rows, seed)
    asked = questions()
    lines, texts = examine(model, tokenizer, asked)
    every = len(asked) // SHOWN
    return {"pairs": len(rows), **lines, "answers": texts[::every]}
