"""The end-of-turn token trained or masked: how often the model then stops by itself.

Everything else is the same: 32 pairs, LoRA, twelve epochs. The model answers held-out questions
with one right answer; each reply is cut after 40 tokens if the model has not ended it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.chat import end_of_turn_id
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.recipes import suited
from sftlab.generate import Generation, answer
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "end_marker"  # data/results/end_marker.json

ARMS = ("trained", "masked")


def settings() -> list[dict]:
    """Return both arms with five seeds each."""
    return [{"end_marker": arm, "seed": seed} for seed in range(5) for arm in ARMS]


def mask_token(examples: Sequence[Example], token: int) -> list[Example]:
    """Return the examples with the labels of one token masked everywhere."""
    return [
        Example(e.input_ids, [IGNORE_INDEX if label == token else label for label in e.labels])
        for e in examples
    ]


def tuned(end_marker: str, seed: int, name: str = "almanac", progress: bool = False):
    """Return the base model tuned on the 32 pairs, and its tokenizer.

    ``end_marker`` is "trained" or "masked": whether the end-of-turn token has loss.
    """
    model, tokenizer = load(name)
    pairs = [conversation(row) for row in read_jsonl(INSTRUCTIONS / "handful.jsonl")]
    examples = tokenize_conversations(tokenizer, pairs).examples
    if end_marker == "masked":
        examples = mask_token(examples, end_of_turn_id(tokenizer))
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = suited(
        TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16, seed=seed), model
    )
    # The check before training would report the intentional error.
    sft_train(model, examples, config, tokenizer.pad_token_id, progress=progress, check=False)
    return model, tokenizer


def questions(count: int = 200) -> list[dict]:
    """Return held-out questions with one right answer, the same for every run."""
    found = [q for q in read_jsonl(INSTRUCTIONS / "heldout.jsonl") if "allowed" not in q]
    return Random(0).sample(found, count)


def ask(model, tokenizer, asked: Sequence[dict]) -> list[Generation]:
    """Return the replies, cut after 40 tokens. Only the end-of-turn token ends a reply.

    Servers of chat models do the same. ``generate`` would also stop at the end of a document.
    """
    strict = copy.deepcopy(tokenizer)
    strict.bos_token = None
    return answer(model, strict, [q["prompt"] for q in asked], max_new_tokens=40)


def measure(tokenizer, asked: Sequence[dict], replies: Sequence[Generation]) -> dict:
    """Return shares of the replies.

    ``ends_turn``: ended by the end-of-turn token. ``begins_right``: begins with the right answer.
    ``exact``: exactly the right answer. ``ends_document``: contains an end-of-document token, as
    the base model's texts do.
    """
    pairs = list(zip(asked, replies, strict=True))
    counts = {
        "ends_turn": sum(g.stopped for g in replies),
        "begins_right": sum(g.text.strip().startswith(q["answer"]) for q, g in pairs),
        "exact": sum(g.stopped and g.text.strip() == q["answer"] for q, g in pairs),
        "ends_document": sum(tokenizer.bos_token_id in g.ids for g in replies),
    }
    return {**{name: n / len(replies) for name, n in counts.items()}, "questions": len(replies)}


def run(end_marker: str, seed: int, count: int = 200) -> dict:
    """Fine-tune, ask and measure."""
    model, tokenizer = tuned(end_marker, seed)
    asked = questions(count)
    return measure(tokenizer, asked, ask(model, tokenizer, asked))
