"""The end-of-turn token in the loss and out of it: whether the model ends its turns, and what it says.

32 pairs, LoRA, twelve epochs. The arms differ in one label of each answer. The model starts from the
base, which has never read the end-of-turn token, or from the chat model, which ends its turns already.
Each reply is cut after 40 tokens if the model has not ended it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.chat import Message, encode, end_of_turn_id, user
from sftlab.data import conversation, read_jsonl
from sftlab.exercises.ex15_multi_turn_masking.masks import mask_all_but_assistant
from sftlab.exercises.recipes import suited
from sftlab.generate import Generation, answer
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "end_of_turn"  # data/results/end_of_turn.json

IN, OUT, FIRST = "in the loss", "masked", "first token masked"
ARMS = {"base": (IN, OUT, FIRST), "chat": (IN, OUT)}  # start -> arms
SEEDS, QUESTIONS, LIMIT = 5, 200, 40


def settings() -> list[dict]:
    """Return all arms, seed by seed."""
    return [
        {"start": start, "arm": arm, "seed": seed}
        for seed in range(SEEDS)
        for start, arms in ARMS.items()
        for arm in arms
    ]


def training_pairs() -> list[list[Message]]:
    """Return the 32 pairs as conversations."""
    return [conversation(row) for row in read_jsonl(INSTRUCTIONS / "handful.jsonl")]


def mask_token(example: Example, token: int) -> Example:
    """Return the example with the labels of one token masked."""
    labels = [IGNORE_INDEX if label == token else label for label in example.labels]
    return Example(example.input_ids, labels)


def mask_first(example: Example) -> Example:
    """Return the example with the first label of each answer masked."""
    before = [IGNORE_INDEX, *example.labels]
    kept = [y if x != IGNORE_INDEX else IGNORE_INDEX for x, y in zip(before, example.labels, strict=False)]  # fmt: skip
    return Example(example.input_ids, kept)


def changed(arm: str, tokenizer, examples: Sequence[Example]) -> list[Example]:
    """Return the examples with the labels of an arm."""
    end = end_of_turn_id(tokenizer)
    change = {IN: lambda e: e, OUT: lambda e: mask_token(e, end), FIRST: mask_first}[arm]
    return [change(example) for example in examples]


def train(model, tokenizer, examples: Sequence[Example], seed: int):
    """Train LoRA adapters on the examples; return the model."""
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = suited(
        TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16, seed=seed), model
    )
    # The check before training would report the masked end-of-turn token, which is intentional.
    sft_train(model, examples, config, tokenizer.pad_token_id, progress=False, check=False)
    return model


def questions(count: int = QUESTIONS) -> list[dict]:
    """Return held-out questions with one right answer, the same for every run."""
    found = [q for q in read_jsonl(INSTRUCTIONS / "heldout.jsonl") if "allowed" not in q]
    return Random(0).sample(found, count)


def ask(model, tokenizer, asked: Sequence[dict]) -> list[Generation]:
    """Return the replies, cut after 40 tokens. Only the end-of-turn token ends a reply.

    Servers of chat models do the same. ``generate`` would also stop at the end of a document.
    """
    strict = copy.deepcopy(tokenizer)
    strict.bos_token = None
    return answer(model, strict, [q["prompt"] for q in asked], max_new_tokens=LIMIT)


def measure(tokenizer, question: dict, reply: Generation) -> dict[str, float]:
    """Return what holds for one reply, as 0 or 1.

    ``ends_turn``: the model wrote the end-of-turn token. ``ends``: it wrote that token or the one that
    ends a document. ``begins``: the reply begins with the right answer. ``right``: the text up to the
    first of the two tokens is exactly the right answer.
    """
    document = tokenizer.bos_token_id
    text = tokenizer.decode(reply.ids[: reply.ids.index(document)]) if document in reply.ids else reply.text  # fmt: skip
    return {
        "ends_turn": float(reply.stopped),
        "ends": float(reply.stopped or document in reply.ids),
        "begins": float(text.strip().startswith(question["answer"])),
        "right": float(text.strip() == question["answer"]),
    }


@torch.no_grad()
def after_the_answer(model, tokenizer, asked: Sequence[dict]) -> dict[str, float]:
    """Return the mean probability of each ending token right after the reference answer."""
    names = {"end of turn": end_of_turn_id(tokenizer), "end of document": tokenizer.bos_token_id}
    found = dict.fromkeys(names, 0.0)
    for question in asked:
        talk: list[Message] = [*user(question["prompt"]), {"role": "assistant", "content": question["answer"]}]  # fmt: skip
        ids = encode(tokenizer, talk)
        end = max(place for place, token in enumerate(ids) if token == names["end of turn"])
        chances = model(torch.tensor([ids[:end]])).logits[0, -1].softmax(-1)
        for name, token in names.items():
            found[name] += chances[token].item() / len(asked)
    return found


def run(start: str, arm: str, seed: int, count: int = QUESTIONS) -> dict:
    """Fine-tune, ask and measure; shares are by kind of question."""
    model, tokenizer = load("almanac", role=start)
    asked = questions(count)
    before = after_the_answer(model, tokenizer, asked)
    examples = [mask_all_but_assistant(tokenizer, pair) for pair in training_pairs()]
    train(model, tokenizer, changed(arm, tokenizer, examples), seed)
    found: dict[str, dict[str, list[float]]] = {}
    for question, reply in zip(asked, ask(model, tokenizer, asked), strict=True):
        for name, value in measure(tokenizer, question, reply).items():
            found.setdefault(name, {}).setdefault(question["kind"], []).append(value)
    shares = {
        name: {kind: sum(values) / len(values) for kind, values in sorted(kinds.items())}
        for name, kinds in found.items()
    }
    return {**shares, "before": before, "after": after_the_answer(model, tokenizer, asked)}
