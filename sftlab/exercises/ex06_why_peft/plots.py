"""Figures and tables of notebook 06: memory, storage, and forgetting. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sftlab.classroom.figures import curves, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, percent, times, verdict
from sftlab.exercises.ex06_why_peft.reference import value_at
from sftlab.exercises.sizes import memory as memory  # for the notebook
from sftlab.exercises.sizes import size
from sftlab.exercises.trade_off import ENTRIES, FULL, LINEAR, LORA
from sftlab.statistics import chosen

MAIN, LOW = (
    0.1,
    0.07,
)  # held-out losses at which the claims compare; the first was chosen before the runs
TARGETS = (1.0, 0.5, 0.3, 0.2, 0.15, 0.12, MAIN, LOW, 0.06)
MAIN_REAL, TARGETS_REAL = 0.6, (0.9, 0.8, 0.6)  # of SmolLM2
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "To reach the adapters of the first layer, the gradient passes through every frozen layer. So the activations stay, and with this batch they are the largest part.",
    "b": "Frozen weights do not freeze what the model computes: ΔW acts on documents too. The table shows how the difference depends on how far both are trained.",
    "c": "Full fine-tuning looks for its way among all matrices. LoRA looks among those of rank 8, where the way to the same answers may be longer.",
}  # fmt: skip


# --- bytes -----------------------------------------------------------------------------------


def tensor_bytes(file: Path) -> int:
    """Return the size of a safetensors file without its header, which names the tensors."""
    with open(file, "rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    return file.stat().st_size - 8 - header


def storage(name: str, tasks: int, base: float, adapter: float, alt: str):
    """Draw bytes on disk for a number of tasks: whole copies, or one base and an adapter for each."""
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


# --- forgetting ------------------------------------------------------------------------------


def best(runs: Sequence[dict], method: str, target: float) -> list[dict]:
    """Return a method's runs at the learning rate with the lowest loss on validation documents when the
    held-out loss on the validation questions falls to a target; none if no rate brings every seed there."""
    found = []
    for rate in dict.fromkeys(run["learning_rate"] for run in chosen(runs, method=method)):
        some = chosen(runs, method=method, learning_rate=rate)
        lost = [value_at(run["validation"], run["validation_documents"], target) for run in some]
        reached = [value for value in lost if value is not None]
        if len(reached) == len(lost):
            found.append((float(np.mean(reached)), some))
    return min(found, key=lambda pair: pair[0])[1] if found else []


def at(
    runs: Sequence[dict], method: str, target: float, name: str = "test_documents"
) -> list[float]:
    """Return a measurement of every seed when its loss on the test questions falls to a target.

    Of the loss on documents, its rise over the base's. Nothing is returned if a seed never gets there.
    """
    found = []
    for run in best(runs, method, target):
        value = value_at(run["test"], run[name], target)
        if value is None:
            return []
        found.append(value - run[name][0] if name == "test_documents" else value)
    return found


def apart(
    runs: Sequence[dict], target: float, one: str = LORA, other: str = FULL
) -> Estimate | None:
    """Return how much more one method has forgotten than another at a held-out loss, paired by seed."""
    first, second = at(runs, other, target), at(runs, one, target)
    return estimates.change(first, second) if first and second else None


def nats(found: Estimate | None) -> str:
    """Return a difference of losses with its interval as text."""
    if found is None:
        return "not reached"
    value, (low, high) = found
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def said(found: Estimate | None) -> str:
    return nats(found) + (f", {verdict(found, 'more', 'less')}" if found else "")


def cloud(runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA)):
    """Draw every checkpoint of every learning rate, means over the seeds: what was learned and lost."""
    found: dict[str, dict[float, float]] = {}
    for method in methods:
        found[method] = {}
        for rate in dict.fromkeys(run["learning_rate"] for run in chosen(runs, method=method)):
            some = chosen(runs, method=method, learning_rate=rate)
            learned, lost = (np.mean([run[n] for run in some], axis=0) for n in ("test", "test_documents"))  # fmt: skip
            found[method] |= {
                a: b - lost[0] for a, b in zip(learned[1:], lost[1:], strict=True) if b - lost[0] > 1e-4
            }  # fmt: skip
    told = "; ".join(
        f"{method}: held-out loss {min(points):.2f} to {max(points):.2f}, rise {min(points.values()):.3f} to {max(points.values()):.2f}"
        for method, points in found.items()
    )
    return curves(
        found, "Every learning rate and checkpoint, means over the seeds", f"Scatter plot. {told}.",
        lines=False, xscale="log", yscale="log", figsize=(7.4, 3.8),
        xlabel="held-out loss (nats per token; further left is better)",
        ylabel="rise of the loss on\nbase documents (nats)",
    )  # fmt: skip


def trade_off(
    runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA), targets: Sequence[float] = TARGETS
):
    """Draw what each method has forgotten at equal held-out losses, at its tuned learning rate."""
    found = {
        method: {t: np.maximum(at(runs, method, t), 1e-5) for t in targets if at(runs, method, t)}
        for method in methods
    }
    told = "; ".join(
        f"{method}: " + ", ".join(f"{np.mean(v):.3f} at {t:g}" for t, v in by.items())
        for method, by in found.items()
    )
    return curves(
        found, "Forgotten at equal held-out loss, by target",
        f"Curves with the range over seeds: rise of the loss on base documents. {told}.",
        direct=False, xscale="log", yscale="log", xticks=(0.06, 0.1, 0.2, 0.5, 1), figsize=(7.4, 3.8),
        xlabel="held-out loss at which they are compared (nats per token; further left is better)",
        ylabel="rise of the loss on\nbase documents (nats)",
    )  # fmt: skip


def by_target(runs: Sequence[dict], targets: Sequence[float] = TARGETS) -> pd.DataFrame:
    """Return both methods at equal held-out losses: chosen learning rates, exact answers, forgetting."""
    lines = {}
    for target in targets:
        tuned = [best(runs, method, target) for method in (FULL, LORA)]
        if not all(tuned):
            continue
        line = {"learning rates": " / ".join(f"{some[0]['learning_rate']:g}" for some in tuned)}
        if "exact" in runs[0]:
            shares = [at(runs, method, target, "exact") for method in (FULL, LORA)]
            line["exact"] = " / ".join(f"{np.mean(s):.0%}" if s else "–" for s in shares)
        rises = [at(runs, method, target) for method in (FULL, LORA)]
        line["rise on documents"] = " / ".join(f"{np.mean(r):.3f}" if r else "–" for r in rises)
        lines[f"{target:g}"] = line | {"LoRA − full": said(apart(runs, target))}
    return pd.DataFrame(lines).T.rename_axis("full / LoRA at")


def region(runs: Sequence[dict], targets: Sequence[float] = TARGETS) -> str:
    """Return at which held-out losses LoRA has forgotten more or less, and where neither is settled."""
    groups: dict[str, list[str]] = {"more": [], "less": [], "not settled": []}
    for target in targets:
        found = apart(runs, target)
        if found:
            groups[verdict(found, "more", "less", "not settled")].append(f"{target:g}")
    return "; ".join(f"{words} at {', '.join(some)}" for words, some in groups.items() if some)


def against(runs: Sequence[dict]) -> pd.DataFrame:
    """Return each arm against full fine-tuning at two targets: forgetting, and length of ΔW."""
    lines = {}
    for method in (LORA, LINEAR, ENTRIES):
        lines[method] = {
            **{
                f"forgotten at {t:g}, minus full": said(apart(runs, t, method)) for t in (MAIN, LOW)
            },
            f"‖ΔW‖ at {MAIN:g}, ÷ full's": times(moved_ratio(runs, MAIN, method)),
        }
    return pd.DataFrame(lines).T


def moved_ratio(runs: Sequence[dict], target: float, method: str = LORA) -> Estimate:
    """Return ‖ΔW‖ at a held-out loss, divided by that of full fine-tuning, paired by seed."""
    return estimates.ratio(at(runs, FULL, target, "moved"), at(runs, method, target, "moved"))


def claims(
    runs: Sequence[dict], real: Sequence[dict], bytes_: Mapping[str, Mapping[str, int]], saved: Estimate,
    by_batch: Mapping[int, float],
) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        bytes_: method -> what ``training_bytes`` says. saved: share of the peak that LoRA saves.
        by_batch: sequences in the batch -> the same share.
    """
    states = [sum(bytes_[m][part] for part in ("gradients", "optimizer")) for m in (FULL, LORA)]
    few, many = min(by_batch), max(by_batch)
    file = bytes_[LORA]["file"] / bytes_[FULL]["file"]
    forgot, entries = apart(runs, MAIN), apart(runs, MAIN, ENTRIES)
    smol, way = apart(real, MAIN_REAL) if real else None, moved_ratio(runs, MAIN)

    def told(found: Estimate | None) -> str:
        return verdict(found, "forgets more", "forgets less") if found else "not reached"

    rows = [
        (
            f"Gradients and optimizer state shrink by {1 - states[1] / states[0]:.0%}, a file by {1 - file:.0%}, the peak by {saved[0]:.0%}",
            f"{size(states[0])} to {size(states[1])}, as in AdamW; peak {percent(saved)}",
            f"peak with one sequence: {by_batch[few]:.0%}, with {many}: {by_batch[many]:.0%}",
            "rank 8 on every linear layer; the more activations, the less of the peak",
        ),
        (
            f"LoRA at full fine-tuning's held-out loss: {told(forgot)}",
            f"{nats(forgot)} nats at {MAIN:g}",
            f"whole weights of the same layers: {said(apart(runs, MAIN, LINEAR))}",
            f"by target: {region(runs)}; in at most 24 steps",
        ),
        (
            f"As many random entries at that loss: {told(entries)}",
            f"{nats(entries)} nats at {MAIN:g}",
            f"LoRA against these: {said(apart(runs, MAIN, LORA, ENTRIES))}",
            f"at {LOW:g}: {said(apart(runs, LOW, ENTRIES))}; LoRA against these {said(apart(runs, LOW, LORA, ENTRIES))}",
        ),
        (
            f"ΔW of LoRA is {verdict(way, 'longer', 'shorter', neutral=1.0)} than full fine-tuning's at that loss",
            f"{times(way)} at {MAIN:g}",
            f"random entries: {times(moved_ratio(runs, MAIN, ENTRIES))}, and {told(entries)}",
            f"at {LOW:g}: {times(moved_ratio(runs, LOW))}; linear layers alone, without the output head",
        ),
        (
            f"LoRA on SmolLM2, at equal held-out loss: {told(smol)}",
            f"{nats(smol)} nats at {MAIN_REAL:g}",
            f"by target: {region(real, TARGETS_REAL)}",
            f"three seeds, 12 steps, few learning rates; chosen: {best(real, FULL, MAIN_REAL)[0]['learning_rate']:g} and {best(real, LORA, MAIN_REAL)[0]['learning_rate']:g}",
        ),
    ]
    rows = rows if real else rows[:-1]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
