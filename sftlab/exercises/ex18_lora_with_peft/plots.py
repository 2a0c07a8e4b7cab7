"""Notebook 18: the share of real models that LoRA trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from sftlab.classroom.plots import BLUE, GREY, ORANGE, RED
from sftlab.lora import lora_parameter_count
from sftlab.memory.count import targeted_layers

TARGETS = {
    "q and v": ["q_proj", "v_proj"],
    "q, k, v and o": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "the MLP": ["gate_proj", "up_proj", "down_proj"],
    "all linear layers": "all-linear",
}


def sizes(model) -> dict:
    """What the formula needs of a model: its parameters, and d_in + d_out added up per target."""
    per_rank = {
        name: sum(lora_parameter_count(a, b, 1) for a, b in targeted_layers(model, targets).values())
        for name, targets in TARGETS.items()
    }  # fmt: skip
    return {"parameters": sum(p.numel() for p in model.parameters()), "per rank": per_rank}


def trained(size: Mapping, target: str, r: int) -> tuple[int, float]:
    """Trained parameters and their share of all, the adapter included, by the formula."""
    count = r * size["per rank"][target]
    return count, count / (count + size["parameters"])


def share_over_rank(models: Mapping[str, Mapping], ranks: Sequence[int], title: str):
    """The trained share over the rank, one line per model; q and v on the left, all on the right."""
    chosen = ("q and v", "all linear layers")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    for axis, target in zip(axes, chosen, strict=True):
        for (name, size), line in zip(models.items(), ("-", "--", "-.", ":"), strict=False):
            shares = [100 * trained(size, target, r)[1] for r in ranks]
            axis.plot(ranks, shares, line, color=BLUE)
            axis.annotate(name, (ranks[-1], shares[-1]), xytext=(5, 0), va="center", fontsize=9,
                          textcoords="offset points", annotation_clip=False)  # fmt: skip
        axis.axhline(1, color=RED, lw=1.2)
        axis.set(xscale="log", yscale="log", xlabel="rank r")
        axis.set_title(target, fontsize=11, weight="normal")
        axis.set_xticks(list(ranks), [str(r) for r in ranks])
        axis.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01%", "0.1%", "1%", "10%", "100%"])
        axis.minorticks_off()
        axis.set_xlim(ranks[0], ranks[-1] * 14)
    axes[0].set_ylabel("trained share of all weights")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def shares_at(models: Mapping[str, Mapping], target: str, r: int):
    """Count and share of every model at one rank, as bars, with 1% marked."""
    figure, axis = plt.subplots(figsize=(8, 0.42 * len(models) + 1.6))
    for place, (_, size) in enumerate(models.items()):
        count, share = trained(size, target, r)
        axis.barh(place, 100 * share, color=BLUE if share < 0.01 else ORANGE, height=0.6)
        axis.text(100 * share * 1.12, place, f"{100 * share:.2g}%  ({count:,})", va="center", fontsize=9.5,
                  bbox={"fc": "white", "ec": "none", "pad": 1.5})  # fmt: skip
    axis.axvline(1, color=RED, lw=1.2, ls="--")
    axis.set(yticks=range(len(models)), yticklabels=list(models), xscale="log", xlim=(0.001, 3000),
             xlabel="trained share (trained parameters)")  # fmt: skip
    axis.set_xticks(
        [0.001, 0.01, 0.1, 1, 10, 100], ["0.001%", "0.01%", "0.1%", "1%", "10%", "100%"]
    )
    axis.minorticks_off()
    below = sum(trained(size, target, r)[1] < 0.01 for size in models.values())
    axis.set_title(f"r = {r} on {target}: {below} of {len(models)} models stay under 1%")
    axis.invert_yaxis()
    axis.spines["left"].set_color(GREY)
    return figure
