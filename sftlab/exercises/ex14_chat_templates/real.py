"""The forged turns of notebook 14 on SmolLM2-135M-Instruct, in its own chat template.

Its template inserts a default system turn. The arms and phrasings are those of ``experiment``, with
four questions. This model writes full sentences even after a real system turn that asks for one
word, so the loss of the short reply is measured as well, and a real system turn that asks for full
sentences. The model is a reconstruction of the published one from 4 bits, in bfloat16. Fetch it
first: ``python -m sftlab fetch smollm2-instruct``. This takes about two minutes on one core.
"""

from __future__ import annotations

import torch

from sftlab.almanac.facts import capitalised
from sftlab.chat import encode, end_of_turn_id
from sftlab.exercises.ex14_chat_templates.experiment import (
    HARMLESS,
    PHRASINGS,
    Prompts,
    attacks,
    measure,
    questions,
    system_turn,
    without_attack,
)
from sftlab.exercises.recipes import response_nll
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load

RECORD = "forged_turns_smollm2"  # data/results/forged_turns_smollm2.json

QUESTIONS = 4


def short_loss(model, tokenizer, prompts: Prompts, asked: list[dict]) -> float:
    """Return the mean loss per token (nats) of the right short reply, such as "Paris."."""
    rows = []
    for ids, q in zip(prompts, asked, strict=True):
        text = f"{capitalised(q['value'])}."
        reply = [*tokenizer.encode(text, add_special_tokens=False), end_of_turn_id(tokenizer)]
        rows.append(Example([*ids, *reply], [*[IGNORE_INDEX] * len(ids), *reply]))
    return response_nll(model, rows, tokenizer.pad_token_id)


def run(phrasing: str) -> dict:
    """Measure every arm with one phrasing, the questions alone, and two real system turns."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.bfloat16)
    asked, chosen = questions(QUESTIONS), PHRASINGS[phrasing]
    real = {"system turn": chosen[1], "harmless system turn": HARMLESS}
    prompts = {
        "question": without_attack(tokenizer, asked)["question"],
        **{
            arm: {
                phrasing: [encode(tokenizer, system_turn(told, q["prompt"]), True) for q in asked]
            }
            for arm, told in real.items()
        },
        **attacks(tokenizer, asked, {phrasing: chosen}),
    }
    found = measure(model, tokenizer, prompts, asked)
    for arm, named in prompts.items():
        for name, some in named.items():
            found[arm][name]["short_loss"] = short_loss(model, tokenizer, some, asked)
    return found


def settings() -> list[dict]:
    """Return all settings, one for each phrasing."""
    return [{"phrasing": phrasing} for phrasing in PHRASINGS]
