"""SmolLM2-135M-Instruct on traces of a look-up: does it use what the tool returns?

The model reads questions about capitals, a call and a result: the true capital, or that of another country.
Measured is the share of answers that name the result, before training and after 30 steps on traces of other
countries. SmolLM2 is a reconstruction of the published model from 4 bits, in float32, with calls as in Qwen3's
chat template. Fetch it first: ``python -m sftlab fetch smollm2-instruct``. This takes about ten minutes.
"""

from __future__ import annotations

from random import Random

from sftlab.exercises.ex25_tools_and_thoughts.tools import capitals, measure, trace, train
from sftlab.exercises.ex25_tools_and_thoughts.traces import BRACES, encoded, parts
from sftlab.models import load

RECORD = "tool_calls_smollm2"  # data/results/tool_calls_smollm2.json

SEEDS, STEPS, RATE = 3, 30, 1e-3
TRACES, COUNTRIES = 60, 30


def run(trained: bool, seed: int) -> dict[str, float]:
    """Return the shares of ``tools.measure`` for countries without a trace."""
    model, tokenizer = load("smollm2-instruct")
    rng = Random(seed)
    if trained:
        some = [rng.choice(capitals("known", "train")) for _ in range(TRACES)]
        rows = [trace(item, rng.choice(item.questions)) for item in some]
        made = [encoded(tokenizer, parts(row, BRACES)) for row in rows]
        train(model, tokenizer, made, RATE, seed, steps=STEPS)
    return measure(model, tokenizer, rng.sample(capitals("known"), COUNTRIES), BRACES, 1)


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [{"trained": trained, "seed": seed} for seed in range(SEEDS) for trained in (False, True)]  # fmt: skip
