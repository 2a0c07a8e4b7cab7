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
from sftlab.exercises.ex23_broken_runs_clinic.evidence import (
    ASKED,
    PROBES,
    WRITTEN,
    alarms,
    tolerances,
)
from sftlab.exercises.ex23_broken_runs_clinic.experiment import CHOSEN_ON, SEEDS
from sftlab.statistics import chosen

MARGIN = 0.05  # exact answers
SMALL = f"loses less than {100 * MARGIN:.0f} points"
CURVE, START, LEARNED = "curve falls by a third", "first loss", "learned"
STRICT = "curve, threshold from sound runs"  # the same ratio, calibrated as *learned* is
OWN = (*WRITTEN, START, LEARNED)  # the five of Build
UNSEEN_ONLY = "untrained adapters"  # not written for a known fault
DESIGNED_FOR = "adapter applied twice"  # one of the unseen faults, which *strength* had in mind
STRICTER = 0.15  # another threshold on the curve
GROUPS = ("known value", "rule of thumb", "calibrated")  # where a tolerance comes from
NAMES = {"wrong labels": "label mismatches"}  # recorded as -> shown as
COLUMNS = {
    "wrong labels": "labels",
    CURVE: "curve falls",
    "gradient and split": "split",
    "untrained adapters": "un- trained",
}  # of a figure


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
    return tolerances(_calibrating(runs))


def _calibrating(runs: Sequence[dict]) -> list[dict[str, float]]:
    return [run["values"] for run in chosen(runs, kind=HEALTHY) if run["seed"] in CHOSEN_ON]


def largest_curve(runs: Sequence[dict]) -> float:
    """Return the largest last loss over first among the sound runs that set tolerances."""
    return max(found[CURVE] for found in _calibrating(runs))


def alarm_table(
    runs: Sequence[dict], kinds: Sequence[str], other: Mapping[str, float] | None = None
) -> dict[str, dict[str, list[bool]]]:
    """Return kind -> probe -> whether it raises an alarm, seed by seed.

    Args:
        other: tolerances in place of the probes' own, by name.
    """
    limits, strict = allowed(runs) | dict(other or {}), largest_curve(runs)
    found: dict[str, dict[str, list[bool]]] = {}
    for kind in kinds:
        own = [r["values"] for r in chosen(runs, kind=kind) if r["seed"] in SEEDS]
        seen = [alarms(values, limits) | {STRICT: values[CURVE] > strict} for values in own]
        found[kind] = {probe: [one[probe] for one in seen] for probe in (*PROBES, STRICT)}
    return found


def alarmed(
    runs: Sequence[dict], kinds: Sequence[str], probes: Sequence[str],
    other: Mapping[str, float] | None = None,
) -> list[int]:  # fmt: skip
    """Return for how many kinds of run at least one of the probes raises an alarm, seed by seed."""
    found = alarm_table(runs, kinds, other)
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


def counted(
    runs: Sequence[dict], kinds: Sequence[str], probes: Sequence[str],
    other: Mapping[str, float] | None = None,
) -> str:  # fmt: skip
    """Return as text for how many kinds of run there is an alarm."""
    mean, (low, high) = spread(alarmed(runs, kinds, probes, other))
    ends = f" ({low:g} to {high:g} by seed)" if high > low else ""
    return f"{mean:g} of {len(kinds)}{ends}"


def false_alarms(
    runs: Sequence[dict], probes: Sequence[str], other: Mapping[str, float] | None = None
) -> str:
    """Return as text for how many sound trainings there is an alarm, in any form in which one is served."""
    found = alarm_table(runs, sound_kinds(), other)
    trainings: dict[tuple, list[str]] = {}
    for kind in found:
        trainings.setdefault(KINDS[kind].trained, []).append(kind)
    alarm = [
        any(found[kind][probe][n] for kind in kinds for probe in probes)
        for kinds in trainings.values()
        for n in range(len(SEEDS))
    ]
    return f"{sum(alarm)} of {len(alarm)} trainings"


def sound_kinds(ward: Mapping = SECOND) -> list[str]:
    """Return the kinds of a ward that have no fault."""
    return [kind for kind in ward if not KINDS[kind].where]


def group(name: str) -> str:
    """Return where a probe's tolerance comes from."""
    known, by_hand, calibrated = GROUPS
    if name == CURVE:
        return by_hand
    return calibrated if name == STRICT or PROBES[name].tolerance is None else known


def sound_range(runs: Sequence[dict], name: str) -> str:
    """Return what a probe measures of sound runs, as text."""
    sound = [HEALTHY, *sound_kinds()]
    name = CURVE if name == STRICT else name
    found = [r["values"][name] for r in runs if r["kind"] in sound and r["seed"] in SEEDS]
    ends = dict.fromkeys(f"{0.0 if abs(x) < 1e-5 else x:.5g}" for x in (min(found), max(found)))
    return " to ".join(ends)


def probes_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return hits in both wards and false alarms of every probe, of the five of Build and of all."""
    names = sorted((*PROBES, STRICT), key=lambda name: GROUPS.index(group(name)))
    limits = allowed(runs) | {STRICT: largest_curve(runs)}
    sets = {(group(name), NAMES.get(name, name)): [name] for name in names}
    sets |= {("together", "the five of Build"): list(OWN), ("together", "all"): list(PROBES)}
    rows = {}
    for key, (first, *more) in sets.items():
        alone = not more
        rows[key] = {
            "looks at": ("log" if first == STRICT else PROBES[first].source) if alone else "",
            "sound runs": sound_range(runs, first) if alone else "",
            "tolerance": f"{limits[first]:.2g}" if alone else "",
            "found, known faults": counted(runs, broken(list(FIRST)), [first, *more]),
            "found, unseen faults": counted(runs, broken(list(SECOND)), [first, *more]),
            "false alarms": false_alarms(runs, [first, *more]),
        }
    return pd.DataFrame(rows).T


def begins_by_seed(runs: Sequence[dict], kind: str = "mean of means") -> str:
    """Return the first loss of a kind of run over the expected one, seed by seed."""
    found = [f"{r['values'][START]:.4f}" for r in chosen(runs, kind=kind) if r["seed"] in SEEDS]
    return f"{kind}, log ÷ expected in the recorded seeds: {', '.join(found)}"


def in_some_seeds(runs: Sequence[dict], probe: str = START) -> str:
    """Return which known faults a probe finds in some seeds only."""
    found = {kind: sum(by[probe]) for kind, by in alarm_table(runs, broken(list(FIRST))).items()}
    told = [f"{k} ({n} of {len(SEEDS)})" for k, n in found.items() if 0 < n < len(SEEDS)]
    return f"Found in some seeds only: {', '.join(told) or 'none'}."


def curve_limits(runs: Sequence[dict], limits: Sequence[float] = (0.5, STRICTER)) -> str:
    """Return what stricter thresholds on the curve see; the last is the largest of the sound runs that set it."""
    told_ = []
    for limit in (*limits, largest_curve(runs)):
        counts = []
        for kinds in (broken(list(FIRST)), broken(list(SECOND))):
            seen = alarmed(runs, kinds, [CURVE], {CURVE: limit})
            ends = dict.fromkeys((min(seen), max(seen)))
            counts.append(f"{'–'.join(map(str, ends))} of {len(kinds)}")
        told_.append(
            f"{limit:.2g}: {', '.join(counts)}, {false_alarms(runs, [CURVE], {CURVE: limit})}"
        )
    return (
        "Other thresholds on last ÷ first loss (known and unseen by seed, false alarms): "
        f"{'; '.join(told_)}. The last is the largest value of five sound runs."
    )


def why_curve(runs: Sequence[dict]) -> str:
    """Return why the rule of thumb finds what it finds."""
    found = [kind for kind, by in alarm_table(runs, broken(list(FIRST))).items() if any(by[CURVE])]
    if found:
        return f"It finds {', '.join(found)}. {curve_limits(runs)}"
    return f"Gradient descent lowers whatever loss it is given, and two thirds is a lenient rule. {curve_limits(runs)}"


def by_place(runs: Sequence[dict], probe: str) -> str:
    """Return of how many known faults of each place a probe raises an alarm in some seed."""
    found = alarm_table(runs, broken(list(FIRST)))
    places: dict[str, list[bool]] = {}
    for kind, by in found.items():
        places.setdefault(KINDS[kind].where, []).append(any(by[probe]))
    return "; ".join(f"{place}: {sum(hit)} of {len(hit)}" for place, hit in places.items())


def why_start(runs: Sequence[dict]) -> str:
    """Return where the faults are that the first loss shows."""
    return (
        "The base's loss is computed apart from the training code. Found in at least one seed, by the place of the fault: "
        f"{by_place(runs, START)}. {in_some_seeds(runs)}"
    )


def why_unseen(runs: Sequence[dict]) -> str:
    """Return which unseen faults the five probes miss, and what the last two of them add."""
    found = alarm_table(runs, broken(list(SECOND)))
    missed = {kind: len(SEEDS) - sum(any(by[p][n] for p in OWN) for n in range(len(SEEDS))) for kind, by in found.items()}  # fmt: skip
    named = ", ".join(f"{kind} ({n} of {len(SEEDS)} seeds)" for kind, n in missed.items() if n)
    kinds = list(found)
    rest = [kind for kind in kinds if kind != DESIGNED_FOR]
    return (
        f"Missed: {named or 'none'}. Labels, gradient and weights find {counted(runs, kinds, WRITTEN)}; with the first loss "
        f"{counted(runs, kinds, [*WRITTEN, START])}. Without {DESIGNED_FOR}, which the strength was designed for: {counted(runs, rest, WRITTEN)}; "
        f"the five {counted(runs, rest, OWN)}. *learned* alone finds {counted(runs, kinds, [LEARNED])}: it says that something "
        f"is wrong, not where. False alarms of the five: {false_alarms(runs, OWN)}."
    )


SILENT = {  # (kind, probe): why the probe can raise no alarm
    ("no assistant header", "prompt fits"): "a prompt without its header is still the beginning of its example, and *prompt fits* compares beginnings",
    ("divided by all tokens", "gradient and split"): "micro-batches are cut from a padded batch here, so a loss that is divided by all tokens does not depend on the split",
}  # fmt: skip


def read_grid(runs: Sequence[dict]) -> str:
    """Return the false alarms of the figure, and the reason of silences that look odd."""
    found = alarm_table(runs, list(SECOND))
    false = [f"{kind} ({', '.join(NAMES.get(p, p) for p in PROBES if any(found[kind][p]))})" for kind in sound_kinds() if any(any(found[kind][p]) for p in PROBES)]  # fmt: skip
    reasons = [f"{kind}: {why}" for (kind, probe), why in SILENT.items() if not any(found[kind][probe])]  # fmt: skip
    silence = f"\nNo alarm, though one might be expected – {'; '.join(reasons)}." if reasons else ""
    return f"The four runs at the top are sound, so an alarm there is a false one: {'; '.join(false) or 'none'}.{silence}"


def extra_token(found: set[int], last: Sequence[str], end: str) -> str:
    """Return what the label mismatches of another trainer's batches say."""
    if found == {0}:
        return "Your probe finds no mismatch in any example."
    beyond = f": the token after {end}, {last[-1]!r}, is trained too" if found == {1} and end in last[:-1] else ""  # fmt: skip
    return f"Your probe finds mismatches; their number in each example: {', '.join(map(str, sorted(found)))}{beyond}."


def would_you_notice(runs: Sequence[dict]) -> str:
    """Return the answer to the question of the title."""
    every, stricter = broken(list(KINDS)), {CURVE: STRICTER}
    rows: tuple = (
        ("a curve that does not fall by a third", [CURVE], None),
        (f"one that ends above {STRICTER:g} of its beginning", [CURVE], stricter),
        ("one that ends above the largest of five sound runs", [STRICT], None),
        ("the five probes", OWN, None),
        ("*learned* alone, which does not name the place", [LEARNED], None),
    )
    told_ = "; ".join(f"{name}: {counted(runs, every, *how)}, false alarms {false_alarms(runs, *how)}" for name, *how in rows)  # fmt: skip
    return f"Would you notice? Faults found: {told_}."


def which_finds_what(runs: Sequence[dict], ward: Mapping = SECOND):
    """Draw in how many seeds each probe raises an alarm for each kind of run of a ward."""
    kinds = list(ward)
    found = alarm_table(runs, kinds)
    shares = [[sum(found[kind][probe]) / len(SEEDS) for probe in PROBES] for kind in kinds]
    silent = [kind for kind in broken(kinds) if not any(map(any, found[kind].values()))]
    words = "; ".join(
        f"{kind}: {', '.join(NAMES.get(p, p) for p in PROBES if any(found[kind][p])) or 'none'}"
        for kind in kinds
    )
    return grid(
        shares, kinds, [COLUMNS.get(name, name) for name in PROBES], f"Alarms; faults found in no seed: {', '.join(silent) or 'none'}",
        f"A grid of kinds of run and probes. Alarms are raised by … {words}.",
        texts=[[f"{value:.0%}" if value else "" for value in row] for row in shares], bold=lambda i, j: False,
        label="share of seeds with an alarm", figsize=(11, 0.34 * len(kinds) + 1.9),
    )  # fmt: skip


def cost(runs: Sequence[dict], kind: str) -> Estimate:
    """Return the change of exact answers against the sound run of the same seed."""
    return estimates.change(exact(runs, HEALTHY), exact(runs, kind))


def costs(runs: Sequence[dict], kinds: Sequence[str]) -> dict[str, list[str]]:
    """Return the kinds of run by what they cost in exact answers: a settled loss, less than 5 points, or open."""
    found: dict[str, list[str]] = {"lower": [], SMALL: [], estimates.OPEN: []}
    for kind in kinds:
        low, high = cost(runs, kind)[1]
        small = SMALL if low > -MARGIN else estimates.OPEN
        found["lower" if high < 0 else small].append(kind)
    return found


def exact(runs: Sequence[dict], kind: str) -> list[float]:
    """Return the share of exact answers of a kind of run, seed by seed."""
    return [run["exact"] for run in chosen(runs, kind=kind) if run["seed"] in SEEDS]


def told_cost(runs: Sequence[dict], kind: str) -> str:
    """Return what a fault costs as text; without any exact answer, the interval is the sound run's alone."""
    value = cost(runs, kind)
    return (
        points(value)
        if any(exact(runs, kind))
        else f"{100 * value[0]:+.1f} points (0% in every seed)"
    )


def found_of(
    runs: Sequence[dict], kinds: Sequence[str], above_zero: bool = False, limit: float | None = None
) -> str:
    """Return in how many of the runs with these faults *learned* raises an alarm.

    Args:
        above_zero: whether to count only runs that have an exact answer: the others are found easily.
        limit: a tolerance in place of the calibrated one.
    """
    found = alarm_table(runs, kinds, {} if limit is None else {LEARNED: limit})
    seen = [
        alarm
        for kind in kinds
        for alarm, share in zip(found[kind][LEARNED], exact(runs, kind), strict=True)
        if share > 0 or not above_zero
    ]
    return f"{sum(seen)} of {len(seen)}"


def tolerance_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return what other tolerances of *learned* find: one question fewer than the calibrated, and up to two more."""
    first, second = broken(list(FIRST)), broken(list(SECOND))
    lower, middle = costs(runs, [*first, *second])["lower"], round(allowed(runs)[LEARNED] * ASKED)
    rows = {}
    for wrong in range(max(middle - 1, 0), middle + 3):
        other = {LEARNED: wrong / ASKED}
        rows[f"{wrong} of {ASKED}{' (calibrated)' * (wrong == middle)}"] = {
            "five probes, known faults": counted(runs, first, OWN, other),
            "five probes, unseen faults": counted(runs, second, OWN, other),
            "false alarms": false_alarms(runs, OWN, other),
            "learned alone, unseen faults": counted(runs, second, [LEARNED], other),
            "learned, runs with a cost that are not at 0%": found_of(
                runs, lower, True, wrong / ASKED
            ),
        }
    return pd.DataFrame(rows).T.rename_axis("wrong answers allowed")


def never_found(runs: Sequence[dict], kinds: Sequence[str], probe: str = LEARNED) -> list[str]:
    """Return the faults for which a probe raises no alarm in any seed."""
    return [kind for kind, by in alarm_table(runs, kinds).items() if not any(by[probe])]


def recorded_cost(runs: Sequence[dict], kind: str) -> str:
    """Return what a kind of run costs in exact answers over the seeds, and whether that is settled."""
    (word,) = (word for word, kinds in costs(runs, [kind]).items() if kinds)
    return f"{told_cost(runs, kind)}, {word}"


def cost_table(runs: Sequence[dict], ward: Mapping) -> pd.DataFrame:
    """Return a row for each kind of run: answers by three lines of the score, and what the fault costs."""
    rows = {}
    for kind in ward:
        own = [run for run in chosen(runs, kind=kind) if run["seed"] in SEEDS]
        lines = {"exactly right": "exact", "right content": "content", "stopped": "stops"}
        rows[kind] = {
            "where": KINDS[kind].where or "–",
            **{name: f"{np.mean([run[line] for run in own]):.0%}" for name, line in lines.items()},
            "exact, against the sound run": "" if kind == HEALTHY else told_cost(runs, kind),
        }
    return pd.DataFrame(rows).T


def claims(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow them."""
    first, second = broken(list(FIRST)), broken(list(SECOND))
    every = list(PROBES)
    by_cost = costs(runs, [*first, *second])
    lower, others = by_cost["lower"], [name for name in every if name != UNSEEN_ONLY]
    zero = [kind for kind in lower if not any(exact(runs, kind))]
    rows = [
        (
            "Observation: known faults that show in the log, by a curve that does not fall by a third; by a first loss that is not the base's own",
            f"{counted(runs, first, [CURVE])}; {counted(runs, first, [START])}",
            f"false alarms: {false_alarms(runs, [CURVE])}; {false_alarms(runs, [START])}",
            f"unseen faults: {counted(runs, second, [CURVE])}; {counted(runs, second, [START])}; the curve, threshold from sound runs: known {counted(runs, first, [STRICT])}, unseen {counted(runs, second, [STRICT])}, false alarms {false_alarms(runs, [STRICT])}",
        ),
        (
            "Observation: known faults found by the five probes of Build, which were written for them",
            f"{counted(runs, first, OWN)}; without learned {counted(runs, first, OWN[:-1])}",
            f"false alarms: {false_alarms(runs, OWN)}; {false_alarms(runs, OWN[:-1])}",
            f"unseen faults: {counted(runs, second, OWN)}; without learned {counted(runs, second, OWN[:-1])}; the strength was designed for {DESIGNED_FOR}, too",
        ),
        (
            "Observation: known faults found by learned alone: training questions, asked of the served model",
            counted(runs, first, [LEARNED]),
            f"false alarms: {false_alarms(runs, [LEARNED])}",
            f"unseen faults: {counted(runs, second, [LEARNED])}; names no place; never found: {', '.join(never_found(runs, [*first, *second])) or 'none'}",
        ),
        (
            "Observation: unseen faults found by all probes together",
            f"{counted(runs, second, every)}; without {UNSEEN_ONLY} {counted(runs, second, others)}",
            f"false alarms: {false_alarms(runs, every)}",
            f"{UNSEEN_ONLY}, known faults: {counted(runs, first, [UNSEEN_ONLY])}; the list of faults is ours: nobody knows how often each occurs",
        ),
        (
            f"Faults that cost exact answers: {len(lower)} of {len(first) + len(second)}; learned finds {found_of(runs, lower, True)} runs with them that are not at 0%",
            f"of all their runs {found_of(runs, lower)}; 0% exact in every seed: {len(zero)}; {SMALL}: {', '.join(by_cost[SMALL]) or 'none'}",
            "the sound run of the same seed",
            f"{estimates.OPEN}: {', '.join(by_cost[estimates.OPEN]) or 'none'}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
