"""Figures of notebook 08: LoRA from four starting points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftlab.classroom.figures import curves
from sftlab.exercises.ex08_lora_zero_init.experiment import RATES
from sftlab.statistics import chosen

LABELS = {
    "A random": "A random, B zero",
    "B random": "A zero, B random",
    "both zero": "A zero, B zero",
    "both random": "A random, B random",
}
STEP_TICKS = (1, 5, 10, 15, 20)
ORDER = ("A random", "B random", "both random", "both zero")
# Linear near zero, so that zero has a place.
NEAR_ZERO = {"value": "symlog", "linthresh": 0.01, "linscale": 0.4}


def _norms(norms_A: Sequence[float], norms_B: Sequence[float]) -> tuple[dict, dict, dict]:
    """Lines of both norms, marks where one is 0 at the first step only, and their axis."""
    lines = {"A": dict(enumerate(norms_A, 1)), "B": dict(enumerate(norms_B, 1))}
    if not any([*norms_A, *norms_B]):
        lines = {"both are 0": lines["A"]}
    at_zero = [f"{name}: exactly 0" for name, line in lines.items() if not line[1] and any(line.values())]  # fmt: skip
    marked = {(1, 0): at_zero[0]} if at_zero else {}
    high = 2 * max(*norms_A, *norms_B, 0.1)
    ticks = [tick for tick in (0, 0.01, 0.1, 1, 10, 100) if tick <= high]
    axis = {"yscale": NEAR_ZERO, "yticks": ticks, "ylim": (-0.003, high), "ylabel": "norm of the gradient"}  # fmt: skip
    return lines, marked, axis


def gradient_norms(norms_A: Sequence[float], norms_B: Sequence[float]):
    """The gradients' norms over the steps."""
    lines, marked, axis = _norms(norms_A, norms_B)
    zeros = {name: list(norms).count(0) for name, norms in (("A", norms_A), ("B", norms_B))}
    steps = len(norms_A)
    title = f"The gradient of A is zero at {zeros['A']} of {steps} steps, that of B at {zeros['B']}"
    alt = (
        f"Line chart over {steps} steps of the gradients' norms. A's begins at {norms_A[0]:.2g} and ends at "
        f"{norms_A[-1]:.2g}, B's goes from {norms_B[0]:.2g} to {norms_B[-1]:.2g}; exactly zero are "
        f"{zeros['A']} norms of A and {zeros['B']} of B."
    )
    return curves(lines, title, alt, marked=marked, xlabel="step", xticks=STEP_TICKS, **axis)


def mean_curve(runs: Sequence[dict], name: str, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Mean, lowest and highest value over the seeds, step by step."""
    values = np.array([run[name] for run in chosen(runs, how=how, rate=RATES[1])])
    return values.mean(0), values.min(0), values.max(0)


def four_losses(runs: Sequence[dict]):
    """The training loss from four starting points: mean over the seeds, and their range."""
    found = {LABELS[how]: _over_steps(runs, how) for how in ORDER}
    ends = {how: [np.mean(points[n]) for n in (min(points), max(points))] for how, points in found.items()}  # fmt: skip
    learn = sum(end < start / 2 for start, end in ends.values())
    worst = max(ends, key=lambda how: ends[how][0])
    told = "; ".join(f"{how} from {start:.1f} to {end:.1f}" for how, (start, end) in ends.items())
    return curves(
        found,
        f"{learn} of {len(found)} starts halve their loss; the worst beginning: {worst}",
        f"Line chart of the training loss from four starting points, means of the seeds with their range: {told}.",
        direct=False, xlabel="step", ylabel="loss (nats per trained token)", ylim=(0, None), xticks=STEP_TICKS, figsize=(7.6, 3.8),
    )  # fmt: skip


def _over_steps(runs: Sequence[dict], how: str) -> dict[int, list[float]]:
    """Step -> the loss of every seed."""
    each = [run["loss"] for run in chosen(runs, how=how, rate=RATES[1])]
    return dict(enumerate(map(list, zip(*each, strict=True)), 1))


def over_rates(runs: Sequence[dict]):
    """Held-out loss of the two starts with one zero matrix, over the learning rate: mean, range."""
    starts = ("A random", "B random")
    found = {LABELS[how]: {rate: _ends(runs, how, rate) for rate in RATES} for how in starts}
    good = {how: max(good_rates(runs, how)) for how in starts}
    more = max(good, key=lambda how: good[how])
    title = f"{LABELS[more]} stands rates up to {good[more]:g}, the other up to {min(good.values()):g}"  # fmt: skip
    told = "; ".join(
        f"{how}: " + ", ".join(f"{np.mean(v):.2f} at {rate:g}" for rate, v in points.items())
        for how, points in found.items()
    )
    return curves(
        found, title, f"Line chart of held-out loss over four learning rates for two starts. {told}.",
        direct=False, axhline={runs[0]["nll_base"]: "the base"}, xscale="log", yscale="log", xticks=RATES, xlabel="learning rate",
        ylabel="held-out NLL after 20 steps\n(nats per token)", figsize=(7.4, 3.6),
    )  # fmt: skip


def _ends(runs: Sequence[dict], how: str, rate: float) -> list[float]:
    """The final NLL of the three seeds that every rate has."""
    return [run["nll_end"] for run in chosen(runs, how=how, rate=rate) if run["seed"] < 3]


def good_rates(runs: Sequence[dict], how: str) -> list[float]:
    """The recorded rates with a mean held-out NLL below twice the lowest."""
    means = {rate: np.mean(_ends(runs, how, rate)) for rate in RATES}
    return [rate for rate, mean in means.items() if mean < 2 * min(means.values())]


def one_start(runs: Sequence[dict], how: str, alt: str):
    """The explorer's picture: loss and gradient norms from one starting point."""
    lines, marked, axis = _norms(*(mean_curve(runs, name, how)[0] for name in ("norm_A", "norm_B")))
    losses = {LABELS[other]: _over_steps(runs, other) for other in ORDER}
    return curves(
        {"loss": losses, "gradients": lines}, LABELS[how], alt, panels=True, direct=True, picked=LABELS[how],
        marked={"gradients": marked}, xlabel="step", xticks=STEP_TICKS,
        each={"loss": {"ylim": (0, 7), "ylabel": "loss (nats per token)"}, "gradients": axis}, figsize=(9.6, 3.3),
    )  # fmt: skip
