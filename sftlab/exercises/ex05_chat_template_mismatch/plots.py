"""Figures of notebook 05: what wrong templates cost, and that both sides must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from sftlab.classroom.plots import BLUE, GREEN, ORANGE
from sftlab.exercises.ex05_chat_template_mismatch.experiment import bootstrap_mean
from sftlab.statistics import share_interval

Found = Mapping[
    str, Mapping[str, Sequence]
]  # corruption -> exact, stops, nll, question by question


def corruptions(found: Found, title: str):
    """Exact match, stop rate and NLL of the reference answer for each corruption, with intervals."""
    figure, axes = plt.subplots(
        1, 3, figsize=(10, 0.36 * len(found) + 1.5), sharey=True, width_ratios=(1, 0.8, 1)
    )
    labels = list(found)
    panels = (("exact", "exactly right", BLUE), ("stops", "stops by itself", GREEN), ("nll", "NLL of the right answer\n(nats per token)", ORANGE))  # fmt: skip
    for axis, (name, label, colour) in zip(axes, panels, strict=True):
        for place, values in enumerate(found[how][name] for how in labels):
            if name == "nll":
                mean, (low, high) = bootstrap_mean(values)
            else:
                mean, (low, high) = sum(values) / len(values), share_interval(sum(values), len(values))  # fmt: skip
            axis.barh(place, mean, color=colour, height=0.66)
            error = [[max(0, mean - low)], [max(0, high - mean)]]
            axis.errorbar(mean, place, xerr=error, color="black", capsize=2.5, lw=1.1)
            shown = f"{mean:.2f}" if name == "nll" else f"{100 * mean:.3g}%"
            axis.annotate(shown, (max(mean, high), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9.5)  # fmt: skip
        axis.set(yticks=range(len(labels)), yticklabels=labels, xlabel=label)
        if name == "nll":
            axis.set_xlim(0, 1.22 * max(np.mean(found[how]["nll"]) for how in labels))
        else:
            axis.set_xlim(0, 1.28)
            axis.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def agreement(shares: np.ndarray, labels: Sequence[str], title: str):
    """Exact answers for each form in training (rows) and in serving (columns)."""
    figure, axis = plt.subplots(figsize=(6.6, 3.6))
    axis.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for i, j in np.ndindex(shares.shape):
        axis.text(j, i, f"{shares[i, j]:.0%}", ha="center", va="center", weight="bold" if i == j else "normal",
                  color="black" if shares[i, j] > 0.5 else "white")  # fmt: skip
    short = [label.replace(" ", "\n", 1) for label in labels]
    axis.set(xticks=range(len(labels)), yticks=range(len(labels)), yticklabels=labels, xlabel="served with",
             ylabel="trained with")  # fmt: skip
    axis.set_xticklabels(short)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def two_models(found: Mapping[str, Mapping[str, Sequence[float]]], title: str):
    """The loss on the right answer for each corruption, one panel per model.

    ``found``: model -> corruption -> nats per token, question by question.
    """
    labels = list(next(iter(found.values())))
    figure, axes = plt.subplots(
        1, len(found), figsize=(9.5, 0.3 * len(labels) + 1.5), sharey=True, squeeze=False
    )
    for axis, colour, (name, losses) in zip(axes[0], (ORANGE, BLUE), found.items(), strict=True):
        for place, how in enumerate(labels):
            mean, (low, high) = bootstrap_mean(losses[how])
            axis.barh(place, mean, color=colour, height=0.66)
            axis.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="black", capsize=2.5, lw=1.1)  # fmt: skip
            axis.annotate(f"{mean:.2f}", (high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)  # fmt: skip
        widest = max(np.mean(losses[how]) for how in labels)
        axis.set(yticks=range(len(labels)), yticklabels=labels, xlim=(0, 1.25 * widest),
                 xlabel=f"{name}\nNLL of the right answer (nats per token)")  # fmt: skip
    axes[0][0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def same_order(found: Mapping[str, Mapping[str, Sequence[float]]]) -> float:
    """Do two models suffer from the same corruptions? Spearman's rank correlation of mean losses.

    1: the same order, 0: nothing in common.
    """
    means = [[np.mean(values) for values in losses.values()] for losses in found.values()]
    return float(stats.spearmanr(*means).statistic)
