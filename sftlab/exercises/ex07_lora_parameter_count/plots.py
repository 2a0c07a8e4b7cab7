"""Figures and tables of notebook 07. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from sftlab.classroom.figures import BLUE, GREY, ORANGE, curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, percent, times, tuned, verdict
from sftlab.exercises.ex07_lora_parameter_count.experiment import (
    FULL,
    LORA,
    RANKS,
    RATES,
    STEPS,
)
from sftlab.exercises.ex07_lora_parameter_count.optimizers import ADAMW, LONG, SGD
from sftlab.lora import break_even_rank, lora_parameter_count
from sftlab.statistics import chosen

WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "A gradient is a sum of products of two vectors, one for each token. Where tokens and steps agree, they add up in few directions.",
    "b": "The loss depends on what a direction does to the answers, not only on its length.",
    "c": "A weight grows with the square of its width, A and B with the width. So a share far below 1% is a statement about large models.",
}  # fmt: skip


def short(number: float) -> str:
    """A count in four characters or so: 65.5K, 16.8M, 70.6B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def spectrum(found: Mapping[str, Mapping[int, float]]):
    """Draw the energy that the top r singular directions of some matrices keep: name -> r -> share."""
    found = {name.split("layers.")[-1]: by for name, by in found.items()}
    told = "; ".join(f"{name}: {by[2]:.0%} at rank 2" for name, by in found.items())
    return curves(found, "Share of ‖ΔW‖² in the r largest singular directions",
                  f"Rising curves over the rank. {told}.", percent="y", xscale={"value": "log", "base": 2},
                  xticks=list(RANKS), xlabel="rank r", ylim=(0, 1), figsize=(7.8, 3.6))  # fmt: skip


def loss_on(run: dict, questions: str) -> float:
    """Return a run's loss on the "validation" or on the "test" questions."""
    return run["validation"] if questions == "validation" else run["test"]["nll"]


def best(runs: Sequence[dict], method: str, by: str = "validation", **settings) -> list[dict]:
    """Return the runs of a method at the learning rate with the lowest loss on some questions."""
    return tuned(chosen(runs, method=method, **settings), lambda run: loss_on(run, by))


def losses(runs: Sequence[dict], arm: str, r: int = 0, of: str = "test") -> list[float]:
    """Return the held-out loss of every seed: of "top", "rest" or "short", LORA at rank r, or FULL.

    The learning rate is chosen on the other set of questions.

    Args:
        of: the questions of the result, "test" or "validation"; the latter for LORA and FULL alone.
    """
    if arm in ("top", "rest", "short"):
        return [run[arm][str(r)]["nll"] for run in best(runs, FULL)]
    settings = {"r": r} if arm == LORA else {}
    by = "validation" if of == "test" else "test"
    return [loss_on(run, of) for run in best(runs, arm, by, **settings)]


def kept(runs: Sequence[dict], r: int) -> tuple[Estimate, Estimate]:
    """Return the energy in the top r directions of the update, and of random entries."""
    found = best(runs, FULL)
    return (
        estimates.mean([run["top"][str(r)]["energy"] for run in found]),
        estimates.mean([run["random"][str(r)] for run in found]),
    )


def exact(runs: Sequence[dict], arm: str, r: int = 0) -> Estimate:
    """Return the share of exact answers with "top" or "rest" of the update, or with the whole: "test"."""
    return estimates.mean(
        [(run[arm][str(r)] if r else run[arm])["exact"] for run in best(runs, FULL)]
    )


def gained(runs: Sequence[dict], arm: str, r: int, nothing: float) -> Estimate:
    """Return which share of the nats that the whole update gains an arm gains.

    Args:
        nothing: the loss of the base.
    """
    pairs = zip(losses(runs, FULL), losses(runs, arm, r), strict=True)
    return estimates.mean([(nothing - part) / (nothing - whole) for whole, part in pairs])


def by_rate(runs: Sequence[dict], arm: str, r: int = 2) -> str:
    """Return an arm's loss divided by that of the whole update at each learning rate of full fine-tuning."""
    found = {rate: chosen(runs, method=FULL, learning_rate=rate) for rate in RATES[FULL]}
    return ", ".join(
        f"{times(estimates.ratio([run['test']['nll'] for run in some], [run[arm][str(r)]['nll'] for run in some]))} at {rate:g}"
        for rate, some in found.items()
    )


def after(others: Sequence[dict], optimizer: str, steps: int) -> list[dict]:
    """Return what an optimizer's runs hold after some steps; SGD's at the best learning rate of 24."""
    long = (
        optimizer == ADAMW or steps > STEPS
    )  # a longer run of SGD repeats the steps of a short one
    some = [run for run in others if run["optimizer"] == optimizer and ("steps" in run) == long]
    found = tuned(some, lambda run: run[str(max(steps, STEPS))]["validation"])
    return [run[str(steps)] for run in found]


def spread(others: Sequence[dict], optimizer: str, steps: int, r: int = 2) -> str:
    """Return the energy of the top r directions after some steps of an optimizer, with the loss."""
    found = after(others, optimizer, steps)
    share = estimates.mean([one["energy"][str(r)] for one in found])
    return f"{percent(share)} (loss {np.mean([one['test'] for one in found]):.2f})"


def why_kept(runs: Sequence[dict], others: Sequence[dict]) -> str:
    """Return the explanation of 07.a with the control that tells the gradient from what AdamW makes of it."""

    def shares(optimizer: str, steps: int) -> list[float]:
        return [one["energy"]["2"] for one in after(others, optimizer, steps)]

    first = estimates.change(shares(ADAMW, 1), shares(SGD, 1))
    word = verdict(first, "spreads it over more directions", "gathers it in fewer directions", "does not change that measurably")  # fmt: skip
    grown = verdict(estimates.change(shares(ADAMW, 1), shares(ADAMW, STEPS)), "gather it", "spread it", "do not change that measurably")  # fmt: skip
    return (
        f"{WHY['a']} The first gradient has {np.mean(shares(SGD, 1)):.0%} of its energy in two directions, AdamW's first step {np.mean(shares(ADAMW, 1)):.0%}: "
        f"AdamW {word}. Later steps {grown}. By learning rate the share is {energies(runs)}."
    )


def against_whole(runs: Sequence[dict], arm: str, r: int) -> Estimate:
    """Return an arm's held-out loss divided by that of the whole update, paired by seed."""
    return estimates.ratio(losses(runs, FULL), losses(runs, arm, r))


def loss_over_ranks(runs: Sequence[dict]):
    """Draw the held-out loss over the rank: cut to it, and trained at it."""
    found = {
        "change of full fine-tuning, cut to rank r": {r: losses(runs, "top", r) for r in RANKS},
        "LoRA trained at rank r": {r: losses(runs, LORA, r) for r in RANKS},
    }
    whole = float(np.mean(losses(runs, FULL)))
    told = "; ".join(
        f"{name}: " + ", ".join(f"{r} {np.mean(values):.3f}" for r, values in by.items())
        for name, by in found.items()
    )
    return curves(found, "Held-out loss over the rank",
                  f"Two curves with the range over seeds. {told}. The whole update: {whole:.3f}.",
                  direct=False, axhline={whole: "whole update"}, xscale={"value": "log", "base": 2}, xticks=list(RANKS),
                  xlabel="rank r", ylabel="nats per token", figsize=(7.8, 3.6))  # fmt: skip


def ranks_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return, by rank, the energy kept and the losses divided by that of the whole update."""
    rows = {
        r: {
            "energy, top r": percent(kept(runs, r)[0]),
            "random entries": f"{kept(runs, r)[1][0]:.0%}",
            "loss, top r": times(against_whole(runs, "top", r)),
            "loss, all but these": times(against_whole(runs, "rest", r)),
            "loss, whole ΔW at this energy": times(against_whole(runs, "short", r)),
            "loss, LoRA": times(against_whole(runs, LORA, r)),
            "LoRA, sets exchanged": times(
                estimates.ratio(
                    losses(runs, FULL, of="validation"), losses(runs, LORA, r, "validation")
                )
            ),
        }
        for r in RANKS
    }
    return pd.DataFrame(rows).T.rename_axis("rank")


def at_the_edge(runs: Sequence[dict]) -> str:
    """Return the ranks at which LoRA's best learning rate is the lowest or the highest that was tried."""
    ends = (min(RATES[LORA]), max(RATES[LORA]))
    ranks = [r for r in RANKS if best(runs, LORA, r=r)[0]["learning_rate"] in ends]
    return ", ".join(map(str, ranks)) or "none"


def why_cut(runs: Sequence[dict]) -> str:
    """Return the explanation of 07.b with the numbers of its two controls."""
    rest, shortened = (against_whole(runs, arm, 2) for arm in ("rest", "short"))
    return (
        f"{WHY['b']} The remaining directions have as much energy, and a loss {times(rest)} that of the whole. "
        f"The whole change, shortened to this energy: {times(shortened)}. So at the tuned learning rate it matters which directions are kept, more than how long the change is."
        if rest[1][0] > shortened[1][1]
        else WHY["b"]
    )


def energies(runs: Sequence[dict], r: int = 2) -> str:
    """Return the energy of the top r directions at each learning rate of full fine-tuning."""
    each = {
        rate: np.mean([run["top"][str(r)]["energy"] for run in chosen(runs, method=FULL, learning_rate=rate)])
        for rate in RATES[FULL]
    }  # fmt: skip
    return ", ".join(f"{share:.0%} at {rate:g}" for rate, share in each.items())


def claims(
    runs: Sequence[dict], others: Sequence[dict], shares: Mapping[str, float], equal: bool
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        others: runs with SGD and with more steps. shares: model -> share of its parameters that LoRA of rank 8 trains, on all linear layers.
        equal: whether the formula and the models give the same counts.
    """

    energy, random = kept(runs, 2)
    nothing = float(np.mean([run["0"]["test"] for run in others]))
    more = verdict(energy, "larger", "smaller", neutral=random[0])
    trained = {r: estimates.ratio(losses(runs, "top", r), losses(runs, LORA, r)) for r in RANKS}
    differ = {r: times(found) for r, found in trained.items() if verdict(found, "x", "x", "", 1.0)}
    (small, of_small), (large, of_large) = min(shares.items(), key=lambda s: -s[1]), min(shares.items(), key=lambda s: s[1])  # fmt: skip
    rows = [
        (
            f"The share of the energy that rank 2 keeps, compared with random entries, is {more}",
            percent(energy),
            f"random entries: {percent(random)}; SGD, {STEPS} steps: {spread(others, SGD, STEPS)}",
            f"by learning rate: {energies(runs)}; {LONG} steps: AdamW {spread(others, ADAMW, LONG)}, SGD {spread(others, SGD, LONG)}; 48 pairs, one small base",
        ),
        (
            f"Cut to rank 2: the loss, compared with the whole change, is {verdict(against_whole(runs, 'top', 2), 'higher', 'lower', neutral=1.0)}; "
            f"compared with the whole at the same energy, {verdict(estimates.ratio(losses(runs, 'short', 2), losses(runs, 'top', 2)), 'higher', 'lower', neutral=1.0)}",
            f"{times(against_whole(runs, 'top', 2))}; {times(estimates.ratio(losses(runs, 'short', 2), losses(runs, 'top', 2)))}",
            f"all but these two, ÷ the whole: {times(against_whole(runs, 'rest', 2))}; nats gained: {percent(gained(runs, 'rest', 2, nothing))}; "
            f"exact: whole {exact(runs, 'test')[0]:.0%}, top 2 {exact(runs, 'top', 2)[0]:.0%}, all but these {percent(exact(runs, 'rest', 2))}",
            f"the whole at the energy of the top 2, ÷ the whole, by learning rate: {by_rate(runs, 'short')}",
        ),
        (
            f"Trained at rank 8, compared with cut to rank 8: the loss is {verdict(trained[8], 'higher', 'lower', neutral=1.0)}",
            times(trained[8]),
            "ranks at which they differ: "
            + ("; ".join(f"{r}: {words}" for r, words in differ.items()) or "none"),
            f"best of five learning rates; ranks whose best one is at an end of the grid: {at_the_edge(runs)}",
        ),
        (
            f"The share that LoRA trains is larger in {small} than in {large}",
            f"{of_small:.2%} and {of_large:.2%}, counted",
            f"formula and models {'agree' if equal else 'differ'}",
            "rank 8 on all linear layers",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def to_scale(d_in: int, d_out: int, r: int):
    """The explorer's picture: W, A and B as areas to scale, and the counts."""
    trained, weight = lora_parameter_count(d_in, d_out, r), d_in * d_out
    gap = 0.05 * max(d_in, d_out, r)
    figure, axis = plt.subplots(figsize=(7.4, 3.9), layout="constrained")
    # A lies above W, with which it shares d_in; B stands to its right, with which it shares d_out.
    axis.add_patch(Rectangle((0, 0), d_in, d_out, facecolor=GREY, alpha=0.4, lw=0))
    axis.add_patch(Rectangle((0, d_out + gap), d_in, r, facecolor=BLUE, lw=0.8, ec=BLUE))
    axis.add_patch(Rectangle((d_in + gap, 0), r, d_out, facecolor=ORANGE, lw=0.8, ec=ORANGE))
    last = break_even_rank(d_in, d_out)
    sizes = (
        (f"W, frozen: {d_out:,} × {d_in:,} = {short(weight)}", "#4d4d4d"),
        (f"A, above: {r:,} × {d_in:,} = {short(r * d_in)}", BLUE),
        (f"B, right: {d_out:,} × {r:,} = {short(d_out * r)}", "#9a6700"),
        (f"fewer than W up to r = {last:,}", "black"),
    )
    for line, (text, colour) in enumerate(sizes):
        figure.text(0.62, 0.6 - 0.09 * line, text, color=colour, weight="bold", fontsize=10)
    ratio = weight / trained
    relation = f"{ratio:,.4g} times fewer than W"
    if ratio < 1:
        relation = f"{1 / ratio:,.4g} times as many as W"
    elif ratio == 1:
        relation = "exactly as many as W"
    figure.suptitle(f"{trained:,} parameters, {relation}", x=0.01, ha="left", weight="bold")
    axis.set(xlim=(-gap, d_in + 2 * gap + r), ylim=(-gap, d_out + 2 * gap + r), aspect="equal")
    axis.axis("off")
    figure.get_layout_engine().set(rect=(0, 0, 0.6, 0.98))
    return figure
