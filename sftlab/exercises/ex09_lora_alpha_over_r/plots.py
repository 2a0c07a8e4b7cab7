"""Figures of notebook 09: three scaling rules over the ranks, and α against the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import STOPS
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import MEETING_RANK, RANKS, RULES
from sftlab.lora import lora_scale
from sftlab.statistics import chosen

LABELS = {"lora": "α/r", "rslora": "α/√r", "plain": "α"}
LOOKS = {"lora": (BLUE, "-", "o"), "rslora": (ORANGE, "--", "s"), "plain": (GREEN, "-.", "^")}
VARIANT_LOOKS = {
    "rate × 2": (ORANGE, "--", "s"),
    "rate × 4": (RED, "-.", "^"),
    "rate of B × 2": (GREEN, ":", "D"),
    "rate × 2, A × √2": (BLUE, "-", "o"),
}


def values(runs: Sequence[dict], name: str, rule: str, r: int) -> list[float]:
    """A measurement's values over the seeds. Where the rules agree, one of them was run."""
    found = chosen(runs, rule=rule, r=r) or chosen(runs, rule="lora", r=r)
    return [run[name] for run in found]


def change_over_ranks(runs: Sequence[dict], name: str, rule: str) -> float:
    """The mean at the highest rank as a multiple of the mean at rank 1."""
    first, last = (np.mean(values(runs, name, rule, r)) for r in (RANKS[0], RANKS[-1]))
    return float(last / first)


def over_ranks(runs: Sequence[dict], panels: Mapping[str, str], title: str):
    """One panel per measurement (name -> label): the three rules over the ranks, mean and range."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels) + 0.6, 3.5))
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        for rule, (colour, line, mark) in LOOKS.items():
            found = np.array([values(runs, name, rule, r) for r in RANKS])
            axis.fill_between(RANKS, found.min(1), found.max(1), color=colour, alpha=0.2, lw=0)
            axis.plot(RANKS, found.mean(1), color=colour, ls=line, marker=mark, ms=5, label=LABELS[rule])  # fmt: skip
        axis.axvline(MEETING_RANK, color=GREY, lw=0.8, ls=":")
        axis.set(xscale="log", yscale="log", xlabel="rank r", title=label)
        axis.title.set_size(10.5)
        axis.set_xticks(RANKS, [str(r) for r in RANKS])
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axis.get_ylim()
        spare = max(1, 10 * low / high) ** 0.5  # at least a decade: small wobbles should look small
        low, high = low / spare, high * spare
        axis.set_ylim(low, high)
        ticks = [
            t for t in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if low <= t <= high
        ]
        axis.set_yticks(ticks)
        axis.minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    labels = [f"factor {label}" for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def stretched(found: Mapping[float, tuple[float, float]], base: float, title: str):
    """Change of the output and held-out NLL over the factor that a trained adapter is given.

    ``found``: multiple of the trained factor -> (change of the logits, NLL).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    multiples = list(found)
    changes, losses = (np.array(column) for column in zip(*found.values(), strict=True))
    one = changes[multiples.index(1)]
    left.plot(multiples, one * np.array(multiples), color=GREY, ls=":", lw=1.5)
    left.text(multiples[-1], one * multiples[-1], "in proportion ", color="#4d4d4d", fontsize=9, ha="right", va="bottom")  # fmt: skip
    left.plot(multiples, changes, color=BLUE, marker="o")
    left.set(ylabel="change of the logits (RMS)")
    right.plot(multiples, losses, color=ORANGE, ls="--", marker="s")
    right.axhline(base, color=GREEN, ls=":", lw=1.2)
    right.text(multiples[-1], base, "the base", color=GREEN, va="bottom", ha="right", fontsize=9)
    right.set(ylabel="held-out NLL\n(nats per token)", ylim=(0, None))
    for axis in (left, right):
        axis.set_xlabel("α as a multiple of the α in training")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def apart(runs: Sequence[dict], stops: Sequence[int], title: str):
    """How far each variant's ΔW lies from that of doubled α, over the steps, for each optimiser."""
    kinds = [(o, rate) for o in ("sgd", "adam") for rate in sorted({r["rate"] for r in runs if r["optimizer"] == o})]  # fmt: skip
    figure, axes = plt.subplots(1, len(kinds), figsize=(2.6 * len(kinds) + 0.4, 3.5), sharey=True)
    for axis, (optimizer, rate) in zip(axes, kinds, strict=True):
        for variant, (colour, line, mark) in VARIANT_LOOKS.items():
            found = np.array([run[variant]["apart"] for run in chosen(runs, optimizer=optimizer, rate=rate)])  # fmt: skip
            axis.fill_between(stops, found.min(0), found.max(0), color=colour, alpha=0.15, lw=0)
            axis.plot(stops, found.mean(0), color=colour, ls=line, marker=mark, ms=4.5, label=variant)  # fmt: skip
        name = {"sgd": "SGD", "adam": "Adam"}[optimizer]
        axis.set(xscale="log", xlabel="steps", title=f"{name}, rate {rate:g}")
        axis.title.set_size(10.5)
        axis.set_xticks(stops, [str(s) for s in stops])
        axis.minorticks_off()
    axes[0].set_yscale("symlog", linthresh=1e-3, linscale=0.5)
    axes[0].set_yticks([0, 1e-3, 1e-2, 0.1, 1], ["0", "0.1%", "1%", "10%", "100%"])
    axes[0].set(ylim=(-2e-4, 2), ylabel="distance from ΔW of α × 2")
    axes[0].minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def factors(alpha: float, r: int, rule: str, products: Mapping[int, float]):
    """The explorer's picture: the factor and ‖ΔW‖/‖W‖ over the ranks, under all three rules.

    ``products``: rank -> ‖BA‖/‖W‖ with A and B random.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.2), sharex=True)
    ranks = list(products)
    for other in RULES:
        colour, line, _ = LOOKS[other]
        picked = other == rule
        scales = np.array([lora_scale(alpha, n, other) for n in ranks])
        for axis, ys in ((axes[0], scales), (axes[1], scales * np.array(list(products.values())))):
            axis.plot(ranks, ys, color=colour, ls=line, lw=2.6 if picked else 1, alpha=1 if picked else 0.5)  # fmt: skip
            axis.annotate(LABELS[other], (ranks[-1], ys[-1]), xytext=(5, 0), textcoords="offset points",
                          color=colour, va="center", weight="bold" if picked else "normal")  # fmt: skip
    scale = lora_scale(alpha, r, rule)
    for axis, y, unit in ((axes[0], scale, ""), (axes[1], scale * products[r], "×")):
        axis.plot(r, y, "o", color="black", ms=8, zorder=4)
        told = f"{y:.3g}" if not unit else f"{y:.2g}×"
        axis.annotate(told, (r, y), xytext=(0, 9), textcoords="offset points", ha="center", weight="bold")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="rank r", xlim=(0.8, 260))
        axis.set_xticks(ranks, [str(n) for n in ranks])
        axis.minorticks_off()
    axes[0].set_title("factor in front of BA", size=10.5)
    axes[1].set_title("‖ΔW‖ / ‖W‖ with A and B random", size=10.5)
    axes[0].set_ylim(0.003, 300)
    axes[1].set_ylim(1e-4, 100)
    figure.suptitle(f"α = {alpha:g}, r = {r}, {LABELS[rule]}: the factor is {scale:.3g}", x=0.01, ha="left", weight="bold")  # fmt: skip
    return figure


def apart_table(runs: Sequence[dict], shown: Sequence[int] = (1, 4, 16)) -> list[list[str]]:
    """Mean distance from ΔW with doubled α after some numbers of steps: those that start near."""
    rows = []
    wanted = {"sgd": ("rate × 4", "rate × 2, A × √2"), "adam": ("rate × 2", "rate of B × 2")}
    for optimizer, variants in wanted.items():
        for variant in variants:
            for rate in sorted({r["rate"] for r in runs if r["optimizer"] == optimizer}):
                found = chosen(runs, optimizer=optimizer, rate=rate)
                means = np.mean([run[variant]["apart"] for run in found], axis=0)
                told = [percent(means[STOPS.index(stop)]) for stop in shown]
                rows.append([{"sgd": "SGD", "adam": "Adam"}[optimizer], variant, f"{rate:g}", *told])  # fmt: skip
    return rows


def percent(share: float) -> str:
    """A share with as many digits as it deserves, and none where it is rounding only."""
    if share > 1.5:
        return "more than 150%"
    return "< 0.01%" if share < 1e-4 else f"{share:.2%}" if share < 0.1 else f"{share:.0%}"
