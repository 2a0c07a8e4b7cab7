"""Figures of notebook 08: LoRA from four starting points."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.exercises.ex08_lora_zero_init.experiment import INITS, RATES
from sftlab.statistics import chosen

LABELS = {
    "A random": "A random, B zero",
    "B random": "A zero, B random",
    "both zero": "A zero, B zero",
    "both random": "A random, B random",
}
STEP_TICKS = (1, 5, 10, 15, 20)
LOOKS = dict(zip(INITS, ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREY, ":", "x"), (RED, "-.", "^")),
                 strict=True))  # fmt: skip


def gradient_norms(norms_A: Sequence[float], norms_B: Sequence[float], title: str):
    """The gradients' norms over the steps. The axis is linear near zero, so that zero has a place."""
    figure, axis = plt.subplots(figsize=(6.8, 3.1))
    _norm_lines(axis, norms_A, norms_B)
    axis.set_title(title)
    return figure


def _norm_lines(axis, norms_A: Sequence[float], norms_B: Sequence[float]) -> None:
    steps = range(1, len(norms_A) + 1)
    for values, colour, mark, name in ((norms_B, ORANGE, "s", "B"), (norms_A, BLUE, "o", "A")):
        axis.plot(steps, values, color=colour, marker=mark, ms=4, ls="-" if mark == "o" else "--")
        if values[0] == 0 and any(values):
            axis.annotate(f"{name}: exactly 0", (1, 0), xytext=(6, 3), textcoords="offset points",
                          color=colour, fontsize=9, weight="bold")  # fmt: skip
    high = max(*norms_A, *norms_B, 0.1)
    axis.set_yscale("symlog", linthresh=0.01, linscale=0.4)
    ticks = [t for t in (0, 0.01, 0.1, 1, 10, 100) if t <= 2 * high]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.set(ylim=(-0.003, 2 * high), xlabel="step", ylabel="norm of the gradient")
    axis.minorticks_off()
    ends = {"A": norms_A[-1], "B": norms_B[-1]}
    if not any(ends.values()):
        ends = {"both are 0": 0.0}
    above = max(ends, key=lambda name: ends[name])
    for name, value in ends.items():
        axis.annotate(name, (len(norms_A), value), xytext=(7, 3 if name == above else -10),
                      textcoords="offset points", weight="bold",
                      color={"A": BLUE, "B": "#9a6700"}.get(name, "#4d4d4d"))  # fmt: skip
    axis.set_xlim(0.5, len(norms_A) + (2.5 if any(ends.values()) else 8))
    axis.set_xticks(STEP_TICKS)


def mean_curve(runs: Sequence[dict], name: str, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Mean, lowest and highest value over the seeds, step by step."""
    values = np.array([run[name] for run in chosen(runs, how=how, rate=RATES[1])])
    return values.mean(0), values.min(0), values.max(0)


def four_losses(runs: Sequence[dict], title: str):
    """The training loss from four starting points: mean over the seeds, and their range."""
    figure, axis = plt.subplots(figsize=(7.4, 3.5))
    for how, (colour, line, mark) in LOOKS.items():
        mean, low, high = mean_curve(runs, "loss", how)
        steps = range(1, len(mean) + 1)
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(steps, mean, color=colour, ls=line, marker=mark, ms=4, label=LABELS[how])
    axis.legend(loc="upper right", fontsize=9)
    axis.set(xlabel="step", ylabel="loss (nats per trained token)", ylim=(0, None), title=title, xticks=STEP_TICKS)  # fmt: skip
    return figure


def over_rates(runs: Sequence[dict], title: str):
    """Held-out loss of the two starts with one zero matrix, over the learning rate: mean, range."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for how in ("A random", "B random"):
        colour, line, mark = LOOKS[how]
        found = np.array([_ends(runs, how, rate) for rate in RATES])
        axis.fill_between(RATES, found.min(1), found.max(1), color=colour, alpha=0.2, lw=0)
        axis.plot(RATES, found.mean(1), color=colour, ls=line, marker=mark, label=LABELS[how])
    axis.axhline(runs[0]["nll_base"], color=GREEN, lw=1.2, ls=":")
    axis.text(RATES[0], runs[0]["nll_base"], "the base", color=GREEN, va="bottom", fontsize=9)
    axis.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="held-out NLL after 20 steps\n(nats per token)")  # fmt: skip
    axis.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.minorticks_off()
    axis.legend(loc="upper left", fontsize=9, bbox_to_anchor=(0.1, 0.7))
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _ends(runs: Sequence[dict], how: str, rate: float) -> list[float]:
    """The final NLL of the three seeds that every rate has."""
    return [run["nll_end"] for run in chosen(runs, how=how, rate=rate) if run["seed"] < 3]


def good_rates(runs: Sequence[dict], how: str) -> list[float]:
    """The recorded rates with a mean held-out NLL below twice the lowest."""
    means = {rate: np.mean(_ends(runs, how, rate)) for rate in RATES}
    return [rate for rate, mean in means.items() if mean < 2 * min(means.values())]


def one_start(runs: Sequence[dict], how: str):
    """The explorer's picture: loss and gradient norms from one starting point."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.2))
    for other, (colour, line, mark) in LOOKS.items():
        mean, low, high = mean_curve(runs, "loss", other)
        steps, picked = range(1, len(mean) + 1), other == how
        if picked:
            left.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
            left.plot(steps, mean, color=colour, ls=line, marker=mark, ms=4, zorder=3)
        else:
            left.plot(steps, mean, color="#cfcfcf", ls="-", lw=1)
    left.set(
        xlabel="step", ylabel="loss (nats per token)", ylim=(0, 7), title="loss", xticks=STEP_TICKS
    )
    _norm_lines(right, mean_curve(runs, "norm_A", how)[0], mean_curve(runs, "norm_B", how)[0])
    right.set_title("gradients")
    figure.suptitle(LABELS[how], x=0.01, ha="left", weight="bold")
    return figure
