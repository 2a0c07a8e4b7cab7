"""What a model predicts directly after an answer, and inside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sftlab.compare import logits_of
from sftlab.exercises.ex01_base_vs_instruct.experiment import BARE, PAGE, TEMPLATE, renderings
from sftlab.generate import next_token_distribution

BETWEEN = {BARE: "\n", TEMPLATE: "", PAGE: " "}  # what stands between a rendering and the answer
Place = tuple[str, torch.Tensor]  # kind of prompt, distribution of the next token


def stops(tokenizer) -> dict[str, int]:
    """Return the tokens with which an answer may end, by name."""
    (line_break,) = tokenizer.encode("\n")
    return {
        "end-of-turn token": tokenizer.eos_token_id,
        "document end": tokenizer.bos_token_id,
        "line break": line_break,
    }


def answered_in_one_line(questions: Sequence[dict]) -> list[dict]:
    """Return the questions whose right answer is one line."""
    return [question for question in questions if "\n" not in question["answer"]]


@torch.no_grad()
def around_answers(
    model, tokenizer, questions: Sequence[dict], rendering: str = TEMPLATE
) -> tuple[list[Place], list[Place]]:
    """Return the next-token distributions directly after each right answer, and inside it."""
    after: list[Place] = []
    inside: list[Place] = []
    for question in questions:
        prompt = renderings(tokenizer)[rendering](question["prompt"])
        answer = tokenizer.encode(BETWEEN[rendering] + question["answer"])
        logits = logits_of(model, [*prompt, *answer])
        after.append((question["kind"], next_token_distribution(logits)))
        inside += [
            (question["kind"], next_token_distribution(logits[:length]))
            for length in range(len(prompt) + 1, len(logits))
        ]
    return after, inside
