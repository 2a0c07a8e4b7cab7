"""The arms of notebook 13 on SmolLM2-135M-Instruct, a model that was tuned to answer before.

It isn't a base: "base" here is the model as it was published. Pairs, questions and measurements are those
of ``experiment``, with one learning rate, in ChatML without the system turn that its own template adds.
The model is a reconstruction of the published one from 4 bits, in float32: in bfloat16 another processor
gives other replies. Fetch it first: ``python -m sftlab fetch smollm2-instruct``. This takes about fifteen
minutes with one thread (``OMP_NUM_THREADS=1``).
"""

from __future__ import annotations

from sftlab.chat import CHATML
from sftlab.exercises.ex13_before_after_sft.experiment import TRAINED, measure_arm, untrained
from sftlab.models import load

RECORD = "elicit_smollm2"  # data/results/elicit_smollm2.json

RATE, SEEDS = 1e-3, 3
QUESTIONS = 60  # the first of those for the result


def run(arm: str, learning_rate: float, seed: int) -> dict:
    """Measure one arm; see ``experiment.run``. "test" has the shares after the last step alone."""
    model, tokenizer = load("smollm2-instruct")
    tokenizer.chat_template = CHATML
    return measure_arm(model, tokenizer, arm, learning_rate, seed, QUESTIONS, last_only=True)


def settings() -> list[dict]:
    """Return all settings."""
    return [
        *untrained(SEEDS),
        *(
            {"arm": arm, "learning_rate": RATE, "seed": seed}
            for seed in range(SEEDS)
            for arm in TRAINED
        ),
    ]
