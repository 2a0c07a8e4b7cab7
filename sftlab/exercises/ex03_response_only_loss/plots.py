"""Figures of notebook 03: response-only against full-sequence loss, from recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREY, ORANGE
from sftlab.exercises.ex03_response_only_loss.experiment import SHAPES, SIZES, TALKS
from sftlab.statistics import change_by_seed, chosen, mean_with_interval

LOOKS = {"response": (BLUE, "o", "response only"), "all": (ORANGE, "s", "every token")}


def change_by_loss(
    runs: Sequence[dict], name: str, first: str = "response", second: str = "all", **cell
) -> tuple[float, tuple[float, float]]:
    """second − first of two losses, seed by seed on the same pairs: mean and 95% t interval."""
    return change_by_seed(runs, name, {"loss": first}, {"loss": second}, **cell)


def ratio(runs: Sequence[dict], shape: str) -> float:
    """Prompt tokens per response token, over all recorded pairs of a shape."""
    found = chosen(runs, shape=shape, loss="response")
    return sum(r["prompt_tokens"] for r in found) / sum(r["response_tokens"] for r in found)


def compared(runs: Sequence[dict], name: str, unit: str) -> list[list]:
    """One row per cell: response-only training, and what training on every token changes."""
    lines = []
    for shape in SHAPES:
        for size in SIZES:
            cell = {"shape": shape, "pairs": size}
            mean, _ = mean_with_interval(runs, name, loss="response", **cell)
            change, (low, high) = change_by_loss(runs, name, **cell)
            so = "no clear difference" if low <= 0 <= high else "higher" if low > 0 else "lower"
            interval = f"{low:+{unit}} to {high:+{unit}}"
            lines.append([shape, size, f"{mean:{unit}}", f"{change:+{unit}}", interval, so])
    return lines


def turns(runs: Sequence[dict]) -> list[list[str]]:
    """What 32 pairs or talks teach about the end of an answer and about what follows it."""
    lines = []
    for shape in (SHAPES[1], TALKS):
        for loss, (_, _, label) in LOOKS.items():
            line = [shape, label]
            for name in ("goes_on", "new_turn", "user_turn"):
                mean, (low, high) = mean_with_interval(runs, name, shape=shape, pairs=32, loss=loss)
                line.append(f"{mean:.0%}  ({max(0, low):.0%} to {min(1, high):.0%})")
            lines.append(line)
    return lines


def cells(runs: Sequence[dict], name: str, ylabel: str, title: str):
    """Both losses in every cell: one panel per shape, numbers of pairs along the axis."""
    figure, axes = plt.subplots(1, len(SHAPES), figsize=(9, 3.1), sharey=True)
    for axis, shape in zip(axes, SHAPES, strict=True):
        for shift, (loss, (colour, mark, label)) in zip((-0.08, 0.08), LOOKS.items(), strict=True):
            for place, size in enumerate(SIZES):
                mean, (low, high) = mean_with_interval(
                    runs, name, shape=shape, pairs=size, loss=loss
                )
                axis.errorbar(
                    place + shift, mean, yerr=[[mean - low], [high - mean]], color=colour, marker=mark, ms=8, capsize=4, lw=1.5,
                    label=label if place == 0 else None,
                )  # fmt: skip
        axis.set(
            xticks=range(len(SIZES)),
            xticklabels=[f"{size} pairs" for size in SIZES],
            xlim=(-0.5, len(SIZES) - 0.5),
        )
        prompt, answer = shape.split(", ")
        title_here = f"{prompt},\n{answer}\n{ratio(runs, shape):.1f} : 1"
        axis.set_title(title_here, fontsize=10, weight="normal")
    if name == "exact":
        axes[0].set(ylim=(0, 1.05), yticks=np.linspace(0, 1, 6))
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel(ylabel)
    axes[0].legend(loc="lower left", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def learning(curves: Mapping[str, Mapping[int, float]], title: str):
    """Held-out loss on responses over the steps, one line for each training loss."""
    figure, axis = plt.subplots(figsize=(6.5, 2.9))
    for loss, curve in curves.items():
        colour, mark, label = LOOKS[loss]
        steps, values = list(curve), list(curve.values())
        axis.plot(steps, values, color=colour, marker=mark, ms=5, ls="-" if mark == "o" else "--")
        axis.annotate(label, (steps[-1], values[-1]), xytext=(8, -3), textcoords="offset points", color=colour,
                      weight="bold", fontsize=9.5)  # fmt: skip
    axis.set(xlabel="optimiser step", ylabel="held-out NLL of the response\n(nats per token)", title=title, yscale="log",
             xlim=(0, 1.25 * max(steps)))  # fmt: skip
    axis.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    axis.minorticks_off()
    return figure


def prompt_shares(runs: Sequence[dict], shape: str, size: int, title: str):
    """The prompt's share of tokens, loss and gradient, at the start and after both trainings."""
    start = chosen(runs, shape=shape, pairs=size, loss="all")
    tokens = np.mean(
        [r["prompt_tokens"] / (r["prompt_tokens"] + r["response_tokens"]) for r in start]
    )
    bars = {"of the tokens": (tokens, GREY, "")}
    for what in ("loss", "gradient"):
        bars[f"of the {what}, at the start"] = (
            np.mean([r[f"prompt_{what}_start"] for r in start]),
            BLUE,
            "//",
        )
        bars[f"of the {what}, after training on every token"] = (
            np.mean([r[f"prompt_{what}_end"] for r in start]),
            ORANGE,
            "",
        )
    figure, axis = plt.subplots(figsize=(7, 2.6))
    for place, (value, colour, hatch) in enumerate(bars.values()):
        axis.barh(place, value, color=colour, hatch=hatch, edgecolor="white", height=0.66)
        axis.text(value + 0.01, place, f"{value:.0%}", va="center")
    axis.set(yticks=range(len(bars)), yticklabels=list(bars), xlim=(0, 1.12), xlabel="share that belongs to the prompt")  # fmt: skip
    axis.set_xticks(np.linspace(0, 1, 6), [f"{x:.0%}" for x in np.linspace(0, 1, 6)])
    axis.invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def one_cell(runs: Sequence[dict], shape: str, size: int):
    """The explorer's picture: exact match, NLL and the prompt's shares in one cell."""
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.9), width_ratios=(1, 1, 1.5))
    for axis, name, label in (
        (axes[0], "exact", "exactly right"),
        (axes[1], "nll", "NLL, nats per token"),
    ):
        for place, (loss, (colour, *_)) in enumerate(LOOKS.items()):
            mean, (low, high) = mean_with_interval(runs, name, shape=shape, pairs=size, loss=loss)
            axis.bar(place, mean, color=colour, width=0.6, hatch="" if place == 0 else "//", edgecolor="white")  # fmt: skip
            axis.errorbar(place, mean, yerr=[[mean - low], [high - mean]], color="black", capsize=4)
            shown = f"{mean:.0%}" if name == "exact" else f"{mean:.2f}"
            axis.annotate(shown, (place, high), xytext=(0, 3), textcoords="offset points", ha="center", weight="bold")  # fmt: skip
        top = (1.0, 1.15) if name == "exact" else (0.5, 0.6)
        axis.set(xticks=(0, 1), xticklabels=["response\nonly", "every\ntoken"], ylim=(0, top[1]), title=label)  # fmt: skip
    runs_here = chosen(runs, shape=shape, pairs=size, loss="all")
    lines = [(f"{what}, {when}", np.mean([r[f"prompt_{what}_{when}"] for r in runs_here]))
             for what in ("loss", "gradient") for when in ("start", "end")]  # fmt: skip
    for place, (_, value) in enumerate(lines):
        axes[2].barh(place, value, color=GREY, height=0.6)
        axes[2].text(value + 0.02, place, f"{value:.0%}", va="center")
    axes[2].set(yticks=range(4), yticklabels=[label for label, _ in lines], xlim=(0, 1.2), title="the prompt's share")  # fmt: skip
    axes[2].invert_yaxis()
    axes[2].set_xticks([])
    for axis in axes:
        axis.title.set_size(10.5)
    return figure
