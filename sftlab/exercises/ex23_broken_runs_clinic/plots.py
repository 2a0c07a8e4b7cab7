"""Figures and tables of notebook 23: what probes see, and what each fault costs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import curves, grid
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, points
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    FIRST,
    HEALTHY,
    KINDS,
    SECOND,
    Run,
    broken,
)
from sftlab.exercises.ex23_broken_runs_clinic.evidence import PROBES, WRITTEN, alarms, tolerances
from sftlab.exercises.ex23_broken_runs_clinic.experiment import CHOSEN_ON, SEEDS
from sftlab.statistics import chosen

MARGIN = 0.05  # exact answers
CURVE, START = "curve falls by a third", "first loss"
COLUMNS = {
    CURVE: "curve falls",
    "gradient and split": "split",
    "untrained adapters": "un- trained",
}  # of a figure
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "Gradient descent lowers whatever loss it is given. A falling curve says that something is learned, not what.",
    "b": "Before the first step the model is the base, so this loss can be computed apart from the training code. Wrong labels or a wrong denominator give another number. A fault of later steps or of the serving does not show in it.",
    "c": "A probe sees the part of a run that it looks at. Faults of other parts pass by: no probe of labels sees a gradient that was not cleared, or a prompt that is served without its header.",
}  # fmt: skip


def told(value: float) -> str:
    """Return a measurement as text, with no digit that rounding could move."""
    if abs(value) < 1e-4:
        return "0"
    return f"{value:.2f}".rstrip("0").rstrip(".")


def loss_curves(ward: Mapping[str, Run]):
    """Draw one small panel for each run with an axis of its own, as a dashboard does."""
    lines = {name: dict(enumerate(run.losses, 1)) for name, run in ward.items()}
    ends = {name: [(step, points[step]) for step in (1, len(points))] for name, points in lines.items()}  # fmt: skip
    words = "; ".join(f"{name} from {a[1]:.1f} to {b[1]:.2f}" for name, (a, b) in ends.items())
    figure = curves(
        lines, "The loss of each run, on its own axis", f"Small line charts of the loss over the steps: {words}.",
        panels=True, columns=4, yticks=[], xticks=[1, 8, 16], ymargin=0.3,
        marked={name: {at: f"{at[1]:.2f}" for at in some} for name, some in ends.items()},
        figsize=(8.8, 1.9 * -(-len(ward) // 4)),
    )  # fmt: skip
    figure.supxlabel("training step; first and last loss in nats per trained token", fontsize=10)
    return figure


# --- the recorded runs ---------------------------------------------------------------------------


def allowed(runs: Sequence[dict]) -> dict[str, float]:
    """Return the tolerances, chosen on sound runs of seeds that are used for nothing else."""
    return tolerances([run["values"] for run in chosen(runs, kind=HEALTHY) if run["seed"] in CHOSEN_ON])  # fmt: skip


def alarm_table(runs: Sequence[dict], kinds: Sequence[str]) -> dict[str, dict[str, list[bool]]]:
    """Return kind -> probe -> whether it raises an alarm, seed by seed."""
    limits = allowed(runs)
    found: dict[str, dict[str, list[bool]]] = {}
    for kind in kinds:
        seen = [alarms(r["values"], limits) for r in chosen(runs, kind=kind) if r["seed"] in SEEDS]
        found[kind] = {probe: [one[probe] for one in seen] for probe in PROBES}
    return found


def alarmed(runs: Sequence[dict], kinds: Sequence[str], probes: Sequence[str]) -> list[int]:
    """Return for how many kinds of run at least one of the probes raises an alarm, seed by seed."""
    found = alarm_table(runs, kinds)
    return [
        sum(any(found[kind][probe][n] for probe in probes) for kind in kinds)
        for n in range(len(SEEDS))
    ]


def spread(counts: Sequence[int]) -> Estimate:
    """Return the mean of counts and their range over the seeds."""
    return float(np.mean(counts)), (float(min(counts)), float(max(counts)))


def hits(runs: Sequence[dict], probes: Sequence[str], ward: Mapping = FIRST) -> Estimate:
    """Return how many of a ward's faults the probes find, with the range over the seeds.

    The faults are a list that we chose and no sample, so there is no interval over faults.
    """
    return spread(alarmed(runs, broken(list(ward)), probes))


def counted(runs: Sequence[dict], kinds: Sequence[str], probes: Sequence[str]) -> str:
    """Return as text for how many kinds of run there is an alarm."""
    mean, (low, high) = spread(alarmed(runs, kinds, probes))
    ends = f" ({low:g} to {high:g} by seed)" if high > low else ""
    return f"{mean:g} of {len(kinds)}{ends}"


def sound_kinds(ward: Mapping = SECOND) -> list[str]:
    """Return the kinds of a ward that have no fault."""
    return [kind for kind in ward if not KINDS[kind].where]


def probes_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return hits in both wards and false alarms of every probe, of the student's three and of all."""
    groups = {name: [name] for name in PROBES}
    groups |= {"the three of Build": list(WRITTEN), "all": list(PROBES)}
    limits = allowed(runs)
    rows = {
        name: {
            "looks at": PROBES[name].source if name in PROBES else "",
            "tolerance": f"{limits[name]:.2g}" if name in PROBES else "",
            "found, known faults": counted(runs, broken(list(FIRST)), probes),
            "found, unseen faults": counted(runs, broken(list(SECOND)), probes),
            "false alarms": counted(runs, sound_kinds(), probes),
        }
        for name, probes in groups.items()
    }
    return pd.DataFrame(rows).T


def which_finds_what(runs: Sequence[dict], ward: Mapping = SECOND):
    """Draw in how many seeds each probe raises an alarm for each kind of run of a ward."""
    kinds = list(ward)
    found = alarm_table(runs, kinds)
    shares = [[sum(found[kind][probe]) / len(SEEDS) for probe in PROBES] for kind in kinds]
    silent = [kind for kind in broken(kinds) if not any(map(any, found[kind].values()))]
    words = "; ".join(
        f"{kind}: {', '.join(p for p in PROBES if any(found[kind][p])) or 'none'}" for kind in kinds
    )
    return grid(
        shares, kinds, [COLUMNS.get(name, name) for name in PROBES], f"Alarms; faults found in no seed: {', '.join(silent) or 'none'}",
        f"A grid of kinds of run and probes. Alarms are raised by … {words}.",
        texts=[[f"{value:.0%}" if value else "" for value in row] for row in shares], bold=lambda i, j: False,
        label="share of seeds with an alarm", figsize=(11, 0.34 * len(kinds) + 1.9),
    )  # fmt: skip


def cost(runs: Sequence[dict], kind: str) -> Estimate:
    """Return the change of exact answers against the sound run of the same seed."""
    pair = [[r["exact"] for r in chosen(runs, kind=k) if r["seed"] in SEEDS] for k in (HEALTHY, kind)]  # fmt: skip
    return estimates.change(*pair)


def costs(runs: Sequence[dict], kinds: Sequence[str]) -> dict[str, list[str]]:
    """Return the kinds of run by what they cost in exact answers: a settled loss, less than 5 points, or open."""
    found: dict[str, list[str]] = {"lower": [], f"loses less than {MARGIN:.0%}": [], estimates.OPEN: []}  # fmt: skip
    for kind in kinds:
        low, high = cost(runs, kind)[1]
        small = f"loses less than {MARGIN:.0%}" if low > -MARGIN else estimates.OPEN
        found["lower" if high < 0 else small].append(kind)
    return found


def cost_table(runs: Sequence[dict], ward: Mapping) -> pd.DataFrame:
    """Return a row for each kind of run: answers by three lines of the score, and what the fault costs."""
    rows = {}
    for kind in ward:
        own = [run for run in chosen(runs, kind=kind) if run["seed"] in SEEDS]
        lines = {"exactly right": "exact", "right content": "content", "stopped": "stops"}
        rows[kind] = {
            "where": KINDS[kind].where or "–",
            **{name: f"{np.mean([run[line] for run in own]):.0%}" for name, line in lines.items()},
            "exact, against the sound run": "" if kind == HEALTHY else points(cost(runs, kind)),
        }
    return pd.DataFrame(rows).T


def claims(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow them."""
    first, second = broken(list(FIRST)), broken(list(SECOND))
    sound, every = sound_kinds(), list(PROBES)
    by_cost = costs(runs, [*first, *second])
    open_, small = by_cost[estimates.OPEN], list(by_cost.values())[1]
    rows = [
        (
            "Known faults that a loss curve shows by not falling",
            counted(runs, first, [CURVE]),
            f"false alarms: {counted(runs, sound, [CURVE])}",
            f"unseen faults: {counted(runs, second, [CURVE])}",
        ),
        (
            "Known faults that show in the first loss, compared with the base's own",
            counted(runs, first, [START]),
            f"false alarms: {counted(runs, sound, [START])}",
            f"unseen faults: {counted(runs, second, [START])}",
        ),
        (
            "Known faults found by the three probes of Build, which were written for them",
            counted(runs, first, WRITTEN),
            f"false alarms: {counted(runs, sound, WRITTEN)}",
            f"unseen faults: {counted(runs, second, WRITTEN)}",
        ),
        (
            "Unseen faults found by all probes together",
            counted(runs, second, every),
            f"false alarms: {counted(runs, sound, every)}",
            "a list of faults that we chose: nobody knows how often each occurs",
        ),
        (
            f"Faults that cost exact answers: {len(by_cost['lower'])} of {len(first) + len(second)}",
            f"less than {MARGIN:.0%} lost: {', '.join(small) or 'none'}",
            "the sound run of the same seed",
            f"{estimates.OPEN}: {', '.join(open_) or 'none'}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
