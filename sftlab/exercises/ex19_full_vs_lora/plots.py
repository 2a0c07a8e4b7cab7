"""Figures and tables of notebook 19. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pandas as pd
from scipy import stats

from sftlab.classroom.figures import LOOKS, curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.ex19_full_vs_lora.experiment import (
    BATCHES,
    EMBEDDED,
    METHODS,
    SHAPE,
    a_run,
    seven_sizes,
)
from sftlab.exercises.ex19_full_vs_lora.parts import PARTS as ALIVE
from sftlab.exercises.ex19_full_vs_lora.parts import step_parts as step_parts  # for the notebook
from sftlab.exercises.record import runs as runs  # for the notebook
from sftlab.exercises.sizes import size
from sftlab.exercises.trade_off import FULL, LORA
from sftlab.memory.count import TrainingBytes
from sftlab.memory.plan import Run, plan

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "peak")
MOMENTS = ("1, loss", "2, last layer", "3, AdamW")
SHORT, LONG = (length for _, length in BATCHES[SHAPE])

WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "At 64 tokens full fine-tuning peaks at the end of the step: weights, optimizer state, all gradients, no activations. LoRA has little there. It peaks at the loss, with the frozen weights and nearly as many activations as full fine-tuning.",
    "b": "At 256 tokens both peak at the loss. What full fine-tuning has more there is mainly its optimizer state; activations are the largest part of both.",
}  # fmt: skip


# --- one step --------------------------------------------------------------------------------


def timelines(
    found: Mapping[str, tuple[Sequence[int], Mapping[str, int]]],
    planned: Mapping[str, TrainingBytes],
    parts: Mapping[str, Mapping[str, Sequence[int]]],
):
    """Draw the bytes held after every operation of a step and what they are for, by variant.

    Args:
        found: variant -> (bytes after every operation, label -> number of operations until then).
        planned: variant -> what was planned.
        parts: variant -> `step_parts`.
    """
    panels, each, words = {}, {}, []
    for name, (timeline, marks) in found.items():
        edges = np.unique(np.linspace(0, len(timeline), 161).astype(int))
        shown = [a + int(np.argmax(timeline[a:b])) for a, b in pairwise(edges)]
        tops = np.cumsum([np.array(parts[name][part])[shown] / 1e6 for part in ALIVE], axis=0)
        panels[name] = {
            part: dict(zip(shown, top.tolist(), strict=True))
            for part, top in zip(ALIVE, tops, strict=True)
        }
        each[name] = {
            "axvline": dict.fromkeys(marks.values(), ""),
            "axhline": {planned[name].peak / 1e6: "plan"},
        }
        words.append(
            f"{name}: begins at {size(timeline[0])}, highest {size(max(timeline))} with {at_peak(parts[name])}"
        )
    figure = curves(panels, "What is alive during one training step",
                    f"Stacked areas over the operations of a step. {'; '.join(words)}. A dotted line marks the planned peak.",
                    panels=True, columns=2, sharey=True, each=each, xlabel=f"operations; dotted: {' and '.join(marks)} begin", ylabel="MB", ylim=(0, None),
                    figsize=(9.2, 6.6))  # fmt: skip
    for axis, series in zip(figure.axes, panels.values(), strict=True):
        below = np.zeros(len(next(iter(series.values()))))
        for points, (colour, _, _, hatch) in zip(series.values(), LOOKS, strict=False):
            top = np.array(list(points.values()))
            axis.fill_between(list(points), below, top, facecolor=colour, alpha=0.45, hatch=hatch, lw=0)  # fmt: skip
            below = top
    return figure


def at_peak(parts: Mapping[str, Sequence[int]]) -> str:
    """Return in words what is held where the sum of the parts is largest."""
    peak = int(np.argmax(np.sum(list(parts.values()), axis=0)))
    return ", ".join(f"{part} {size(held[peak])}" for part, held in parts.items())


def against_plan(found: Mapping[str, tuple[TrainingBytes, TrainingBytes]]) -> pd.DataFrame:
    """Return each part as planned and as measured: variant -> (planned, measured)."""
    rows = {
        f"{name}, {how}": {part: size(getattr(held, part)) for part in PARTS}
        for name, both in found.items()
        for how, held in zip(("planned", "measured"), both, strict=True)
    }
    return pd.DataFrame(rows).T


def moment(run: Run) -> str:
    """Return at which of the planned moments of a step the peak is."""
    _, gradients, _, activations, logits, in_flight, largest = seven_sizes(run)
    held = activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    return MOMENTS[int(np.argmax(held))]


def peaks_table(
    said: Mapping[str, int], seen: Mapping[str, int], ways: Mapping[str, Run]
) -> pd.DataFrame:
    """Return planned and measured peaks of each setting, how far they differ, and the planned moment."""
    rows = {
        name: {
            "your function": size(said[name]),
            "your meter, or recorded": size(seen[name]),
            "differ by": f"{seen[name] / said[name] - 1:+.1%}",
            "planned moment": moment(run),
        }
        for name, run in ways.items()
    }
    return pd.DataFrame(rows).T


# --- recorded --------------------------------------------------------------------------------


def recorded(runs: Sequence[dict], **settings) -> list[dict]:
    """Return the recorded runs with these settings."""
    return [run for run in runs if all(run.get(k) == v for k, v in settings.items())]


def measured(
    runs: Sequence[dict], shape: str, method: str, length: int, recompute: bool = False
) -> list[dict]:
    """Return the recorded processes of a variant, one for each repetition."""
    settings = {"shape": shape, "method": method, "length": length, "recompute": recompute}
    return recorded(runs, kind="memory", **settings)


def processes(
    runs: Sequence[dict], method: str, length: int, recompute: bool = False, shape: str = SHAPE
) -> list[float]:
    """Return the peaks of these processes in bytes."""
    return [run["process"] for run in measured(runs, shape, method, length, recompute)]


def tensors(runs: Sequence[dict], shape: str, method: str, length: int, again: bool = False) -> int:
    """Return the recorded peak of what tensors hold, in bytes."""
    return measured(runs, shape, method, length, again)[0]["tensors"]["peak"]


def taken_off(runs: Sequence[dict]) -> dict[tuple[str, str, int], float]:
    """Return (model, method, tokens) -> the share of the tensors' peak that recomputation takes off."""
    return {
        (shape, method, n): 1
        - tensors(runs, shape, method, n, True) / tensors(runs, shape, method, n)
        for shape, batches in BATCHES.items()
        for _, n in batches
        for method in METHODS
    }


def share_of_full(
    runs: Sequence[dict], length: int, recompute: bool = False, shape: str = SHAPE
) -> Estimate:
    """Return LoRA's peak divided by full fine-tuning's, means over processes, with its 95% interval.

    Nothing pairs one process with another: it is Welch's interval of the logarithms. One process of each
    has none: it has no width.
    """
    full, lora = (np.log(processes(runs, method, length, recompute, shape)) for method in METHODS)
    value = float(np.exp(lora.mean() - full.mean()))
    if min(len(full), len(lora)) < 2:
        return value, (value, value)
    low, high = stats.ttest_ind(lora, full, equal_var=False).confidence_interval()
    return value, (float(np.exp(low)), float(np.exp(high)))


def processes_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return all recorded peaks: planned, of the process, and LoRA's share of full fine-tuning's."""
    rows = {}
    for shape, batches in BATCHES.items():
        for (batch, length), again, method in product(batches, (False, True), METHODS):
            peaks = processes(runs, method, length, again, shape)
            planned = plan(a_run(shape, method, batch, length, again)).peak
            share = share_of_full(runs, length, again, shape)
            rows[f"{shape}, {method}, {length} tokens{', recomputed' * again}"] = {
                "planned": size(planned),
                "process: mean (lowest to highest)": f"{size(np.mean(peaks))}" + f" ({size(min(peaks))} to {size(max(peaks))})" * (len(peaks) > 1),
                "n": len(peaks),
                "process ÷ planned": f"{np.mean(peaks) / planned - 1:+.1%}",
                "LoRA ÷ full (95% interval)": (times(share) if len(peaks) > 1 else f"×{share[0]:.2f}") if method == "lora" else "",
            }  # fmt: skip
    return pd.DataFrame(rows).T


def growth(runs: Sequence[dict], lengths: Sequence[int] = (32, 64, 128, 256, 512)):
    """Draw planned peaks of SmolLM2 over the length of sequences; crosses are recorded processes."""
    ways = {"full": ("full", False), "LoRA": ("lora", False),
            "full, recomputed": ("full", True), "LoRA, recomputed": ("lora", True)}  # fmt: skip
    lines = {
        label: {n: plan(a_run(SHAPE, method, 4, n, again)).peak / 1e9 for n in lengths}
        for label, (method, again) in ways.items()
    }
    measured = {
        (n, float(np.mean(processes(runs, method, n, again))) / 1e9): ""
        for method, again in ways.values()
        for n in (SHORT, LONG)
    }
    ends = ", ".join(f"{label} {line[lengths[-1]]:.1f} GB" for label, line in lines.items())
    return curves(lines, "Peak memory over the length of four sequences, SmolLM2",
                  f"Rising lines; at {lengths[-1]} tokens {ends}. Crosses mark measured processes.",
                  marked=measured, xticks=list(lengths), ylim=(0, None), xlabel="tokens per sequence", ylabel="GB",
                  figsize=(8, 3.8))  # fmt: skip


def seconds(runs: Sequence[dict], shape: str) -> dict[str, float]:
    """Return the recorded seconds of a step, by variant."""
    (found,) = recorded(runs, kind="time", shape=shape)
    return found["seconds"]


def time_table(runs: Sequence[dict], operations: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return arithmetic and seconds of each variant, divided by those of full fine-tuning.

    Args:
        operations: shape -> variant -> floating-point operations of a forward and a backward pass.
    """
    rows = {
        f"{shape}: {variant}": {
            "arithmetic, of full": f"{count / counts['full']:.2f}",
            "seconds": f"{seconds(runs, shape)[variant]:.2f}",
            "seconds, of full": f"{seconds(runs, shape)[variant] / seconds(runs, shape)['full']:.2f}",
        }
        for shape, counts in operations.items()
        for variant, count in counts.items()
    }
    return pd.DataFrame(rows).T


def of_full(runs: Sequence[dict], shape: str) -> float:
    """Return the time of a step with LoRA divided by that of a full step."""
    found = seconds(runs, shape)
    return found["lora"] / found["full"]


def on_disk(runs: Sequence[dict], shape: str) -> float:
    """Return how many times as large the file of full fine-tuning is as LoRA's."""
    full, lora = (recorded(runs, kind="disk", shape=shape, method=m)[0]["bytes"] for m in METHODS)
    return full / lora


# --- what was found --------------------------------------------------------------------------


def held_out_ratio(trade_off: Sequence[dict]) -> Estimate:
    """Return LoRA's held-out loss divided by full fine-tuning's after the last step, by seed.

    Each at the learning rate with the lowest mean loss on the validation questions.
    """
    ends = {}
    for method in (FULL, LORA):
        of_method = recorded(trade_off, method=method)
        ends[method] = estimates.tuned(of_method, lambda run: run["validation"][-1])
    return estimates.ratio(*([run["test"][-1] for run in ends[m]] for m in (FULL, LORA)))


def claims(
    runs: Sequence[dict],
    planned: Mapping[str, TrainingBytes],
    operations: Mapping[str, Mapping[str, float]],
    trade_off: Sequence[dict],
    ways: Mapping[str, Run],
    seen: Mapping[str, int],
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow them.

    Args:
        planned: variant -> what was planned.
        operations: as in `time_table`.
        trade_off: the recorded runs of notebook 06.
        ways: setting -> its run. seen: its peak as measured.
    """
    off = {name: seen[name] / plan(run).peak - 1 for name, run in ways.items()}
    at_loss = [abs(off[name]) for name, run in ways.items() if moment(run) == MOMENTS[0]]
    summed = ", ".join(f"{name} {_sum(planned[name]) / seen[name] - 1:+.0%}" for name in planned)
    far = max(off, key=lambda name: abs(off[name]))
    short, long = share_of_full(runs, SHORT), share_of_full(runs, LONG)
    saves = verdict(long, "less", "more", neutral=short[1][1] if long[0] > short[0] else short[1][0])  # fmt: skip
    off_peak, larger = taken_off(runs), max(_over_plan(runs).values())
    kept = {n: [plan(a_run(SHAPE, m, 4, n)) for m in METHODS] for n in (SHORT, LONG)}
    activations = {n: lora.activations / full.activations for n, (full, lora) in kept.items()}
    others = {n: (_sum(lora) - lora.activations) / (_sum(full) - full.activations) for n, (full, lora) in kept.items()}  # fmt: skip
    none = [f"{m}, {n} tokens, {shape}" for (shape, m, n), part in off_peak.items() if part < 0.005]
    loss = held_out_ratio(trade_off)
    rows = [
        (
            f"The peak of a step's tensors can be planned from shapes: within {max(map(abs, off.values())):.1%}; where the loss is the peak, within {max(at_loss):.1%}",
            "; ".join(f"{name}: {off[name]:+.1%} ({moment(run)})" for name, run in ways.items()),
            f"the sum of all parts instead: {summed}",
            f"farthest off: {far}, planned at moment {moment(ways[far])}; the backward pass of the first layer is not planned; a whole process holds up to {larger:.0%} more, above the level of a warmed-up one",
        ),
        (
            f"With longer sequences LoRA saves {saves} of the peak",
            f"LoRA ÷ full: {times(short)} at {SHORT} tokens, {times(long)} at {LONG}",
            f"planned, LoRA ÷ full: activations ×{activations[SHORT]:.2f} and ×{activations[LONG]:.2f}, all that does not grow ×{others[SHORT]:.2f} and ×{others[LONG]:.2f}",
            f"recomputed, one process each: ×{share_of_full(runs, SHORT, True)[0]:.2f} at {SHORT} and ×{share_of_full(runs, LONG, True)[0]:.2f} at {LONG}; 4 sequences, SmolLM2",
        ),
        (
            f"Recomputation takes {min(off_peak.values()):.0%} to {max(off_peak.values()):.0%} off the tensors' peak; off LoRA's {_more(off_peak)}",
            "; ".join(f"{shape}, {n} tokens: LoRA {off_peak[shape, 'lora', n]:.0%}, full {off_peak[shape, 'full', n]:.0%}" for shape, batches in BATCHES.items() for _, n in batches),
            "the same step and the same batch without it",
            f"{f'nothing off where the peak is at the end of the step: {chr(44).join(none)}; ' if none else ''}time, one recording: ×{seconds(runs, SHAPE)['lora, recomputed'] / seconds(runs, SHAPE)['lora']:.2f} with LoRA on SmolLM2",
        ),
        (
            f"Observation: a step with LoRA takes {'less' if of_full(runs, SHAPE) < 1 else 'more'} time than a full one (SmolLM2)",
            f"×{of_full(runs, SHAPE):.2f}; one recording, the fastest of six rounds, two threads",
            f"arithmetic alone: ×{operations[SHAPE]['lora'] / operations[SHAPE]['full']:.2f}",
            f"{recorded(runs, kind='time', shape=SHAPE)[0]['tokens']} tokens a step; AdamW's own time is in the seconds, not in the arithmetic; embedded model: ×{of_full(runs, EMBEDDED):.2f}, with ×{operations[EMBEDDED]['lora'] / operations[EMBEDDED]['full']:.2f} of the arithmetic; no interval",
        ),
        (
            f"Held-out loss with LoRA against full fine-tuning: {verdict(loss, 'higher', 'lower', neutral=1.0)}; its file is {on_disk(runs, EMBEDDED):.0f} times smaller",
            f"{times(loss)}; file of full fine-tuning ÷ LoRA's: ×{on_disk(runs, EMBEDDED):.0f}, of SmolLM2 ×{on_disk(runs, SHAPE):.0f}",
            "each at its best learning rate, chosen on other questions (notebook 06)",
            "32 pairs, one small model",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def _sum(planned: TrainingBytes) -> int:
    return sum(getattr(planned, part) for part in PARTS if part != "peak")


def _over_plan(runs: Sequence[dict]) -> dict[tuple[str, str, int, bool], float]:
    """Return by how much the largest process of each recorded variant exceeds the plan."""
    return {
        (shape, method, n, again): max(processes(runs, method, n, again, shape)) / plan(a_run(shape, method, b, n, again)).peak - 1
        for shape, batches in BATCHES.items()
        for (b, n), again, method in product(batches, (False, True), METHODS)
    }  # fmt: skip


def _more(off: Mapping[tuple[str, str, int], float]) -> str:
    """Return in words whether recomputation takes more off LoRA's peak than off full fine-tuning's."""
    more = {off[shape, "lora", n] > off[shape, "full", n] for shape, _, n in off}
    return {(True,): "more in each setting", (False,): "no more in any setting"}.get(tuple(more), "more in some settings")  # fmt: skip
