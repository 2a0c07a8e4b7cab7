"""Wrong chat templates: what each deviation costs, and that training and serving must agree.

``CORRUPTIONS`` are ways to get a ChatML prompt wrong. The notebook puts each of them to the tuned
model. Recorded here: the base tuned with four prompt forms, and each of these served with all four.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from scipy import stats

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.chat import end_of_turn_id, render, user
from sftlab.data import collate, read_jsonl
from sftlab.errors import WorkbookError
from sftlab.generate import Generation, generate
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX, token_nll
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.templates import FAMILIES
from sftlab.train import TrainConfig, sft_train

RECORD = "template_mismatch"  # data/results/template_mismatch.json

LIMIT = 24  # new tokens; the longest reference has fewer
HEADER = "<|im_start|>assistant\n"  # the generation prompt


def _family(name: str) -> Callable:
    def other(tokenizer, question: str, text: str) -> str:
        return tokenizer.apply_chat_template(
            user(question), chat_template=FAMILIES[name], add_generation_prompt=True, tokenize=False
        )

    return other


def _edit(pattern: str, replacement: str) -> Callable:
    return lambda tokenizer, question, text: re.sub(pattern, replacement, text)


def _swapped(tokenizer, question: str, text: str) -> str:
    other = {"user": "assistant", "assistant": "user"}
    return re.sub(r"(?<=<\|im_start\|>)(user|assistant)", lambda found: other[found[1]], text)


# Name -> (tokenizer, question, right prompt) to the wrong prompt, as text.
CORRUPTIONS: dict[str, Callable] = {
    "exact template": lambda tokenizer, question, text: text,
    "begin markers doubled": _edit(r"<\|im_start\|>", "<|im_start|><|im_start|>"),
    "no end marker": _edit(r"<\|im_end\|>", ""),
    "no newline after user": _edit(r"(<\|im_start\|>user)\n", r"\1"),
    "no newline after assistant": _edit(r"(<\|im_start\|>assistant)\n", r"\1"),
    "roles renamed": lambda tokenizer, question, text: text.replace(
        "<|im_start|>user", "<|im_start|>human"
    ).replace("<|im_start|>assistant", "<|im_start|>bot"),
    "roles swapped": _swapped,
    "no generation prompt": lambda tokenizer, question, text: text.removesuffix(HEADER),
    "a space after the header": _edit(r"\Z", " "),
    "markers typed as text": lambda tokenizer, question, text: text,  # see wrong_prompt
    "Llama 3 style": _family("llama3"),
    "Gemma style": _family("gemma"),
    "[INST] style": _family("inst"),
    "no template": lambda tokenizer, question, text: question,
}


def wrong_prompt(tokenizer, question: str, how: str) -> list[int]:
    """The ids of a question in a corrupted ChatML prompt; ``how`` is a key of ``CORRUPTIONS``.

    Markers of other families are no tokens here: they are read as text. So are ChatML's own under
    "markers typed as text".

    Raises:
        WorkbookError: an unknown name, or a tokenizer whose own template is not ChatML.
    """
    if how not in CORRUPTIONS:
        raise WorkbookError(f"there is no corruption {how!r}; use one of {', '.join(CORRUPTIONS)}")
    right = render(tokenizer, user(question), add_generation_prompt=True)
    if not right.endswith(HEADER):
        raise WorkbookError(
            "this tokenizer's template is not ChatML, for which the corruptions are written; "
            'use a ChatML model, such as MODEL = "almanac"'
        )
    text = CORRUPTIONS[how](tokenizer, question, right)
    typed = how == "markers typed as text"
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=typed)


def questions(count: int = 200, seed: int = 0) -> list[dict]:
    """Held-out questions with one right answer."""
    found = [q for q in read_jsonl(INSTRUCTIONS / "heldout.jsonl") if "allowed" not in q]
    return Random(seed).sample(found, min(count, len(found)))


def row(tokenizer, question: dict, how: str) -> Example:
    """The corrupted prompt, masked, then the reference answer and its end marker."""
    prompt = wrong_prompt(tokenizer, question["prompt"], how)
    response = tokenizer.encode(question["response"], add_special_tokens=False)
    response.append(end_of_turn_id(tokenizer))
    return Example([*prompt, *response], [IGNORE_INDEX] * len(prompt) + response)


@torch.no_grad()
def reference_nll(model, rows: Sequence[Example], pad_id: int, batch_size: int = 50) -> list[float]:
    """The NLL of each row's trained tokens, in nats per token of that row."""
    # All logits are made: with a real model's vocabulary, those of few rows fill the memory.
    fit = 2**25 // (model.config.vocab_size * max(map(len, rows)))
    batch_size = min(batch_size, max(1, fit))
    found: list[float] = []
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size], pad_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        sums = token_nll(logits, batch["labels"]).sum(-1)
        found += (sums / (batch["labels"][:, 1:] != IGNORE_INDEX).sum(-1)).tolist()
    return found


def replies(model, tokenizer, asked: Sequence[dict], how: str) -> list[Generation]:
    """What the model writes, greedily, after each question in a corrupted prompt."""
    prompts = [wrong_prompt(tokenizer, question["prompt"], how) for question in asked]
    return generate(model, tokenizer, prompts, max_new_tokens=LIMIT)


def measure(model, tokenizer, asked: Sequence[dict], how: str) -> dict[str, list]:
    """Question by question: exact match, stopped by itself, NLL of the reference answer."""
    written = replies(model, tokenizer, asked, how)
    rows = [row(tokenizer, question, how) for question in asked]
    return {
        "exact": [
            score_answer(q, g.text, g.stopped).correct for q, g in zip(asked, written, strict=True)
        ],
        "stops": [g.stopped for g in written],
        "nll": reference_nll(model, rows, tokenizer.pad_token_id),
    }


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> tuple[float, tuple[float, float]]:
    """The mean with its 95% interval: percentiles of 2,000 bootstrap means (SciPy)."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:  # nothing varies: no interval to draw
        return float(values[0]), (float(values[0]), float(values[0]))
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(values.mean()), (float(found.low), float(found.high))


# --- recorded: does it matter which template, or only that both sides use the same? --------------

FORMS = ("exact template", "begin markers doubled", "Llama 3 style", "no template")
SEEDS = 3


def tuned(trained: str, seed: int, progress: bool = False):
    """The base tuned on 32 pairs in one prompt form (a key of ``CORRUPTIONS``), and its tokenizer."""
    model, tokenizer = load("almanac")
    pairs = read_jsonl(INSTRUCTIONS / "handful.jsonl")
    rows = [row(tokenizer, pair, trained) for pair in pairs]
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16, seed=seed)
    sft_train(model, rows, config, tokenizer.pad_token_id, progress=progress)
    return model, tokenizer


def run(trained: str, seed: int) -> dict:
    """Tune with one prompt form, serve with each: share of exact answers to 200 questions."""
    model, tokenizer = tuned(trained, seed)
    asked = questions()
    served = {how: measure(model, tokenizer, asked, how) for how in FORMS}
    return {
        name: {how: sum(found[name]) / len(asked) for how, found in served.items()}
        for name in ("exact", "stops", "nll")
    }


def settings() -> list[dict]:
    """Four prompt forms in training, three seeds."""
    return [{"trained": how, "seed": seed} for seed in range(SEEDS) for how in FORMS]
