"""Figures and tables of notebook 24. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, compared, over_kinds, points, times, tuned, verdict
from sftlab.exercises.ex24_packing.experiment import (
    ARMS,
    LOST,
    ONE_COUNT,
    PACKED,
    PADDED,
    SHUFFLED,
    STEPS,
    TWO,
)
from sftlab.exercises.ex24_packing.leaks import facts
from sftlab.packing import pack
from sftlab.statistics import chosen

SMOL, EMBEDDED = "smollm2-instruct", "almanac"
NAMES = {EMBEDDED: "embedded base", SMOL: "SmolLM2"}
BEHIND = {"other": "other topic before it", "same": "same answer before it"}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "Rotary embeddings turn queries and keys by their positions, so a score depends on the distance between two tokens alone. With the block mask, only distances inside a conversation count, and these are the same wherever the count begins.",
    "b": "Positions that restart give one token of every conversation the same position. Without the mask, a token attends to all of them, and their positions do not tell them apart. The model is trained to answer in such sequences, and is asked in a sequence of its own.",
    "c": "Positions that run on keep earlier conversations at a distance of their own. The pretraining of this base had several documents in a sequence as well, without a mask and with one count of positions; whether that helps was not tested.",
}  # fmt: skip


# --- the trained arms ------------------------------------------------------------------------


def best(runs: Sequence[dict], arm: str) -> list[dict]:
    """Return the runs of an arm at the learning rate with the lowest validation loss, seed by seed."""
    return tuned(chosen(runs, arm=arm), lambda run: run["validation"])


def column(runs: Sequence[dict], arm: str, name: str, seeds: str = "") -> list[float]:
    """Return a measurement of an arm at its best learning rate, for the seeds of another arm, or its own."""
    kept = {run["seed"] for run in best(runs, seeds or arm)}
    return [run[name] for run in best(runs, arm) if run["seed"] in kept]


def at_end(runs: Sequence[dict], arm: str) -> bool:
    """Return whether the best learning rate of an arm is the lowest or highest that was tried."""
    rates = [run["learning_rate"] for run in chosen(runs, arm=arm)]
    return best(runs, arm)[0]["learning_rate"] in (min(rates), max(rates))


def loss_ratio(runs: Sequence[dict], arm: str, name: str = "test") -> Estimate:
    """Return the loss of an arm over that of padded sequences, seed by seed."""
    return estimates.ratio(column(runs, PADDED, name, arm), column(runs, arm, name))


def change(runs: Sequence[dict], arm: str) -> Estimate:
    """Return the change of the share of exact answers against padded ones, seed by seed."""
    return estimates.change(column(runs, PADDED, "exact", arm), column(runs, arm, "exact"))


def lost_points(runs: Sequence[dict], arm: str) -> tuple[float, tuple[float, float]]:
    """Return how many points of exact answers an arm loses against padded ones."""
    value, (low, high) = change(runs, arm)
    return -100 * value, (-100 * high, -100 * low)


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the arms with their learning rates and their losses and answers against padded ones."""
    rows = {}
    for arm in ARMS:
        other = arm != PADDED
        rows[arm] = {
            "seeds": len(best(runs, arm)),
            "learning rate": f"{best(runs, arm)[0]['learning_rate']:g}{', at an end' * at_end(runs, arm)}",
            "training loss": f"{np.mean(column(runs, arm, 'training')):.3f}",
            "test loss": f"{np.mean(column(runs, arm, 'test')):.3f}",
            "÷ padded": times(loss_ratio(runs, arm)) if other else "–",
            "exact": f"{np.mean(column(runs, arm, 'exact')):.0%}",
            "− padded": points(change(runs, arm)) if other else "–",
        }
    return pd.DataFrame(rows).T.rename_axis("sequences")


def arms_figure(runs: Sequence[dict]):
    """Draw the test loss of every arm and seed; the title compares some arms with padded sequences."""
    found = {arm: column(runs, arm, "test") for arm in ARMS}
    every = [value for each in found.values() for value in each]
    words = "; ".join(f"{arm} ×{loss_ratio(runs, arm)[0]:.2f}" for arm in (PACKED, LOST, ONE_COUNT))
    told = "; ".join(f"{arm}: {np.mean(each):.3f}" for arm, each in found.items())
    return dots(found, f"Test loss ÷ padded: {words}", f"Dots, one for each seed. Mean test loss: {told}.",
                xscale="log", fmt=".3f", xlabel="loss on questions asked alone (nats per token)", xlim=(0.8 * min(every), 1.5 * max(every)),
                figsize=(8.8, 3.4))  # fmt: skip


def seen_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the training and the test loss of every arm over those of padded sequences."""
    rows = {}
    for arm in ARMS:
        if arm != PADDED:
            found = {name: loss_ratio(runs, arm, name) for name in ("training", "test")}
            rows[arm] = {f"{name} loss ÷ padded": times(each) for name, each in found.items()}
            rows[arm]["the training loss is"] = compared(found["training"])
    return pd.DataFrame(rows).T.rename_axis("sequences")


# --- two conversations in a sequence --------------------------------------------------------------


def kinds() -> list[str]:
    """Return the kind of each of the recorded conversations."""
    return [item.kind for item in facts()]


def leaked(runs: Sequence[dict], model: str, behind: str, restart: bool, mask: bool = False) -> Estimate:  # fmt: skip
    """Return how the loss on an answer changes behind another conversation, over kinds of question."""
    (run,) = (r for r in runs if (r["model"], r["mask"], r["restart"]) == (model, mask, restart))
    return over_kinds(kinds(), np.subtract(run[behind], run["alone"]).tolist())


def copied(runs: Sequence[dict], model: str, restart: bool, mask: bool = False) -> Estimate:
    """Return how the loss behind the same answer differs from that behind another topic."""
    (run,) = (r for r in runs if (r["model"], r["mask"], r["restart"]) == (model, mask, restart))
    return over_kinds(kinds(), np.subtract(run["same"], run["other"]).tolist())


def largest(runs: Sequence[dict], model: str, name: str, mask: bool, restart: bool) -> float:
    """Return the largest movement or distance of a logit over all conversations."""
    (run,) = (r for r in runs if (r["model"], r["mask"], r["restart"]) == (model, mask, restart))
    return max(run[name])


def logits_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return how far logits of the second conversation move, and stand from those alone, at most."""
    rows = {}
    for mask in (True, False):
        for restart in (True, False):
            rows[condition(mask, restart)] = {
                f"{NAMES[model]}, {told}": short(largest(runs, model, which, mask, restart))
                for model in NAMES
                for which, told in (("moved", "edit"), ("away", "alone"))
            }
    return pd.DataFrame(rows).T


def short(value: float) -> str:
    """Return a difference of logits as text; what rounding explains is only called small."""
    return "0" if value == 0 else "below 0.001" if value < 1e-3 else f"{value:.1f}"


def leaks_figure(runs: Sequence[dict]):
    """Draw the change of the loss on the second answer, by what stands before it, without the mask."""
    found = {
        NAMES[model]: {
            f"positions {'restart' if restart else 'run on'}": {
                told: leaked(runs, model, which, restart) for which, told in BEHIND.items()
            }
            for restart in (True, False)
        }
        for model in NAMES
    }
    value = leaked(runs, SMOL, "same", False)
    told = "; ".join(
        f"{panel}, {series}, {row}: {v:+.2f} ({low:+.2f} to {high:+.2f})"
        for panel, by in found.items()
        for series, rows in by.items()
        for row, (v, (low, high)) in rows.items()
    )
    title = f"SmolLM2, same answer before it, positions run on: {verdict(value, 'the loss rises', 'the loss falls')} by {abs(value[0]):.1f} nats"
    if not estimates.settled(value):
        title = f"SmolLM2, same answer before it: {estimates.OPEN}"
    return dots(found, title, f"Estimates with intervals over kinds of question, change in nats. {told}.", panels=True, zero=True,
                xlabel="change of the loss (nats per token)", figsize=(9, 3.0))  # fmt: skip


def leaks_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the change of the loss on SmolLM2's second answer, with the block mask and without it."""
    rows = {}
    for mask in (True, False):
        for restart in (True, False):
            found = {
                told: leaked(runs, SMOL, which, restart, mask) for which, told in BEHIND.items()
            }
            found["same answer − other topic"] = copied(runs, SMOL, restart, mask)
            rows[condition(mask, restart)] = {told: nats(each) for told, each in found.items()}
    return pd.DataFrame(rows).T.rename_axis("SmolLM2, change in nats")


def condition(mask: bool, restart: bool) -> str:
    """Return what keeps documents apart, in words."""
    return f"{'block mask' if mask else 'no mask'}, positions {'restart' if restart else 'run on'}"


def nats(found: Estimate) -> str:
    """Return a change of the loss with its interval as text; rounding alone is only called small."""
    value, (low, high) = found
    if max(abs(low), abs(high)) < 1e-3:
        return "below 0.001"
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


# --- sequences ------------------------------------------------------------------------------------


def filled(lengths: Sequence[int], size: int, way: str) -> list[list[int]]:
    """Return the lengths in each sequence: best fit, longest first, or as they come."""
    if way == "best fit, longest first":
        return [[lengths[k] for k in sequence] for sequence in pack(lengths, size)]
    sequences: list[list[int]] = []
    for length in lengths:
        if not sequences or sum(sequences[-1]) + length > size:
            sequences.append([])
        sequences[-1].append(length)
    return sequences


def empty(sequences: Sequence[Sequence[int]], size: int) -> float:
    """Return the share of positions that no example uses."""
    return 1 - sum(map(sum, sequences)) / (size * len(sequences))


def amount(sequences: Sequence[Sequence[int]]) -> str:
    """Return how many sequences there are, in words."""
    return f"{len(sequences)} sequence{'s' * (len(sequences) != 1)}"


def sequences_figure(sequences: Sequence[Sequence[int]], size: int, alt: str):
    """Draw each sequence as a bar of its examples."""
    most = max(map(len, sequences))
    parts = {
        f"sequence {number}": {
            f"place {k + 1}": float(sequence[k]) if k < len(sequence) else 0.0 for k in range(most)
        }
        for number, sequence in enumerate(sequences, 1)
    }
    return stacked(parts, f"{amount(sequences)}, {empty(sequences, size):.0%} of the positions empty", alt,
                   inside=".0f", axvline={size: ""}, xlim=(0, 1.02 * size), xlabel="tokens",
                   figsize=(8.4, 0.34 * len(sequences) + 1.8 + 0.25 * (most // 6)))  # fmt: skip


# --- the claims ------------------------------------------------------------------------------


def claims(
    runs: Sequence[dict], leaks: Sequence[dict], apart: Mapping[str, float], costs: pd.DataFrame
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        apart: arm -> relative difference of its gradient from that of padded sequences.
        costs: positions for each token, by set of conversations (columns) and way (index).
    """
    base, ours = loss_ratio(runs, LOST), loss_ratio(runs, PACKED)
    one, order = loss_ratio(runs, ONE_COUNT), loss_ratio(runs, SHUFFLED)
    same = leaked(leaks, SMOL, "same", False)
    with_mask = leaked(leaks, SMOL, "same", False, mask=True)
    saved = {name: 1 - costs.loc["packed", name] / costs.loc["sorted by length", name] for name in costs}  # fmt: skip
    rows = [
        (
            "Packing with the block mask trains what padding trains",
            f"gradient: difference {'less than 1e-5' if apart[PACKED] < 1e-5 else format(apart[PACKED], '.1e')}; test loss {times(ours)}",
            f"without the mask the gradient differs by {apart[LOST]:.0%}",
            "the attention must obey a block mask; `TrainConfig(packing=True)` tests this before training",
        ),
        (
            f"No mask, positions restart: the test loss is {verdict(base, 'higher', 'lower', neutral=1.0)}",
            f"{times(base)}; exact answers {points(change(runs, LOST))}",
            f"the same with the mask: {times(ours)}; another order in each step: {times(order)}",
            f"{STEPS} steps, 16 in a sequence; two: {times(loss_ratio(runs, TWO))}",
        ),
        (
            f"No mask, positions run on: the test loss is {verdict(one, 'higher', 'lower', neutral=1.0)}",
            f"{times(one)}; exact answers {points(change(runs, ONE_COUNT))}",
            f"no mask, positions restart: {times(base)}",
            "tried only on a base whose pretraining had several documents in a sequence",
        ),
        (
            f"SmolLM2, no mask, positions run on, same answer before it: the loss is {verdict(same, 'higher', 'lower')}",
            f"{nats(same)} nats",
            f"with the mask: {nats(with_mask)} nats; same − other question: {nats(copied(leaks, SMOL, False))} nats",
            f"embedded base: {nats(leaked(leaks, EMBEDDED, 'same', False))} nats; not trained",
        ),
        (
            f"Packing computes fewer positions than sorting by length{'' if min(saved.values()) > 0 else ' in some sets, not in all'}",
            "; ".join(f"{name}: {-share:+.0%}" for name, share in saved.items()),
            "padded against sorted: " + "; ".join(f"{name} {costs.loc['padded', name] / costs.loc['sorted by length', name] - 1:+.0%}" for name in costs),
            "the time also depends on the attention, which computes whole sequences here",
        ),
    ]  # fmt: skip
    columns = ["claim", "measured", "control", "where it stops"]
    return pd.DataFrame(rows, columns=columns)
