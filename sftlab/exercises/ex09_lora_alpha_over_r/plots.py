"""Figures of notebook 09: three scaling rules over the ranks, and α against the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import curves
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import STOPS
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import MEETING_RANK, RANKS, RULES
from sftlab.lora import lora_scale
from sftlab.statistics import chosen

LABELS = {"lora": "α/r", "rslora": "α/√r", "plain": "α"}
VARIANTS = ("rate × 2", "rate × 4", "rate of B × 2", "rate × 2, A × √2")


def values(runs: Sequence[dict], name: str, rule: str, r: int) -> list[float]:
    """A measurement's values over the seeds. Where the rules agree, one of them was run."""
    found = chosen(runs, rule=rule, r=r) or chosen(runs, rule="lora", r=r)
    return [run[name] for run in found]


def change_over_ranks(runs: Sequence[dict], name: str, rule: str) -> float:
    """The mean at the highest rank as a multiple of the mean at rank 1."""
    first, last = (np.mean(values(runs, name, rule, r)) for r in (RANKS[0], RANKS[-1]))
    return float(last / first)


def over_ranks(runs: Sequence[dict], panels: Mapping[str, str], when: str):
    """One panel per measurement (name -> label): the three rules over the ranks, mean and range.

    ``when`` begins the title: when the adapter was measured.
    """
    found, each, told, steady = {}, {}, [], []
    for name, label in panels.items():
        found[label] = {f"factor {LABELS[rule]}": {r: values(runs, name, rule, r) for r in RANKS} for rule in RULES}  # fmt: skip
        means = [np.mean(v) for points in found[label].values() for v in points.values()]
        low, high = min(means), max(means)
        spare = max(1, 10 * low / high) ** 0.5  # at least a decade: small wobbles should look small
        each[label] = {"ylim": (0.8 * low / spare, 1.25 * high * spare)}
        changes = [f"{change_over_ranks(runs, name, rule):.2g}× with {LABELS[rule]}" for rule in RULES]  # fmt: skip
        told.append(", ".join(changes))
        steady.append(
            LABELS[min(RULES, key=lambda k: abs(np.log(change_over_ranks(runs, name, k))))]
        )
    return curves(
        found,
        f"{when}: {steady[0]} keeps the norm steadiest, {steady[1]} the output",
        f"Line charts over the ranks, {when[0].lower() + when[1:]}. The mean at rank {RANKS[-1]} as a multiple of that at rank 1: "
        + "; ".join(f"{label}: {text}" for label, text in zip(panels.values(), told, strict=True)) + ".",
        panels=True, xscale="log", yscale="log", xticks=RANKS, xlabel="rank r",
        axvline={MEETING_RANK: ""}, each=each, figsize=(3.3 * len(panels) + 0.9, 3.7),
    )  # fmt: skip


def stretched(found: Mapping[float, tuple[float, float]], base: float):
    """Change of the output and held-out NLL over the factor that a trained adapter is given.

    ``found``: multiple of the trained factor -> (change of the logits, NLL).
    """
    change, loss = ({times: pair[k] for times, pair in found.items()} for k in (0, 1))
    last = max(found)
    grown = "" if 2 not in found else f"Twice the update changes the output {change[2] / change[1]:.1f} times as much"  # fmt: skip
    ends = f"at no adapter {loss[0]:.2f}, as trained {loss[1]:.2f}, at {last:g} times the α {loss[last]:.2f}"  # fmt: skip
    labels = "change of the logits (RMS)", "held-out NLL (nats per token)"
    return curves(
        {labels[0]: {"measured": change, "in proportion": {t: change[1] * t for t in found}},
         labels[1]: {"measured": loss}},
        grown or f"Held-out NLL {ends}",
        "Two line charts over multiples of the α in training: the change of the logits beside a straight line in "
        f"proportion to α, and the held-out NLL, {ends}; the base has {base:.2f}.",
        panels=True, xlabel="α as a multiple of the α in training", ylim=(0, None),
        each={labels[1]: {"axhline": {base: "the base"}}}, figsize=(8.6, 3.3),
    )  # fmt: skip


def apart(runs: Sequence[dict], stops: Sequence[int]):
    """How far each variant's ΔW lies from that of doubled α, over the steps, for each optimiser."""
    found, told = {}, []
    for optimizer, name in (("sgd", "SGD"), ("adam", "Adam")):
        for rate in sorted({r["rate"] for r in runs if r["optimizer"] == optimizer}):
            these = chosen(runs, optimizer=optimizer, rate=rate)
            panel = f"{name}, rate {rate:g}"
            found[panel] = {v: {s: [run[v]["apart"][k] for run in these] for k, s in enumerate(stops)} for v in VARIANTS}  # fmt: skip
            ends = {v: float(np.mean(points[stops[-1]])) for v, points in found[panel].items()}
            nearest = min(ends, key=lambda variant: ends[variant])
            told.append(f"{panel}: {nearest}, {percent(ends[nearest])} away")
    return curves(
        found,
        "What equals doubling α, and for how long",
        f"Line charts of the distance from ΔW of doubled α over the steps. Nearest after {stops[-1]} steps: {'; '.join(told)}.",
        panels=True, sharey=True, xscale="log", xticks=stops, xlabel="steps",
        percent="y", yscale={"value": "symlog", "linthresh": 1e-3, "linscale": 0.5}, yticks=[0, 1e-3, 1e-2, 0.1, 1],
        ylim=(-2e-4, 2), ylabel="distance from ΔW of α × 2", figsize=(2.6 * len(found) + 0.4, 3.6),
    )  # fmt: skip


def factors(alpha: float, r: int, rule: str, products: Mapping[int, float], alt: str):
    """The explorer's picture: the factor and ‖ΔW‖/‖W‖ over the ranks, under all three rules.

    ``products``: rank -> ‖BA‖/‖W‖ with A and B random.
    """
    scales = {LABELS[other]: {n: lora_scale(alpha, n, other) for n in products} for other in RULES}
    norms = {label: {n: x * products[n] for n, x in points.items()} for label, points in scales.items()}  # fmt: skip
    scale, norm = scales[LABELS[rule]][r], norms[LABELS[rule]][r]
    names = "factor in front of BA", "‖ΔW‖ / ‖W‖ with A and B random"
    return curves(
        {names[0]: scales, names[1]: norms},
        f"α = {alpha:g}, r = {r}, {LABELS[rule]}: the factor is {scale:.3g}", alt,
        panels=True, direct=True, picked=LABELS[rule], xscale="log", yscale="log", xlabel="rank r", xticks=list(products),
        marked={names[0]: {(r, scale): f"{scale:.3g}"}, names[1]: {(r, norm): f"{norm:.2g}×"}},
        each={names[0]: {"ylim": (0.003, 300)}, names[1]: {"ylim": (1e-4, 100)}}, figsize=(8.8, 3.3),
    )  # fmt: skip


def apart_table(runs: Sequence[dict], shown: Sequence[int] = (1, 4, 16)) -> list[list[str]]:
    """Mean distance from ΔW with doubled α after some numbers of steps: those that start near."""
    rows = []
    wanted = {"sgd": ("rate × 4", "rate × 2, A × √2"), "adam": ("rate × 2", "rate of B × 2")}
    for optimizer, variants in wanted.items():
        for variant in variants:
            for rate in sorted({r["rate"] for r in runs if r["optimizer"] == optimizer}):
                found = chosen(runs, optimizer=optimizer, rate=rate)
                means = np.mean([run[variant]["apart"] for run in found], axis=0)
                told = [percent(means[STOPS.index(stop)]) for stop in shown]
                rows.append([{"sgd": "SGD", "adam": "Adam"}[optimizer], variant, f"{rate:g}", *told])  # fmt: skip
    return rows


def percent(share: float) -> str:
    """A share with as many digits as it deserves, and none where it is rounding only."""
    if share > 1.5:
        return "more than 150%"
    return "< 0.01%" if share < 1e-4 else f"{share:.2%}" if share < 0.1 else f"{share:.0%}"
