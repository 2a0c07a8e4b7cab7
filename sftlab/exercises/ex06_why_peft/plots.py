"""Figures and tables of notebook 06: memory, storage, and forgetting at the same score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import dots, stacked
from sftlab.exercises.ex06_why_peft.experiment import TARGETS
from sftlab.memory.count import TrainingBytes
from sftlab.statistics import change_by_seed, chosen

LABELS = {"full": "full fine-tuning", "lora": "LoRA"}
ARMS = {"method": "full"}, {"method": "lora"}
PARTS = ("weights", "adapters", "gradients", "optimizer", "activations")


def size(value: float) -> str:
    """Bytes as people read them: three digits and a unit."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"


def memory(
    found: Mapping[str, TrainingBytes], title: str = "", alt: str = "", told: str = "measured peak"
):
    """The parts of a training step's memory, full fine-tuning's above LoRA's, with the allocator's peak.

    ``told``: what the peak is.
    """
    full, lora = found.values()
    same, saved = lora.activations / full.activations, 1 - lora.peak / full.peak
    each = "; ".join(
        f"{name}: "
        + ", ".join(f"{part} {size(getattr(held, part))}" for part in PARTS)
        + f", {told} {size(held.peak)}"
        for name, held in found.items()
    )
    return stacked(
        {name: {part: getattr(held, part) / 1e6 for part in PARTS} for name, held in found.items()},
        title or f"LoRA's activations are {same:.0%} of full fine-tuning's; the peak falls by {saved:.0%}",
        alt or f"Stacked bars of memory. {each}.",
        peaks={name: held.peak / 1e6 for name, held in found.items()}, total=lambda peak: f"peak {peak:.0f} MB",
        xlabel=f"MB; the upright mark is the {told}", figsize=(8.4, 2.8),
    )  # fmt: skip


def storage(name: str, tasks: int, base: float, adapter: float, alt: str):
    """Bytes on disk for a number of tasks: whole copies, or one base and an adapter for each."""
    found = {
        "a copy for each task": {"models": tasks * base, "adapters": 0},
        "one base, an adapter each": {"models": base, "adapters": tasks * adapter},
    }
    copies, one = (sum(parts.values()) for parts in found.values())
    less = copies / one
    told = f"{less:.{0 if less > 1.95 else 1}f} times less" if less > 1 else "no saving"
    title = f"{name}, {tasks:,} {'task' if tasks == 1 else 'tasks'}: {told} with adapters"
    figure = stacked(found, title, alt, total=size, figsize=(8, 2.4))
    figure.axes[0].xaxis.set_major_formatter(lambda value, _: size(value) if value else "0")
    return figure


def at_target(runs: Sequence[dict], target: float) -> list[dict]:
    """The measurements at a target in one dictionary with the settings, for runs that reached it."""
    return [{**run, **run["at"][str(target)]} for run in runs if str(target) in run["at"]]


def compared(runs: Sequence[dict]) -> list[list]:
    """One row per target: what both methods score there, and what each has forgotten."""
    lines = []
    for target in TARGETS:
        here = at_target(runs, target)
        line = [f"{target:g}"]
        for name, form in (("step", ".0f"), ("nll", ".2f"), ("exact", ".0%"), ("recall", ".0%"), ("documents", ".2f")):  # fmt: skip
            means = (np.mean([run[name] for run in chosen(here, method=m)]) for m in LABELS)
            line.append(" / ".join(f"{mean:{form}}" for mean in means))
        change, (low, high) = change_by_seed(here, "documents", *ARMS)
        lines.append([*line, f"{change:+.2f}", f"{low:+.2f} to {high:+.2f}"])
    return lines


def forgetting(runs: Sequence[dict], before: float):
    """The loss on base documents where a score is reached: a point per seed, a bar for the mean."""
    found = {
        label: {f"stopped at {target:g}": [run["documents"] for run in chosen(at_target(runs, target), method=method)]
                for target in TARGETS}
        for method, label in LABELS.items()
    }  # fmt: skip
    means = {stop: [np.mean(found[label][stop]) for label in found] for stop in found[LABELS["full"]]}  # fmt: skip
    told = "; ".join(f"{stop}, {full:.2f} and {lora:.2f}" for stop, (full, lora) in means.items())
    hard, (full, lora) = list(means.items())[-1]
    return dots(
        found,
        f"{hard[0].upper()}{hard[1:]}: LoRA's loss on documents {lora:.2f}, full fine-tuning's {full:.2f}",
        f"Points per seed: loss on base documents after full fine-tuning and LoRA. {told}; {before:.2f} before tuning.",
        axvline={before: "before tuning"}, xlabel="NLL of base documents (nats per token)", figsize=(7.4, 3),
    )  # fmt: skip
