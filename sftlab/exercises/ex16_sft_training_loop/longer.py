"""240 pairs for 300 steps: where does the validation loss turn if the budget does not end first?

The runs of ``stopping`` on 240 pairs, at the two learning rates whose validation loss still falls at
step 96, go on to step 300. Up to step 96 they are the same runs. All this takes about 12 minutes on
one core.
"""

from __future__ import annotations

from sftlab.exercises.ex16_sft_training_loop import stopping
from sftlab.exercises.ex16_sft_training_loop.stopping import MANY, RATES, SEEDS, TRAINED
from sftlab.models import load

RECORD = "early_stopping_longer"  # data/results/early_stopping_longer.json

CHECKPOINTS = (*stopping.CHECKPOINTS, 120, 150, 180, 210, 240, 270, 300)


def settings() -> list[dict]:
    """Return the settings, seed by seed."""
    names = ("arm", "pairs", "learning_rate", "seed", "steps")
    values = [(TRAINED, MANY, r, s, CHECKPOINTS[-1]) for r in RATES[1::-1] for s in range(SEEDS)]
    return [dict(zip(names, some, strict=True)) for some in values]


def run(arm: str, pairs: int, learning_rate: float, seed: int, steps: int) -> dict:
    """Train one run to its last step; see ``stopping.run`` for what it returns."""
    model, tokenizer = load("almanac")
    checkpoints = [step for step in CHECKPOINTS if step <= steps]
    return stopping.trained(
        model, tokenizer, stopping.drawn(seed)[:pairs], learning_rate, seed, checkpoints
    )
