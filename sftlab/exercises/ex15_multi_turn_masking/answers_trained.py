"""Which answers of a conversation are trained: every one, or the last; right ones, or wrong ones.

The conversations are those of ``conversations.jsonl`` with at least two exchanges; a seed draws 128 of
them. Weights of 0 leave answers out of the loss. The arms "wrong …" have a wrong value in earlier
answers on facts, and differ in the weight of *all* earlier answers. "last only" and "wrong, weight 0"
therefore train the same labels after other inputs.

The learning rate of an arm is chosen on validation questions, and reported on others. Each question is
asked alone, and after two exchanges on other subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain, count, islice
from random import Random

import torch

from sftlab.almanac import pairs as almanac
from sftlab.almanac.curated import wrong_fact
from sftlab.almanac.facts import Item, capitalised
from sftlab.almanac.skills import usable
from sftlab.chat import Message
from sftlab.data import INSTRUCTIONS, batch_order, collate, conversation, load_conversations
from sftlab.exercises.ex15_multi_turn_masking.masks import mask_all_but_assistant
from sftlab.exercises.recipes import response_nll
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import right_content
from sftlab.train import train_step

RECORD = "answers_trained"  # data/results/answers_trained.json

EVERY, LAST, WRONG_0, WRONG_1 = "every answer", "last only", "wrong, weight 0", "wrong, weight 1"
ARMS = (EVERY, LAST, WRONG_0, WRONG_1)
# Learning rates and their numbers of seeds. The highest only shows that the loss rises again.
RATES = {1e-3: 5, 3e-3: 5, 1e-2: 2}
CONVERSATIONS, BATCH, WARMUP, QUESTIONS = 128, 8, 4, 65
STEPS = 24
PLACES = ("alone", "third")  # where the question stands in its conversation


# --- data ------------------------------------------------------------------------------------


@cache
def conversations() -> tuple[list[Message], ...]:
    """Return the committed conversations that have several answers."""
    found = load_conversations(INSTRUCTIONS / "conversations.jsonl")
    return tuple(t for t in found if sum(m["role"] == "assistant" for m in t) > 1)


def last_only(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a weight of 0 on every answer but the last."""
    return [
        {**m, "weight": 0} if m["role"] == "assistant" else m for m in messages[:-1]
    ] + [messages[-1]]  # fmt: skip


@cache
def _facts() -> dict[str, Item]:
    return {
        wording: item
        for kind in almanac.ASKED
        for item in usable(kind, "train")
        for wording in item.questions
    }


def with_wrong_answers(messages: Sequence[Message], rng: Random) -> list[Message]:
    """Return the messages with another subject's value in every answer on a fact but the last one."""
    found = list(messages)
    for k in range(1, len(messages) - 1):
        item = _facts().get(messages[k - 1]["content"])
        if messages[k]["role"] == "assistant" and item:
            said = messages[k]["content"]
            bare = said == f"{capitalised(item.value)}."  # as a system turn asks for
            row = {"kind": item.kind, "value": item.value, "response": item.value if bare else said}
            text = capitalised(wrong_fact(row, rng)) + "." * bare
            found[k] = {**messages[k], "content": text}
    return found


def training_set(arm: str, seed: int) -> list[list[Message]]:
    """Return the 128 conversations of a seed with the weights and the answers of an arm."""
    rng = Random(seed)
    found: Sequence[list[Message]] = rng.sample(conversations(), CONVERSATIONS)
    if arm in (WRONG_0, WRONG_1):
        found = [with_wrong_answers(messages, rng) for messages in found]
    return [last_only(m) for m in found] if arm in (LAST, WRONG_0) else list(found)


@cache
def questions() -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """Return held-out questions for validation and as many others, five of each kind."""
    rng, by_kind = Random(0), {}
    for question in almanac.heldout():
        by_kind.setdefault(question["kind"], []).append(question)
    drawn = [rng.sample(found, 10) for kind, found in sorted(by_kind.items()) if kind != "tips"]
    return tuple(q for found in drawn for q in found[:5]), tuple(q for found in drawn for q in found[5:])  # fmt: skip


def prompts(asked: Sequence[dict], place: str) -> list[list[Message]]:
    """Return each question as the end of a conversation: alone, or after two other exchanges."""
    if place == "alone":
        return [conversation(q)[:1] for q in asked]
    turned = [asked[-7:] + asked[:-7], asked[-20:] + asked[:-20]]
    return [
        [*conversation(a), *conversation(b), *conversation(q)[:1]]
        for q, a, b in zip(asked, *turned, strict=True)
    ]


# --- training --------------------------------------------------------------------------------


def steps_of(arm: str, every: int, trained: int) -> tuple[int, ...]:
    """Return the steps after which an arm is measured: as many as the others, and, for the last answer
    only, as many as give the trained tokens of the arm with every answer."""
    return (STEPS, round(STEPS * every / trained)) if arm == LAST else (STEPS,)


def batches(examples: Sequence[Example], pad_id: int, steps: int, seed: int) -> Iterator[dict]:
    """Yield ``steps`` batches; their order depends on the lengths and the seed."""
    lengths = [len(example) for example in examples]
    epochs = (batch_order(lengths, BATCH, seed, n) for n in count())
    for chosen in islice(chain.from_iterable(epochs), steps):
        yield collate([examples[i] for i in chosen], pad_id)


def train(model, made: Sequence[dict], learning_rate: float, on_step: Callable[[int], None]) -> None:  # fmt: skip
    """Train the adapters on the batches at a constant learning rate after a short warm-up."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
    for step, batch in enumerate(made, 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, step / WARMUP)
        model.train()
        train_step(model, batch, optimizer)
        model.eval()
        on_step(step)


def run(arm: str, learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train one arm, and measure it at its steps.

    Returns:
        Lists over the steps: ``steps``, ``tokens`` (trained so far), ``validation`` (mean loss of the
        right answers, nats per token), and by place of the question ``loss`` and ``right`` (share of
        replies with the right content).
    """
    model, tokenizer = load("almanac")
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    examples = [mask_all_but_assistant(tokenizer, talk) for talk in training_set(arm, seed)]
    every = [mask_all_but_assistant(tokenizer, talk) for talk in training_set(EVERY, seed)]
    stops = steps_of(arm, *(sum(e.trained for e in some) for some in (every, examples)))
    validation, test = questions()
    scored = {
        (name, place): [
            mask_all_but_assistant(tokenizer, [*last_only([*p, {"role": "assistant", "content": q["answer"]}])])
            for p, q in zip(prompts(asked, place), asked, strict=True)
        ]
        for name, asked in (("validation", validation), ("test", test))
        for place in PLACES
    }  # fmt: skip
    made = list(batches(examples, tokenizer.pad_token_id, stops[-1], seed))
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    def measure(step: int) -> None:
        if step not in stops:
            return
        note("steps", step)
        note("tokens", sum(int((b["labels"][:, 1:] >= 0).sum()) for b in made[:step]))
        losses = {key: response_nll(model, rows, tokenizer.pad_token_id) for key, rows in scored.items()}  # fmt: skip
        note("validation", sum(losses["validation", place] for place in PLACES) / len(PLACES))
        for place in PLACES:
            note(f"loss {place}", losses["test", place])
            replies = answer(model, tokenizer, prompts(test, place), max_new_tokens=32)
            right = [right_content(q, g.text) for q, g in zip(test, replies, strict=True)]
            note(f"right {place}", sum(right) / len(right))

    train(model, made, learning_rate, measure)
    return found


def settings() -> list[dict]:
    """Return all settings, one learning rate after the other."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for rate, seeds in RATES.items()
        for seed in range(seeds)
        for arm in ARMS
    ]
