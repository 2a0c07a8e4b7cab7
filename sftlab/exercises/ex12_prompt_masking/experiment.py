"""The border between prompt and answer: which tokens it has, and what it costs to serve others.

The base answers questions between "Q:" and "A:", as in its documents. The space after the colon can
stand at the end of the prompt ("A: ") or at the beginning of the answer. As text both are the same; as
tokens they are not, because " The" is one token. Two arms train on 32 such pairs, with the prompt up to
the space and the answer tokenized ``apart`` or ``together``. Both are served with both prompts.

The learning rate of an arm is chosen on validation questions, asked as the arm was trained, and the
result is reported on others. This takes about five minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice, pairwise
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sftlab.almanac.documents import documents
from sftlab.almanac.facts import Item
from sftlab.almanac.pairs import ASKED, pairs
from sftlab.almanac.skills import usable
from sftlab.exercises.short_runs import Questions, endless_batches, fact_questions
from sftlab.generate import generate
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import train_step

RECORD = "border"  # data/results/border.json

APART, TOGETHER = "apart", "together"
PROMPT = "Q: {}\nA:"
SERVED = {APART: PROMPT + " ", TOGETHER: PROMPT}  # arm -> the prompt that has its tokens
LAYOUTS = {
    "Q: … A:": PROMPT,
    "Q: … A:␣": PROMPT + " ",
    "Q:␣␣… A:": "Q:  {}\nA:",
    "Q: … A: without a line break": "Q: {} A:",
}
RATES = (1e-3, 3e-3, 1e-2)
SEEDS, PAIRS, BATCH, STEPS, QUESTIONS, LIMIT = 5, 32, 16, 24, 60, 24

# --- tokenizers and their borders ------------------------------------------------------------

# As many newer models split text first: line breaks stay together, and with punctuation before them.
NEWER = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEADERS = ("<|im_start|>", "<|im_start|>assistant\n", "### Response:\n", "### Response:\n\n",
           "Q: Who?\nA:", "Q: Who?\nA: ")  # fmt: skip


def small_tokenizer(blank_lines: bool, texts: int = 3000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of 1,024 tokens on documents (under a second).

    Args:
        blank_lines: separate the documents' lines by blank lines, so that two line breaks become
            one token.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(NEWER), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    read: Iterable[str] = islice(documents("tokenizer:12"), texts)
    bpe.train_from_iterator((t.replace("\n", "\n\n") if blank_lines else t for t in read), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def beginnings(tokenizer) -> list[str]:
    """Return an answer for each ordinary token of the vocabulary that begins with its text."""
    special = set(tokenizer.all_special_ids)
    texts = (tokenizer.decode([i]) for i in range(len(tokenizer)) if i not in special)
    return [text + "Yes." for text in texts if "\N{REPLACEMENT CHARACTER}" not in text]


def unsafe_answers(tokenizer, header: str, answers: Iterable[str]) -> dict[str, int]:
    """Return the answers that must not be tokenized apart from a header.

    Returns:
        answer -> position of the first token id at which apart and together differ.
    """
    found = {}
    head = tokenizer.encode(header, add_special_tokens=False)
    for answer in answers:
        apart = head + tokenizer.encode(answer, add_special_tokens=False)
        together = tokenizer.encode(header + answer, add_special_tokens=False)
        if apart != together:
            differs = [a != b for a, b in zip(apart, together, strict=False)]
            found[answer] = differs.index(True)  # the text is the same: neither begins the other
    return found


# --- what a prompt does though it isn't trained ------------------------------------------------


@cache
def asked_three_ways(each: int = 6) -> tuple[tuple[str, str, str, str, str], ...]:
    """Return (kind, usual question, other wording, question about another subject, answer)."""
    rng, found = Random(12), []
    for kind in ASKED:
        known: list[Item] = rng.sample(usable(kind, "heldout"), each + 1)
        for item, other in pairwise(known):
            wording = rng.choice(item.questions[1:])
            if other.value != item.value:
                found.append((kind, item.question, wording, other.question, item.answer))
    return tuple(found)


# --- training and serving ---------------------------------------------------------------------


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(12, QUESTIONS)


def example(tokenizer, pair: dict, how: str) -> Example:
    """Return a pair as an example whose answer is trained, tokenized apart or together."""

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    prompt = ids(SERVED[how].format(pair["prompt"]))
    answer_ = ids((" " if how == TOGETHER else "") + pair["response"] + tokenizer.bos_token)
    return Example(prompt + answer_, [IGNORE_INDEX] * len(prompt) + answer_)


def right(model, tokenizer, layout: str, some: Sequence[dict]) -> list[bool]:
    """Return for each question whether the first line of the reply states the right fact."""
    prompts = [tokenizer.encode(layout.format(q["prompt"]), add_special_tokens=False) for q in some]
    replies = generate(model, tokenizer, prompts, max_new_tokens=LIMIT)
    firsts = [reply.text.strip().split("\n")[0] for reply in replies]
    return [score_answer(q, text, True).content for q, text in zip(some, firsts, strict=True)]


def run(trained: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train one arm, and serve it with both prompts.

    Returns:
        ``validation``, the share of right facts as the arm was trained, and the share of the other
        questions with each prompt, ``apart`` and ``together``.
    """
    model, tokenizer = load("almanac")
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    made = [example(tokenizer, pair, trained) for pair in pairs(PAIRS, seed, skills=())]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    for batch in islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), STEPS):
        train_step(model, batch, optimizer)
    model.eval()
    validation, test = questions()
    found = {"validation": right(model, tokenizer, SERVED[trained], validation)}
    found |= {how: right(model, tokenizer, layout, test) for how, layout in SERVED.items()}
    return {name: sum(values) / len(values) for name, values in found.items()}


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"trained": how, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for how in (APART, TOGETHER)
        for rate in RATES
    ]
