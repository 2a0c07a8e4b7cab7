"""Served models over seeds: two ways to split a file, templates of servers, and rounded weights.

A seed draws the split, the initial adapter and the order of the examples. Both splits hold out about
as many rows of one file, in which many questions occur in several wordings. Afterwards questions are
asked that no row is alike. The templates and the rounding are tried on the models of the split that
keeps alike questions together.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Stored

from sftlab.chat import CHATML, encode, user
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.ex26_served_model.gates import (
    alike,
    groups,
    split,
    template_mismatch,
)
from sftlab.exercises.ex26_served_model.sample import FOLDER
from sftlab.formats import DataConfig, ReadingReport, read_conversations
from sftlab.generate import Generation, generate
from sftlab.lora import inject_lora, merge_lora
from sftlab.masking import Example
from sftlab.models import load
from sftlab.templates import LLAMA3
from sftlab.train import TrainConfig, sft_train

RECORD = "served"  # data/results/served.json

SEEDS = 6
STEPS, BATCH, RATE = 120, 8, 4e-3
LIMIT = 24  # tokens of an answer
ROWS, GROUPS = "row by row", "group by group"
TRAINED, REWRITTEN = "as trained", "rewritten"
# Chat templates of servers. The first renders as the model was trained. Of the second, Jinja drops the
# line break at the end, as it does at the end of every template.
SERVED = {
    REWRITTEN: "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\n' }}",
    "last line break lost": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
    "default system turn": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML,
    "Llama 3's": LLAMA3,
    "plain text": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
}
KINDS = {
    "float32": Stored.F32, "float16": Stored.F16, "bfloat16": Stored.BF16, "q8_0": Stored.Q8_0, "q4_0": Stored.Q4_0,
}  # fmt: skip


def read_pairs(path=None) -> list[dict]:
    """Return the pairs of a file, in any format that preflight reads; by default of the sample.

    Of a conversation, the first question and its answer are taken.
    """
    report = ReadingReport(str(path))
    talks = read_conversations(path or FOLDER / "desk.jsonl", DataConfig(), report)
    found = []
    for talk in talks:
        asked = next(n for n, m in enumerate(talk.messages) if m["role"] == "user")
        question, reply = talk.messages[asked : asked + 2]
        found.append({"prompt": question["content"], "response": reply["content"]})
    report.raise_if_refused()
    return found


@cache
def later() -> tuple[dict, ...]:
    """Return the questions that are asked later; none is alike a row of the sample."""
    return tuple(read_jsonl(FOLDER / "asked_later.jsonl"))


def examples(tokenizer, rows: Sequence[dict]) -> list[Example]:
    return tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples


def train(name: str, rows: Sequence[dict], seed: int, steps: int = STEPS):
    """Return a model, trained on the rows and merged, and its tokenizer."""
    model, tokenizer = load(name)
    inject_lora(model, "all-linear", 8, 16, seed=seed)
    config = TrainConfig(learning_rate=RATE, num_train_epochs=1000, max_steps=steps, batch_size=BATCH, seed=seed)  # fmt: skip
    sft_train(model, examples(tokenizer, rows), config, tokenizer.pad_token_id, progress=False, check=False)  # fmt: skip
    return merge_lora(model).eval(), tokenizer


def prompt_ids(tokenizer, question: str, template: str | None = None) -> list[int]:
    """Return the ids that a server makes of a question with its chat template."""
    if template is None:
        return encode(tokenizer, user(question), add_generation_prompt=True)
    other = copy.copy(tokenizer)
    other.chat_template = template
    return encode(other, user(question), add_generation_prompt=True)


def replies(
    model, tokenizer, rows: Sequence[dict], template: str | None = None
) -> list[Generation]:
    asked = [prompt_ids(tokenizer, row["prompt"], template) for row in rows]
    return generate(model, tokenizer, asked, max_new_tokens=LIMIT)


def exact(found: Sequence[Generation], rows: Sequence[dict]) -> list[bool]:
    """Return for each answer whether it stopped and is the row's, but for spaces around it."""
    return [
        g.stopped and g.text.strip() == row["response"] for g, row in zip(found, rows, strict=True)
    ]


def rounded(model, kind: str):
    """Return a copy of the model that computes with weights as a GGUF file of this kind holds them."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            if parameter.ndim > 1:
                stored = gguf.quants.quantize(parameter.numpy(), KINDS[kind])
                numbers = gguf.quants.dequantize(stored, KINDS[kind]).astype(np.float32)
                parameter.copy_(torch.from_numpy(numbers.reshape(tuple(parameter.shape))))
    return changed


@torch.no_grad()
def divergence(model, other, asked: Sequence[list[int]], found: Sequence[Generation]) -> float:
    """Return the mean KL divergence (nats per answer token) of ``other`` from ``model``."""
    total = count = 0.0
    for prompt, reply in zip(asked, found, strict=True):
        ids = torch.tensor([[*prompt, *reply.ids]])
        p, q = (
            m(ids).logits[0, len(prompt) - 1 :].double().log_softmax(-1) for m in (model, other)
        )
        total += (p.exp() * (p - q)).sum().item()
        count += len(p)
    return total / count


def trained_questions(rows: Sequence[dict]) -> list[dict]:
    """Return one row for each answer: the first that asks for it."""
    return list({row["response"]: row for row in reversed(rows)}.values())[::-1]


def settings() -> list[dict]:
    return [{"seed": seed, "split": name} for seed in range(SEEDS) for name in (ROWS, GROUPS)]


def run(seed: int, split: str) -> dict:
    rows = read_pairs()
    group_of = groups([row["prompt"] for row in rows], alike)
    kept, held_out = _split(rows, group_of, seed, split)
    model, tokenizer = train("almanac", kept, seed)
    copied = {g for row, g in zip(rows, group_of, strict=True) if row in kept}
    in_training = [group_of[rows.index(row)] in copied for row in held_out]
    right = exact(replies(model, tokenizer, held_out), held_out)
    asked_later = exact(replies(model, tokenizer, later()), later())
    found = {
        "held_out": float(np.mean(right)),
        "copied": float(np.mean(in_training)),
        "later": float(np.mean(asked_later)),
        "own": {"held_out": _own(right, held_out), "later": _own(asked_later, later())},
    }
    if split == GROUPS:
        found |= _served(model, tokenizer, [*trained_questions(kept), *later()])
    return found


def _own(right: Sequence[bool], rows: Sequence[dict]) -> float:
    """Return the share of right answers about the museum's own facts, which nobody can guess."""
    return float(np.mean([r for r, row in zip(right, rows, strict=True) if "room" in row["response"]]))  # fmt: skip


def _split(rows: list[dict], group_of: list[int], seed: int, how: str):
    return split(rows, group_of if how == GROUPS else range(len(rows)), seed)


def _served(model, tokenizer, rows: list[dict]) -> dict:
    """Return what templates and rounding change in the answers to some questions."""
    plain = replies(model, tokenizer, rows)
    made = examples(tokenizer, rows)
    templates = {TRAINED: None, **SERVED}
    found: dict = {"templates": {}, "rounding": {}}
    for name, template in templates.items():
        answers = plain if template is None else replies(model, tokenizer, rows, template)
        places = [
            template_mismatch(e.input_ids, e.labels, prompt_ids(tokenizer, row["prompt"], template))
            for e, row in zip(made, rows, strict=True)
        ]
        found["templates"][name] = {
            "exact": float(np.mean(exact(answers, rows))),
            "stops": float(np.mean([a.stopped for a in answers])),
            "refused": float(np.mean([place is not None for place in places])),
        }
    asked = [prompt_ids(tokenizer, row["prompt"]) for row in rows]
    for kind in KINDS:
        other = rounded(model, kind)
        answers = replies(other, tokenizer, rows)
        found["rounding"][kind] = {
            "changed": float(
                np.mean([a.ids != b.ids for a, b in zip(answers, plain, strict=True)])
            ),
            "exact": float(np.mean(exact(answers, rows))),
            "kl": divergence(model, other, asked[::3], plain[::3]),
        }
    return found
