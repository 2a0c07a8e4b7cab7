"""Figures and tables of notebook 09: three scaling rules over the ranks, and α against learning rates.

Their words follow the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import MEETING_RANK, RANKS, RULES
from sftlab.exercises.ex09_lora_alpha_over_r.first_step import EVERY_RANK
from sftlab.statistics import best_rate, chosen

LABELS = {"lora": "α/r", "rslora": "α/√r", "plain": "α"}
SIZES = ("‖ΔW‖ / ‖W‖", "change of the output")
PART_LABELS = {
    "whole": "whole ΔW",
    "along": "along the gradient",
    "rest": "the rest",
    "turned": "signs of B's columns random",
}
WAYS = {-0.5: "falls like 1/√r", 0.0: "is steady", 0.5: "grows like √r", 1.0: "grows like r"}
NEAR = 0.15  # how far an exponent's interval may reach from one of these
FIXED = 2e-3  # the learning rate at which all trained updates are compared
LABEL_OF = {"adam": "Adam", "sgd": "SGD"}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "Across the gradient the r terms of BA point in random directions. They add up like √r and make up most of the norm, and the factor divides by r.",
    "b": "Every column of B follows the same gradient. Along it the r terms agree and add up like r, which the factor takes back. The output depends mostly on this part.",
    "c": "Doubling α equals doubling B's learning rate alone. At first A hardly moves, so its learning rate does not matter. Later it does.",
}  # fmt: skip


# --- over the ranks --------------------------------------------------------------------------


def by_rank(runs: Sequence[dict], rule: str, part: str, which: int) -> dict[int, list[float]]:
    """Return rank -> a size after one step, of every seed. which: 0 for ΔW, 1 for the output."""
    return {r: [run[rule][part][which] for run in chosen(runs, r=r)] for r in EVERY_RANK}


def trained_by_rank(runs: Sequence[dict], rule: str, which: int) -> dict[int, list[float]]:
    """Return rank -> a size after the last step at the learning rate ``FIXED``, of every seed."""
    return {
        r: [run[("size", "output")[which]] for run in sweep_runs(runs, rule, r, FIXED)]
        for r in RANKS
    }


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
    for wanted, words in WAYS.items():
        if all(abs(end - wanted) <= NEAR for end in found[1]):
            return words
    return verdict(found, "grows", "falls", OPEN)


def power(found: Estimate) -> str:
    """Return an exponent with its interval, and what it says."""
    value, (low, high) = found
    return f"r^{value:+.2f} ({low:+.2f} to {high:+.2f}), {way(found)}"


def many_times(runs: Sequence[dict], which: int, rule: str = "lora") -> Estimate:
    """Return a size after one step at the highest rank over that at rank 1."""
    sizes = by_rank(runs, rule, "whole", which)
    return estimates.ratio(sizes[EVERY_RANK[0]], sizes[EVERY_RANK[-1]])


def over_ranks(runs: Sequence[dict]):
    """Draw both sizes after one step over the ranks, under the three rules."""
    found = {
        name: {f"factor {LABELS[rule]}": by_rank(runs, rule, "whole", which) for rule in RULES}
        for which, name in enumerate(SIZES)
    }
    steady = [[rule for rule in RULES if way(exponent(by_rank(runs, rule, "whole", k))) == WAYS[0.0]] for k in (0, 1)]  # fmt: skip
    kept = [" and ".join(LABELS[rule] for rule in some) or "no rule" for some in steady]
    return _two_panels(
        found, f"After one step: {kept[0]} keeps ‖ΔW‖ steady, {kept[1]} keeps the output's change steady"
    )  # fmt: skip


def parts(runs: Sequence[dict]):
    """Draw both sizes after one step with the factor α/r: whole, its two parts, and the control."""
    found = {
        name: {label: by_rank(runs, "lora", part, which) for part, label in PART_LABELS.items()}
        for which, name in enumerate(SIZES)
    }
    turned = way(exponent(by_rank(runs, "lora", "turned", 1)))
    title = f"Factor α/r: with random signs of B's columns the change of the output {turned}"
    return _two_panels(found, title)


def _two_panels(found: dict, title: str):
    told = "; ".join(
        f"{panel}, {label}: {power(exponent(sizes))}"
        for panel, series in found.items()
        for label, sizes in series.items()
    )
    return curves(
        found, title, f"Two panels of curves over the rank, with the range over seeds. {told}.", panels=True,
        mean=gmean, xscale="log", yscale="log", xticks=EVERY_RANK, xlabel="rank r", each={SIZES[0]: {"percent": "y"}}, figsize=(9.6, 4),
    )  # fmt: skip


def ways_table(first: Sequence[dict], trained: Sequence[dict]) -> pd.DataFrame:
    """Return how both sizes depend on the rank under each rule, after one step and after the last."""
    rows = {}
    for rule in RULES:
        for which, name in enumerate(SIZES):
            rows[LABELS[rule], name] = {
                "after one step": power(exponent(by_rank(first, rule, "whole", which))),
                f"after training at {FIXED:g}": power(
                    exponent(trained_by_rank(trained, rule, which))
                ),
            }
    return pd.DataFrame(rows).T.rename_axis(["factor", "size"])


def sentence(first: Sequence[dict], trained: Sequence[dict]) -> str:
    """Return of which sizes it is true that α/r keeps them steady, and of which it is not."""
    when = {
        "after one step": lambda which: by_rank(first, "lora", "whole", which),
        f"after training at {FIXED:g}": lambda which: trained_by_rank(trained, "lora", which),
    }
    found: dict[str, list[str]] = {"steady": [], "not steady": [], OPEN: []}
    for time, sizes in when.items():
        for which, size in enumerate(("‖ΔW‖", "the change of the output")):
            words = way(exponent(sizes(which)))
            kind = "steady" if words == WAYS[0.0] else OPEN if words == OPEN else "not steady"
            found[kind].append(f"{size} {time}" + (f" ({words})" if kind == "not steady" else ""))
    told = [f"{kind}: {', '.join(some)}" for kind, some in found.items() if some]
    return "With the factor α/r, over the ranks\n  " + "\n  ".join(told)


# --- a learning rate at another rank ---------------------------------------------------------


def sweep_runs(runs: Sequence[dict], rule: str, r: int, rate: float | None = None) -> list[dict]:
    """Return the runs of a rule and rank. At the rank where all rules agree one was trained."""
    wanted = {} if rate is None else {"learning_rate": rate}
    return chosen(runs, rule="lora" if r == MEETING_RANK else rule, r=r, **wanted)


def tuned_runs(runs: Sequence[dict], rule: str, r: int) -> list[dict]:
    """Return the runs at the learning rate with the lowest mean validation loss."""
    return tuned(sweep_runs(runs, rule, r), lambda run: run["validation"])


def carried_rate(runs: Sequence[dict]) -> float:
    """Return the learning rate tuned at the rank where all rules agree."""
    return tuned_runs(runs, "lora", MEETING_RANK)[0]["learning_rate"]


def carried(runs: Sequence[dict], rule: str, r: int) -> Estimate:
    """Return the loss at the carried learning rate over that at the rank's own tuned one.

    Both are losses on the test questions.
    """
    own, other = tuned_runs(runs, rule, r), sweep_runs(runs, rule, r, carried_rate(runs))
    return estimates.ratio(*([run["test"] for run in some] for some in (own, other)))


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


def carry_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return, by rule and rank, the move of the best learning rate and the cost of not following it."""
    rows = {}
    for rule in RULES:
        for r in RANKS:
            if r != MEETING_RANK:
                moved = moved_rate(runs, rule, r)
                cost = carried(runs, rule, r)
                rows[LABELS[rule], r] = {
                    f"best learning rate ÷ that at rank {MEETING_RANK}": times(moved) if moved else "at an end of the grid",
                    "test loss, carried ÷ tuned": f"{times(cost)}, {compared(cost)}",
                }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis(["factor", "rank"])


def over_rates(runs: Sequence[dict]):
    """Draw the validation loss over the learning rate: a panel for each rule, a line for each rank."""
    found = {f"factor {LABELS[rule]}": {f"rank {r}": _sweep(runs, rule, r) for r in RANKS} for rule in RULES}  # fmt: skip
    told = "; ".join(
        f"{panel}, {label}: lowest at {min(sweep, key=lambda rate: gmean(sweep[rate])):g}"
        for panel, series in found.items()
        for label, sweep in series.items()
    )
    rate = carried_rate(runs)
    return curves(
        found, f"Validation loss over the learning rate; dotted: {rate:g}, tuned at rank {MEETING_RANK}",
        f"Three panels of curves over the learning rate. {told}.", panels=True, sharey=True, mean=gmean, xscale="log", yscale="log",
        xlabel="learning rate", ylabel="nats per token", axvline={rate: ""}, figsize=(10, 4),
    )  # fmt: skip


def one_sweep(runs: Sequence[dict], rule: str, r: int, alt: str):
    """Draw the explorer's picture: the sweep at rank 8 and that of another rank and rule."""
    lines = {f"rank {MEETING_RANK}": _sweep(runs, "lora", MEETING_RANK), f"rank {r}, factor {LABELS[rule]}": _sweep(runs, rule, r)}  # fmt: skip
    return curves(
        lines, f"Factor {LABELS[rule]}, rank {r}: loss of the carried learning rate {times(carried(runs, rule, r))}", alt,
        mean=gmean, direct=False, xscale="log", yscale="log", xlabel="learning rate", ylabel="validation loss (nats per token)",
        axvline={carried_rate(runs): "carried"}, xlim=(2e-4, 2e-2), ylim=(0.02, 8), figsize=(8, 3.6),
    )  # fmt: skip


def _sweep(runs: Sequence[dict], rule: str, r: int) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for run in sweep_runs(runs, rule, r):
        found.setdefault(run["learning_rate"], []).append(run["validation"])
    return dict(sorted(found.items()))


# --- α against learning rates ----------------------------------------------------------------


def distance(runs: Sequence[dict], optimizer: str, variant: str, stop: int, **settings) -> Estimate:
    """Return the mean distance of a variant's ΔW from that of doubled α.

    Args:
        stop: after how many steps. settings: ``rate`` and ``eps``; by default the usual ones.
    """
    wanted = {"rate": SPEEDS[optimizer][1], "eps": EPS} | settings
    found = chosen(runs, optimizer=optimizer, **wanted)
    return estimates.mean([run[variant][STOPS.index(stop)] for run in found])


def share(found: Estimate) -> str:
    """Return a distance with its interval as a share of the norm."""
    value, (low, high) = found
    if high < 1e-6:
        return "0" if value == high == 0 else "below 0.0001%"
    if value > 1.5:
        return "more than 150%"
    digits = 3 if value < 1e-3 else 2 if value < 0.1 else 0
    return f"{value:.{digits}%} ({max(0, low):.{digits}%} to {high:.{digits}%})"


def apart(runs: Sequence[dict]):
    """Draw how far each variant's ΔW is from that of doubled α, over the steps."""
    found, told = {}, []
    for optimizer, name in LABEL_OF.items():
        for rate in SPEEDS[optimizer]:
            some = chosen(runs, optimizer=optimizer, rate=rate, eps=EPS)
            series = {
                variant: {stop: [run[variant][k] for run in some] for k, stop in enumerate(STOPS)}
                for variant in list(VARIANTS[optimizer])[1:]
            }
            found[f"{name}, learning rate {rate:g}"] = series
            ends = {variant: share(estimates.mean(points[STOPS[-1]])) for variant, points in series.items()}  # fmt: skip
            told.append(f"{name}, {rate:g}: " + ", ".join(f"{k}: {v}" for k, v in ends.items()))
    names = list(dict.fromkeys(variant for series in found.values() for variant in series))
    # Every panel has the same series in the same order, so that each keeps its look.
    found = {panel: {name: series.get(name, {1: float("nan")}) for name in names} for panel, series in found.items()}  # fmt: skip
    return curves(
        found, "Distance from ΔW with doubled α, by step", f"Four panels of curves over the steps. After {STOPS[-1]} steps: {'; '.join(told)}.",
        panels=True, sharey=True, xscale="log", xticks=STOPS, xlabel="training step", percent="y",
        yscale={"value": "symlog", "linthresh": 1e-4, "linscale": 0.4}, yticks=[0, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100],
        ylim=(-2e-5, 300), ylabel="‖difference‖ ÷ ‖ΔW‖", figsize=(11, 4),
    )  # fmt: skip


def distances_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the distances after the first and the last step."""
    shown = {"adam": ("learning rate of B × 2", "both learning rates × 2"), "sgd": ("both learning rates × 4",)}  # fmt: skip
    rows = {}
    ways = [("adam", rate, EPS) for rate in SPEEDS["adam"]] + [("adam", SPEEDS["adam"][1], SMALL_EPS)]  # fmt: skip
    ways += [("sgd", rate, EPS) for rate in SPEEDS["sgd"]]
    for optimizer, rate, eps in ways:
        name = LABEL_OF[optimizer] + (f", ε = {eps:g}" if eps != EPS else "")
        for variant in shown[optimizer]:
            rows[name, f"{rate:g}", variant] = {
                f"step {stop}": share(distance(runs, optimizer, variant, stop, rate=rate, eps=eps))
                for stop in (STOPS[0], STOPS[-1])
            }
    return pd.DataFrame(rows).T.rename_axis(["optimizer", "learning rate", "in place of α × 2"])


# --- what was found --------------------------------------------------------------------------


def claims(first: Sequence[dict], trained: Sequence[dict], alpha: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    sizes = [exponent(by_rank(first, "lora", "whole", k)) for k in (0, 1)]
    turned = [exponent(by_rank(first, "lora", "turned", k)) for k in (0, 1)]
    ends = [exponent(trained_by_rank(trained, "lora", k)) for k in (0, 1)]
    top = RANKS[-1]
    costs = {rule: carried(trained, rule, top) for rule in RULES}
    both, of_A, of_B = (f"{which} × 2" for which in ("both learning rates", "learning rate of A", "learning rate of B"))  # fmt: skip

    def cost(rule: str) -> str:
        moved = moved_rate(trained, rule, top)
        return f"loss {times(costs[rule])}; best learning rate {times(moved) if moved else 'at an end of the grid'}"

    last, gentle = STOPS[-1], SPEEDS["adam"][0]
    near, far, wrong = (distance(alpha, "adam", v, last) for v in (of_B, both, of_A))
    exact = distance(alpha, "adam", of_B, last, eps=SMALL_EPS)
    square, plain = (distance(alpha, "sgd", f"both learning rates × {k}", 1) for k in (4, 2))
    equal = "equals" if near[1][1] < 0.01 < far[1][0] else "is not"
    like = "as with 4 times the" if square[1][1] < 0.01 < plain[1][0] else "not as with 4 times the"
    rows = [
        (
            f"α/r: the change of the output {way(sizes[1])} when the rank changes",
            power(sizes[1]),
            f"random signs of B's columns: {power(turned[1])}; ‖ΔW‖ then {power(turned[0])}",
            f"after training at {FIXED:g}: {power(ends[1])}",
        ),
        (
            f"α/r: the norm of ΔW {way(sizes[0])}",
            power(sizes[0]),
            f"α/√r: {power(exponent(by_rank(first, 'rslora', 'whole', 0)))}",
            f"after training at {FIXED:g}: {power(ends[0])}",
        ),
        (
            f"A learning rate tuned at rank {MEETING_RANK} and used at rank {top}, α/r: the loss is {compared(costs['lora'])}",
            cost("lora"),
            "; ".join(f"{LABELS[rule]}: {compared(costs[rule])}, {cost(rule)}" for rule in RULES[1:]),
            f"one small base, 20 steps; to rank {RANKS[0]}: {times(carried(trained, 'lora', RANKS[0]))}",
        ),
        (
            f"Adam: doubling α {equal} doubling B's learning rate",
            f"{share(near)} apart after {last} steps; with ε = {SMALL_EPS:g}: {share(exact)}",
            f"both learning rates: {share(far)}; A's alone: {share(wrong)}",
            f"no weight decay or clipping; both at {gentle:g}: {share(distance(alpha, 'adam', both, last, rate=gentle))}",
        ),
        (
            f"SGD: with doubled α the first step is {like} learning rate",
            f"{share(square)} apart",
            f"twice the learning rate: {share(plain)}",
            f"{share(distance(alpha, 'sgd', 'both learning rates × 4', last, rate=SPEEDS['sgd'][0]))} apart after {last} steps at {SPEEDS['sgd'][0]:g}",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
