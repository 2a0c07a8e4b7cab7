"""Figures and tables of notebook 08: LoRA from seven initializations. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, tuned, verdict
from sftlab.exercises.ex08_lora_zero_init.experiment import BOTH_SMALL, RATE, RATES, STEPS, SWEPT
from sftlab.exercises.sweeps import Sweep, over_grids
from sftlab.statistics import best_rate as best_rate  # for the notebook
from sftlab.statistics import chosen

LABELS = {
    "A random": "A random, small",
    "A random, large": "A random, large",
    "B random": "B random, large",
    "B random, small": "B random, small",
    "both zero": "both zero",
    "both random": "both random, B large",
    BOTH_SMALL: "both random, small",
}
STEP_TICKS = (1, 5, 10, 15, 20)
# Linear near zero, so that zero has a place.
NEAR_ZERO = {"value": "symlog", "linthresh": 0.01, "linscale": 0.4}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "A product with a zero matrix is exactly zero, and adding zero rounds nothing. So a test can demand equality.",
    "b": "Each step of the zero matrix is multiplied by the random one, so larger entries lengthen the step. The best learning rate need not fall by as much as the first step grows. One possible reason, not tested here: small entries soon move by about their own size.",
    "c": "With equal entries, swapping A and B leaves the first step's length unchanged.",
}  # fmt: skip


def mean_curve(runs: Sequence[dict], name: str, how: str) -> dict[int, float]:
    """Return step -> mean over the seeds, at one learning rate."""
    values = np.mean([run[name] for run in chosen(runs, how=how, rate=RATE)], axis=0)
    return dict(enumerate(values.tolist(), 1))


def one_start(runs: Sequence[dict], how: str, alt: str):
    """Draw loss and gradient norms from one initialization, the losses of the others pale."""
    lines = {name[-1]: mean_curve(runs, name, how) for name in ("norm_A", "norm_B")}
    if not any(value for line in lines.values() for value in line.values()):
        lines = {"both are 0": lines["A"]}
    at_zero = [f"{name}: exactly 0" for name, line in lines.items() if not line[1] and any(line.values())]  # fmt: skip
    high = 2 * max(0.1, *(value for line in lines.values() for value in line.values()))
    ticks = [tick for tick in (0, 0.01, 0.1, 1, 10, 100) if tick <= high]
    axis = {"yscale": NEAR_ZERO, "yticks": ticks, "ylim": (-0.003, high), "ylabel": "norm of the gradient"}  # fmt: skip
    losses = {LABELS[other]: mean_curve(runs, "loss", other) for other in LABELS}
    return curves(
        {"loss": losses, "gradients": lines}, LABELS[how], alt, panels=True, direct=True, picked=LABELS[how],
        marked={"gradients": {(1, 0): at_zero[0]} if at_zero else {}}, xlabel="step", xticks=STEP_TICKS,
        each={"loss": {"yscale": "log", "ylim": (0.005, 8), "yticks": [0.01, 0.05, 0.2, 1, 5], "ylabel": "loss (nats per token)"}, "gradients": axis}, figsize=(9.6, 3.3),
    )  # fmt: skip


def over_rates(runs: Sequence[dict]):
    """Draw the held-out loss of the four arms with one zero matrix over the learning rate."""
    found = {
        LABELS[how]: {rate: [run["nll_end"] for run in chosen(runs, how=how, rate=rate)] for rate in RATES}
        for how in SWEPT
    }  # fmt: skip
    told = "; ".join(
        f"{how}: " + ", ".join(f"{np.mean(v):.2f} at {rate:g}" for rate, v in by.items())
        for how, by in found.items()
    )
    return curves(found, "Held-out loss after 20 steps, by learning rate",
                  f"Four curves with their range over seeds. {told}.", direct=False, xscale="log", yscale="log",
                  xticks=RATES, xlabel="learning rate", ylabel="nats per token", figsize=(7.8, 3.8))  # fmt: skip


def best(runs: Sequence[dict], how: str) -> list[dict]:
    """Return an arm's runs at the learning rate with the lowest mean validation loss."""
    found = [{**run, "learning_rate": run["rate"]} for run in chosen(runs, how=how)]
    return tuned(found, lambda run: run["validation"])


def loss_ratio(runs: Sequence[dict], how: str, against: str = "A random") -> Estimate:
    """Return an arm's held-out loss divided by another's, each at its best learning rate."""
    return estimates.ratio(*([run["nll_end"] for run in best(runs, h)] for h in (against, how)))


def rate_ratio(runs: Sequence[dict], how: str, against: str = "A random") -> Estimate:
    """Return an arm's best learning rate divided by another's, with an interval over seeds and grids."""

    def sweeps(name: str) -> list[Sweep]:
        seeds = sorted({run["seed"] for run in chosen(runs, how=name)})
        return [{r["rate"]: r["validation"] for r in chosen(runs, how=name, seed=s)} for s in seeds]

    return over_grids(sweeps(against), sweeps(how))


def own_ratio(runs: Sequence[dict], how: str, against: str = "A random") -> Estimate:
    """Return an arm's held-out loss divided by another's, each seed at its own best learning rate of the grid."""

    def own(name: str) -> list[float]:
        seeds = sorted({run["seed"] for run in chosen(runs, how=name)})
        best_ones = (
            min(chosen(runs, how=name, seed=s), key=lambda r: r["validation"]) for s in seeds
        )
        return [run["nll_end"] for run in best_ones]

    return estimates.ratio(own(against), own(how))


def at_equal_rates(runs: Sequence[dict], how: str, against: str) -> Estimate:
    """Return an arm's held-out loss divided by another's at the same learning rate, the mean of all rates."""

    def logs(name: str) -> list[float]:
        seeds = sorted({run["seed"] for run in chosen(runs, how=name)})
        some = [chosen(runs, how=name, seed=seed) for seed in seeds]
        return [float(np.exp(np.mean(np.log([run["nll_end"] for run in one])))) for one in some]

    return estimates.ratio(logs(against), logs(how))


def at_rate(runs: Sequence[dict], how: str, against: str = "A random") -> Estimate:
    """Return an arm's held-out loss divided by another's at the one learning rate that all arms have."""
    return estimates.ratio(*([run["nll_end"] for run in chosen(runs, how=h, rate=RATE)] for h in (against, how)))  # fmt: skip


def agreed(found: Sequence[Estimate], more: str, less: str) -> str:
    """Return the direction of ratios if all intervals support the same one."""
    words = {verdict(estimate, more, less, neutral=1.0) for estimate in found}
    return words.pop() if len(words) == 1 else estimates.OPEN


def why_which(runs: Sequence[dict]) -> str:
    """Return the explanation of 08.c, and what the interval says of the loss."""
    found = loss_ratio(runs, "B random, small")
    seeds = len({run["seed"] for run in runs})
    word = verdict(found, "the loss with B random is higher", "the loss with B random is lower", "no difference in loss is settled", 1.0)  # fmt: skip
    return f"{WHY['c']} Over {seeds} seeds {word}."


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return what the first step does in each arm, its best learning rate and loss."""
    lines = {}
    for how in (*SWEPT, BOTH_SMALL):
        same = how == "A random"
        moved = np.mean([run["first_update"] for run in chosen(runs, how=how, rate=RATE)])
        lines[LABELS[how]] = {
            f"‖ΔW‖/‖W‖ after one step at {RATE:g}": f"{moved:.2%}" if how in SWEPT else "–",
            "best learning rate, ratio": "–" if same else times(rate_ratio(runs, how)),
            "held-out loss, best against best": "–" if same else times(loss_ratio(runs, how)),
        }
    return pd.DataFrame(lines).T


def claims(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""

    def said(found: Estimate) -> str:
        return f"{times(found)}, {verdict(found, 'higher', 'lower', neutral=1.0)}"

    def largest(how: str) -> float:
        return max(run["difference"] for run in chosen(runs, how=how))

    one_zero = max(map(largest, SWEPT))
    still = max(abs(run["nll_end"] - run["nll_base"]) for run in chosen(runs, how="both zero"))
    size = rate_ratio(runs, "B random", "B random, small")
    which = loss_ratio(runs, "B random, small")
    first = [np.mean([run["first_update"] for run in chosen(runs, how=how, rate=RATE)]) for how in ("B random", "B random, small")]  # fmt: skip
    step = first[1] / first[0]
    large = [f(runs, "B random", "A random, large") for f in (loss_ratio, own_ratio)]
    equal = [
        at_equal_rates(runs, *pair)
        for pair in (("B random", "A random, large"), ("B random, small", "A random"))
    ]
    learned = estimates.ratio(*([run[n] for run in best(runs, "A random")] for n in ("nll_base", "nll_end")))  # fmt: skip
    rows = [
        (
            f"One zero matrix: the model starts {'at' if one_zero == 0 else 'away from'} the base",
            f"largest change of a logit {one_zero:g}, in all runs",
            f"both random: {largest('both random'):.0f}; with small entries: {largest(BOTH_SMALL):.0f}",
            f"loss after {STEPS} steps ÷ A random's, at {RATE:g}: large B {said(at_rate(runs, 'both random'))}, small {said(at_rate(runs, BOTH_SMALL))}; "
            f"small, best against best: {said(loss_ratio(runs, BOTH_SMALL))}",
        ),
        (
            f"Two zero matrices: the model {'never changes' if still == 0 else 'changes'}",
            f"held-out loss changes by {still:g}",
            f"A random: {times(learned)} of the base's loss",
            "until something other than a gradient moves a matrix",
        ),
        (
            f"Larger random entries: best learning rate {verdict(size, 'higher', 'lower', neutral=1.0)}",
            f"{times(size)}, B random",
            f"the same size, other matrix: {said(rate_ratio(runs, 'B random, small'))}",
            f"A random: {said(rate_ratio(runs, 'A random, large'))}; in proportion to the first step it would be ×{step:.2f}",
        ),
        (
            f"Which matrix is random: loss with small entries {verdict(which, 'higher with B', 'lower with B', neutral=1.0)}, with large ones {agreed(large, 'higher with B', 'lower with B')}",
            f"small {times(which)}; large {times(large[0])}, each seed at its own best {times(large[1])}",
            f"the size alone, B random: {said(loss_ratio(runs, 'B random', 'B random, small'))}; A random: {said(loss_ratio(runs, 'A random, large'))}",
            f"at equal learning rates, mean of all {len(RATES)}, B ÷ A: large {said(equal[0])}; small {said(equal[1])}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
