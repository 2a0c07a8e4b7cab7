"""Loss on the response tokens against loss on all tokens: shapes and numbers of pairs, seeds.

All losses train with LoRA on the same examples in the same order, with the same number of steps:

``response``         Σ over response tokens / number of response tokens: the workbook's loss.
``all``              Σ over all tokens / number of *response* tokens: the response's term is the
                     same.
``all, mean``        Σ over all tokens / number of all tokens: trainers without a mask do this.
``all, twice as long``   as ``all``, with twice the steps.

This takes about nine minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, count, islice
from random import Random

import torch

from sftlab.almanac import pairs as almanac
from sftlab.almanac.skills import SKILLS, usable
from sftlab.chat import encode, end_of_turn_id, user
from sftlab.data import batch_order, collate, conversation, tokenize_conversations
from sftlab.generate import answer, generate
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX, model_loss, trained_tokens
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import TrainConfig

RECORD = "response_only_loss"  # data/results/response_only_loss.json

SHAPES = ("short prompt, long answer", "short prompt, short answer", "long prompt, short answer")
TALKS = "talks of two or three exchanges"  # user turns follow answers; tested on short questions
SIZES = (32, 200)
LOSSES = ("response", "all", "all, mean", "all, twice as long")
SEEDS = 5
STEPS, BATCH = 24, 16  # twelve epochs of 32 pairs, or two of 200
RATE = 3e-3
NOTES = 3  # sentences before the question in a long prompt
TIPS = 3  # number of items of a long answer
QUESTIONS = 100
LIMIT = 48  # new tokens; more than the longest right answer has


# --- data ------------------------------------------------------------------------------------


@cache
def _sentences() -> tuple[str, ...]:
    facts = [item for kind in almanac.ASKED for item in usable(kind, "train")]
    return tuple(statement for fact in facts for statement in fact.statements)


def long_prompt(question: str, rng: Random) -> str:
    """Return the question after some unrelated notes."""
    notes = " ".join(rng.sample(_sentences(), NOTES))
    return f"Here are some notes. {notes} Now a question: {question}"


def training_pairs(shape: str, size: int, seed: int) -> list[dict]:
    """Return ``size`` different pairs (or conversations) of a shape; each seed gives others."""
    rng = Random(f"{shape}:{seed}")
    if shape == TALKS:
        talks = almanac.conversations(4 * size, seed)
        return [t for t in talks if len(t["messages"]) > 3 and t["style"] == "none"][:size]
    if "long answer" not in shape:
        found = almanac.pairs(size, seed, skills=())
        if "long prompt" in shape:
            found = [{**pair, "prompt": long_prompt(pair["prompt"], rng)} for pair in found]
        return found
    found = {}
    while len(found) < size:
        item = SKILLS["tips"](rng, "train", count=TIPS)
        made = almanac.row(item, almanac.wording(item, rng))
        found[made["prompt"], made["response"]] = made
    return list(found.values())


@cache
def _heldout(shape: str) -> tuple[dict, ...]:
    rng = Random(f"heldout:{shape}")
    if "long answer" in shape:
        found = {}
        while len(found) < QUESTIONS:  # 21 topics in five wordings each
            item = SKILLS["tips"](rng, "heldout", count=TIPS)
            made = almanac.row(item, almanac.wording(item, rng))
            found.setdefault(made["prompt"], {**made, "answer": made["response"]})
        return tuple(found.values())
    facts = [question for question in almanac.heldout() if question["kind"] != "tips"]
    found = rng.sample(facts, QUESTIONS)
    if "long prompt" in shape:
        found = [{**question, "prompt": long_prompt(question["prompt"], rng)} for question in found]
    return tuple(found)


def questions(shape: str) -> list[dict]:
    """Return a hundred held-out questions of a shape; their subjects are in no pair."""
    return list(_heldout(SHAPES[1] if shape == TALKS else shape))


def rows_of(tokenizer, data: Sequence[dict]) -> list[Example]:
    """Return tokenized, masked examples, each cut after its last trained token (end of turn)."""
    rows = tokenize_conversations(tokenizer, [conversation(entry) for entry in data]).examples
    ends = [max(i for i, label in enumerate(r.labels) if label != IGNORE_INDEX) + 1 for r in rows]
    return [Example(r.input_ids[:end], r.labels[:end]) for r, end in zip(rows, ends, strict=True)]


def unmasked(example: Example) -> Example:
    """Return the example with every token trained except the first, which nothing predicts."""
    return Example(example.input_ids, [IGNORE_INDEX, *example.input_ids[1:]])


def prompt_part(example: Example) -> Example:
    """Return the example with the prompt trained and the response masked."""
    pairs = zip(example.input_ids, example.labels, strict=True)
    labels = [token if label == IGNORE_INDEX else IGNORE_INDEX for token, label in pairs]
    return Example(example.input_ids, [IGNORE_INDEX, *labels[1:]])


# --- training --------------------------------------------------------------------------------


def batch_loss(model, rows: Sequence[Example], loss: str, pad_id: int) -> torch.Tensor:
    """Return one of the three losses (see the module docstring) of a batch, in nats."""
    chosen = rows if loss == "response" else [unmasked(row) for row in rows]
    batch = collate(chosen, pad_id)
    total, _ = model_loss(model, batch)
    if loss == "all, mean":
        return total / trained_tokens(batch["labels"])
    return total / sum(row.trained for row in rows)


def train(
    model,
    rows: Sequence[Example],
    loss: str,
    pad_id: int,
    seed: int = 0,
    steps: int = STEPS,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Train the parameters that require gradients for ``steps`` steps of AdamW.

    The order of the examples is the same for each loss. Gradients are not clipped because that
    would reduce the response's part whenever the prompt's part is large.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=RATE, weight_decay=0.0)
    lengths = [len(row) for row in rows]
    epochs = (list(batch_order(lengths, BATCH, seed, epoch)) for epoch in count())
    plan = islice(chain.from_iterable(epochs), steps)
    config = TrainConfig(learning_rate=RATE)
    model.train()
    for step, chosen in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step, steps)
        optimizer.zero_grad()
        batch_loss(model, [rows[i] for i in chosen], loss, pad_id).backward()
        optimizer.step()
        if on_step:
            on_step(step + 1)
    model.eval()


# --- measuring -------------------------------------------------------------------------------


def prompt_shares(model, rows: Sequence[Example], pad_id: int) -> dict[str, float]:
    """Return how much of a full-sequence loss and of its gradient comes from the prompt tokens.

    ``gradient``: ‖g_prompt‖ / (‖g_prompt‖ + ‖g_response‖) over the trained parameters. ``cosine``:
    cosine similarity of the two gradients; 1 for the same direction, 0 if orthogonal.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    losses, gradients = [], []
    for part in ([prompt_part(row) for row in rows], rows):
        total, _ = model_loss(model, collate(part, pad_id))
        found = torch.autograd.grad(total, trainable)
        losses.append(total.item())
        gradients.append(torch.cat([g.flatten() for g in found]))
    prompt, response = (g.norm().item() for g in gradients)
    return {
        "loss": losses[0] / sum(losses),
        "gradient": prompt / (prompt + response),
        "cosine": torch.nn.functional.cosine_similarity(*gradients, dim=0).item(),
    }


@torch.no_grad()
def response_nll(model, rows: Sequence[Example], pad_id: int, batch_size: int = 50) -> float:
    """Return the mean NLL of the response tokens, in nats per token."""
    ordered = sorted(rows, key=len)
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    found = [model_loss(model, collate(batch, pad_id)) for batch in batches]
    return sum(total.item() for total, _ in found) / sum(count for _, count in found)


def evaluate(model, tokenizer, shape: str) -> dict[str, float]:
    """Measure exact match, stopping, new turns and response NLL on held-out questions.

    ``goes_on``: share of answers without an end-of-turn token within the limit. ``new_turn``: share
    of answers after which the model opens another turn if decoding continues beyond the end-of-turn
    token; ``user_turn``: a user turn.
    """
    asked = questions(shape)
    replies = answer(model, tokenizer, [q["prompt"] for q in asked], max_new_tokens=LIMIT)
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    end = end_of_turn_id(tokenizer)
    talks = [
        [*encode(tokenizer, user(q["prompt"]), add_generation_prompt=True), *g.ids, end]
        for q, g in zip(asked, replies, strict=True)
    ]
    after = [g.text.lstrip() for g in generate(model, tokenizer, talks, max_new_tokens=4)]
    return {
        "exact": sum(score.correct for score in scores) / len(asked),
        "goes_on": sum(not score.stops for score in scores) / len(asked),
        "new_turn": sum(text.startswith("<|im_start|>") for text in after) / len(asked),
        "user_turn": sum(text.startswith("<|im_start|>user") for text in after) / len(asked),
        "nll": response_nll(model, rows_of(tokenizer, asked), tokenizer.pad_token_id),
    }


def run(
    shape: str, pairs: int, loss: str, seed: int, on_step: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Train the base model on pairs of one shape with one of the losses, and measure it."""
    model, tokenizer = load("almanac")
    rows = rows_of(tokenizer, training_pairs(shape, pairs, seed))
    pad_id = tokenizer.pad_token_id
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    start = prompt_shares(model, rows[:BATCH], pad_id)
    steps = 2 * STEPS if loss == "all, twice as long" else STEPS
    train(model, rows, loss, pad_id, seed, steps, on_step)
    end = prompt_shares(model, rows[:BATCH], pad_id)
    trained = sum(row.trained for row in rows)
    return {
        **evaluate(model, tokenizer, shape),
        **{f"prompt_{name}_start": value for name, value in start.items()},
        **{f"prompt_{name}_end": value for name, value in end.items()},
        "prompt_tokens": sum(map(len, rows)) / len(rows) - trained / len(rows),
        "response_tokens": trained / len(rows),
    }


def settings() -> list[dict]:
    """Return all settings, seed by seed.

    Each seed has both main losses in every cell, then what is compared on 32 pairs only.
    """
    cells = [{"shape": shape, "pairs": size} for size in SIZES for shape in SHAPES]
    main = [(cell, loss) for cell in (*cells, {"shape": TALKS, "pairs": 32}) for loss in LOSSES[:2]]
    usual = [(cell, LOSSES[2]) for cell in cells[: len(SHAPES)]]
    found = []
    for seed in range(SEEDS):
        more = usual if seed < 3 else []
        for cell, loss in (*main, (cells[1], LOSSES[3]), *more):
            found.append({**cell, "loss": loss, "seed": seed})
    return found
