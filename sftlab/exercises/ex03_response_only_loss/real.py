"""The arms of notebook 03 on SmolLM2-135M-Instruct, a model that was trained on its chat template.

The pairs, questions and parts are those of ``experiment``, in ChatML as SmolLM2 knows it, without the
system turn that its own template adds. The model is a reconstruction of the published one from 4
bits, in bfloat16, with adapters in float32. Fetch it first: ``python -m sftlab fetch
smollm2-instruct``. This takes about twenty minutes on two cores.
"""

from __future__ import annotations

import torch

from sftlab.chat import CHATML
from sftlab.exercises.ex03_response_only_loss import experiment
from sftlab.exercises.ex03_response_only_loss.experiment import ARMS, PARTS, examples, loss_by_part
from sftlab.exercises.recipes import response_nll
from sftlab.lora import inject_lora
from sftlab.models import load

RECORD = "prompt_parts_smollm2"  # data/results/prompt_parts_smollm2.json

SETTING = "ChatML"
RATES = (3e-4, 1e-3, 3e-3)
SEEDS, STEPS = 3, 24


def run(arm: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train one arm for 24 steps; return its losses on the responses before and after (nats per
    token), and before training the mean loss of each part."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.bfloat16)
    tokenizer.chat_template = CHATML
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    pairs = experiment.training_pairs(SETTING, seed)
    sets = dict(zip(("validation", "test"), experiment.questions(SETTING), strict=True))

    def losses(when: str) -> dict[str, float]:
        return {
            f"{name} {when}": response_nll(
                model, examples(tokenizer, some, {"response"}), tokenizer.pad_token_id
            )
            for name, some in sets.items()
        }

    by_part = loss_by_part(model, tokenizer, pairs)
    found = {f"loss of {part}": sum(by_part[part]) / len(by_part[part]) for part in PARTS}
    found |= losses("before")
    experiment.train(model, tokenizer, pairs, ARMS[arm], learning_rate, STEPS, seed)
    return found | losses("after")


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for rate in RATES
    ]
