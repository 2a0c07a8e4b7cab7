"""Notebook 11: codes of 4 bits, their errors, and a training step against graphics cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.memory.count import TrainingBytes

CARDS = (16, 24, 48, 80)  # GB
PARTS = {
    "weights": (BLUE, ""),
    "adapters": (GREEN, ".."),
    "gradients": (ORANGE, "//"),
    "optimizer": (RED, "xx"),
    "working memory": (GREY, "--"),
}


def codes(found: Mapping[str, Sequence[float]], title: str):
    """The values of each code as ticks on a line from −1 to 1."""
    figure, axis = plt.subplots(figsize=(7.4, 0.6 * len(found) + 1.2))
    for place, values in enumerate(found.values()):
        axis.plot(values, [place] * len(values), "|", ms=22, mew=2, color=BLUE)
    axis.set(yticks=range(len(found)), yticklabels=list(found), ylim=(len(found) - 0.4, -0.6),
             xlabel="value, in units of the block's largest magnitude", title=title)  # fmt: skip
    return figure


def errors(found: Mapping[str, Mapping[int, float]], title: str):
    """Relative error of the weights over the block's size, one line for each code."""
    figure, axis = plt.subplots(figsize=(7.4, 3.4))
    for (name, by_block), mark in zip(found.items(), "osD", strict=False):
        axis.plot(
            list(by_block), [100 * e for e in by_block.values()], marker=mark, ms=5, label=name
        )
    sizes = list(next(iter(found.values())))
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="weights that share a scale", ylabel="error, % of the weights' size", ylim=(0, None), title=title)  # fmt: skip
    axis.legend()
    return figure


def parts_of(planned: TrainingBytes) -> dict[str, int]:
    """What is held at the peak: the lasting parts, and what the moment of the peak takes on top."""
    lasting = {name: getattr(planned, name) for name in ("weights", "adapters", "optimizer")}
    rest = planned.peak - sum(lasting.values())
    gradients = min(planned.gradients, rest)
    return {**lasting, "gradients": gradients, "working memory": rest - gradients}


def against_cards(planned: TrainingBytes, title: str):
    """One stacked bar up to the peak, and a line for each size of card."""
    figure, axis = plt.subplots(figsize=(7.6, 2.5))
    left, found = 0.0, parts_of(planned)
    for name, (colour, hatch) in PARTS.items():
        size = found[name] / 1e9
        axis.barh(0, size, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left += size
    for card in CARDS:
        axis.axvline(card, color="black", lw=1.2, ls="-" if planned.peak / 1e9 <= card else ":")
        axis.text(card, 0.62, f"{card}", ha="center", fontsize=9.5,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    axis.set(yticks=[], ylim=(-0.5, 0.8), xlim=(0, max(1.05 * left, 88)), xlabel="GB; lines are cards, dotted where it does not fit")  # fmt: skip
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9)
    return figure
