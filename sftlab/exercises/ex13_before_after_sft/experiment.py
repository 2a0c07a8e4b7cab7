"""What 32 pairs change: the base as it is, with examples in its prompt, and after training.

Six arms answer the same held-out questions, whose subjects are in no pair:

``base``                  the base reads the question in the chat template
``template, 4 examples``  the base reads four of the pairs as turns in the template, then the question
``Q and A``               the base reads the question between "Q:" and "A:"
``Q and A, 4 examples``   the base reads four of the pairs as such lines, then the question
``32 pairs``              the base after 24 steps on the pairs, in the chat template
``wrong values``          the same pairs, but each answer names another value of its kind: "The
                          symbol for rhodium is Cu." (An article before it stays: "a insect".)

So examples, layout and training are apart, and the last arm shows what the facts in the pairs do. The
learning rate of an arm is chosen on validation questions, and the result reported on other questions.
This takes about ten minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from random import Random

import torch

from sftlab.almanac.pairs import pairs
from sftlab.chat import encode, user
from sftlab.data import batch_order, collate, conversation
from sftlab.exercises.short_runs import Questions, fact_questions
from sftlab.generate import Generation, generate
from sftlab.lora import inject_lora
from sftlab.masking import build_example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import train_step

RECORD = "elicit"  # data/results/elicit.json

PAIRS, SHOTS, BATCH = 32, 4, 16
CHECKPOINTS = (0, 2, 4, 8, 16, 24)  # training steps after which the questions are asked
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = 5
QUESTIONS = 100  # for validation, and as many others for the result
LIMIT = 40  # new tokens
LINES = {"content": "right fact", "correct": "exactly right", "stops": "stops by itself"}
UNTRAINED = ("base", "template, 4 examples", "Q and A", "Q and A, 4 examples")
TRAINED = ("32 pairs", "wrong values")
SEEDLESS = ("base", "Q and A")  # nothing is drawn


def handful(seed: int) -> list[dict]:
    """Return 32 pairs on facts; each seed gives others."""
    return pairs(PAIRS, seed, skills=())


def wrong_values(rows: Sequence[dict], seed: int) -> list[dict]:
    """Return the pairs with another value of the same kind in each response; sums get another sum."""
    pool: dict[str, list[str]] = {}
    for row in pairs(400, seed, skills=()):
        pool.setdefault(row["kind"], []).append(row["value"])
    rng = Random(seed)
    found = []
    for row in rows:
        other = rng.choice(sorted({v for v in pool[row["kind"]] if v != row["value"]}))
        at = row["response"].rindex(row["value"])
        response = row["response"][:at] + other + row["response"][at + len(row["value"]) :]
        found.append({**row, "value": other, "response": response})
    return found


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(13, QUESTIONS)


def in_template(tokenizer, asked: Sequence[dict]) -> list[list[int]]:
    """Return the token ids of the questions in the chat template."""
    return [encode(tokenizer, user(q["prompt"]), add_generation_prompt=True) for q in asked]


def few_shot(shots: Sequence[dict], asked: Sequence[dict]) -> list[str]:
    """Return the questions as texts, each after some pairs in lines of "Q:" and "A:"."""
    told = "".join(f"Q: {pair['prompt']}\nA: {pair['response']}\n" for pair in shots)
    return [f"{told}Q: {question['prompt']}\nA:" for question in asked]


def first_line(reply: Generation) -> Generation:
    """Return a reply up to its first line break, which ends an answer in a page of Q and A."""
    text, broken, _ = reply.text.strip().partition("\n")
    return Generation(text, reply.ids, reply.stopped or bool(broken))


def scores(asked: Sequence[dict], replies: Sequence[Generation]) -> dict[str, float]:
    """Return the share of replies that meet each line of ``LINES``."""
    found = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    return {line: sum(getattr(score, line) for score in found) / len(found) for line in LINES}


def batches(tokenizer, rows: Sequence[dict], steps: int, seed: int):
    """Yield batches of 16 pairs whose responses are trained.

    Their order depends on the prompts and the seed, so it is the same with wrong values.
    """
    examples = [build_example(tokenizer, conversation(row)) for row in rows]
    lengths = [len(ids) for ids in in_template(tokenizer, rows)]
    order = (group for n in count() for group in batch_order(lengths, BATCH, seed, n))
    for chosen in islice(order, steps):
        yield collate([examples[i] for i in chosen], tokenizer.pad_token_id)


def ask(model, tokenizer, asked: Sequence[dict]) -> list[Generation]:
    """Return the replies to questions in the chat template."""
    return generate(model, tokenizer, in_template(tokenizer, asked), LIMIT)


def train(
    model, tokenizer, rows: Sequence[dict], learning_rate: float, seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:  # fmt: skip
    """Add LoRA adapters to a model and train them on the pairs for 24 steps."""
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
    on_step(0)
    for step, batch in enumerate(batches(tokenizer, rows, CHECKPOINTS[-1], seed), 1):
        model.train()
        train_step(model, batch, optimizer)
        model.eval()
        on_step(step)


def run(arm: str, learning_rate: float, seed: int) -> dict:
    """Measure one arm on the embedded model; see `measure_arm`."""
    return measure_arm(*load("almanac"), arm, learning_rate, seed)


def measure_arm(
    model, tokenizer, arm: str, learning_rate: float, seed: int, first: int = QUESTIONS,
    last_only: bool = False,
) -> dict:  # fmt: skip
    """Measure one arm.

    Args:
        first: how many questions of each set are asked.
        last_only: ask only after the last step.

    Returns:
        For each line of ``LINES`` its share of the validation questions ("validation") and of the
        other questions ("test"): at every checkpoint for trained arms, else once.
    """
    rows = handful(seed)
    found: dict[str, list[dict]] = {"validation": [], "test": []}

    def measure(reply: Callable[[Sequence[dict]], list[Generation]]) -> None:
        for name, asked in zip(found, questions(), strict=True):
            found[name].append(scores(asked[:first], reply(asked[:first])))

    def in_lines(asked: Sequence[dict]) -> list[Generation]:
        prompts = few_shot(rows[:SHOTS] if "examples" in arm else [], asked)
        return [first_line(reply) for reply in generate(model, tokenizer, prompts, LIMIT)]

    def after_turns(asked: Sequence[dict]) -> list[Generation]:
        turns = [turn for row in rows[:SHOTS] for turn in conversation(row)]
        prompts = [[*turns, *user(question["prompt"])] for question in asked]
        ids = [encode(tokenizer, prompt, add_generation_prompt=True) for prompt in prompts]
        return generate(model, tokenizer, ids, LIMIT)

    def on_step(step: int) -> None:
        if step in (CHECKPOINTS[-1:] if last_only else CHECKPOINTS):
            measure(partial(ask, model, tokenizer))

    if arm in TRAINED:
        rows = wrong_values(rows, seed) if arm == TRAINED[1] else rows
        train(model, tokenizer, rows, learning_rate, seed, on_step=on_step)
    else:
        ways = (partial(ask, model, tokenizer), after_turns, in_lines, in_lines)
        measure(dict(zip(UNTRAINED, ways, strict=True))[arm])
    return found


def settings() -> list[dict]:
    """Return all settings; arms without training have no learning rate, some of them no seed."""
    return [
        *untrained(SEEDS),
        *(
            {"arm": arm, "learning_rate": rate, "seed": seed}
            for seed in range(SEEDS)
            for arm in TRAINED
            for rate in RATES
        ),
    ]


def untrained(seeds: int) -> list[dict]:
    """Return the settings of the arms without training."""
    return [
        {"arm": arm, "learning_rate": 0.0, "seed": seed}
        for arm in UNTRAINED
        for seed in range(1 if arm in SEEDLESS else seeds)
    ]


CONFIRM = {"arm": "32 pairs", "learning_rate": 3e-3, "seed": 0}
