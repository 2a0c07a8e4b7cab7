"""When to stop: losses over the steps on few pairs and on many, and what a chosen checkpoint scores.

A seed draws 240 of the curated pairs. The base is trained on the first 24 of them or on all, every
weight, with AdamW at a constant learning rate and batches of 8, for 96 steps: 32 epochs of 24 pairs,
3.2 epochs of 240. The 240 pairs also cover more kinds of question (see ``covered``), so the arms
differ in the number of pairs, in their kinds, and in how often each is seen.

At the checkpoints, three losses in nats per token are noted: "training", the mean of the last three
steps, and those of held-out questions, "validation" and "test", which share no subject. Three rules
choose a checkpoint: the lowest validation loss, the lowest training loss, and the last step. Each
chosen checkpoint answers the test questions.

The other arms train nothing. The base reads the question in the chat template or in lines of "Q:" and
"A:", after none, four or eight of the seed's first pairs in the same layout. Of these arms, too, the
loss of the validation questions' answers is noted. All this takes about 25 minutes on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.chat import encode, user
from sftlab.data import conversation, read_jsonl
from sftlab.exercises.ex13_before_after_sft.experiment import few_shot
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import Questions, endless_batches
from sftlab.exercises.trade_off import examples
from sftlab.generate import Generation, generate
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import train_loop

RECORD = "early_stopping"  # data/results/early_stopping.json

TEMPLATE, LINES, TRAINED = "chat template", "Q and A", "trained"
FEW, MANY, BATCH, STEPS, SEEDS = 24, 240, 8, 96, 5
CHECKPOINTS = (4, 8, 12, 16, 20, 24, 36, 48, 72, 96)
RATES = (1e-4, 3e-4, 9e-4)
EXAMPLES = (0, 4, 8)  # how many stand in the prompt
EACH = (2, 4)  # questions of each kind, for validation and for the test
LIMIT = 60  # new tokens
RULES = ("validation", "training", "last")


# --- data ------------------------------------------------------------------------------------


@cache
def questions() -> tuple[Questions, Questions]:
    """Return held-out questions of 27 kinds, for validation and for the test, of different subjects."""
    found: tuple[dict[str, list[dict]], ...] = ({}, {})
    for question in read_jsonl(INSTRUCTIONS / "evaluation.jsonl"):
        side = found[Random(question["subject"]).random() > 1 / 3]
        side.setdefault(question["kind"], []).append(question)
    validation, test = (
        tuple(q for some in kinds.values() for q in some[:each])
        for kinds, each in zip(found, EACH, strict=True)
    )
    return validation, test


def drawn(seed: int) -> list[dict]:
    """Return the seed's 240 curated pairs, in random order."""
    rows = read_jsonl(INSTRUCTIONS / "curated.jsonl")
    return Random(seed).sample([row for row in rows if "prompt" in row], MANY)


def batches(tokenizer, rows: Sequence[dict], seed: int, steps: int = STEPS) -> list[dict]:
    """Return the batches of a run, epoch after epoch, in an order that depends on the seed."""
    every = endless_batches(examples(tokenizer, rows), BATCH, seed, tokenizer.pad_token_id)
    return list(islice(every, steps))


# --- answers ---------------------------------------------------------------------------------


def turns(shots: Sequence[dict]) -> list[dict]:
    """Return pairs as the turns of one conversation."""
    return [turn for row in shots for turn in conversation(row)]


def in_template(
    model, tokenizer, asked: Sequence[dict], shots: Sequence[dict] = ()
) -> list[Generation]:
    """Return the replies to questions in the chat template, each after the shots as earlier turns."""
    talks = [[*turns(shots), *user(q["prompt"])] for q in asked]
    prompts = [encode(tokenizer, talk, add_generation_prompt=True) for talk in talks]
    return generate(model, tokenizer, prompts, LIMIT)


def after_examples(
    model, tokenizer, asked: Sequence[dict], shots: Sequence[dict] = ()
) -> list[Generation]:
    """Return the replies to questions in lines of "Q:" and "A:", each after the shots.

    A reply ends where the model begins the next question, so it may have several lines.
    """
    found = []
    for reply in generate(model, tokenizer, few_shot(shots, asked), LIMIT):
        text, next_question, _ = reply.text.partition("\nQ:")
        found.append(Generation(text.strip(), reply.ids, reply.stopped or bool(next_question)))
    return found


def answers(arm: str, tokenizer, asked: Sequence[dict], shots: Sequence[dict]) -> list[Example]:
    """Return prompts and right answers as examples: only the answer and its end have labels."""
    if arm == LINES:
        prompts = [tokenizer(text)["input_ids"] for text in few_shot(shots, asked)]
        ends = [tokenizer(f" {q['response']}\nQ:")["input_ids"] for q in asked]
        whole = [Example([*a, *b], [*a, *b]) for a, b in zip(prompts, ends, strict=True)]
    else:
        before = [[*turns(shots), *user(q["prompt"])] for q in asked]
        prompts = [encode(tokenizer, talk, add_generation_prompt=True) for talk in before]
        talks = [[*turns(shots), *conversation(q)] for q in asked]
        whole = [build_example(tokenizer, talk) for talk in talks]
    return [
        Example(list(e.input_ids), [IGNORE_INDEX] * len(p) + list(e.labels[len(p) :]))
        for p, e in zip(prompts, whole, strict=True)
    ]


def covered(seed: int, pairs: int) -> int:
    """Return how many kinds of the test questions are among the kinds of a seed's first pairs."""
    kinds = {row["kind"] for row in drawn(seed)[:pairs]}
    return len(kinds & {question["kind"] for question in questions()[1]})


def exact(asked: Sequence[dict], replies: Sequence[Generation]) -> str:
    """Return a digit for each question: 1 if the reply is exactly right."""
    scores = (score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True))
    return "".join(str(int(score.correct)) for score in scores)


# --- runs ------------------------------------------------------------------------------------


def weights_of(model) -> dict[str, torch.Tensor]:
    """Return a copy of all weights: a checkpoint in memory."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run(arm: str, pairs: int, learning_rate: float, seed: int) -> dict:
    """Measure one arm; see the module docstring.

    Returns:
        Of arms without training "validation", the loss of the right answers, and "exact", a digit for
        each test question. Of trained ones "training", "validation" and "test", losses at the
        checkpoints; "chosen", rule -> step; "exact", rule -> a digit for each test question.
    """
    model, tokenizer = load("almanac")
    rows = drawn(seed)[:pairs]
    if arm == TRAINED:
        return trained(model, tokenizer, rows, learning_rate, seed)
    validation, test = questions()
    reply = in_template if arm == TEMPLATE else after_examples
    known = answers(arm, tokenizer, validation, rows)
    return {
        "validation": response_nll(model, known, tokenizer.pad_token_id),
        "exact": exact(test, reply(model, tokenizer, test, rows)),
    }


def trained(
    model, tokenizer, rows: Sequence[dict], learning_rate: float, seed: int,
    checkpoints: Sequence[int] = CHECKPOINTS,
) -> dict:  # fmt: skip
    """Train on the rows until the last checkpoint, and measure the checkpoint of each rule."""
    held_out = [examples(tokenizer, some) for some in questions()]
    losses: dict[str, list[float]] = {"training": [], "validation": [], "test": []}
    kept: dict[str, tuple[int, dict]] = {}
    recent: list[float] = []

    def on_step(step: int, loss: float) -> None:
        recent.append(loss)
        if step not in checkpoints:
            return
        model.eval()
        losses["training"].append(sum(recent[-3:]) / 3)
        for name, some in zip(("validation", "test"), held_out, strict=True):
            losses[name].append(response_nll(model, some, tokenizer.pad_token_id))
        for rule in RULES:
            if rule == "last" or losses[rule][-1] == min(losses[rule]):
                kept[rule] = step, weights_of(model)

    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    plan = batches(tokenizer, rows, seed, checkpoints[-1])
    train_loop(model, plan, optimizer, [learning_rate] * len(plan), on_step)
    answered: dict[int, str] = {}
    for step, weights in kept.values():
        if step not in answered:
            model.load_state_dict(weights)
            asked = questions()[1]
            answered[step] = exact(asked, in_template(model, tokenizer, asked))
    chosen = {rule: step for rule, (step, _) in kept.items()}
    return {**losses, "chosen": chosen, "exact": {r: answered[step] for r, step in chosen.items()}}


def settings() -> list[dict]:
    """Return all settings: the arms without training, then the trained ones, seed by seed."""
    untrained = [
        (arm, n, 0.0, seed)
        for arm in (TEMPLATE, LINES)
        for n in EXAMPLES
        for seed in range(SEEDS if n else 1)
    ]
    runs = [(TRAINED, n, r, s) for s in range(SEEDS) for n in (FEW, MANY) for r in RATES]
    names = ("arm", "pairs", "learning_rate", "seed")
    return [dict(zip(names, values, strict=True)) for values in untrained + runs]


CONFIRM = {"arm": TRAINED, "pairs": FEW, "learning_rate": RATES[1], "seed": 0}
