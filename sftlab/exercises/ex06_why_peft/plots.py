"""Figures and tables of notebook 06: memory, storage, and forgetting. Their words follow the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
from sftlab.exercises.trade_off_real import CHECKPOINTS, LENGTH, TEXTS
from sftlab.statistics import chosen

MAIN, LOW = (
    0.1,
    0.07,
)  # held-out losses at which the claims compare; the first was chosen before the runs
TARGETS = (1.0, 0.5, 0.3, 0.2, 0.15, 0.12, MAIN, LOW, 0.06)
SHARES = (0.75, 0.85, 0.925)  # of exact answers, at which the methods are compared, too
SETS = ("test_documents", "validation_documents")  # a direction is named if both agree
BORDER = 0.002  # nats, of the answers to 06.b
MAIN_REAL, TARGETS_REAL = 0.6, (0.9, 0.8, 0.6)  # of SmolLM2
# Of a rise in nats: linear below 0.0001, so that a mean or a seed at or below 0 has a place.
RISES = {
    "yscale": {"value": "symlog", "linthresh": 1e-4, "linscale": 0.5},
    "yticks": (0, 1e-4, 1e-3, 1e-2, 0.1, 1),
}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "To reach the adapters of the first layer, the gradient passes through every frozen layer, and each A needs the input of its layer. So most activations stay, and with this batch they are the largest part.",
    "b": "Frozen weights do not freeze what the model computes: ΔW acts on documents too. The interval covers both sets of documents and both ways of interpolation.",
    "c": "How far W moves depends on the path as well as on its end.",
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
    told = f"{less:.1f} times less" if less > 1 else "no saving"
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


def risen(run: dict, loss: float, documents: str, geometric: bool = False) -> float | None:
    """Return the rise of the loss on documents over the base's when the test loss falls to a value.

    Args:
        geometric: interpolate the logarithm of the rise and not the rise.
    """
    rises = np.subtract(run[documents], run[documents][0])
    if geometric:
        value = value_at(run["test"], np.log(np.maximum(rises, 1e-5)).tolist(), loss)
        return None if value is None else float(np.exp(value))
    return value_at(run["test"], rises.tolist(), loss)


def at(
    runs: Sequence[dict], method: str, target: float, name: str = SETS[0],
    rate: float | None = None, geometric: bool = False,
) -> list[float]:  # fmt: skip
    """Return a measurement of every seed when its loss on the test questions falls to a target.

    Of the loss on documents, its rise over the base's. Nothing is returned if a seed never gets there.

    Args:
        rate: the learning rate; without it, that of ``best``.
        geometric: as in ``risen``.
    """
    some = best(runs, method, target)
    if rate is not None:
        some = [run for run in runs if (run["method"], run["learning_rate"]) == (method, rate)]
    values = [
        risen(run, target, name, geometric) if name in SETS else value_at(run["test"], run[name], target)
        for run in some
    ]  # fmt: skip
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else []


def apart(
    runs: Sequence[dict], target: float, one: str = LORA, other: str = FULL, documents: str = SETS[0],
    rate: float | None = None, geometric: bool = False,
) -> Estimate | None:  # fmt: skip
    """Return how much more one method has forgotten than another at a held-out loss, paired by seed.

    Args:
        documents: the set on which it is measured. rate, geometric: as in ``at``, for both methods.
    """
    first, second = (at(runs, m, target, documents, rate, geometric) for m in (other, one))
    return estimates.change(first, second) if first and second else None


def both(
    runs: Sequence[dict], target: float, one: str = LORA, other: str = FULL, rate: float | None = None
) -> list[Estimate]:  # fmt: skip
    """Return ``apart`` on the test documents and on the validation documents; nothing if not reached."""
    found = [apart(runs, target, one, other, documents, rate) for documents in SETS]
    return [estimate for estimate in found if estimate is not None]


def ways(runs: Sequence[dict], target: float, one: str = LORA, other: str = FULL) -> list[Estimate]:
    """Return ``apart`` on both sets of documents, interpolated in the rise and in its logarithm."""
    found = [
        apart(runs, target, one, other, documents, geometric=geometric)
        for documents in SETS
        for geometric in (False, True)
    ]
    return [estimate for estimate in found if estimate is not None]


def widest(found: Sequence[Estimate]) -> Estimate:
    """Return the first estimate with an interval that covers all of them."""
    lows, highs = zip(*(interval for _, interval in found), strict=True)
    return found[0][0], (min(lows), max(highs))


def agreed(found: Sequence[Estimate], more: str, less: str, open_: str = estimates.OPEN) -> str:
    """Return the direction that all the intervals support."""
    words = {verdict(estimate, more, less, open_) for estimate in found}
    return words.pop() if len(words) == 1 else open_ if words else "not reached"


def nats(found: Estimate | None) -> str:
    """Return a difference of losses with its interval as text."""
    if found is None:
        return "not reached"
    value, (low, high) = found
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def on_both(found: Sequence[Estimate]) -> str:
    """Return the differences on both sets of documents as text."""
    return " and ".join(map(nats, found)) or "not reached"


def said(found: Sequence[Estimate]) -> str:
    return on_both(found) + (f", {agreed(found, 'more', 'less')}" if found else "")


def excess(runs: Sequence[dict], ends: Sequence[dict], method: str | None = None) -> Estimate:
    """Return how much more is forgotten than by full fine-tuning at the losses that other runs end with.

    Args:
        ends: runs, one for each seed, which is the unit.
        method: an arm that is compared at their losses; without it, the runs themselves at their last step.
    """

    def reached(arm: str) -> list[float]:
        for rate in sorted({run["learning_rate"] for run in chosen(runs, method=arm)}):
            by_seed = {r["seed"]: r for r in chosen(runs, method=arm, learning_rate=rate)}
            found = [risen(by_seed[end["seed"]], end["test"][-1], SETS[0]) for end in ends]
            known = [value for value in found if value is not None]
            if len(known) == len(ends):  # the smallest learning rate that gets every seed there
                return known
        raise ValueError(f"no learning rate of {arm} brings every seed to these losses")

    own = [end[SETS[0]][-1] - end[SETS[0]][0] for end in ends]
    return estimates.change(reached(FULL), reached(method) if method else own)


def around(rises: Iterable[float]) -> tuple[float, float]:
    """Return limits of the axis ``RISES`` with some room around all values."""
    values = list(rises)
    return min(0.0, *values) - 3e-5, 1.8 * max(1e-3, *values)


def cloud(runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA)):
    """Draw every checkpoint of every learning rate, means over the seeds: what was learned and lost."""
    found: dict[str, dict[float, float]] = {}
    for method in methods:
        found[method] = {}
        for rate in dict.fromkeys(run["learning_rate"] for run in chosen(runs, method=method)):
            some = chosen(runs, method=method, learning_rate=rate)
            learned, lost = (np.mean([run[n] for run in some], axis=0) for n in ("test", "test_documents"))  # fmt: skip
            found[method] |= {a: b - lost[0] for a, b in zip(learned[1:], lost[1:], strict=True)}
    told = "; ".join(
        f"{method}: held-out loss {min(points):.2f} to {max(points):.2f}, rise {min(points.values()):.5f} to {max(points.values()):.2f}"
        for method, points in found.items()
    )
    return curves(
        found, "Every learning rate and checkpoint, means over the seeds", f"Scatter plot. {told}.",
        lines=False, xscale="log", figsize=(7.4, 3.8), **RISES, ylim=around(y for points in found.values() for y in points.values()),
        xlabel="held-out loss (nats per token; further left is better)",
        ylabel="rise of the loss on\nbase documents (nats)",
    )  # fmt: skip


def trade_off(
    runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA), targets: Sequence[float] = TARGETS
):
    """Draw what each method has forgotten at equal held-out losses, at its tuned learning rate."""
    found = {
        method: {t: at(runs, method, t) for t in targets if at(runs, method, t)}
        for method in methods
    }
    told = "; ".join(
        f"{method}: " + ", ".join(f"{np.mean(v):.3f} at {t:g}" for t, v in by.items())
        for method, by in found.items()
    )
    open_ = unsettled(runs, targets) if len(methods) == 2 else []
    gray = "; gray: not told apart" if open_ else ""
    figure = curves(
        found, f"Forgotten at equal held-out loss, by target{gray}",
        f"Curves with the range over seeds: rise of the loss on base documents. {told}.{shaded(open_)}",
        direct=False, xscale="log", xticks=(0.06, 0.1, 0.2, 0.5, 1), figsize=(7.4, 3.8), **RISES,
        ylim=around(y for by in found.values() for some in by.values() for y in some),
        xlabel="held-out loss at which they are compared (nats per token; further left is better)",
        ylabel="rise of the loss on\nbase documents (nats)",
    )  # fmt: skip
    for low, high in open_:
        figure.axes[0].axvspan(low, high, color="0.5", alpha=0.15, lw=0, zorder=0)
    return figure


def unsettled(
    runs: Sequence[dict], targets: Sequence[float] = TARGETS
) -> list[tuple[float, float]]:
    """Return the ranges of held-out loss around the targets at which no direction is named.

    Borders between two targets are their geometric means.
    """
    found: list[tuple[float, float]] = []
    known = sorted(target for target in targets if ways(runs, target))
    for number, target in enumerate(known):
        if agreed(ways(runs, target), "more", "less") != estimates.OPEN:
            continue
        low, high = (
            math.sqrt(target * known[i]) if 0 <= i < len(known) else target
            for i in (number - 1, number + 1)
        )
        if found and found[-1][1] == low:
            low = found.pop()[0]
        found.append((low, high))
    return found


def shaded(ranges: Sequence[tuple[float, float]]) -> str:
    """Return the shaded ranges in words, for the text beside a figure."""
    told = ", ".join(f"{low:.2g} to {high:.2g}" for low, high in ranges)
    return f" The methods cannot be told apart at {told} (shaded)." if told else ""


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
        columns = ("LoRA − full", "on the validation documents")
        line |= dict(zip(columns, map(nats, both(runs, target)), strict=False))
        lines[f"{target:g}"] = line | {"all four say": agreed(ways(runs, target), "more", "less")}
    return pd.DataFrame(lines).T.rename_axis("full / LoRA at")


def by_exact(runs: Sequence[dict]) -> list[dict]:
    """Return the runs with exp(−share of exact answers) in place of the held-out losses.

    All comparisons at equal losses are then at equal shares, with interpolation over the share.
    """
    asked = [[math.exp(-share) for share in run["exact"]] for run in runs]
    return [
        run | {"validation": falls, "test": falls} for run, falls in zip(runs, asked, strict=True)
    ]


def at_shares(runs: Sequence[dict], shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return what ``by_target`` does, with both methods at equal shares of exact answers."""
    some = by_exact([run for run in runs if "exact" in run])
    table = by_target(some, [math.exp(-share) for share in shares]).drop(columns="exact")
    names = {f"{math.exp(-share):g}": f"{share:.1%}" for share in shares}
    return table.rename(index=names).rename_axis("full / LoRA at")


def shares_say(runs: Sequence[dict]) -> tuple[list[Estimate], str]:
    """Return the differences in all ways at all shares, and the same on both sets of documents as text."""
    some = by_exact([run for run in runs if "exact" in run])
    found = [way for share in SHARES for way in ways(some, math.exp(-share))]
    told = "; ".join(
        f"{on_both(both(some, math.exp(-share)))} at {share:.1%}"
        for share in SHARES
        if both(some, math.exp(-share))
    )
    return found, told


def region(runs: Sequence[dict], targets: Sequence[float] = TARGETS) -> str:
    """Return at which held-out losses LoRA has forgotten more or less, and where neither is settled."""
    groups: dict[str, list[str]] = {"more": [], "less": [], "not settled": []}
    for target in targets:
        found = ways(runs, target)
        if found:
            groups[agreed(found, "more", "less", "not settled")].append(f"{target:g}")
    return "; ".join(f"{words} at {', '.join(some)}" for words, some in groups.items() if some)


def against(runs: Sequence[dict]) -> pd.DataFrame:
    """Return each arm against full fine-tuning at two targets: forgetting, and length of ΔW."""
    lines = {}
    for method in (LORA, LINEAR, ENTRIES):
        lines[method] = {
            **{f"forgotten at {t:g}, minus full": said(both(runs, t, method)) for t in (MAIN, LOW)},
            f"‖ΔW‖ at {MAIN:g}, ÷ full's": times(moved_ratio(runs, MAIN, method)),
        }
    return pd.DataFrame(lines).T


def at_equal_rates(runs: Sequence[dict], method: str = LINEAR, target: float = MAIN) -> pd.DataFrame:  # fmt: skip
    """Return an arm against full fine-tuning at every learning rate of both that reaches the target."""
    lines = {}
    for rate in sorted({run["learning_rate"] for run in chosen(runs, method=method)}):
        found = both(runs, target, method, rate=rate)
        if found:
            moves = [at(runs, m, target, "moved", rate) for m in (FULL, method)]
            ratio = times(estimates.ratio(*moves))
            lines[f"{rate:g}"] = {"forgotten, minus full": said(found), "‖ΔW‖, ÷ full's": ratio}
    return pd.DataFrame(lines).T.rename_axis("learning rate")


def faster(runs: Sequence[dict], target: float = MAIN) -> tuple[float, Estimate] | None:
    """Return the largest learning rate at which full fine-tuning reaches the target, over its best one, and
    the ratio of the two ‖ΔW‖ at the target; None if only the best one reaches it."""
    rate = best(runs, FULL, target)[0]["learning_rate"]
    own = at(runs, FULL, target, "moved")
    for other in sorted({run["learning_rate"] for run in chosen(runs, method=FULL)}, reverse=True):
        moves = at(runs, FULL, target, "moved", other)
        if moves and other > rate:
            return other / rate, estimates.ratio(own, moves)
    return None


def moved_ratio(runs: Sequence[dict], target: float, method: str = LORA) -> Estimate:
    """Return ‖ΔW‖ at a held-out loss, divided by that of full fine-tuning, paired by seed."""
    return estimates.ratio(at(runs, FULL, target, "moved"), at(runs, method, target, "moved"))


def why_lost(found: Estimate) -> str:
    """Return the explanation of 06.b, and where an interval lies that leaves out 0 but holds a border."""
    low, high = found[1]
    if 0 < low < BORDER < high:
        return WHY["b"] + f" It lies above 0, but reaches below {BORDER:g}."
    if low < -BORDER < high < 0:
        return WHY["b"] + f" It lies below 0, but reaches above −{BORDER:g}."
    return WHY["b"]


def why_moved(runs: Sequence[dict]) -> str:
    """Return the explanation of 06.c with the numbers of its two controls."""
    entries, more = moved_ratio(runs, MAIN, ENTRIES), faster(runs)
    told = f" Random entries, whose change has no low rank, end {times(entries)} as far away as full fine-tuning."
    if more:
        told += f" Full fine-tuning with {more[0]:g} times the learning rate ends {times(more[1])} as far away."
    return WHY["c"] + told


def at_end(runs: Sequence[dict], method: str, target: float) -> str:
    """Return the chosen learning rate as text, and whether it is the lowest or highest that was tried."""
    rate = best(runs, method, target)[0]["learning_rate"]
    rates = {run["learning_rate"] for run in chosen(runs, method=method)}
    return f"{rate:g}" + ", an end of its grid" * (rate in (min(rates), max(rates)))


def claims(
    runs: Sequence[dict], real: Sequence[dict], bytes_: Mapping[str, Mapping[str, int]], saved: Estimate,
    by_batch: Mapping[int, float], strong: Sequence[dict] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        bytes_: method -> what ``training_bytes`` says. saved: share of the peak that LoRA saves.
        by_batch: sequences in the batch -> the same share. strong: runs of LoRA with α = 64, if there are any.
    """
    states = [sum(bytes_[m][part] for part in ("gradients", "optimizer")) for m in (FULL, LORA)]
    few, many = min(by_batch), max(by_batch)
    file = bytes_[LORA]["file"] / bytes_[FULL]["file"]
    forgot, entries = both(runs, MAIN), both(runs, MAIN, ENTRIES)
    smol, way = both(real, MAIN_REAL) if real else [], moved_ratio(runs, MAIN)

    def told(found: Sequence[Estimate]) -> str:
        return agreed(found, "forgets more", "forgets less")

    rate = best(runs, FULL, MAIN)[0]["learning_rate"]
    same_rate = f"at full's learning rate: {said(both(runs, MAIN, LINEAR, rate=rate))}"
    further_on = "24 steps; between two checkpoints"
    if strong:  # both at the loss of their last step
        ends = nats(excess(runs, strong)), nats(excess(runs, strong, LORA))
        further_on += f"; at the last loss of α = 64: α = 64 {ends[0]}, α = 16 {ends[1]}"
    more = faster(runs)
    further = f"; full at {more[0]:g} times its rate moves {times(more[1])}" if more else ""

    in_shares, share_words = shares_say(runs)

    rows = [
        (
            f"Gradients and optimizer state shrink by {1 - states[1] / states[0]:.0%}, a file by {1 - file:.0%}, the peak by {saved[0]:.0%}",
            f"{size(states[0])} to {size(states[1])}, as in AdamW; peak {percent(saved)}",
            f"peak with one sequence: {by_batch[few]:.0%}, with {many}: {by_batch[many]:.0%}",
            "rank 8 on every linear layer; the more activations, the less of the peak",
        ),
        (
            f"Within 24 steps, LoRA at full fine-tuning's held-out loss: {told(ways(runs, MAIN))}; at its share of exact answers: {told(in_shares)}",
            f"{on_both(forgot)} nats at {MAIN:g}; {share_words}",
            f"whole weights of the same layers, {same_rate}",
            f"by target: {region(runs)}; {further_on}",
        ),
        (
            f"Training as many random entries, at that loss: {told(ways(runs, MAIN, ENTRIES))}",
            f"{on_both(entries)} nats at {MAIN:g}",
            f"LoRA against these: {said(both(runs, MAIN, LORA, ENTRIES))}",
            f"at {LOW:g}: {said(both(runs, LOW, ENTRIES))}; LoRA against these {said(both(runs, LOW, LORA, ENTRIES))}; learning rate {at_end(runs, ENTRIES, MAIN)}",
        ),
        (
            f"ΔW of LoRA is {verdict(way, 'longer', 'shorter', neutral=1.0)} than full fine-tuning's at that loss",
            f"{times(way)} at {MAIN:g}",
            f"random entries: {times(moved_ratio(runs, MAIN, ENTRIES))}; forgotten, minus full: {agreed(entries, 'more', 'less')}",
            f"at {LOW:g}: {times(moved_ratio(runs, LOW))}; each at its own learning rate{further}",
        ),
        (
            f"LoRA on SmolLM2-135M-Instruct, at equal held-out loss: {told(ways(real, MAIN_REAL) if real else [])}",
            f"{on_both(smol)} nats at {MAIN_REAL:g}",
            f"by target: {region(real, TARGETS_REAL)}",
            f"a copy out of 4 bits; {TEXTS} texts of {LENGTH} tokens in each set; three seeds, {CHECKPOINTS[-1]} steps, few learning rates; chosen: full {at_end(real, FULL, MAIN_REAL)}; LoRA {at_end(real, LORA, MAIN_REAL)}",
        ),
    ]
    rows = rows if real else rows[:-1]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
