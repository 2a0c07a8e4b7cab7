"""Models trained with one form of the prompt and served with others: answers, stops and losses.

``forms`` holds the forms. Recorded here: the base trained with LoRA over five seeds, each with its own
pairs: on 32 pairs in four forms of the prompt, and on 500 pairs in ChatML. The models of 32 pairs in
ChatML are served in all forms, the others in six. This takes about eight minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.pairs import pairs
from sftlab.chat import end_of_turn_id, render_prompt, user
from sftlab.data import collate, read_jsonl
from sftlab.exercises.ex05_chat_template_mismatch.forms import (
    BARE,
    BOUNDARY,
    FORMS,
    LLAMA,
    NO_HEADER,
    RIGHT,
    SWAPPED,
    TYPED,
    corrupt,
    stop_and_right,
)
from sftlab.generate import generate
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX, token_nll
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import names
from sftlab.train import TrainConfig, sft_train

RECORD = "template_mismatch"  # data/results/template_mismatch.json

TRAINED = (RIGHT, BOUNDARY, LLAMA, BARE)
SERVED = (*TRAINED, SWAPPED, NO_HEADER)
FEW, MANY = 32, 500  # training pairs
EPOCHS = {FEW: 12, MANY: 3}
SEEDS, BATCH, RATE = 5, 16, 3e-3
EACH = 8  # questions of each of the 13 kinds
HEADER = "<|im_start|>assistant\n"
LIMIT = 24  # new tokens; more than the longest right answer has


@cache
def questions(each: int = EACH) -> tuple[dict, ...]:
    """Return held-out questions with one right answer, the first of each kind.

    Their subjects are in no fine-tuning data, and no question names its own answer.
    """
    kinds: dict[str, list[dict]] = {}
    for question in read_jsonl(INSTRUCTIONS / "heldout.jsonl"):
        if "allowed" not in question and not names(question["prompt"], question["value"]):
            kinds.setdefault(question["kind"], []).append(question)
    return tuple(question for some in kinds.values() for question in some[:each])


def encode(tokenizer, text: str, form: str) -> list[int]:
    """Return the ids of a prompt in a form; special tokens of other families are read as text."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=form == TYPED)


def prompt_ids(tokenizer, question: str, form: str, system: Sequence[dict] = ()) -> list[int]:
    """Return the ids of a question in a form, after ``system``, the messages before it."""
    return encode(tokenizer, corrupt(render_prompt([*system, *user(question)]), FORMS[form]), form)


def example(tokenizer, question: dict, form: str, system: Sequence[dict] = ()) -> Example:
    """Return the prompt in a form, masked, followed by the right answer and the end-of-turn token."""
    prompt = prompt_ids(tokenizer, question["prompt"], form, system)
    response = tokenizer.encode(question["response"], add_special_tokens=False)
    response.append(end_of_turn_id(tokenizer))
    return Example([*prompt, *response], [IGNORE_INDEX] * len(prompt) + response)


@torch.no_grad()
def answer_nll(model, rows: Sequence[Example], pad_id: int, batch_size: int = 26) -> tuple[list[float], list[float]]:  # fmt: skip
    """Return the loss of each right answer (nats per token), whole and without its first token."""
    whole, rest = [], []
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size], pad_id)
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        trained = batch["labels"][:, 1:] != IGNORE_INDEX
        losses = token_nll(logits, batch["labels"])
        for found, kept in zip(losses, trained, strict=True):
            tokens = found[kept]
            whole.append(tokens.mean().item())
            rest.append(tokens[1:].mean().item())
    return whole, rest


def replies(model, tokenizer, prompts: Sequence[list[int]]) -> list[tuple[str, bool]]:
    """Return each greedy reply and whether the model stopped.

    An assistant header that the model writes itself is no part of its reply.
    """
    found = generate(model, tokenizer, prompts, LIMIT)
    return [(reply.text.removeprefix(HEADER), reply.stopped) for reply in found]


def serve(model, tokenizer, asked: Sequence[dict], form: str, system: Sequence[dict] = ()) -> dict:
    """Serve questions in a form.

    Returns:
        ``outcomes``, a digit per question (its place in ``OUTCOMES``), and ``nll`` and ``rest``, the
        losses of the right answers as in ``answer_nll``.
    """
    prompts = [prompt_ids(tokenizer, question["prompt"], form, system) for question in asked]
    outcomes = ""
    for question, reply in zip(asked, replies(model, tokenizer, prompts), strict=True):
        outcomes += str(list(stop_and_right([reply], [question["value"]]).values()).index(1))
    rows = [example(tokenizer, question, form, system) for question in asked]
    nll, rest = answer_nll(model, rows, tokenizer.pad_token_id)
    return {"outcomes": outcomes, "nll": nll, "rest": rest}


def tuned(trained: str, count: int, seed: int):
    """Return the base trained on pairs of the seed in one form of the prompt, and its tokenizer."""
    model, tokenizer = load("almanac")
    rows = [example(tokenizer, pair, trained) for pair in pairs(count, seed, skills=())]
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=RATE, num_train_epochs=EPOCHS[count], batch_size=BATCH, seed=seed)  # fmt: skip
    history = sft_train(model, rows, config, tokenizer.pad_token_id, progress=False)
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    return model, tokenizer


def run(trained: str, pairs: int, seed: int) -> dict:
    """Train in one form and serve in others; return what ``serve`` does by form, mean losses."""
    model, tokenizer = tuned(trained, pairs, seed)
    found = {}
    for form in FORMS if (trained, pairs) == (RIGHT, FEW) else SERVED:
        served = serve(model, tokenizer, questions(), form)
        means = {name: sum(served[name]) / len(served[name]) for name in ("nll", "rest")}
        found[form] = {"outcomes": served["outcomes"], **means}
    return found


def settings() -> list[dict]:
    """Return every form of training with 32 pairs, and ChatML with 500, for every seed."""
    arms = [*((form, FEW) for form in TRAINED), (RIGHT, MANY)]
    return [
        {"trained": form, "pairs": count, "seed": seed}
        for seed in range(SEEDS)
        for form, count in arms
    ]
