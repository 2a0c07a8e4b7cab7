"""Figures and tables of notebook 10: learning rates of full fine-tuning and LoRA, from recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom.plots import BLUE, GREY, ORANGE
from sftlab.exercises.ex10_lora_learning_rate.experiment import METHODS
from sftlab.statistics import best_rate, chosen, mean_with_interval

LOOKS = {"full": (BLUE, "o", "-", "full fine-tuning"), "lora": (ORANGE, "s", "--", "LoRA, r = 8")}


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


def _seeds_and_mean(axis, runs: Sequence[dict], name: str) -> None:
    """A thin line per seed, the mean of all in front; means of losses are geometric."""
    for method in METHODS:
        colour, mark, dash, label = LOOKS[method]
        lines = sweeps(runs, method, name)
        rates = list(lines[0])
        values = np.array([[line[rate] for rate in rates] for line in lines])
        for row in values:
            axis.plot(rates, row, color=colour, lw=0.8, alpha=0.45, ls="-")
        share = name in ("exact", "recall")
        mean = values.mean(0) if share else np.exp(np.log(values).mean(0))
        axis.plot(rates, mean, color=colour, marker=mark, ms=5, ls=dash, lw=2, label=label)
    axis.set(xscale="log", xlabel="learning rate")
    axis.minorticks_off()


def u_curves(runs: Sequence[dict], title: str):
    """Held-out loss over the rate for both methods, with each method's best rate."""
    figure, axis = plt.subplots(figsize=(7.6, 3.7))
    _seeds_and_mean(axis, runs, "nll")
    axis.set(yscale="log", ylabel="held-out NLL of the response\n(nats per token)", title=title)
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.minorticks_off()
    low = min(run["nll"] for run in runs)
    axis.set_ylim(low / 2.6, 12)
    for method in METHODS:
        best = float(np.exp(np.mean(np.log(best_rates(runs, method)))))
        axis.axvline(best, color=LOOKS[method][0], lw=1.2, ls=":")
        axis.annotate(f"best {best:.1e}".replace("e-0", "e-"), (best, low / 2.3), xytext=(4, 0),
                      textcoords="offset points", color="black", fontsize=9.5)  # fmt: skip
    for method in METHODS:
        rate, start = next(iter(sweeps(runs, method)[0].items()))
        axis.annotate(LOOKS[method][3], (rate, start), xytext=(-2, 9), textcoords="offset points",
                      color="black", weight="bold", fontsize=9.5)  # fmt: skip
    return figure


def forgetting(runs: Sequence[dict], before: Mapping[str, float], title: str):
    """Loss on the base's own documents and recall of untouched facts, along the rates."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for axis, name in zip(axes, ("documents", "recall"), strict=True):
        _seeds_and_mean(axis, runs, name)
        axis.axhline(before[name], color=GREY, lw=1.2, ls=":")
        for method in METHODS:
            best = float(np.exp(np.mean(np.log(best_rates(runs, method)))))
            axis.axvline(best, color=LOOKS[method][0], lw=1.2, ls=":")
    axes[0].set(yscale="log", ylabel="NLL of base documents\n(nats per token)")
    axes[0].set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes[0].minorticks_off()
    axes[1].set(ylabel="untouched facts recalled", ylim=(-0.03, 1.06))
    axes[1].set_yticks(np.linspace(0, 1, 6), [f"{x:.0%}" for x in np.linspace(0, 1, 6)])
    axes[0].legend(loc="upper left", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def price(runs: Sequence[dict], before: float, title: str):
    """What was learned against what was lost: one point per run, runs that diverged left out."""
    figure, axis = plt.subplots(figsize=(6.8, 3.5))
    for method in METHODS:
        colour, mark, _, label = LOOKS[method]
        kept = [run for run in chosen(runs, method=method) if run["documents"] < 4]
        axis.plot([r["nll"] for r in kept], [r["documents"] for r in kept], mark, color=colour, ms=6,
                  alpha=0.75, label=label, mfc=colour if method == "full" else "white", ls="")  # fmt: skip
    axis.axhline(before, color=GREY, lw=1.2, ls=":")
    axis.annotate("before tuning", (0.99, before), xycoords=axis.get_yaxis_transform(), ha="right",
                  xytext=(0, 4), textcoords="offset points", fontsize=9, color="#555555")  # fmt: skip
    axis.set(xscale="log", yscale="log", title=title, xlabel="held-out NLL of the response (nats per token; left is better)",
             ylabel="NLL of base documents\n(nats per token)")  # fmt: skip
    axis.set_xticks([0.05, 0.1, 0.3, 1, 3], ["0.05", "0.1", "0.3", "1", "3"])
    axis.set_yticks([0.6, 1, 2, 3], ["0.6", "1", "2", "3"])
    axis.minorticks_off()
    axis.legend(fontsize=9.5)
    return figure


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


def training(curves: Mapping[str, tuple[str, Sequence[float]]], title: str):
    """Training loss over the steps. ``curves``: label -> (method, losses)."""
    figure, axis = plt.subplots(figsize=(7.8, 3.3))
    for label, (method, losses) in curves.items():
        colour, mark, dash, _ = LOOKS[method]
        axis.plot(range(1, len(losses) + 1), losses, color=colour, ls=dash, marker=mark, ms=3.5)
        axis.annotate(label, (len(losses), losses[-1]), xytext=(7, -3), textcoords="offset points",
                      fontsize=9.5, color="black")  # fmt: skip
    steps = max(len(losses) for _, losses in curves.values())
    axis.set(xlabel="optimiser step", ylabel="loss on the batch\n(nats per trained token)", title=title, yscale="log",
             xlim=(0, 1.32 * steps))  # fmt: skip
    axis.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axis.minorticks_off()
    return figure


def one_run(method: str, rate: float, losses: Sequence[float], before: float, after: float):
    """The explorer's picture: the loss of one short run, and the held-out loss before and after."""
    figure, (axis, side) = plt.subplots(1, 2, figsize=(8.4, 2.7), width_ratios=(2.2, 1))
    colour, mark, dash, label = LOOKS[method]
    axis.plot(range(1, len(losses) + 1), losses, color=colour, ls=dash, marker=mark, ms=3)
    axis.set(
        xlabel="optimiser step", ylabel="loss on the batch (nats)", yscale="log", ylim=(0.005, 40)
    )
    axis.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axis.minorticks_off()
    axis.set_title(f"{label}, rate {rate_name(rate)}")
    bars = side.bar(("before", "after"), (before, after), color=(GREY, colour), width=0.6)
    side.bar_label(bars, [f"{before:.2f}", f"{after:.2f}"], padding=2, weight="bold")
    side.set(ylim=(0, 1.2 * max(before, after)), title="held-out NLL")
    return figure
