"""Recorded runs over seeds: the mean of a measurement, and a change seed by seed, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sftlab.errors import WorkbookError
from sftlab.judge import mean_interval


def chosen(runs: Sequence[dict], **settings: Any) -> list[dict]:
    """The runs with these settings, by seed."""
    found = [run for run in runs if all(run[k] == v for k, v in settings.items())]
    return sorted(found, key=lambda run: run["seed"])


def mean_with_interval(
    runs: Sequence[dict], name: str, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """The mean of a measurement over the seeds, with its 95% t interval."""
    values = [run[name] for run in chosen(runs, **settings)]
    return float(np.mean(values)), mean_interval(values)


def change_by_seed(
    runs: Sequence[dict], name: str, first: dict, second: dict, **settings: Any
) -> tuple[float, tuple[float, float]]:
    """second − first of two arms that share their seeds: mean and 95% t interval of the changes.

    `first` and `second` are the settings that tell the arms apart: ``{"loss": "response"}``.

    Raises:
        WorkbookError: the arms have fewer than two seeds in common.
    """
    sides = [
        {run["seed"]: run[name] for run in chosen(runs, **settings, **arm)}
        for arm in (first, second)
    ]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    if len(seeds) < 2:
        raise WorkbookError(f"{first} and {second} have {len(seeds)} seeds in common; 2 are needed")
    values = [sides[1][seed] - sides[0][seed] for seed in seeds]
    return float(np.mean(values)), mean_interval(values)
