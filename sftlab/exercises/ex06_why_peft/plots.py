"""Figures and tables of notebook 06: memory, storage, and forgetting at the same score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE
from sftlab.exercises.ex06_why_peft.experiment import TARGETS
from sftlab.memory.count import TrainingBytes
from sftlab.statistics import change_by_seed, chosen

LABELS = {"full": "full fine-tuning", "lora": "LoRA"}
ARMS = {"method": "full"}, {"method": "lora"}
PARTS = {"weights": (GREY, ""), "adapters": (ORANGE, ""), "gradients": (BLUE, "//"), "optimizer": (GREEN, ".."), "activations": ("#56B4E9", "xx")}  # fmt: skip


def size(value: float) -> str:
    """Bytes as people read them: three digits and a unit."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"


def memory(found: Mapping[str, TrainingBytes], title: str, told: str = "measured peak"):
    """The parts of a training step's memory, side by side, with the allocator's peak.

    ``told``: what the legend calls the peak.
    """
    figure, axis = plt.subplots(figsize=(8.4, 2.7))
    for place, held in enumerate(found.values()):
        left = 0.0
        for part, (colour, hatch) in PARTS.items():
            width = getattr(held, part) / 1e6
            axis.barh(place, width, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.5,
                      label=part if place == 0 else None)  # fmt: skip
            left += width
        axis.plot(held.peak / 1e6, place, "|", color="black", ms=30, mew=2.5, ls="",
                  label=told if place == 0 else None)  # fmt: skip
        axis.annotate(f"peak {held.peak / 1e6:.0f} MB", (max(left, held.peak / 1e6), place), xytext=(8, 0),
                      textcoords="offset points", va="center", weight="bold")  # fmt: skip
    widest = max(held.peak for held in found.values()) / 1e6
    axis.set(yticks=range(len(found)), yticklabels=list(found), xlabel="MB", xlim=(0, 1.3 * widest), ylim=(-0.5, len(found) - 0.5))  # fmt: skip
    axis.invert_yaxis()
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9
    )
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def storage(name: str, tasks: int, base: float, adapter: float):
    """Bytes on disk for a number of tasks: whole copies, or one base and an adapter for each."""
    totals = {
        "a copy for each task": tasks * base,
        "one base, an adapter each": base + tasks * adapter,
    }
    figure, axis = plt.subplots(figsize=(8, 2.1))
    axis.barh(0, totals["a copy for each task"], color=BLUE, height=0.55)
    axis.barh(1, base, color=GREY, height=0.55)
    axis.barh(
        1, tasks * adapter, left=base, color=ORANGE, hatch="//", edgecolor="white", height=0.55
    )
    for place, value in enumerate(totals.values()):
        axis.annotate(size(value), (value, place), xytext=(6, 0), textcoords="offset points", va="center", weight="bold")  # fmt: skip
    top = max(totals.values())
    axis.set(yticks=(0, 1), yticklabels=list(totals), xlim=(0, 1.2 * top))
    axis.xaxis.set_major_formatter(lambda value, _: size(value) if value else "0")
    axis.invert_yaxis()
    noun = "task" if tasks == 1 else "tasks"
    less = totals["a copy for each task"] / totals["one base, an adapter each"]
    told = (
        f"{less:.0f} times less"
        if less > 1.95
        else f"{less:.1f} times less"
        if less > 1
        else "no saving"
    )
    axis.set_title(f"{name}, {tasks:,} {noun}: {told} with adapters")
    return figure


def at_target(runs: Sequence[dict], target: float) -> list[dict]:
    """The measurements at a target in one dictionary with the settings, for runs that reached it."""
    return [{**run, **run["at"][str(target)]} for run in runs if str(target) in run["at"]]


def compared(runs: Sequence[dict]) -> list[list]:
    """One row per target: what both methods score there, and what each has forgotten."""
    lines = []
    for target in TARGETS:
        here = at_target(runs, target)
        line = [f"{target:g}"]
        for name, form in (("step", ".0f"), ("nll", ".2f"), ("exact", ".0%"), ("recall", ".0%"), ("documents", ".2f")):  # fmt: skip
            means = (np.mean([run[name] for run in chosen(here, method=m)]) for m in LABELS)
            line.append(" / ".join(f"{mean:{form}}" for mean in means))
        change, (low, high) = change_by_seed(here, "documents", *ARMS)
        lines.append([*line, f"{change:+.2f}", f"{low:+.2f} to {high:+.2f}"])
    return lines


def forgetting(runs: Sequence[dict], before: float, title: str):
    """The loss on base documents where a score is reached: a point per seed, a bar for the mean."""
    figure, axis = plt.subplots(figsize=(7.4, 2.8))
    arms = [(target, method) for target in TARGETS for method in LABELS]
    for place, (target, method) in enumerate(arms):
        found = chosen(at_target(runs, target), method=method)
        values = [run["documents"] for run in found]
        colour, mark = (BLUE, "o") if method == "full" else (ORANGE, "s")
        axis.plot(values, [place] * len(values), mark, color=colour, ms=7, alpha=0.75, ls="")
        axis.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color="black", lw=2, ls="-")
    axis.axvline(before, color=GREY, lw=1.2, ls=":")
    axis.annotate(
        "before tuning", (before, -0.55), xytext=(4, 0), textcoords="offset points", fontsize=9
    )
    axis.set(yticks=range(len(arms)), yticklabels=[f"{LABELS[m]}, stopped at {t:g}" for t, m in arms],
             ylim=(len(arms) - 0.4, -0.9), xlabel="NLL of base documents (nats per token)")  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure
