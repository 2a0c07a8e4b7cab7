"""Notebook 23: loss curves side by side, charts of figures, and what each fault costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import curves, dots
from sftlab.classroom.views import View, table
from sftlab.exercises.ex23_broken_runs_clinic.clinic import FAULTS, HEALTHY, Run
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND
from sftlab.statistics import change_by_seed, mean_with_interval


def falls(losses: Sequence[float]) -> bool:
    """What one looks for in a curve: it loses a third of its height, and never doubles its start."""
    first, last = float(np.mean(losses[:3])), float(np.mean(losses[-3:]))
    return last < first * 2 / 3 and max(losses) <= 2 * first


def loss_curves(ward: Mapping[str, Run], broken: Sequence[str]):
    """One small panel for each run with an axis of its own, as a dashboard draws it."""
    lines = {f"run {bed}": dict(enumerate(run.losses, 1)) for bed, run in ward.items()}
    ends = {name: [(step, points[step]) for step in (1, len(points))] for name, points in lines.items()}  # fmt: skip
    told = "; ".join(f"{name} from {a[1]:.1f} to {b[1]:.2f}" for name, (a, b) in ends.items())
    figure = curves(
        lines,
        f"Of {len(broken)} broken runs, {sum(falls(ward[bed].losses) for bed in broken)} have a curve that falls as it should",
        f"Small line charts of the loss over the steps, each on its own axis: {told}.",
        panels=True, columns=4, yticks=[], xticks=[1, 8, 16], ymargin=0.3,
        marked={name: {at: f"{at[1]:.2f}" for at in points} for name, points in ends.items()},
        figsize=(8.8, 1.9 * -(-len(ward) // 4)),
    )  # fmt: skip
    figure.supylabel("loss, each on its own axis", fontsize=10)
    figure.supxlabel("optimiser step; the first and last loss are written, in nats per trained token", fontsize=10)  # fmt: skip
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


def harm(runs: Sequence[dict]):
    """Exact and stopped answers under each fault: a mark for each seed, a bar for the mean."""
    order = sorted(FAULTS, key=lambda fault: -mean_with_interval(runs, "exact", fault=fault)[0])
    found = {
        label: {fault: [run[line] for run in runs if run["fault"] == fault] for fault in order}
        for label, line in (("exactly right", "exact"), ("stopped by itself", "stops"))
    }
    costs = {fault: cost(runs, fault)[0] for fault in order if fault != HEALTHY}
    heavy = sum(change < -0.1 for change in costs.values())
    told = "; ".join(f"{fault} {100 * change:+.0f} points" for fault, change in costs.items())
    return dots(
        found,
        f"{heavy} of {len(costs)} faults cost more than ten points of exact answers",
        f"Exact and stopped answers for each fault. Exact answers against the healthy run: {told}.",
        percent="x", xlim=(-0.04, 1.04), xlabel="share of 200 held-out questions", figsize=(8, 5.6),
    )  # fmt: skip
