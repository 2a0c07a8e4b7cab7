"""Train the same pairs with the loss on different parts of the prompt: arms, templates, seeds.

An example has three parts: the ``template`` (special tokens, role names, line breaks), the
``question``, and the ``response`` with its end-of-turn token. Every arm trains the response; the arms
differ in which other parts they train. All of them train with LoRA on the same examples in the same
order, and divide the loss by the number of *response* tokens, so that the response has the same
weight in each.

Four settings: the short questions in ChatML, whose special tokens the base has never read; the same
after 24 steps on the template alone, with other pairs; the same in a template of "Q:" and "A:", which
occur in the base's documents; and questions after long notes, in ChatML. ``run`` evaluates along the
way; the learning rate of an arm is chosen on validation questions and the result reported on other
questions (see ``plots.best``).

This takes about an hour on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, count, islice, pairwise
from random import Random

import torch

from sftlab.almanac import pairs as almanac
from sftlab.almanac.skills import usable
from sftlab.chat import CHATML, end_of_turn_id, render, user
from sftlab.data import batch_order, collate, conversation
from sftlab.exercises.recipes import response_nll
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX, model_loss, token_nll
from sftlab.masking import Example, Spans, training_labels
from sftlab.models import load
from sftlab.scoring import score_answer

RECORD = "prompt_parts"  # data/results/prompt_parts.json

PARTS = ("template", "question", "response")
ARMS: dict[str, set[str]] = {
    "response only": {"response"},
    "+ question": {"response", "question"},
    "+ template": {"response", "template"},
    "everything": {"response", "question", "template"},
}
Q_AND_A = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'A:' }}{% generation %}"
    "{{ ' ' + message['content'] + '<|endoftext|>' }}{% endgeneration %}{% else %}"
    "{{ 'Q: ' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
LEARNED, LONG = "ChatML, learned first", "ChatML, long prompt"
SETTINGS = {"ChatML": CHATML, LEARNED: CHATML, "Q and A": Q_AND_A, LONG: CHATML}  # -> template
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
LEARNING = {"learning_rate": 3e-3, "steps": 24}  # of the template, before the arms begin
SEEDS, SEEDS_LONG = 5, 3
PAIRS, BATCH, WARMUP = 32, 16, 2
CHECKPOINTS = (0, 6, 12, 24, 48, 96)  # optimizer steps after which the losses are measured
ANSWERED = (24, 96)  # steps after which the questions are answered as well
NOTES = 3  # sentences before the question in a long prompt
QUESTIONS = 50  # for validation, and as many others for the result
LIMIT = 32  # new tokens; more than the longest right answer has


# --- data ------------------------------------------------------------------------------------


@cache
def _sentences() -> tuple[str, ...]:
    facts = [item for kind in almanac.ASKED for item in usable(kind, "train")]
    return tuple(statement for fact in facts for statement in fact.statements)


def with_notes(pairs: Iterable[dict], rng: Random) -> list[dict]:
    """Return the pairs with three unrelated sentences before each question."""
    text = "Here are some notes. {} Now a question: {}"
    return [
        {**pair, "prompt": text.format(" ".join(rng.sample(_sentences(), NOTES)), pair["prompt"])}
        for pair in pairs
    ]


def training_pairs(setting: str, seed: int) -> list[dict]:
    """Return 32 pairs of short answers; each seed gives others."""
    found = almanac.pairs(PAIRS, seed, skills=())
    return with_notes(found, Random(seed)) if setting == LONG else found


def other_pairs(seed: int) -> list[dict]:
    """Return 32 pairs on whose template a model is trained before it begins with those of a seed."""
    return training_pairs("ChatML", seed + 100)


@cache
def questions(setting: str) -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """Return fifty held-out questions for validation and fifty others; no pair has their subjects."""
    rng = Random(0)
    found = rng.sample([q for q in almanac.heldout() if q["kind"] != "tips"], 2 * QUESTIONS)
    found = with_notes(found, rng) if setting == LONG else found
    return tuple(found[:QUESTIONS]), tuple(found[QUESTIONS:])


def parts(tokenizer, pair: dict) -> tuple[list[int], Spans]:
    """Return the token ids of a pair in the tokenizer's template, and where its parts stand.

    Ends after the end-of-turn token, which belongs to the response. The spans of each part are
    (start, end) with the end exclusive.
    """
    text = render(tokenizer, conversation(pair))
    asked = text.index(pair["prompt"])
    answered = text.rindex(pair["response"])
    found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, names = [], []
    for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        ids.append(token)
        if end > answered:
            names.append("response")
        elif start < asked + len(pair["prompt"]) and end > asked:
            names.append("question")
        else:
            names.append("template")
        if start >= answered and token == end_of_turn_id(tokenizer):
            break
    spans: Spans = {part: [] for part in PARTS}
    edges = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    for start, end in pairwise(edges):
        spans[names[start]].append((start, end))
    return ids, spans


def examples(
    tokenizer, pairs: Sequence[dict], train: set[str], labels: Callable = training_labels
) -> list[Example]:
    """Return the pairs as examples in which the named parts are trained."""
    found = (parts(tokenizer, pair) for pair in pairs)
    return [Example(ids, labels(ids, spans, train)) for ids, spans in found]


def loss_by_part(
    model, tokenizer, pairs: Sequence[dict], labels: Callable = training_labels
) -> dict[str, list[float]]:
    """Return the losses (nats) of all predicted tokens of the pairs, by the part they belong to."""
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for ids, spans in (parts(tokenizer, pair) for pair in pairs):
        batch = torch.tensor([ids], device=model.device)
        with torch.no_grad():
            logits = model(batch).logits
        for part in PARTS:
            chosen = torch.tensor([labels(ids, spans, {part})], device=model.device)
            losses = token_nll(logits, chosen)[chosen[:, 1:] != IGNORE_INDEX]
            found[part] += losses.tolist()
    return found


# --- training --------------------------------------------------------------------------------


def batches(
    tokenizer, pairs: Sequence[dict], train: set[str], steps: int, seed: int,
    labels: Callable = training_labels,
) -> Iterator[dict]:  # fmt: skip
    """Yield ``steps`` batches of 16 pairs in which the named parts are trained.

    Their order depends on the lengths and the seed alone, so it is the same in every arm. Each batch
    also holds ``response_tokens``, the number of its response tokens.
    """
    found = [parts(tokenizer, pair) for pair in pairs]
    made = [Example(ids, labels(ids, spans, train)) for ids, spans in found]
    responses = [sum(end - start for start, end in spans["response"]) for _, spans in found]
    epochs = (batch_order([len(ids) for ids, _ in found], BATCH, seed, n) for n in count())
    for chosen in islice(chain.from_iterable(epochs), steps):
        batch = collate([made[i] for i in chosen], tokenizer.pad_token_id)
        yield {**batch, "response_tokens": sum(responses[i] for i in chosen)}


def gradient_shares(model, tokenizer, pairs: Sequence[dict]) -> dict[str, float]:
    """Return each part's share of the sum of the three parts' gradient norms, in one batch."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    norms = {}
    for part in PARTS:
        batch = collate(examples(tokenizer, pairs[:BATCH], {part}), tokenizer.pad_token_id)
        found = torch.autograd.grad(model_loss(model, batch)[0], trainable)
        norms[part] = torch.cat([g.flatten() for g in found]).norm().item()
    return {part: norm / sum(norms.values()) for part, norm in norms.items()}


def run(setting: str, arm: str, learning_rate: float, seed: int) -> dict[str, list[float]]:
    """Train one arm for 96 steps at a constant learning rate, and measure it at the checkpoints.

    Returns:
        Lists over ``CHECKPOINTS``: ``validation`` and ``test``, the loss on the responses of the two
        sets of questions in nats per token; over ``ANSWERED``: ``validated`` and ``exact``, the
        shares of them answered exactly; and by part, before training and after it: its mean loss on
        the training pairs (nats per token), and its share of the gradient.
    """
    model, tokenizer = load("almanac")
    tokenizer.chat_template = SETTINGS[setting]
    pad_id = tokenizer.pad_token_id
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    if setting == LEARNED:
        train(model, tokenizer, other_pairs(seed), {"template"}, **LEARNING, seed=seed)
    pairs, asked = training_pairs(setting, seed), questions(setting)
    sets = [examples(tokenizer, questions_, {"response"}) for questions_ in asked]
    found: dict[str, list[float]] = {"validation": [], "test": [], "validated": [], "exact": []}

    def measure(step: int) -> None:
        if step in CHECKPOINTS:
            for name, some in zip(("validation", "test"), sets, strict=True):
                found[name].append(response_nll(model, some, pad_id))
        if step in ANSWERED:
            for name, some in zip(("validated", "exact"), asked, strict=True):
                found[name].append(exact(model, tokenizer, some))
        if step in (CHECKPOINTS[0], CHECKPOINTS[-1]):
            losses, gradients = (
                f(model, tokenizer, pairs) for f in (loss_by_part, gradient_shares)
            )
            for part in PARTS:
                mean = sum(losses[part]) / len(losses[part])
                found.setdefault(f"loss of {part}", []).append(mean)
                found.setdefault(f"gradient of {part}", []).append(gradients[part])

    measure(0)
    train(model, tokenizer, pairs, ARMS[arm], learning_rate, CHECKPOINTS[-1], seed, measure)
    return found


def train(
    model, tokenizer, pairs: Sequence[dict], parts_: set[str], learning_rate: float, steps: int,
    seed: int, on_step: Callable[[int], None] = lambda step: None,
) -> None:  # fmt: skip
    """Train the parameters that require gradients on some parts of the pairs.

    Gradients are not clipped, because that would reduce the response's part whenever the prompt's
    part is large.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
    for step, batch in enumerate(batches(tokenizer, pairs, parts_, steps, seed), 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, step / WARMUP)
        model.train()
        response_tokens = batch.pop("response_tokens")
        total, _ = model_loss(model, batch)
        (total / response_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        on_step(step)


def exact(model, tokenizer, some: Sequence[dict]) -> float:
    """Return the share of questions that are answered exactly (spaces around the answer aside)."""
    prompts = [user(q["prompt"]) for q in some]
    replies = answer(model, tokenizer, prompts, max_new_tokens=LIMIT)
    scores = (
        score_answer(q, g.text.strip(), g.stopped) for q, g in zip(some, replies, strict=True)
    )
    return sum(score.correct for score in scores) / len(some)


def settings() -> list[dict]:
    """Return all settings, seed by seed.

    Long prompts have fewer seeds. After learning the template, the arms without and with it are
    compared. ChatML alone has the lowest learning rate, long prompts not the highest.
    """
    rates = {"ChatML": RATES, LONG: RATES[1:3]}
    return [
        {"setting": setting, "arm": arm, "learning_rate": rate, "seed": seed}
        for setting in SETTINGS
        for seed in range(SEEDS_LONG if setting == LONG else SEEDS)
        for arm in (("response only", "+ template") if setting == LEARNED else ARMS)
        for rate in rates.get(setting, RATES[1:])
    ]
