"""Notebook 23: loss curves side by side, charts of figures, and what each fault costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, ORANGE
from sftlab.classroom.views import View, table
from sftlab.exercises.ex23_broken_runs_clinic.clinic import FAULTS, HEALTHY, Run
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND
from sftlab.statistics import change_by_seed, mean_with_interval


def falls(losses: Sequence[float]) -> bool:
    """What one looks for in a curve: it loses a third of its height, and never doubles its start."""
    first, last = float(np.mean(losses[:3])), float(np.mean(losses[-3:]))
    return last < first * 2 / 3 and max(losses) <= 2 * first


def curves(ward: Mapping[str, Run], title: str):
    """One small panel for each run with an axis of its own, as a dashboard draws it."""
    columns = 4
    rows = -(-len(ward) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(8.6, 1.8 * rows), squeeze=False)
    for axis in axes.flat[len(ward) :]:
        axis.set_visible(False)
    for axis, (bed, run) in zip(axes.flat, ward.items(), strict=False):
        steps = range(1, len(run.losses) + 1)
        axis.plot(steps, run.losses, color=BLUE)
        axis.set_title(f"run {bed}", fontsize=10)
        for step, across in ((0, "left"), (-1, "right")):
            axis.annotate(
                f"{run.losses[step]:.2f}", (steps[step], run.losses[step]), xytext=(5 if step == 0 else 0, 2 if step == 0 else 7),
                textcoords="offset points", ha=across, fontsize=9, color="#4d4d4d",
            )  # fmt: skip
        axis.set(yticks=[], xticks=[1, 8, 16], xlim=(0.5, len(run.losses) + 0.5))
        axis.margins(y=0.16)
    figure.supylabel("loss, each on its own axis", fontsize=10)
    figure.supxlabel("optimiser step; the first and last loss are written, in nats per trained token", fontsize=10)  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def symptoms(
    ward: Mapping[str, Run], replies: Mapping[str, Sequence], asked: Sequence[str]
) -> View:
    """What a user sees: one line for each question and run, cut where it goes on for ever."""
    rows = []
    for bed in ward:
        for question, reply in zip(asked, replies[bed], strict=True):
            text = reply.text if len(reply.text) <= 110 else reply.text[:110] + " …"
            rows.append([bed, question, text or "(nothing)", "yes" if reply.stopped else "no"])
    return table(rows, ["run", "asked", "written", "stopped"])


def told(value: float) -> str:
    """A figure as text, with no digit that rounding could move."""
    if abs(value) < 1e-4:
        return "0"
    return f"{value:.2f}".rstrip("0").rstrip(".")


def bench(charts: Mapping[str, Mapping[str, float]], beds: Sequence[str]) -> View:
    """Every figure of some runs, beside the value that a sound run has."""
    rows = [[name, told(SOUND[name]), *(told(charts[bed][name]) for bed in beds)] for name in SOUND]
    names = [f"run {bed}" if len(bed) == 1 else bed for bed in beds]
    return table(rows, ["figure", "sound", *names])


def cost(runs: Sequence[dict], fault: str) -> tuple[float, tuple[float, float]]:
    """Exact answers lost to a fault, seed by seed, with the interval over the seeds."""
    return change_by_seed(runs, "exact", {"fault": HEALTHY}, {"fault": fault})


def costs_nothing(runs: Sequence[dict], fault: str) -> bool:
    """Whether the interval of what a fault costs includes 0, or lies above it."""
    return cost(runs, fault)[1][1] >= 0


def harm(runs: Sequence[dict], title: str):
    """Exact and stopped answers under each fault: a small mark for each seed, a large one for the mean."""
    order = sorted(FAULTS, key=lambda fault: -mean_with_interval(runs, "exact", fault=fault)[0])
    figure, axis = plt.subplots(figsize=(7.8, 0.42 * len(order) + 1.2))
    looks = (("exact", BLUE, "o", "exactly right"), ("stops", ORANGE, "s", "stopped by itself"))
    for place, fault in enumerate(order):
        for line, colour, shape, label in looks:
            each = [run[line] for run in runs if run["fault"] == fault]
            # A little apart, so that marks of the same share do not hide each other.
            at = place - 0.14 if line == "exact" else place + 0.14
            axis.plot(each, [at] * len(each), shape, color=colour, ms=4, alpha=0.5)
            axis.plot(np.mean(each), at, shape, color=colour, ms=8, label="" if place else label)
    axis.set(yticks=range(len(order)), yticklabels=order, xlim=(-0.04, 1.04), title=title,
             xlabel="share of 200 held-out questions", ylim=(len(order) - 0.4, -0.6))  # fmt: skip
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower right", fontsize=9, ncols=2)
    return figure
