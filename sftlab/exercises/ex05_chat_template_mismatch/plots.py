"""Figures of notebook 05: what wrong templates cost, and that both sides must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from sftlab.classroom.figures import bars, grid
from sftlab.exercises.ex05_chat_template_mismatch.experiment import bootstrap_mean
from sftlab.statistics import share_interval

Found = Mapping[
    str, Mapping[str, Sequence]
]  # corruption -> exact, stops, nll, question by question


def corruptions(found: Found):
    """Exact match, stop rate and NLL of the reference answer for each corruption, with intervals."""

    def share(marks: Sequence) -> tuple[float, tuple[float, float]]:
        return sum(marks) / len(marks), share_interval(sum(marks), len(marks))

    nll = "NLL of the right answer\n(nats per token)"
    panels = {
        "exactly right": {how: share(values["exact"]) for how, values in found.items()},
        "stops by itself": {how: share(values["stops"]) for how, values in found.items()},
        nll: {how: bootstrap_mean(values["nll"]) for how, values in found.items()},
    }
    exact, *deviations = (mean for mean, _ in panels["exactly right"].values())
    free, fatal = sum(x > exact - 0.05 for x in deviations), sum(x < 0.2 for x in deviations)
    told = "; ".join(f"{how} {mean:.0%}" for how, (mean, _) in panels["exactly right"].items())
    stops = min(mean for mean, _ in panels["stops by itself"].values())
    whole = {"xlim": (0, 1.32), "xticks": [0, 0.5, 1], "percent": "x"}
    return bars(
        panels,
        f"Of {len(deviations)} deviations {free} cost less than five points, {fatal} leave fewer than 20% right",
        f"Bar charts for the exact template and {len(deviations)} deviations. Exactly right: {told}. "
        f"At least {stops:.0%} stop by themselves.",
        panels=True, fmt={"exactly right": _percent, "stops by itself": _percent, nll: ".2f"},
        each={"exactly right": whole, "stops by itself": whole}, figsize=(10, 0.36 * len(found) + 1.6),
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def agreement(shares: np.ndarray, labels: Sequence[str]):
    """Exact answers for each form in training (rows) and in serving (columns)."""
    own = np.eye(len(labels), dtype=bool)
    low, high, least, most = shares[own].min(), shares[own].max(), shares[~own].min(), shares[~own].max()  # fmt: skip
    told = "; ".join(f"{label}: {', '.join(f'{x:.0%}' for x in row)}" for label, row in zip(labels, shares, strict=True))  # fmt: skip
    return grid(
        shares, labels, labels,
        f"Served as trained, {low:.0%} to {high:.0%} are right; otherwise {least:.0%} to {most:.0%}",
        f"Table of shares of exact answers, trained with (rows) and served with (columns, in the same order): {told}.",
        xlabel="served with", ylabel="trained with", figsize=(7.2, 3.6),
    )  # fmt: skip


def two_models(found: Mapping[str, Mapping[str, Sequence[float]]]):
    """The loss on the right answer for each corruption, one panel per model.

    ``found``: model -> corruption -> nats per token, question by question.
    """
    panels = {
        name: {how: bootstrap_mean(values) for how, values in losses.items()}
        for name, losses in found.items()
    }
    worst = {name: max(means, key=lambda how: means[how][0]) for name, means in panels.items()}
    told = "; ".join(f"{name} {how} with {panels[name][how][0]:.2f}" for name, how in worst.items())
    return bars(
        panels,
        "The worst form: " + ", ".join(f"{how} for {name}" for name, how in worst.items()),
        f"Bars of the loss on the right answer for {len(next(iter(panels.values())))} prompt forms, with intervals, one "
        f"panel for each model. The highest: {told} nats. Their rank correlation is {same_order(found):.2f}.",
        panels=True, xlabel="NLL of the right answer (nats per token)", figsize=(9.5, 5.8),
    )  # fmt: skip


def same_order(found: Mapping[str, Mapping[str, Sequence[float]]]) -> float:
    """Do two models suffer from the same corruptions? Spearman's rank correlation of mean losses.

    1: the same order, 0: nothing in common.
    """
    means = [[np.mean(values) for values in losses.values()] for losses in found.values()]
    return float(stats.spearmanr(*means).statistic)
