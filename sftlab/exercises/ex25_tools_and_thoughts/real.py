"""SmolLM2-135M-Instruct on traces of a look-up: does it use what the tool returns?

The model reads questions about capitals, a call and a result: the true capital, or that of another country.
Measured is what ``tools`` measures of the answers, before training and after 30 steps on traces of other countries.
SmolLM2 is a reconstruction of the published model from 4 bits, in float32, with calls as in Qwen3's chat template.
Fetch it first: ``python -m sftlab fetch smollm2-instruct``. This takes about a quarter of an hour.
"""

from __future__ import annotations

from random import Random

from sftlab.exercises.ex25_tools_and_thoughts.tools import (
    capitals,
    first_replies,
    last_replies,
    trace,
    train,
)
from sftlab.exercises.ex25_tools_and_thoughts.traces import BRACES, encoded, parts
from sftlab.models import load

RECORD = "tool_calls_smollm2"  # data/results/tool_calls_smollm2.json

SEEDS, STEPS, RATE = 3, 30, 1e-3
TRACES, COUNTRIES = 60, 20


def run(trained: bool, seed: int) -> dict[str, dict[str, float]]:
    """Return the measurements of countries without a trace."""
    model, tokenizer = load("smollm2-instruct")
    if trained:
        rng = Random(seed)
        some = [rng.choice(capitals("known", "train")) for _ in range(TRACES)]
        rows = [trace(item, rng.choice(item.questions)) for item in some]
        made = [encoded(tokenizer, parts(row, BRACES)) for row in rows]
        train(model, tokenizer, made, RATE, seed, steps=STEPS)
    asked = capitals("known")[:COUNTRIES]
    return first_replies(model, tokenizer, asked, BRACES) | last_replies(model, tokenizer, asked, BRACES)  # fmt: skip


def settings() -> list[dict]:
    """Return the model as published, then every seed of the trained one."""
    return [{"trained": False, "seed": 0}, *({"trained": True, "seed": seed} for seed in range(SEEDS))]  # fmt: skip
