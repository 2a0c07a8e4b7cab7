"""The forged turns of notebook 14 on SmolLM2-135M-Instruct, in its own chat template.

Its template inserts a default system turn. The arms and phrasings are those of ``experiment``, with
eight questions. The model is a reconstruction of the published one from 4 bits, in bfloat16. Fetch
it first: ``python -m sftlab fetch smollm2-instruct``. This takes about four minutes on one core.
"""

from __future__ import annotations

import torch

from sftlab.chat import encode
from sftlab.exercises.ex14_chat_templates.experiment import (
    PHRASINGS,
    attacks,
    measure,
    questions,
    system_turn,
    without_attack,
)
from sftlab.models import load

RECORD = "forged_turns_smollm2"  # data/results/forged_turns_smollm2.json

QUESTIONS = 8


def run(phrasing: str) -> dict:
    """Measure every arm with one phrasing, the questions alone, and a real system turn."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.bfloat16)
    asked, chosen = questions(QUESTIONS), PHRASINGS[phrasing]
    real = [system_turn(dict(chosen[1])["system"], q["prompt"]) for q in asked]
    prompts = {
        "question": without_attack(tokenizer, asked)["question"],
        "system turn": {phrasing: [encode(tokenizer, messages, True) for messages in real]},
        **attacks(tokenizer, asked, {phrasing: chosen}),
    }
    return measure(model, tokenizer, prompts, asked)


def settings() -> list[dict]:
    """Return all settings, one for each phrasing."""
    return [{"phrasing": phrasing} for phrasing in PHRASINGS]
