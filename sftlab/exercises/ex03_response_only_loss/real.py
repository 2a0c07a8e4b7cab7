"""The arms of notebook 03 on SmolLM2-135M-Instruct, a model that was trained on its chat template.

The pairs, questions and parts are those of ``experiment``, in ChatML as SmolLM2 knows it, without the
system turn that its own template adds. The learning rate of an arm is chosen as there, on the
validation questions. The model is a reconstruction of the published one from 4 bits, in bfloat16,
with adapters in float32. Fetch it first: ``python -m sftlab fetch smollm2-instruct``. This takes
about twenty minutes on two cores.
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
SEEDS, STEPS = 3, 12
LOOKED_AT = 8  # pairs whose losses are split by part


def run(arm: str, learning_rate: float, seed: int) -> dict[str, float]:
    """Train one arm for 12 steps; return the mean loss of each part before, and the loss on the
    responses of the validation and the test questions after, in nats per token."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.bfloat16)
    tokenizer.chat_template = CHATML
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    pairs = experiment.training_pairs(SETTING, seed)
    by_part = loss_by_part(model, tokenizer, pairs[:LOOKED_AT])
    experiment.train(model, tokenizer, pairs, ARMS[arm], learning_rate, STEPS, seed)
    found = {f"loss of {part}": sum(by_part[part]) / len(by_part[part]) for part in PARTS}
    for name, some in zip(("validation", "test"), experiment.questions(SETTING), strict=True):
        made = examples(tokenizer, some, {"response"})
        found[name] = response_nll(model, made, tokenizer.pad_token_id)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for rate in RATES
    ]
