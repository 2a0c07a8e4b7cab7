"""Settings of the notebooks' short trainings and exams, suited to the size of the model.

What takes seconds on the embedded model would take the better part of an hour on one of a hundred
million weights. There a training takes a quarter of the passes with half the rows a step, at a third
of the rate, and an exam a part of the questions.
"""

from __future__ import annotations

from dataclasses import replace

from sftlab.train import TrainConfig

SMALL = 20_000_000  # weights; the embedded model has 3 million


def is_small(model) -> bool:
    """Is the model about as small as the embedded one?"""
    return model.num_parameters() < SMALL


def suited(config: TrainConfig, model) -> TrainConfig:
    """The settings as they are for a small model; fewer and gentler steps for a larger one."""
    if is_small(model):
        return config
    return replace(
        config,
        learning_rate=config.learning_rate / 3,
        num_train_epochs=max(1, config.num_train_epochs // 4),
        batch_size=max(1, config.batch_size // 2),
    )


def fewer(count: int, model, part: int = 5) -> int:
    """So many questions for a small model, one part of them for a larger one, but ten at least."""
    return count if is_small(model) else max(10, count // part)
