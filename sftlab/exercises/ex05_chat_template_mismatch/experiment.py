"""Wrong chat templates: the cost of each deviation, and of mismatched training and serving.

``CORRUPTIONS`` are ways to get a ChatML prompt wrong; the notebook tests each of them on the
fine-tuned model. Recorded here: the base model fine-tuned with four prompt formats, each served
with all four.
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

LIMIT = 24  # new tokens; more than the longest reference has
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


# Name -> function of (tokenizer, question, right prompt) that returns the wrong prompt as text.
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
    """Return the ids of a question in a corrupted ChatML prompt.

    The special tokens of other families are not tokens of this tokenizer and are read as text. So
    are ChatML's own under "markers typed as text".

    Args:
        how: a key of ``CORRUPTIONS``.

    Raises:
        WorkbookError: unknown key, or the tokenizer's own template is not ChatML.
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
    """Return held-out questions with one right answer."""
    found = [q for q in read_jsonl(INSTRUCTIONS / "heldout.jsonl") if "allowed" not in q]
    return Random(seed).sample(found, min(count, len(found)))


def row(tokenizer, question: dict, how: str) -> Example:
    """Return the corrupted prompt, masked, followed by the reference answer and end of turn."""
    prompt = wrong_prompt(tokenizer, question["prompt"], how)
    response = tokenizer.encode(question["response"], add_special_tokens=False)
    response.append(end_of_turn_id(tokenizer))
    return Example([*prompt, *response], [IGNORE_INDEX] * len(prompt) + response)


@torch.no_grad()
def reference_nll(model, rows: Sequence[Example], pad_id: int, batch_size: int = 50) -> list[float]:
    """Return the NLL of each example's trained tokens, in nats per token of the example."""
    # All logits are computed. With a real model's vocabulary, those of a few examples fill
    # the memory.
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
    """Return the model's greedy answers to the questions in a corrupted prompt."""
    prompts = [wrong_prompt(tokenizer, question["prompt"], how) for question in asked]
    return generate(model, tokenizer, prompts, max_new_tokens=LIMIT)


def measure(model, tokenizer, asked: Sequence[dict], how: str) -> dict[str, list]:
    """Return for each question: exact match, whether the model stopped, NLL of the reference."""
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
    """Return the mean with its 95% interval: percentiles of 2,000 bootstrap means (SciPy)."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:  # all values are equal
        return float(values[0]), (float(values[0]), float(values[0]))
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(values.mean()), (float(found.low), float(found.high))


# --- recorded: does the choice of template matter, or only that both sides use the same? ---------

FORMS = ("exact template", "begin markers doubled", "Llama 3 style", "no template")
SEEDS = 3


def tuned(trained: str, seed: int, progress: bool = False):
    """Return the base model tuned on 32 pairs in one prompt format, and its tokenizer.

    ``trained`` is a key of ``CORRUPTIONS``.
    """
    model, tokenizer = load("almanac")
    pairs = read_jsonl(INSTRUCTIONS / "handful.jsonl")
    rows = [row(tokenizer, pair, trained) for pair in pairs]
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16, seed=seed)
    sft_train(model, rows, config, tokenizer.pad_token_id, progress=progress)
    return model, tokenizer


def run(trained: str, seed: int) -> dict:
    """Fine-tune with one prompt format and serve with each of four, on 200 questions.

    Returns:
        Means over the questions: ``exact``, ``stops`` and ``nll`` for each served format.
    """
    model, tokenizer = tuned(trained, seed)
    asked = questions()
    served = {how: measure(model, tokenizer, asked, how) for how in FORMS}
    return {
        name: {how: sum(found[name]) / len(asked) for how, found in served.items()}
        for name in ("exact", "stops", "nll")
    }


def settings() -> list[dict]:
    """Return four prompt formats for training, with three seeds each."""
    return [{"trained": how, "seed": seed} for seed in range(SEEDS) for how in FORMS]
