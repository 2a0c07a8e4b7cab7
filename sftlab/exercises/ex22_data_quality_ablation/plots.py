"""Figures and tables of notebook 22: what the arms of the data-quality experiment scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.almanac.defects import DEFECTS
from sftlab.classroom.figures import curves, dots, grid
from sftlab.classroom.views import View, table
from sftlab.exercises.ex22_data_quality_ablation.experiment import DOSES
from sftlab.scoring import RUBRIC
from sftlab.statistics import chosen, clustered_difference, mean_interval

LINES = RUBRIC
SHOWN_LINES = {
    "exactly right": "correct",
    "right content": "content",
    "right form": "format",
    "on topic": "on_topic",
}
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


def lowered(found: Mapping[str, Change], xlabel: str):
    """What bad pairs change in every rubric line, in points."""
    points = {
        line.replace("_", " "): (100 * value, (100 * low, 100 * high))
        for line, (value, (low, high)) in found.items()
    }
    clear = sum(high < 0 for _, (_, high) in points.values())
    title = f"200 bad pairs clearly lower {clear} of {len(points)} rubric lines"
    told = "; ".join(f"{line} {value:+.0f} points" for line, (value, _) in points.items())
    alt = f"{title}. Differences with intervals: {told}."
    return dots(points, title, alt, zero=True, fmt="+.0f", xlabel=xlabel)


def arms(runs: Sequence[dict], names: Sequence[str]):
    """Exact answers and right content of some arms; the title tells the first three."""
    lines = {"exactly right": "correct", "right content": "content"}
    each = {
        label: {name: marks(runs, name, line).mean(1) for name in names}
        for label, line in lines.items()
    }
    right = {name: float(np.mean(shares)) for name, shares in each["exactly right"].items()}
    title = "Exactly right: " + ", ".join(f"{name} {right[name]:.0%}" for name in names[:3])
    told = "; ".join(
        f"{name} {right[name]:.0%} and {np.mean(each['right content'][name]):.0%}" for name in names
    )
    alt = f"A dot for each seed of each arm. Exactly right and right content on average: {told}."
    return dots(each, title, alt, fmt=".0%", percent="x", xlabel="share of the questions")


def doses(runs: Sequence[dict]):
    """Rubric lines over the share of bad pairs."""
    each = {
        label: {dose: marks(runs, f"{dose}% bad", line).mean(1) for dose in DOSES}
        for label, line in SHOWN_LINES.items()
    }
    ends = {label: [np.mean(shares[d]) for d in (DOSES[0], DOSES[-1])] for label, shares in each.items()}  # fmt: skip
    told = [f"{label} from {a:.0%} to {b:.0%}" for label, (a, b) in ends.items()]
    title = f"From {DOSES[0]} to {DOSES[-1]}% bad pairs: {told[0]}"
    alt = (
        f"Lines over {DOSES[0]} to {DOSES[-1]}% bad pairs, a dot for each seed: {', '.join(told)}."
    )
    return curves(each, title, alt, spread="dots", percent="y", xticks=DOSES,
                  xlabel="bad pairs among 400 (%)", ylabel="share of the questions")  # fmt: skip


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


def defect_grid(found: Mapping[str, Mapping[str, Change]]):
    """Defects down, rubric lines across: points lost or won; in brackets where the interval includes 0."""
    values = np.array([[100 * found[d][line][0] for line in LINES] for d in found])
    limit = max(1.0, np.abs(values).max())

    def clear(row: int, column: int) -> bool:
        low, high = list(found.values())[row][LINES[column]][1]
        return low > 0 or high < 0

    texts = []
    for row, line in enumerate(values):
        shown = [f"{value:+.0f}".replace("-0", "0").replace("+0", "0") for value in line]
        texts.append([text if clear(row, k) else f"({text})" for k, text in enumerate(shown)])
    worst = min(found, key=lambda d: found[d]["correct"][0])
    told = "; ".join(f"{d}: exactly right {100 * found[d]['correct'][0]:+.0f}" for d in found)
    return grid(
        values, list(found), [line.replace("_", " ") for line in LINES],
        f"Per 100 bad pairs, most exact answers are lost to: {worst}",
        f"Grid of changes in points, defects by rubric lines: {told}.",
        texts=texts, bold=clear, vmin=-limit, vmax=limit, cmap="PuOr", label="change (points)",
    )  # fmt: skip


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
