"""Settings for the notebooks' short training runs and tests, adjusted to the size of the model.

What takes seconds on the embedded model would take most of an hour on a model of a hundred million
weights. Larger models train for a quarter of the epochs, with half the batch size and a third of
the learning rate, and answer only part of the questions.
"""

from __future__ import annotations

from dataclasses import replace

from sftlab.train import TrainConfig

SMALL = 20_000_000  # parameters; the embedded model has 3 million


def is_small(model) -> bool:
    """Return whether the model is about as small as the embedded one."""
    return model.num_parameters() < SMALL


def suited(config: TrainConfig, model) -> TrainConfig:
    """Return the settings as they are for a small model; fewer, smaller steps for a larger one."""
    if is_small(model):
        return config
    return replace(
        config,
        learning_rate=config.learning_rate / 3,
        num_train_epochs=max(1, config.num_train_epochs // 4),
        batch_size=max(1, config.batch_size // 2),
    )


def fewer(count: int, model, part: int = 5) -> int:
    """Return ``count`` for a small model; for a larger one ``count // part``, but at least ten."""
    return count if is_small(model) else max(10, count // part)
