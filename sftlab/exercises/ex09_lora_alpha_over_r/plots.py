"""Figures and tables of notebook 09: three scaling rules over the ranks, and α against learning rates.

Their words follow the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import gmean

from sftlab.classroom.figures import curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import OPEN, Estimate, compared, times, tuned, verdict
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import (
    EPS,
    SMALL_EPS,
    STOPS,
    VARIANTS,
)
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import (
    RATES as SPEEDS,
)
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import (
    MEETING_RANK,
    RANKS,
    RULES,
)
from sftlab.exercises.ex09_lora_alpha_over_r.first_step import EVERY_RANK
from sftlab.statistics import best_rate, chosen

LABELS = {"lora": "α/r", "rslora": "α/√r", "plain": "α"}
SIZES = ("‖ΔW‖ / ‖W‖", "change of the output")
BY_SGD = "change of the output, SGD"
PART_LABELS = {
    "whole": "whole ΔW",
    "along": "along the gradient",
    "rest": "the rest",
    "turned": "signs of B's columns random",
    "equal": "all rows of A equal",
}
WAYS = {
    -1.0: "falls like 1/r",
    -0.5: "falls like 1/√r",
    0.0: "is steady",
    0.5: "grows like √r",
    1.0: "grows like r",
}
NEAR = 0.15  # how far an exponent's interval may reach from one of these
FIXED = 2e-3  # the learning rate at which all trained updates are compared
LABEL_OF = {"adam": "Adam", "sgd": "SGD"}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "Across the gradient the r terms of BA point in random directions. They add up like √r and make up most of the norm, and the factor divides by r.",
    "b": "Every column of B follows the same gradient. Along it the r terms agree and add up like r, which the factor takes back. The output depends mostly on this part.",
    "c": "Doubling α equals doubling B's learning rate alone. In the first step A does not move, since its gradient is zero while B is. From the second step on it does, and its learning rate matters.",
}  # fmt: skip


# --- over the ranks --------------------------------------------------------------------------


def by_rank(runs: Sequence[dict], rule: str, part: str, which: int) -> dict[int, list[float]]:
    """Return rank -> a size after one step, of every seed. which: 0 for ΔW, 1 for the output."""
    return {r: [run[rule][part][which] for run in chosen(runs, r=r)] for r in EVERY_RANK}


def trained_by_rank(runs: Sequence[dict], rule: str) -> dict[int, list[float]]:
    """Return rank -> ‖ΔW‖ / ‖W‖ after the last step at the learning rate ``FIXED``, of every seed."""
    return {r: [run["size"] for run in sweep_runs(runs, rule, r, FIXED)] for r in RANKS}


def exponent(sizes: dict[int, list[float]]) -> Estimate:
    """Return p in "size ∝ r^p": the slope of a line through the logarithms, seed by seed.

    Args:
        sizes: rank -> a size of every seed.
    """
    x = np.log(list(sizes))
    by_seed = np.log(list(zip(*sizes.values(), strict=True)))
    return estimates.mean([float(np.polyfit(x, y, 1)[0]) for y in by_seed])


def way(found: Estimate) -> str:
    """Return how a size depends on the rank: the named exponent near the interval, or its sign."""
    low, high = found[1]
    for wanted, words in WAYS.items():
        if all(abs(end - wanted) <= NEAR for end in found[1]):
            near = words.replace("like", "about like").replace("is steady", "is nearly steady")
            return words if low - 0.01 <= wanted <= high + 0.01 else near
    return verdict(found, "grows", "falls", OPEN)


def power(found: Estimate) -> str:
    """Return an exponent with its interval, and what it says."""
    return f"r^{number(found)}, {way(found)}"


def number(found: Estimate) -> str:
    """Return an exponent with its interval."""
    value, (low, high) = found
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def many_times(runs: Sequence[dict], which: int, rule: str = "lora") -> Estimate:
    """Return a size after one step at the highest rank over that at rank 1."""
    sizes = by_rank(runs, rule, "whole", which)
    return estimates.ratio(sizes[EVERY_RANK[0]], sizes[EVERY_RANK[-1]])


BySize = dict[str, dict[int, list[float]]]  # rule -> rank -> a size of every seed


def first_sizes(runs: Sequence[dict], part: str, which: int) -> BySize:
    """Return a size after one step under every rule."""
    return {rule: by_rank(runs, rule, part, which) for rule in RULES}


def trained_sizes(runs: Sequence[dict]) -> BySize:
    """Return the size of ΔW after the last step under every rule."""
    return {rule: trained_by_rank(runs, rule) for rule in RULES}


def tuned_rates(runs: Sequence[dict]) -> BySize:
    """Return rank -> the best learning rate of every seed, under every rule; nan at an end of a grid."""
    return {rule: {r: best_rates(runs, rule, r) for r in RANKS} for rule in RULES}


def steady_rules(sizes: BySize) -> str:
    """Return the factors with which a size is steady."""
    kept = [LABELS[rule] for rule, some in sizes.items() if steady(some)]
    return "every factor" if len(kept) == len(sizes) else " and ".join(kept) or "no factor"


def steady(sizes: dict[int, list[float]]) -> bool:
    """Whether a size is steady over the ranks."""
    return way(exponent(sizes)).endswith("steady")


def over_ranks(runs: Sequence[dict]):
    """Draw both sizes after one step over the ranks, under the three rules; the output with SGD, too."""
    wanted = {SIZES[0]: ("whole", 0), SIZES[1]: ("whole", 1), BY_SGD: ("sgd", 1)}
    found = {name: first_sizes(runs, *which) for name, which in wanted.items()}
    norm, output, sgd = map(steady_rules, found.values())
    return _over_the_rank(
        {name: {f"factor {LABELS[rule]}": some for rule, some in sizes.items()} for name, sizes in found.items()},
        f"One step of Adam: ‖ΔW‖ is steady with {norm}, the change of the output with {output}; SGD: with {sgd}",
    )  # fmt: skip


def parts(runs: Sequence[dict]):
    """Draw both sizes after one step with the factor α/r: whole, its two parts, and two controls."""
    found = {
        name: {label: by_rank(runs, "lora", part, which) for part, label in PART_LABELS.items()}
        for which, name in enumerate(SIZES)
    }
    names = {
        "along": "the part along the gradient",
        "rest": "the rest",
        "turned": "ΔW with random signs",
    }
    ways = {name: way(exponent(by_rank(runs, "lora", part, 1))) for part, name in names.items()}
    figure = _over_the_rank(found, f"Output: {_grouped(ways)}")
    _wider(figure, PART_LABELS["whole"], PART_LABELS["rest"])
    return figure


def _grouped(ways: Mapping[str, str]) -> str:
    """Return what each name does as a sentence, in which those that do the same stand together."""
    groups: dict[str, list[str]] = {}
    for name, word in ways.items():
        groups.setdefault(word, []).append(name)
    plural = {"is": "are", "falls": "fall", "grows": "grow"}
    told = []
    for word, names in groups.items():
        verb, _, more = (f"is {word}" if word == OPEN else word).partition(" ")
        verb = plural[verb] if len(names) > 1 else verb
        told.append(f"{' and '.join(names)} {verb} {more}".strip())
    return "; ".join(told)


def _wider(figure, *labels: str) -> None:
    """Draw the lines of these names wide and pale, in the legend too, so that a line over them hides none."""
    (legend,) = figure.legends
    named = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)}  # fmt: skip
    for label in labels:
        lines = [line for axis in figure.axes for line in axis.lines if line.get_label() == label]
        for line in (*lines, named[label]):
            line.set(linewidth=5, markersize=10, alpha=0.45)


def _over_the_rank(found: dict, title: str):
    told = "; ".join(
        f"{panel}, {label}: {power(exponent(sizes))}"
        for panel, series in found.items()
        for label, sizes in series.items()
    )
    return curves(
        found, title, f"{len(found)} panels of curves over the rank, with the range over seeds. {told}.", panels=True,
        mean=gmean, xscale="log", yscale="log", xticks=EVERY_RANK, xlabel="rank r", each={SIZES[0]: {"percent": "y"}}, figsize=(4.8 * len(found) - 1 * (len(found) > 2), 4),
    )  # fmt: skip


def exponents_table(first: Sequence[dict], trained: Sequence[dict]) -> pd.DataFrame:
    """Return the exponent of each size under each factor, after one step and after training."""
    found = {
        "one step of Adam, ‖ΔW‖": first_sizes(first, "whole", 0),
        "one step of Adam, output": first_sizes(first, "whole", 1),
        "one step of SGD, output": first_sizes(first, "sgd", 1),
        f"trained at {FIXED:g}, ‖ΔW‖": trained_sizes(trained),
        "best learning rate": tuned_rates(trained),
    }
    rows = {}
    for name, sizes in found.items():
        row = {f"factor {LABELS[rule]}": number(exponent(some)) for rule, some in sizes.items()}
        rows[name] = row | {"steady with": steady_rules(sizes)}
    return pd.DataFrame(rows).T.rename_axis(columns="exponent p in size ∝ r^p")


# --- a learning rate at another rank ---------------------------------------------------------


def sweep_runs(runs: Sequence[dict], rule: str, r: int, rate: float | None = None) -> list[dict]:
    """Return the runs of a rule and rank. At the rank where all rules agree one was trained."""
    wanted = {} if rate is None else {"learning_rate": rate}
    return chosen(runs, rule="lora" if r == MEETING_RANK else rule, r=r, **wanted)


def tuned_at_once(runs: Sequence[dict], rule: str, r: int) -> list[dict]:
    """Return the runs at the learning rate with the lowest mean validation loss of all seeds."""
    return tuned(sweep_runs(runs, rule, r), lambda run: run["validation"])


def carried_rate(runs: Sequence[dict]) -> float:
    """Return the learning rate tuned at the rank where all rules agree."""
    return tuned_at_once(runs, "lora", MEETING_RANK)[0]["learning_rate"]


def loss_ratio(before: Sequence[dict], after: Sequence[dict]) -> Estimate:
    """Return the test loss of some runs over that of others, seed by seed."""
    return estimates.ratio(*([run["test"] for run in some] for some in (before, after)))


def carried(runs: Sequence[dict], rule: str, r: int) -> Estimate:
    """Return the test loss at the carried learning rate over that at the tuned one, one for all seeds."""
    return loss_ratio(tuned_at_once(runs, rule, r), sweep_runs(runs, rule, r, carried_rate(runs)))


def cost(runs: Sequence[dict], rule: str, r: int) -> str:
    """Return what the carried learning rate costs, unless the tuned one is the same."""
    if tuned_at_once(runs, rule, r)[0]["learning_rate"] == carried_rate(runs):
        return "same grid point"
    found = carried(runs, rule, r)
    return f"{times(found)}, {compared(found)}"


def best_rates(runs: Sequence[dict], rule: str, r: int) -> list[float]:
    """Return the best learning rate of every seed, interpolated; nan at an end of the grid."""
    found = []
    for seed in sorted({run["seed"] for run in runs}):
        some = [run for run in sweep_runs(runs, rule, r) if run["seed"] == seed]
        try:
            found.append(best_rate({run["learning_rate"]: run["validation"] for run in some}))
        except ValueError:
            found.append(float("nan"))
    return found


def moved_rate(runs: Sequence[dict], rule: str, r: int) -> Estimate | None:
    """Return the best learning rate at a rank over that at rank 8; None if a seed has none."""
    pair = best_rates(runs, rule, MEETING_RANK), best_rates(runs, rule, r)
    return None if np.isnan(pair).any() else estimates.ratio(*pair)


def moved_told(found: Estimate | None) -> str:
    """Return a ratio of best learning rates as text."""
    return times(found) if found else "at an end of the grid"


def direction(found: Estimate | None) -> str:
    """Return whether a best learning rate is higher or lower at another rank."""
    return verdict(found, "higher", "lower", neutral=1.0) if found else "at an end of the grid"


def each_rule(found: Mapping[str, Estimate | None], words: Callable[[Estimate | None], str]) -> str:
    """Return what is said of every factor."""
    return "; ".join(f"{LABELS[rule]} {words(each)}" for rule, each in found.items())


def one_sweep(runs: Sequence[dict], rule: str, r: int, alt: str):
    """Draw the explorer's picture: the sweep at rank 8 and that of another rank and rule."""
    lines = {f"rank {MEETING_RANK}": _sweep(runs, "lora", MEETING_RANK), f"rank {r}, factor {LABELS[rule]}": _sweep(runs, rule, r)}  # fmt: skip
    return curves(
        lines, f"Factor {LABELS[rule]}, rank {r}: test loss, carried ÷ tuned: {cost(runs, rule, r)}", alt,
        mean=gmean, direct=False, xscale="log", yscale="log", xlabel="learning rate", ylabel="validation loss (nats per token)",
        axvline={carried_rate(runs): "carried"}, xlim=(1e-4, 2e-2), ylim=(0.02, 1.5), figsize=(8, 3.6),
    )  # fmt: skip


def _sweep(runs: Sequence[dict], rule: str, r: int) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for run in sweep_runs(runs, rule, r):
        found.setdefault(run["learning_rate"], []).append(run["validation"])
    return dict(sorted(found.items()))


# --- α against learning rates ----------------------------------------------------------------


def distance(runs: Sequence[dict], optimizer: str, variant: str, stop: int, **settings) -> Estimate:
    """Return the distance of a variant's ΔW from that of doubled α: the geometric mean of the seeds.

    Args:
        stop: after how many steps. settings: ``rate`` and ``eps``; by default the larger and usual one.
    """
    wanted = {"rate": SPEEDS[optimizer][-1], "eps": EPS} | settings
    found = chosen(runs, optimizer=optimizer, **wanted)
    return middle([run[variant][STOPS.index(stop)] for run in found])


def middle(values: Sequence[float]) -> Estimate:
    """Return the geometric mean with its interval; the arithmetic one if a value is zero."""
    return estimates.ratio([1.0] * len(values), values) if min(values) > 0 else estimates.mean(values)  # fmt: skip


def share(found: Estimate) -> str:
    """Return a distance with its interval as a share of the norm."""
    value, (low, high) = found
    if high < 1e-6:
        return "0" if value == high == 0 else "below 0.0001%"
    digits = 3 if value < 1e-3 else 2 if value < 0.1 else 0
    return f"{value:.{digits}%} ({low:.{digits}%} to {high:.{digits}%})"


def apart(runs: Sequence[dict]):
    """Draw how far each variant's ΔW is from that of doubled α, over the steps."""
    found, told = {}, []
    for optimizer, name in LABEL_OF.items():
        for rate in SPEEDS[optimizer]:
            some = chosen(runs, optimizer=optimizer, rate=rate, eps=EPS)
            series: dict[str, dict] = {
                variant: {stop: [run[variant][k] for run in some] for k, stop in enumerate(STOPS)}
                for variant in list(VARIANTS[optimizer])[1:]
            }
            found[f"{name}, learning rate {rate:g}"] = series
            ends = {variant: share(middle(points[STOPS[-1]])) for variant, points in series.items()}  # fmt: skip
            told.append(f"{name}, {rate:g}: " + ", ".join(f"{k}: {v}" for k, v in ends.items()))
    names = list(dict.fromkeys(variant for series in found.values() for variant in series))
    # Every panel has the same series in the same order, so that each keeps its look.
    found = {panel: {name: series.get(name, {1: float("nan")}) for name in names} for panel, series in found.items()}  # fmt: skip
    return curves(
        found, "Distance from ΔW with doubled α, by step", f"{len(found)} panels of curves over the steps. After {STOPS[-1]} steps: {'; '.join(told)}.",
        panels=True, sharey=True, xscale="log", xticks=STOPS, xlabel="training step", percent="y",
        yscale={"value": "symlog", "linthresh": 1e-4, "linscale": 0.4}, yticks=[0, 1e-4, 1e-3, 1e-2, 0.1, 1],
        ylim=(-2e-5, 2), ylabel="‖difference‖ ÷ ‖ΔW‖", figsize=(10, 4),
    )  # fmt: skip


# --- what was found --------------------------------------------------------------------------


def claims(first: Sequence[dict], trained: Sequence[dict], alpha: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    last = STOPS[-1]

    def grows(part: str, which: int, rule: str = "lora") -> str:
        return power(exponent(by_rank(first, rule, part, which)))

    norm, output = (way(exponent(by_rank(first, "lora", "whole", k))) for k in (0, 1))
    both, of_A, of_B = (f"{which} × 2" for which in ("both learning rates", "learning rate of A", "learning rate of B"))  # fmt: skip
    near, far, wrong = (distance(alpha, "adam", v, last) for v in (of_B, both, of_A))
    exact = distance(alpha, "adam", of_B, last, eps=SMALL_EPS)
    square, plain = (distance(alpha, "sgd", f"both learning rates × {k}", 1) for k in (4, 2))
    equal = "equals" if near[1][1] < 0.01 < far[1][0] else "is not"
    like = "is" if square[1][1] < 0.01 < plain[1][0] else "is not"
    low, meeting, high = RANKS
    up, down = ({rule: moved_rate(trained, rule, r) for rule in RULES} for r in (high, low))
    rows = [
        (
            f"α/r, one step of Adam: the change of the output {output} when the rank changes; the norm of ΔW {norm}",
            f"output: {grows('whole', 1)}; norm: {grows('whole', 0)}",
            f"output, random signs of B's columns: {grows('turned', 1)}; without the part along the gradient: output {grows('rest', 1)}, norm {grows('rest', 0)}",
            f"SGD, output: {grows('sgd', 1)}; α/√r there: {grows('sgd', 1, 'rslora')}; after training at {FIXED:g}: norm {power(exponent(trained_by_rank(trained, 'lora')))}",
        ),
        (
            f"Best learning rate at rank {high}, compared with rank {meeting}: {each_rule(up, direction)}",
            each_rule(up, moved_told),
            f"rank {low}, compared with rank {meeting}: {each_rule(down, moved_told)}",
            f"20 steps of Adam, one small base; all factors agree at rank {meeting}",
        ),
        (
            f"Adam: doubling α {equal} doubling B's learning rate",
            f"{share(near)} apart after {last} steps; with ε = {SMALL_EPS:g}: {share(exact)}",
            f"both learning rates: {share(far)}; A's alone: {share(wrong)}",
            f"no weight decay or clipping; SGD: the first step {like} that of 4 times both learning rates ({share(square)} apart)",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
