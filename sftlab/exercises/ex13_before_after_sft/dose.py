"""Pairs that decline unknown names: how many, and what they cost on known questions.

LoRA on the base with the same number of steps in every run. ``unknown`` pairs ask about invented
names and decline; they stand beside 200 pairs on known facts. Two arms:

``declining only``     nothing else is added.
``known beside them``  as many pairs on *other known* facts, asked in the same careless wordings.

Both are measured on names and subjects that no pair has. This takes about a quarter of an hour on one core.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import TYPE_CHECKING

from sftlab.almanac.free_prompts import reply_type
from sftlab.almanac.out_of_scope import made, unknown_questions
from sftlab.almanac.pairs import heldout, pairs
from sftlab.data import conversation, tokenize_conversations
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.statistics import mean_with_interval
from sftlab.train import TrainConfig, sft_train

if TYPE_CHECKING:
    import pandas as pd

RECORD = "declining"  # data/results/declining.json

DOSES = (0, 50, 100, 200, 400)
ARMS = ("declining only", "known beside them")
SEEDS = 5
STEPS, BATCH, RATE = 100, 16, 2e-3
PAIRS = 200  # on known facts, in every run
UNKNOWN, KNOWN = 96, 160  # questions
MEASURED = ("declined", "made_up", "known_right", "wrongly_declined")


@cache
def exam() -> tuple[list[dict], list[dict]]:
    """Return questions about invented names, and held-out questions about known facts."""
    facts = [q for q in heldout() if q["kind"] not in ("tips", "sum")]
    return unknown_questions(UNKNOWN), Random("declining").sample(facts, KNOWN)


def training_rows(arm: str, dose: int, seed: int) -> list[dict]:
    """Return the pairs of a run; those of a smaller dose are among those of a larger one."""
    rows = pairs(PAIRS, seed) + made("unknown", dose, seed)
    return rows + made("known", dose, seed) if arm == ARMS[1] else rows


def run(arm: str, dose: int, seed: int) -> dict[str, float]:
    """Train the base model with a dose of declining pairs, and measure both kinds of question.

    Returns:
        Shares of the questions about invented names that are ``declined`` and answered with a
        ``made_up`` fact, and of the known ones that are answered right (exactly) and
        ``wrongly_declined``.
    """
    model, tokenizer = load("almanac")
    rows = [conversation(row) for row in training_rows(arm, dose, seed)]
    examples = tokenize_conversations(tokenizer, rows).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=RATE, num_train_epochs=STEPS, max_steps=STEPS,
                         batch_size=BATCH, seed=seed)  # fmt: skip
    history = sft_train(model, examples, config, tokenizer.pad_token_id, progress=False)
    if not history.finished:
        raise KeyboardInterrupt  # half a run is not measured
    return measure(model, tokenizer)


def measure(model, tokenizer) -> dict[str, float]:
    """Return the four shares of a chat model; see `run`."""
    unknown, known = exam()
    replies = answer(model, tokenizer, [q["prompt"] for q in (*unknown, *known)], max_new_tokens=24)
    types = [reply_type(reply.text) for reply in replies]
    right = [
        score_answer(q, g.text, g.stopped).correct
        for q, g in zip(known, replies[len(unknown) :], strict=True)
    ]
    return {
        "declined": types[: len(unknown)].count("decline") / len(unknown),
        "made_up": types[: len(unknown)].count("statement") / len(unknown),
        "known_right": sum(right) / len(known),
        "wrongly_declined": types[len(unknown) :].count("decline") / len(known),
    }


def settings() -> list[dict]:
    """Return all settings, seed by seed; without a dose the arms are the same, so one is run."""
    return [
        {"arm": arm, "dose": dose, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for dose in DOSES
        if dose or arm == ARMS[0]
    ]


CONFIRM = {"arm": ARMS[0], "dose": 100, "seed": 0}


def curve(runs: list[dict]) -> pd.DataFrame:
    """Return the mean of each share over the seeds with its 95% t interval, for each arm and dose.

    Args:
        runs: as ``sftlab.exercises.record.runs("declining")`` returns them.

    Returns:
        A table with the columns ``arm``, ``dose``, ``seeds`` and, for each share in ``MEASURED``,
        its mean, ``… low`` and ``… high``. Dose 0 stands in both arms. Interval ends are kept
        within 0 to 1, which a t interval can exceed.
    """
    import pandas as pd

    rows = []
    for arm in ARMS:
        for dose in sorted({run["dose"] for run in runs}):
            chosen = {"arm": arm if dose else ARMS[0], "dose": dose}
            seeds = sum(all(run[k] == v for k, v in chosen.items()) for run in runs)
            row = {"arm": arm, "dose": dose, "seeds": seeds}
            for name in MEASURED:
                mean, (low, high) = mean_with_interval(runs, name, **chosen)
                row |= {name: mean, f"{name} low": max(low, 0.0), f"{name} high": min(high, 1.0)}
            rows.append(row)
    return pd.DataFrame(rows)
