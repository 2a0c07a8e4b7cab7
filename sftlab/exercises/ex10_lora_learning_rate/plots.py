"""Figures and tables of notebook 10: learning rates of full fine-tuning and LoRA, from recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import gmean

from sftlab.classroom.figures import curves
from sftlab.exercises.ex10_lora_learning_rate.experiment import METHODS
from sftlab.statistics import best_rate, chosen, mean_with_interval

LABELS = {"full": "full fine-tuning", "lora": "LoRA, r = 8"}


def rate_name(rate: float) -> str:
    """A rate as people write it: 3e-4."""
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def sweeps(runs: Sequence[dict], method: str, name: str = "nll") -> list[dict[float, float]]:
    """Rate -> a measurement, one dictionary per seed."""
    found: dict[int, dict[float, float]] = {}
    for run in chosen(runs, method=method):
        found.setdefault(run["seed"], {})[run["rate"]] = run[name]
    return [dict(sorted(sweep.items())) for sweep in found.values()]


def best_rates(runs: Sequence[dict], method: str) -> list[float]:
    """The best rate of each seed."""
    return [best_rate(sweep) for sweep in sweeps(runs, method)]


def best_grid_rate(runs: Sequence[dict], method: str) -> float:
    """The swept rate whose log loss, averaged over the seeds, is the lowest."""
    rates = sorted({run["rate"] for run in chosen(runs, method=method)})
    losses = [
        np.mean([np.log(r["nll"]) for r in chosen(runs, method=method, rate=x)]) for x in rates
    ]
    return rates[int(np.argmin(losses))]


def _over_rates(runs: Sequence[dict], name: str) -> dict[str, dict[float, list[float]]]:
    """Method -> rate -> a measurement of every seed."""
    found = {}
    for method, label in LABELS.items():
        rates = list(sweeps(runs, method)[0])
        found[label] = {r: [s[r] for s in sweeps(runs, method, name)] for r in rates}
    return found


def _best(runs: Sequence[dict]) -> dict[str, float]:
    """Each method's best rate: the geometric mean over the seeds."""
    return {method: float(gmean(best_rates(runs, method))) for method in METHODS}


def u_curves(runs: Sequence[dict]):
    """Held-out loss over the rate for both methods, with each method's best rate."""
    best = _best(runs)
    told = {method: f"{rate:.1e}".replace("e-0", "e-") for method, rate in best.items()}
    return curves(
        _over_rates(runs, "nll"),
        f"LoRA's valley lies {best['lora'] / best['full']:.0f} times further right",
        f"Two U-shaped curves of held-out loss over the learning rate, thin lines for seeds. Full fine-tuning "
        f"is best at {told['full']}, LoRA at {told['lora']}.",
        spread="lines", mean=gmean, direct=False, axvline={rate: f"best {told[m]}" for m, rate in best.items()},
        xscale="log", yscale="log", xlabel="learning rate",
        ylabel="held-out NLL of the response\n(nats per token)", figsize=(7.8, 3.8),
    )  # fmt: skip


def forgetting(runs: Sequence[dict], before: Mapping[str, float]):
    """Loss on the base's own documents and recall of untouched facts, along the rates."""
    names = {"documents": "NLL of base documents\n(nats per token)", "recall": "untouched facts recalled"}  # fmt: skip
    at_best = {
        name: [
            mean_with_interval(runs, name, method=m, rate=best_grid_rate(runs, m))[0]
            for m in METHODS
        ]
        for name in names
    }
    documents = " and ".join(f"{value:.2f}" for value in at_best["documents"])
    recall = " and ".join(f"{value:.0%}" for value in at_best["recall"])
    return curves(
        {name: _over_rates(runs, name) for name in names},
        f"At the best rates: {documents} nats on documents ({before['documents']:.2f} before), {recall} recalled",
        "Two panels over the learning rate, full fine-tuning and LoRA. At their best swept rates the loss on base "
        f"documents is {documents} nats, from {before['documents']:.2f} before tuning, and {recall} of the untouched "
        "facts are recalled; beyond those rates the loss climbs and recall falls.",
        panels=True, spread="lines", xscale="log", xlabel="learning rate",
        axvline=dict.fromkeys(_best(runs).values(), ""), figsize=(9, 3.6),
        each={
            "documents": {"yscale": "log", "ylabel": names["documents"], "axhline": {before["documents"]: ""}},
            "recall": {"percent": "y", "ylabel": names["recall"], "axhline": {before["recall"]: ""}},
        },
    )  # fmt: skip


def price(runs: Sequence[dict], before: float):
    """What was learned against what was lost: one point per run, runs that diverged left out."""
    kept = {
        label: {r["nll"]: r["documents"] for r in chosen(runs, method=m) if r["documents"] < 4}
        for m, label in LABELS.items()
    }
    ends = {}
    for method, label in LABELS.items():
        rate = best_grid_rate(runs, method)
        learned, lost = (mean_with_interval(runs, n, method=method, rate=rate)[0] for n in ("nll", "documents"))  # fmt: skip
        ends[label] = rate_name(rate), learned, lost
    low = min(ends, key=lambda label: ends[label][1])
    told = "; ".join(f"{k} at {rate}: {a:.2f}, documents {b:.2f}" for k, (rate, a, b) in ends.items())  # fmt: skip
    return curves(
        kept,
        f"Lowest loss: {low} at {ends[low][0]}; documents then at {ends[low][2]:.2f}",
        "Scatter plot of the loss on base documents over the held-out loss, a point for each run. "
        f"Means at the best rates: {told}. Before tuning the documents have {before:.2f}.",
        lines=False, xscale="log", yscale="log", axhline={before: "before\ntuning"},
        xlabel="held-out NLL of the response (nats per token; left is better)",
        ylabel="NLL of base documents\n(nats per token)", figsize=(7.2, 3.8),
    )  # fmt: skip


def summary(runs: Sequence[dict], method: str) -> list[list]:
    """One row per rate: what was learned and what was lost, means over seeds."""
    lines = []
    for rate in sorted({run["rate"] for run in chosen(runs, method=method)}):
        arm = {"method": method, "rate": rate}
        nll, documents = (mean_with_interval(runs, n, **arm)[0] for n in ("nll", "documents"))
        exact, (low, high) = mean_with_interval(runs, "exact", **arm)
        recall = mean_with_interval(runs, "recall", **arm)[0]
        interval = f"{max(0, low):.0%} to {min(1, high):.0%}"
        lines.append([rate_name(rate), f"{nll:.2f}", f"{exact:.0%}", interval, f"{documents:.2f}", f"{recall:.0%}"])  # fmt: skip
    return lines


def training(found: Mapping[str, tuple[str, Sequence[float]]]):
    """Training loss over the steps. ``found``: label -> (method, losses)."""
    lines = {label: dict(enumerate(losses, 1)) for label, (_, losses) in found.items()}
    ends = [f"{label}: {np.mean(losses[-4:]):.2g}" for label, (_, losses) in found.items()]
    title = f"In the last four steps: {'; '.join(ends[:2])}"
    alt = f"Training loss over the steps, means of the last four: {'; '.join(ends)}."
    return curves(lines, title, alt, yscale="log", xlabel="optimiser step",
                  ylabel="loss on the batch\n(nats per trained token)")  # fmt: skip


def one_run(
    method: str, rate: float, losses: Sequence[float], before: float, after: float, alt: str
):
    """The explorer's picture: the loss of one short run, and the held-out loss before and after."""
    lines = {
        "on the batch": dict(enumerate(losses, 1)),
        "held out": {0: before, len(losses): after},
    }
    title = (
        f"{LABELS[method]}, rate {rate_name(rate)}: held-out loss from {before:.2f} to {after:.2f}"
    )
    return curves(lines, title, alt, yscale="log", ylim=(0.005, 40), xlabel="optimiser step",
                  ylabel="loss (nats per token)", figsize=(8, 3))  # fmt: skip
