"""Figures and tables of notebook 22: what the arms of the data-quality experiment scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.almanac.defects import DEFECTS
from sftlab.classroom.plots import BLUE, GREEN, ORANGE, RED
from sftlab.classroom.views import View, table
from sftlab.exercises.ex22_data_quality_ablation.experiment import DOSES
from sftlab.scoring import RUBRIC
from sftlab.statistics import chosen, clustered_difference, mean_interval

LINES = RUBRIC
Change = tuple[float, tuple[float, float]]


def marks(runs: Sequence[dict], arm: str, line: str, seeds: Sequence[int] = ()) -> np.ndarray:
    """0 or 1 for each seed and question, (seeds, questions)."""
    found = [run for run in chosen(runs, arm=arm) if not seeds or run["seed"] in seeds]
    return np.array([[int(mark) for mark in run[line]] for run in found])


def change(
    runs: Sequence[dict], first: str, second: str, line: str, kinds: Sequence[str]
) -> Change:
    """second − first in a rubric line: the mean over the seeds, and an interval over the kinds.

    Each question's mark is averaged over the seeds that both arms have, and compared with itself.
    """
    seeds = set.intersection(*({r["seed"] for r in chosen(runs, arm=a)} for a in (first, second)))
    before, after = (marks(runs, arm, line, sorted(seeds)).mean(0) for arm in (first, second))
    return clustered_difference(before, after, kinds)


def over_seeds(runs: Sequence[dict], first: str, second: str, line: str) -> Change:
    """The same change with an interval over the seeds: would another training say the same?"""
    shares = [
        {run["seed"]: run[line].count("1") / len(run[line]) for run in chosen(runs, arm=arm)}
        for arm in (first, second)
    ]
    values = [shares[1][seed] - shares[0][seed] for seed in sorted(set(shares[0]) & set(shares[1]))]
    return float(np.mean(values)), mean_interval(values)


def in_points(found: Change) -> tuple[str, str]:
    """A change and its interval as text, in points."""
    value, (low, high) = found
    return f"{100 * value:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"


def changes(runs: Sequence[dict], against: str, arms: Sequence[str], kinds: Sequence[str]) -> View:
    """One row per arm: exact answers against another arm, with both intervals."""
    rows = []
    for arm in arms:
        value, by_kind = in_points(change(runs, against, arm, "correct", kinds))
        _, by_seed = in_points(over_seeds(runs, against, arm, "correct"))
        rows.append([arm, len(chosen(runs, arm=arm)), value, by_kind, by_seed])
    heads = ["arm", "seeds", "exact answers, points", "95%, over kinds", "95%, over seeds"]
    return table(rows, heads, f"against {against}")


def arms(runs: Sequence[dict], names: Sequence[str], title: str):
    """Exact answers and right content of some arms: a small mark for each seed, a large one for the mean."""
    figure, axis = plt.subplots(figsize=(7.4, 0.46 * len(names) + 1.3))
    looks = (("correct", BLUE, "o", "exactly right"), ("content", ORANGE, "s", "right content"))
    for place, name in enumerate(names):
        for line, colour, shape, label in looks:
            each = marks(runs, name, line).mean(1)
            axis.plot(each, [place] * len(each), shape, color=colour, ms=4, alpha=0.55)
            axis.plot(each.mean(), place, shape, color=colour, ms=10, label="" if place else label)
            axis.annotate(f"{each.mean():.0%}", (each.mean(), place), xytext=(0, -17), ha="center",
                          textcoords="offset points", fontsize=8.5, color=colour)  # fmt: skip
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="share of the questions", title=title,
             ylim=(len(names) - 0.4, -0.6))  # fmt: skip
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def doses(runs: Sequence[dict], title: str, lines: Mapping[str, str]):
    """Rubric lines over the share of bad pairs: means, and a small mark for each seed."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    looks = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (RED, "D", ":"))
    ends: list[tuple[float, str, str]] = []
    for (line, label), (colour, shape, dashes) in zip(lines.items(), looks, strict=False):
        each = [marks(runs, f"{percent}% bad", line).mean(1) for percent in DOSES]
        means = [values.mean() for values in each]
        axis.plot(DOSES, means, color=colour, marker=shape, ls=dashes)
        for percent, values in zip(DOSES, each, strict=True):
            axis.plot([percent] * len(values), values, shape, color=colour, ms=3, alpha=0.6)
        ends.append((means[-1], label, colour))
    below = 2.0  # labels are written from the top, each clear of the one before
    gap = np.diff(axis.get_ylim())[0] * 0.075
    for value, label, colour in sorted(ends, reverse=True):
        below = min(value, below - gap)
        axis.text(
            DOSES[-1] + 1.5, below, label, color=colour, va="center", weight="bold", fontsize=9.5
        )
    axis.set(xlabel="bad pairs among 400 (%)", ylabel="share of the questions", title=title,
             xticks=DOSES, xlim=(-2, 1.3 * DOSES[-1]))  # fmt: skip
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def defect_changes(
    runs: Sequence[dict], kinds: Sequence[str], against: str = "300 good"
) -> dict[str, dict[str, Change]]:
    """Defect -> rubric line -> what 100 pairs with the defect change beside 200 good ones."""
    return {
        defect: {
            line: change(runs, against, f"200 good + 100 {defect}", line, kinds) for line in LINES
        }
        for defect in DEFECTS
    }


def defect_grid(found: Mapping[str, Mapping[str, Change]], title: str):
    """Defects down, rubric lines across: points lost or won; bold where the interval is clear of 0."""
    values = np.array([[100 * found[d][line][0] for line in LINES] for d in found])
    figure, axis = plt.subplots(figsize=(8.2, 3.9))
    limit = max(1.0, np.abs(values).max())
    picture = axis.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    for row, defect in enumerate(found):
        for column, line in enumerate(LINES):
            value, (low, high) = found[defect][line]
            clear = low > 0 or high < 0
            shown = f"{100 * value:+.0f}".replace("-0", "0").replace("+0", "0")
            axis.text(column, row, shown if clear else f"({shown})",
                      ha="center", va="center", fontsize=9.5, weight="bold" if clear else "normal",
                      color="white" if abs(100 * value) > 0.65 * limit else "black")  # fmt: skip
    axis.set(
        xticks=range(len(LINES)), yticks=range(len(found)), yticklabels=list(found), title=title
    )
    axis.set_xticklabels([line.replace("_", " ") for line in LINES])
    axis.tick_params(length=0)
    figure.colorbar(picture, label="change (points)")
    return figure


def went_wrong(
    runs: Sequence[dict], asked: Sequence[dict], places: Sequence[int], good: str, bad: str
) -> list[list[str]]:
    """Recorded answers of seed 0 that are right in one arm and wrong in another, side by side.

    Args:
        asked: the questions whose answers the runs hold; ``places``, where they stand in the exam.
    """
    first, second = (chosen(runs, arm=arm, seed=0)[0] for arm in (good, bad))
    rows = []
    for k, (question, place) in enumerate(zip(asked, places, strict=True)):
        if first["correct"][place] == "1" and second["correct"][place] == "0":
            failed = [line for line in LINES[1:] if second[line][place] == "0"] or ["wording"]
            told = ", ".join(line.replace("_", " ") for line in failed)
            rows.append([question["prompt"], first["answers"][k], second["answers"][k], told])
    return rows


def caught(rows: Sequence[dict], kept: Sequence[dict]) -> tuple[float, float, View]:
    """A filter against the known truth: precision, recall, and a table by defect.

    Precision: of the pairs thrown out, the share that is bad. Recall: of the bad, the share thrown out.
    """
    stay = {id(row) for row in kept}
    out = [row for row in rows if id(row) not in stay]
    bad = [row for row in rows if "defect" in row]
    hits = [row for row in out if "defect" in row]
    there, found = Counter(r["defect"] for r in bad), Counter(r["defect"] for r in hits)
    lines = [[d, there[d], found[d], f"{found[d] / there[d]:.0%}"] for d in DEFECTS if there[d]]
    good = len(rows) - len(bad)
    lines.append(
        ["(no defect)", good, len(out) - len(hits), f"{(len(out) - len(hits)) / good:.0%}"]
    )
    view = table(lines, ["defect", "pairs", "thrown out", "share"])
    return len(hits) / len(out) if out else 0.0, len(hits) / len(bad), view


def recovered(runs: Sequence[dict], clean: str, poisoned: str, filtered: str, line: str) -> float:
    """How much of the loss the filtered arm wins back: 0 none, 1 all; means over shared seeds."""
    seeds = [run["seed"] for run in chosen(runs, arm=filtered)]
    a, b, c = (marks(runs, arm, line, seeds).mean() for arm in (clean, poisoned, filtered))
    return float((c - b) / (a - b))


def on_two_models(
    found: Mapping[str, Sequence[dict]],
    kinds: Mapping[str, Sequence[str]],
    pair: Sequence[str],
    lines: Sequence[str],
) -> tuple[dict[str, dict[str, Change]], View]:
    """The pair's change in some rubric lines on each model, and a table of it.

    ``found``: model -> its runs; ``kinds``: model -> the kinds of its questions. Intervals over kinds.
    """
    moved = {
        model: {line: change(runs, *pair, line, kinds[model]) for line in lines}
        for model, runs in found.items()
    }
    rows = []
    for line in lines:
        cells = [" (".join(in_points(moved[model][line])) + ")" for model in found]
        rows.append([line.replace("_", " "), *cells])
    seeds = [len(chosen(runs, arm=pair[0])) for runs in found.values()]
    heads = ["rubric line", *(f"{model}, {n} seeds" for model, n in zip(found, seeds, strict=True))]
    return moved, table(rows, heads, f"{pair[1]} against {pair[0]}, points (95% over kinds)")
