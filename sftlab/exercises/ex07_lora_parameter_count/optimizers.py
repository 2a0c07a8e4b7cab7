"""How concentrated the change of full fine-tuning is after SGD, and after more steps of SGD and of AdamW.

Full fine-tuning as in ``low_rank``: the same pairs, batches, questions and clipping. SGD has neither momentum
nor moments, so its change is a sum of gradients, each times a number. ``energy`` is the share of ‖ΔW‖² in
the r largest directions of each linear layer, all layers together. 200 steps are 67 epochs.

The learning rate of SGD is chosen on validation questions after 24 steps, and the result reported on
others; the 200 steps take the same one, as AdamW's take its best of ``low_rank``. This takes about eight
minutes on one core.
"""

from __future__ import annotations

import torch

from sftlab.data import conversation
from sftlab.exercises.ex07_lora_parameter_count.experiment import (
    RANKS,
    SEEDS,
    STEPS,
    batches,
    changed,
    changes,
    questions,
)
from sftlab.exercises.ex07_lora_parameter_count.spectra import energy_kept
from sftlab.exercises.recipes import response_nll
from sftlab.masking import build_example
from sftlab.models import load
from sftlab.train import train_step

RECORD = "low_rank_optimizers"  # data/results/low_rank_optimizers.json

ADAMW, SGD = "AdamW", "SGD"
LONG = 200
OPTIMIZERS = {ADAMW: torch.optim.AdamW, SGD: torch.optim.SGD}
RATES = (0.03, 0.1, 0.3)  # of SGD
LONGER = {SGD: 0.1, ADAMW: 3e-4}  # learning rates of 200 steps
CHECKPOINTS = (1, STEPS, LONG)


def run(optimizer: str, learning_rate: float, seed: int, steps: int = STEPS) -> dict:
    """Train every weight of the base.

    Returns:
        For each checkpoint, its step as text: ``energy``, share by rank as text, and ``validation`` and ``test``,
        the losses on both sets of questions with the changes of the linear layers (nats per token). At step 0
        the losses alone.
    """
    base, tokenizer = load("almanac")
    model, _ = load("almanac")
    asked = [
        [build_example(tokenizer, conversation({**q, "response": q["answer"]})) for q in some]
        for some in questions()
    ]

    def losses() -> dict[str, float]:
        found = (response_nll(base, some, tokenizer.pad_token_id) for some in asked)
        return dict(zip(("validation", "test"), found, strict=True))

    chosen = OPTIMIZERS[optimizer](model.parameters(), lr=learning_rate, weight_decay=0.0)
    found: dict = {"0": losses()}
    for step, batch in enumerate(batches(tokenizer, seed, steps), 1):
        train_step(model.train(), batch, chosen)
        if step in CHECKPOINTS:
            deltas = changes(model, base)
            energy = energy_kept(list(deltas.values()), RANKS)
            with changed(base, deltas):
                found[str(step)] = {
                    "energy": {str(r): share for r, share in energy.items()},
                    **losses(),
                }
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        *({"optimizer": SGD, "learning_rate": rate, "seed": seed} for seed in range(SEEDS) for rate in RATES),
        *(
            {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "steps": LONG}
            for seed in range(SEEDS)
            for optimizer, rate in LONGER.items()
        ),
    ]  # fmt: skip
