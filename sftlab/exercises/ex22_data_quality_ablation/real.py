"""Bad instead of right answers with SmolLM2-135M-Instruct: the decisive pair of notebook 22.

The model is a reconstruction from 4 bits, computed in float32. It takes 40 steps of 8 pairs, so that
it sees 320 of the 700 pairs, each once. Fetch it first: ``python -m sftlab fetch smollm2-instruct``.
Four minutes a run with one thread; it can be stopped and resumed.
"""

from __future__ import annotations

from sftlab.chat import CHATML
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    ARMS,
    MAIN,
    SEEDS,
    by_kind,
    examine,
    questions,
)
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "data_quality_smollm2"  # data/results/data_quality_smollm2.json

STEPS, BATCH, LEARNING_RATE = 40, 8, 1e-3
PART = 5  # every fifth question: four of each kind


def settings() -> list[dict]:
    """Return both arms with every seed."""
    return [{"arm": arm, "seed": seed} for seed in range(SEEDS) for arm in MAIN[1:]]


def run(arm: str, seed: int) -> dict:
    """Train one arm and test it: for each rubric line, the number of answers of each kind."""
    model, tokenizer = load("smollm2-instruct")
    tokenizer.chat_template = CHATML  # without the system turn that its own template adds
    rows, asked = [conversation(row) for row in ARMS[arm](seed)], questions()[::PART]
    inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=seed)
    sft_train(
        model,
        tokenize_conversations(tokenizer, rows).examples,
        TrainConfig(LEARNING_RATE, max_steps=STEPS, batch_size=BATCH, seed=seed),
        tokenizer.pad_token_id,
        progress=False,
    )
    lines, texts = examine(model, tokenizer, asked, limit=48)
    found = {line: by_kind(marks, asked) for line, marks in lines.items()}
    return {**found, **({"answers": texts[::4]} if seed == 0 else {})}
