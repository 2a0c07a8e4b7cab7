"""Figures and tables of notebook 10: learning rates of full fine-tuning and LoRA. Their words follow the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.stats import gmean

from sftlab.classroom.figures import curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.trade_off import FULL, LORA, STRONG
from sftlab.statistics import best_rate, chosen, rate_ratio

LOST = 0.05  # nats on base documents at which equal forgetting is compared
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "AdamW moves every trained entry by about the learning rate. In LoRA these are entries of A and B, and the product moves W by less.",
    "b": "The first step of W is shorter by the factor that you computed. Later A moves too and B has grown, so the factor of the whole training is another.",
    "c": "α multiplies every step of W. If the first steps decided, the ratio would be 0.25. If A moved much further than its start, ΔW would grow with α times the learning rate squared: 0.5.",
}  # fmt: skip

Sweep = dict[float, float]


def sweeps(runs: Sequence[dict], method: str, name: str = "validation") -> list[Sweep]:
    """Return learning rate -> a measurement after the last step, one dictionary per seed."""
    found: dict[int, Sweep] = {}
    for run in chosen(runs, method=method):
        found.setdefault(run["seed"], {})[run["learning_rate"]] = run[name][-1]
    return [dict(sorted(found[seed].items())) for seed in sorted(found)]


def over_grids(first: Sequence[Sweep], second: Sequence[Sweep]) -> Estimate:
    """Return the ratio of the best learning rates, second over first, and how far the grids can move it.

    One learning rate at a time is left out of either grid that has more than four. The ends are the lowest and
    the highest of the 95% t intervals over seeds, of the whole grids and of all that keep a minimum inside.

    Raises:
        ValueError: a lowest loss is at the end of its whole grid.
    """
    whole, ends = rate_ratio(first, second)
    lows, highs = zip(ends, *left_out(first, second), strict=True)
    return whole, (min(lows), max(highs))


def left_out(first: Sequence[Sweep], second: Sequence[Sweep]) -> list[tuple[float, float]]:
    """Return the intervals of ``over_grids`` with one learning rate of either grid left out."""
    grids = [list(some[0]) if len(some[0]) > 4 else [0.0] for some in (first, second)]
    found = []
    for out in product(*grids):
        thinned = [
            [{r: v for r, v in sweep.items() if r != rate} for sweep in some]
            for some, rate in zip((first, second), out, strict=True)
        ]
        with suppress(ValueError):  # a minimum at the end of a thinned grid
            found.append(rate_ratio(*thinned)[1])
    return found


def ratio(runs: Sequence[dict], one: str = LORA, other: str = FULL) -> Estimate:
    """Return one method's best learning rate over another's, by the validation loss."""
    return over_grids(sweeps(runs, other), sweeps(runs, one))


def mean_sweep(runs: Sequence[dict], method: str) -> Sweep:
    """Return learning rate -> the validation loss, geometric mean over the seeds."""
    found = sweeps(runs, method)
    return {rate: float(gmean([sweep[rate] for sweep in found])) for rate in found[0]}


def inside(runs: Sequence[dict]) -> Estimate | None:
    """Return the ratio, or None if a seed's lowest loss is at the end of its grid."""
    try:
        return ratio(runs)
    except ValueError:
        return None


def grid_best(runs: Sequence[dict], method: str) -> float:
    """Return the learning rate of the grid with the lowest mean log loss on the validation questions."""
    found = sweeps(runs, method)
    return min(found[0], key=lambda rate: np.mean([math.log(sweep[rate]) for sweep in found]))


def loss_at(runs: Sequence[dict], method: str, rate: float) -> list[float]:
    """Return the loss on the test questions at a learning rate, of every seed."""
    return [sweep[rate] for sweep in sweeps(runs, method, "test")]


def reused(runs: Sequence[dict]) -> Estimate:
    """Return LoRA's loss on the test questions at full fine-tuning's learning rate, over full's at its best."""
    return estimates.ratio(
        loss_at(runs, FULL, grid_best(runs, FULL)), loss_at(runs, LORA, near(runs))
    )


def near(runs: Sequence[dict]) -> float:
    """Return the learning rate of LoRA's grid that is nearest to full fine-tuning's best one."""
    best = grid_best(runs, FULL)
    return min(sweeps(runs, LORA)[0], key=lambda rate: abs(math.log(rate / best)))


def tuned(runs: Sequence[dict]) -> Estimate:
    """Return LoRA's loss on the test questions over full fine-tuning's, each at its best learning rate."""
    return estimates.ratio(*(loss_at(runs, m, grid_best(runs, m)) for m in (FULL, LORA)))


def rises(runs: Sequence[dict], method: str, rate: float) -> list[float]:
    """Return the rise of the loss on base documents after the last step, of every seed."""
    before = chosen(runs, method=method)[0]["test_documents"][0]
    return [sweep[rate] - before for sweep in sweeps(runs, method, "test_documents")]


def costlier(runs: Sequence[dict]) -> Estimate:
    """Return LoRA's rise on base documents minus full fine-tuning's, each at the best rate of its grid."""
    return estimates.change(*(rises(runs, m, grid_best(runs, m)) for m in (FULL, LORA)))


def runner_up(runs: Sequence[dict], method: str) -> tuple[float, Estimate]:
    """Return the second best learning rate of a grid, and its validation loss over that of the best one."""
    found, best = sweeps(runs, method), grid_best(runs, method)
    others = [rate for rate in found[0] if rate != best]
    rate = min(others, key=lambda r: np.mean([math.log(sweep[r]) for sweep in found]))
    return rate, estimates.ratio([s[best] for s in found], [s[rate] for s in found])


@torch.no_grad()
def start_moved(model, start) -> float:
    """Return ‖ΔA‖ / ‖A‖ over all adapters: how far A moved from its start."""
    pairs = [
        (p, start.get_parameter(n)) for n, p in model.named_parameters() if n.endswith(".A")
    ]  # fmt: skip
    change, size = (
        sum(x.square().sum().item() for x in some)
        for some in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return math.sqrt(change / size)


def where_lost(runs: Sequence[dict], method: str, lost: float = LOST) -> list[float]:
    """Return the learning rate at which as much is lost on base documents, of every seed.

    It is interpolated in logarithms where the rise first exceeds ``lost``; nan if it never does.
    """
    found = []
    for run in sweeps(runs, method, "test_documents"):
        before = chosen(runs, method=method)[0]["test_documents"][0]
        risen = [max(value - before, 1e-5) for value in run.values()]
        rates = list(run)
        k = next((k for k, rise in enumerate(risen) if rise >= lost), None)
        if not k:
            found.append(math.nan)
            continue
        part = math.log(lost / risen[k - 1]) / math.log(risen[k] / risen[k - 1])
        found.append(rates[k - 1] * (rates[k] / rates[k - 1]) ** part)
    return found


def lost_ratio(runs: Sequence[dict], one: str = LORA, other: str = FULL) -> Estimate | None:
    """Return the learning rate at which one method has lost ``LOST`` over that of another, by seed."""
    pair = where_lost(runs, other), where_lost(runs, one)
    return None if np.isnan(pair).any() else estimates.ratio(*pair)


def u_curves(runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA)):
    """Draw the held-out loss over the learning rate, with each method's best one."""
    found = {
        m: {r: [s[r] for s in sweeps(runs, m)] for r in sweeps(runs, m)[0]} for m in methods
    }  # fmt: skip
    best = {m: best_rate(mean_sweep(runs, m)) for m in methods}
    told = "; ".join(f"{m}: best {rate:.1e}" for m, rate in best.items())
    return curves(
        found, "Validation loss after the last step, by learning rate", f"Curves over the learning rate. {told}.",
        spread="lines", mean=gmean, direct=False, axvline={rate: f"{rate:.1e}" for rate in best.values()},
        xscale="log", yscale="log", xlabel="learning rate", ylabel="nats per token", figsize=(7.8, 3.8),
    )  # fmt: skip


def forgetting(runs: Sequence[dict]):
    """Draw the loss on base documents over the learning rate, after the last step."""
    found = {
        m: {r: [s[r] for s in sweeps(runs, m, "test_documents")] for r in sweeps(runs, m)[0]}
        for m in (FULL, LORA)
    }
    before = chosen(runs, method=FULL)[0]["test_documents"][0]
    told = "; ".join(
        f"{m}: " + ", ".join(f"{np.mean(v):.2f} at {rate:g}" for rate, v in by.items())
        for m, by in found.items()
    )
    return curves(
        found, "Loss on base documents after the last step, by learning rate",
        f"Curves with the range over seeds. {told}. Before training {before:.2f}.", direct=False,
        axhline={before: "base", before + LOST: f"+{LOST:g}"}, xscale="log", yscale="log",
        xlabel="learning rate", ylabel="nats per token", figsize=(7.8, 3.6),
    )  # fmt: skip


def told(found: Estimate | None) -> str:
    """Return a ratio with its interval and direction as text."""
    if found is None:
        return "not measured: it lies outside the grid"
    return f"{times(found)}, {verdict(found, 'higher', 'lower', neutral=1.0)}"


def ratios_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the ratio of LoRA's best learning rate to full fine-tuning's, by what it is computed from."""
    by = {name: [sweeps(runs, m, name) for m in (FULL, LORA)] for name in ("validation", "test")}
    lines = {
        "validation questions; grids thinned, too": times(over_grids(*by["validation"])),
        "validation questions; seeds alone": times(rate_ratio(*by["validation"])),
        "test questions; grids thinned, too": times(over_grids(*by["test"])),
        f"equal forgetting ({LOST:g} nats); seeds alone": told(lost_ratio(runs)),
    }
    return pd.DataFrame({"LoRA's ÷ full fine-tuning's": lines})


def claims(runs: Sequence[dict], real: Sequence[dict], steps: Mapping[str, float]) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        steps: method -> length of its first step in W, over full fine-tuning's at the same learning rate.
    """
    found, smol, strong = ratio(runs), inside(real) if real else None, ratio(runs, STRONG, LORA)
    on_test = over_grids(*(sweeps(runs, m, "test") for m in (FULL, LORA)))
    first, cost = {m: 1 / steps[m] for m in (LORA, STRONG)}, costlier(runs)
    next_rate, level = runner_up(runs, FULL)
    next_rise = np.mean(rises(runs, FULL, next_rate))
    against_full = rate_ratio(sweeps(runs, FULL), sweeps(runs, STRONG))
    again, own, lost = reused(runs), tuned(runs), lost_ratio(runs)
    on_real = "24 steps, one small base"
    if real:
        full, lora = (best_rate(mean_sweep(real, m)) for m in (FULL, LORA))
        spread = (
            times(smol)
            if smol
            else "not settled: some seeds' lowest losses are at an end of their grid"
        )
        on_real = f"SmolLM2, 12 steps: ×{lora / full:.1f} by the mean curves; {spread}"
    rows = [
        (
            f"LoRA's best learning rate is {verdict(found, 'higher', 'lower', neutral=1.0)}",
            times(found),
            f"on other questions: {times(on_test)}",
            on_real,
        ),
        (
            f"Near full fine-tuning's best learning rate, LoRA's loss is {verdict(again, 'higher', 'lower', neutral=1.0)}",
            times(again),
            f"each at its own: {told(own)}",
            f"24 steps; full's best of its grid is {grid_best(runs, FULL):g}, LoRA's nearest {near(runs):g}",
        ),
        (
            f"With four times the α the best learning rate is {verdict(strong, 'higher', 'lower', neutral=1.0)}",
            times(strong),
            "if the first steps decided: ×0.25; if A's own movement did: ×0.5; if α did nothing: ×1",
            f"α = 64 against full: {times(against_full)}; first step alone: ×{first[STRONG]:.2f}",
        ),
        (
            f"The learning rate at which as much is forgotten is {verdict(lost, 'higher', 'lower', neutral=1.0) if lost else 'not measured'}",
            told(lost),
            f"first step of W equally long: ×{first[LORA]:.1f}; best for the held-out loss: ×{found[0]:.1f}",
            f"{LOST:g} nats on short documents of one small base",
        ),
        (
            f"Each method at the best rate of its grid: LoRA {verdict(cost, 'forgets more', 'forgets less', f'against full, {estimates.OPEN}')}",
            f"rise {cost[0]:+.2f} ({cost[1][0]:+.2f} to {cost[1][1]:+.2f}) nats, LoRA − full",
            f"losses, LoRA ÷ full: {told(own)}",
            f"full at {next_rate:g} rises {next_rise:.2f}; its validation loss is {times(level)} that of the best",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
