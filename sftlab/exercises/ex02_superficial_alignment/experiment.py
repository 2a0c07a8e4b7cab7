"""How many good pairs teach format, and how many facts: n = 0 … 500, by question and by stratum.

Every n trains for the same number of steps. With the same number of *epochs*, 8 pairs would get a
sixtieth of the updates of 500, and the effect of few steps would look like that of few pairs.
"""

from __future__ import annotations

import copy
from functools import cache
from random import Random

from sftlab.almanac.curated import curated
from sftlab.almanac.pairs import ASKED, heldout, stratum_questions, unasked_questions
from sftlab.data import conversation, tokenize_conversations
from sftlab.generate import Generation, answer
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import TrainConfig, sft_train

RECORD = "superficial"  # data/results/superficial.json

SIZES = (0, 8, 32, 128, 500)
SEEDS = 3
STEPS = 120  # of 16 examples, or of all if there are fewer
LINES = ("correct", "content", "format", "stops")
PER_KIND = {"asked": 10, "unasked": 60}  # questions of each kind


@cache
def questions() -> dict[str, list[dict]]:
    """Return stratum -> questions; no subject of "asked" is in any pair.

    "asked": known facts of kinds that pairs ask about; "lists": three tips for a topic; "unasked":
    known facts of kinds that no pair asks about; "single": facts that the base model read in one
    fixed sentence; "absent": facts that occur in none of its documents.
    """
    known, unasked = heldout(per_kind=PER_KIND["asked"]), unasked_questions()
    Random("superficial").shuffle(unasked)
    kinds = sorted({q["kind"] for q in unasked})
    return {
        "asked": [q for q in known if q["kind"] in ASKED],
        "lists": [q for q in known if q["kind"] == "tips"],
        "unasked": [
            q for k in kinds for q in [q for q in unasked if q["kind"] == k][: PER_KIND["unasked"]]
        ],
        "single": stratum_questions("single"),
        "absent": stratum_questions("absent"),
    }


def training_pairs(pairs: int, seed: int) -> list[dict]:
    """Return a seed's sample of the 500 curated pairs; larger samples contain the smaller ones."""
    rows = curated()
    Random(f"superficial:{seed}").shuffle(rows)
    return rows[:pairs]


def tuned(pairs: int, seed: int, name: str = "almanac", steps: int = STEPS, progress: bool = False):
    """Return the base model after LoRA on ``pairs`` pairs (unchanged for 0), and its tokenizer."""
    model, tokenizer = load(name)
    if not pairs:
        return model, tokenizer
    rows = [conversation(row) for row in training_pairs(pairs, seed)]
    examples = tokenize_conversations(tokenizer, rows).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    passes = -(-steps * 16 // pairs) + 1
    config = TrainConfig(learning_rate=2e-3, num_train_epochs=passes, max_steps=steps, seed=seed)
    sft_train(model, examples, config, tokenizer.pad_token_id, progress=progress)
    return model, tokenizer


def ask(model, tokenizer, asked: list[dict], limit: int = 48) -> list[Generation]:
    """Return the answers in the chat template. Only the end-of-turn token ends an answer."""
    strict = copy.deepcopy(tokenizer)
    # The base model often begins a new document; that does not end an answer.
    strict.bos_token = None
    return answer(model, strict, [q["prompt"] for q in asked], max_new_tokens=limit)


def scored(asked: list[dict], replies: list[Generation]) -> dict[str, str]:
    """Return a string for each rubric line, with "1" for each question where it holds, else "0".

    "refuses" marks answers that say that the model does not know.
    """
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    found = {line: "".join(str(int(getattr(s, line))) for s in scores) for line in LINES}
    return {**found, "refuses": "".join(str(int("not know" in g.text)) for g in replies)}


def run(pairs: int, seed: int) -> dict:
    """Train on ``pairs`` pairs and ask the questions of every stratum."""
    model, tokenizer = tuned(pairs, seed)
    found = {}
    for stratum, asked in questions().items():
        replies = ask(model, tokenizer, asked)
        found[stratum] = {**scored(asked, replies), "answers": [g.text for g in replies[::12]]}
    return found


def settings() -> list[dict]:
    """Return three seeds for every size, but one for size 0, where nothing is random."""
    return [
        {"pairs": pairs, "seed": seed}
        for seed in range(SEEDS)
        for pairs in SIZES
        if pairs or not seed
    ]
