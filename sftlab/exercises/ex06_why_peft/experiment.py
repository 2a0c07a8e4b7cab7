"""Full fine-tuning and LoRA stopped at the same held-out loss: what each has forgotten by then.

Each trains at its best learning rate of the sweep ``learning_rate``, on the same 32 pairs in the
same order, with a constant learning rate after a short warm-up. After every step the loss on 50
held-out responses is measured. Each time it falls to the next of ``TARGETS``, the model is measured
as in that sweep, on other questions.

``at``        target -> the step, and ``nll``, ``exact``, ``documents``, ``recall`` at that step
``asked``     share of the untouched facts answered in a chat, at the last target

This takes about three minutes on two cores.
"""

from __future__ import annotations

from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.pairs import unasked_questions
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.ex10_lora_learning_rate.experiment import (
    LIMIT,
    fresh,
    measure,
    questions,
    training_rows,
)
from sftlab.exercises.recipes import response_nll
from sftlab.generate import answer
from sftlab.masking import Example
from sftlab.train import TrainConfig, sft_train

RECORD = "matched_score"  # data/results/matched_score.json

METHODS = ("full", "lora")
BEST = {"full": 5e-4, "lora": 5e-3}  # best learning rates of the sweep, rounded
TARGETS = (0.3, 0.1)  # nats per token
SEEDS = 5
WARMUP, MOST = 3, 144  # steps


def validation_rows(tokenizer, count: int = 50) -> list[Example]:
    """Return the validation set that decides when to stop; the measurements use other questions."""
    measured = {question["prompt"] for question in questions()}
    rest = [q for q in read_jsonl(INSTRUCTIONS / "heldout.jsonl") if q["prompt"] not in measured]
    asked = [conversation(question) for question in Random(1).sample(rest, count)]
    return tokenize_conversations(tokenizer, asked).examples


def asked_share(model, tokenizer, count: int = 100) -> float:
    """Return the share of right answers to questions of kinds that no pair asks about.

    An answer is right if it contains the value.
    """
    asked = Random(0).sample(unasked_questions(), count)
    replies = answer(model, tokenizer, [q["prompt"] for q in asked], max_new_tokens=LIMIT)
    return sum(q["value"] in g.text for q, g in zip(asked, replies, strict=True)) / count


def train_to(model, tokenizer, rate: float, seed: int, targets=TARGETS, on_target=None) -> dict:
    """Train until the held-out loss has reached the last target, or for ``MOST`` steps.

    ``on_target(target)`` is called at the first step at or below each target. Returns target ->
    step.
    """
    held_out, pad_id = validation_rows(tokenizer), tokenizer.pad_token_id
    reached: dict[float, int] = {}

    def watch(step: int, loss: float) -> None:
        if not step:
            return
        now = response_nll(model, held_out, pad_id)
        for target in targets:
            if target not in reached and now <= target:
                reached[target] = step
                if on_target:
                    on_target(target)
        if len(reached) == len(targets):
            raise KeyboardInterrupt  # like the stop button: the step is finished and the run ends

    config = TrainConfig(
        learning_rate=rate,
        lr_scheduler_type="constant",
        warmup_ratio=WARMUP / MOST,
        num_train_epochs=MOST // 2,
        seed=seed,
    )
    rows = training_rows(tokenizer, seed)
    history = sft_train(model, rows, config, pad_id, on_step=watch, progress=False)
    if len(reached) < len(targets) and not history.finished:
        raise KeyboardInterrupt  # interrupted by the user; an incomplete run is not measured
    return reached


def run(method: str, seed: int) -> dict:
    """Train by one method and measure at every target reached."""
    model, tokenizer = fresh(method, seed)
    found: dict[str, dict] = {}

    def note(target: float) -> None:
        found[str(target)] = measure(model, tokenizer)

    steps = train_to(model, tokenizer, BEST[method], seed, on_target=note)
    for target, step in steps.items():
        found[str(target)]["step"] = step
    return {"at": found, "asked": asked_share(model, tokenizer)}


def settings() -> list[dict]:
    """Return both methods, seed by seed."""
    return [{"method": method, "seed": seed} for seed in range(SEEDS) for method in METHODS]
