"""Figures and tables of notebook 21. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from sftlab.classroom.figures import bars, curves, dots, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.ex21_qlora_finetuning.bases import (
    FOUR,
    HALF,
    LOW,
    RATES,
    THREE,
    TWO,
    UNPACKED,
)
from sftlab.exercises.ex21_qlora_finetuning.bases import FULL as SIXTEEN
from sftlab.exercises.sizes import size
from sftlab.lora import lora_parameter_count
from sftlab.memory.shapes import SHAPES, build, linear_layers
from sftlab.quant import bits_per_parameter
from sftlab.statistics import chosen

Census = Mapping[tuple[str, str], tuple[int, int]]  # (kind, dtype) -> (numbers, bytes)

ARMS = (SIXTEEN, FOUR, UNPACKED, HALF, THREE, TWO)
PARTS = ("linear layers", "embedding and head", "adapters", "gradients", "moments of AdamW")
SAME = 1.6e-3  # a learning rate at which arms are compared, too
STORED = {"16 bits": 16.0, "NF4": bits_per_parameter(), "NF4, double": bits_per_parameter(double=True)}  # fmt: skip
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "The function casts every 16-bit parameter that is not packed to float32. That doubles the embedding, which is also the output head and takes more bytes here than all packed layers.",
    "b": "The adapter is trained through the rounded weights, so its gradients see their errors. The plain layers with the same values tell whether the 4-bit layers do anything beyond rounding.",
    "c": "Both have the same rounded base. The first adapter was trained on it and can move against its errors, as far as rank 8 reaches. The second never saw them.",
}  # fmt: skip


# --- bytes -----------------------------------------------------------------------------------


def by_stage(stages: Mapping[str, Census]):
    """Draw the megabytes of a model's parameters after each line, by kind and dtype."""
    keys = list(dict.fromkeys(key for found in stages.values() for key in found))
    order = [k for kind in ("linear", "embedding", "adapter") for k in keys if k[0] == kind]
    found = {
        name: {", ".join(key): each.get(key, (0, 0))[1] / 1e6 for key in order}
        for name, each in stages.items()
    }
    told = "; ".join(
        f"{name}: " + ", ".join(f"{part} {mb:.2f}" for part, mb in parts.items() if mb)
        for name, parts in found.items()
    )
    return stacked(found, "Bytes of the parameters after each line", f"Stacked bars in MB. {told}.",
                   inside=".2f", total=lambda mb: f"{mb:.2f} MB", xlabel="MB; norms (10 kB at most) are left out", figsize=(8.6, 3.6))  # fmt: skip


def whole(found: Census) -> int:
    """Return the bytes of all parameters."""
    return sum(size for _, size in found.values())


@cache
def step_bytes(shape: str, stored: str, embedding: int, adapters: int, r: int) -> dict[str, float]:
    """Return the bytes that stay in memory while a published shape is trained with LoRA.

    Args:
        stored: how the linear layers are stored, a key of ``STORED``.
        embedding, adapters: bits of embedding, head and norms; bits of A, B and all that belongs to them.
        r: rank, on every linear layer but the head.
    """
    layers = linear_layers(build(shape)).values()
    linear = sum(d_in * d_out for d_in, d_out in layers)
    added = sum(lora_parameter_count(d_in, d_out, r) for d_in, d_out in layers)
    rest = SHAPES[shape].parameters - linear
    matrix = added * adapters / 8
    values = (linear * STORED[stored] / 8, rest * embedding / 8, matrix, matrix, 2 * matrix)
    return dict(zip(PARTS, values, strict=True))


def choices(parts: Mapping[str, float], title: str, alt: str):
    """Draw the bytes of ``step_bytes``."""
    return bars({name: held / 1e9 for name, held in parts.items()}, title, alt,
                fmt=lambda gb: f"{gb:.2f} GB", xlabel="GB, without activations", figsize=(7.4, 3.1))  # fmt: skip


def paged_table(r: int = 64) -> pd.DataFrame:
    """Return what a paged optimizer could move out of the GPU: the moments of AdamW, in float32."""
    rows = {}
    for shape in ("llama-3.2-1b", "llama-3-8b", "llama-3-70b"):
        parts = step_bytes(shape, "NF4, double", 16, 32, r)
        moments = parts[PARTS[-1]]
        rows[shape] = {
            "adapters": size(parts["adapters"]),
            "moments": size(moments),
            "moments, 16 bits": size(moments / 2),
            "share of what stays in memory": f"{moments / sum(parts.values()):.0%}",
        }
    return pd.DataFrame(rows).T.rename_axis(f"rank {r}, every linear layer")


def under_a_limit(found: Mapping[str, dict], allowed: int):
    """Draw each attempt's peak beside the limit, with what became of it."""
    words = {True: "trains", False: "is refused"}
    rows = {
        f"{name}: {'loads and trains' if one['fits'] else 'refused while loading'}": one["peak"]
        / 1e6
        for name, one in found.items()
    }
    told = "; ".join(f"{name} {words[one['fits']]} at {one['peak'] / 1e6:.0f} MB" for name, one in found.items())  # fmt: skip
    limit = allowed / 1e6
    return bars(
        rows,
        "Under one limit " + ", ".join(f"{name} {words[one['fits']]}" for name, one in found.items()),
        f"Bars beside a dotted line, the limit of {limit:.0f} MB: {told}.",
        fmt=lambda peak: f"{peak:.0f} MB", axvline={limit: f"limit {limit:.0f} MB"}, xlim=(0, 1.25 * limit),
        xlabel="most that the process held, beyond its libraries (MB)", figsize=(7.8, 2.6),
    )  # fmt: skip


def limits_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return the attempts under a limit, of every shape and way to store the base."""
    rows = {}
    for run in recorded:
        for name in ("16 bits", "4 bits"):
            one = run[name]
            losses = [f"{loss_:.2f}" for loss_ in one["losses"]]
            rows[f"{run['shape']}, {name}"] = {
                "limit": size(run["allowed"]),
                "loaded": size(one["loaded"]) if one["loaded"] else "never whole",
                "at most": size(one["peak"]),
                "and then": f"loss {', then '.join(losses)}" if one["fits"] else one["said"],
            }
    return pd.DataFrame(rows).T.rename_axis("base")


# --- training --------------------------------------------------------------------------------


def best(runs: Sequence[dict], base: str) -> list[dict]:
    """Return an arm's runs at the learning rate with the lowest validation loss."""
    tried = [run for run in chosen(runs, base=base) if run["learning_rate"] in RATES]
    return estimates.tuned(tried, lambda run: run["validation"])


def loss(runs: Sequence[dict], base: str, name: str = "test", rate: float = 0) -> dict[int, float]:
    """Return seed -> an arm's loss, at its own learning rate or at another one."""
    found = chosen(runs, base=base, learning_rate=rate) if rate else best(runs, base)
    return {run["seed"]: run[name] for run in found}


def carried(runs: Sequence[dict], base: str) -> dict[int, float]:
    """Return seed -> the test loss of the adapter that was trained on 16 bits, put on another base."""
    return {run["seed"]: run["moved"][base] for run in best(runs, SIXTEEN)}


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Return other ÷ one over the seeds that both have."""
    seeds = sorted(one.keys() & other.keys())
    return estimates.ratio([one[seed] for seed in seeds], [other[seed] for seed in seeds])


def against(runs: Sequence[dict], base: str, other: str = SIXTEEN, rate: float = 0) -> Estimate:
    """Return an arm's test loss over another's, each at its own learning rate or both at the same."""
    return paired(loss(runs, other, rate=rate), loss(runs, base, rate=rate))


def carried_against(runs: Sequence[dict], base: str) -> Estimate:
    """Return the loss of the adapter put on a base it never saw, over that on its own base."""
    return paired(loss(runs, SIXTEEN), carried(runs, base))


def repaired(runs: Sequence[dict], base: str) -> Estimate:
    """Return the loss of the adapter trained on a base over that of the one put on it.

    The second has the learning rate of its own training, on 16 bits.
    """
    return paired(carried(runs, base), loss(runs, base))


def at_best_for_it(runs: Sequence[dict], base: str) -> Estimate:
    """Return ``repaired`` with the adapter put on the base trained at the learning rate best for that.

    It is chosen on the test questions themselves, so in favor of the adapter that never saw the base.
    """
    found = estimates.tuned(chosen(runs, base=SIXTEEN), lambda run: run["moved"][base])
    return paired({run["seed"]: run["moved"][base] for run in found}, loss(runs, base))


def at_low(runs: Sequence[dict]) -> Estimate:
    """Return the fall of the test loss with A and B in bfloat16 over that in float32, at the low learning rate."""
    falls = [
        {
            run["seed"]: run["before"]["test"] - run["test"]
            for run in chosen(runs, base=base, learning_rate=LOW)
        }
        for base in (FOUR, HALF)
    ]
    return paired(*falls)


def rounded_before(runs: Sequence[dict], base: str) -> float:
    """Return by which share rounding alone raises the loss on documents, before any training."""
    one, other = (best(runs, b)[0]["before"]["documents"] for b in (SIXTEEN, base))
    return other / one - 1


def over_rates(runs: Sequence[dict]):
    """Draw the validation loss over the learning rate, for four ways to store the base."""
    found = {
        base: {rate: list(loss(runs, base, "validation", rate).values()) for rate in RATES}
        for base in (SIXTEEN, FOUR, THREE, TWO)
    }
    told = "; ".join(
        f"{base}: " + ", ".join(f"{np.mean(v):.3f} at {rate:g}" for rate, v in by.items())
        for base, by in found.items()
    )
    return curves(found, "Validation loss after 24 steps, by learning rate", f"Curves with the range over seeds. {told}.",
                  direct=False, xscale="log", yscale="log", xlabel="learning rate", ylabel="nats per token", figsize=(7.8, 3.6))  # fmt: skip


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return each arm at its own learning rate, against the 16-bit base."""
    rows = {}
    for base in ARMS:
        rows[base] = {
            "documents, before training": f"{rounded_before(runs, base):+.1%}",
            "learning rate": f"{best(runs, base)[0]['learning_rate']:g}",
            "test loss (nats)": f"{np.mean(list(loss(runs, base).values())):.3f}",
            "÷ 16 bits, each at its own": "" if base == SIXTEEN else times(against(runs, base)),
            f"÷ 16 bits, both at {SAME:g}": ""
            if base == SIXTEEN
            else times(against(runs, base, rate=SAME)),
        }
    return pd.DataFrame(rows).T.rename_axis("trained on")


def dose(runs: Sequence[dict]):
    """Draw the test loss on each base over that on 16 bits: adapters put on it, and trained on it."""
    one = loss(runs, SIXTEEN)
    made = {"trained on 16 bits, put on this base": carried, "trained on this base": loss}
    found = {
        label: {
            base: [value / one[seed] for seed, value in of(runs, base).items()]
            for base in (FOUR, THREE, TWO)
        }
        for label, of in made.items()
    }
    told = "; ".join(
        f"{label}: " + ", ".join(f"{base} ×{np.exp(np.mean(np.log(v))):.2f}" for base, v in by.items())
        for label, by in found.items()
    )  # fmt: skip
    return dots(found, "Test loss ÷ that of LoRA on 16 bits, by seed", f"Dots for the seeds. {told}.",
                axvline={1: "16 bits"}, xscale="log", xlabel="ratio of test losses", figsize=(7.8, 3.2))  # fmt: skip


def dose_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the same as ratios with intervals, and the two against each other."""
    rows = {
        base: {
            "put on it ÷ 16 bits": times(carried_against(runs, base)),
            "trained on it ÷ 16 bits": times(against(runs, base)),
            "trained on it ÷ put on it": times(repaired(runs, base)),
            "the same, learning rate best for put on it": times(at_best_for_it(runs, base)),
        }
        for base in (FOUR, THREE, TWO)
    }
    return pd.DataFrame(rows).T.rename_axis("base")


def real_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return what 4 bits do to two models: bytes, and the held-out loss before and after training."""
    rows = {}
    for run in recorded:
        linear, whole_ = (one / other for one, other in run["bytes"].values())
        rows[f"{run['model']}, {run['stored']}"] = {
            "linear layers smaller": f"{linear:.1f}×",
            "whole smaller": f"{whole_:.1f}×",
            "loss before": f"{run['untuned']:.2f}",
            "loss after": f"{run['nll']:.2f}",
        }
    return pd.DataFrame(rows).T.rename_axis("base")


def real_ratio(recorded: Sequence[dict], model: str) -> float:
    """Return the loss after training on 4 bits over that on 16 bits, of one run each."""
    four, sixteen = (chosen(recorded, model=model, stored=s)[0]["nll"] for s in ("nf4", "bf16"))
    return four / sixteen


def at_the_edge(runs: Sequence[dict]) -> str:
    """Return the arms whose best learning rate is the lowest or the highest that was tried."""
    found = [b for b in ARMS if best(runs, b)[0]["learning_rate"] in (RATES[0], RATES[-1])]
    return ", ".join(found) or "none"


# --- what was found --------------------------------------------------------------------------


def claims(
    stages: Mapping[str, Census],
    held: Mapping[str, Mapping[str, float]],
    runs: Sequence[dict],
    limits: Sequence[dict],
    real: Sequence[dict],
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        stages: line -> census after it, in the order of the lines.
        held: way to prepare -> "parameters" and "saved for backward" in bytes, most library steps first.
        limits: the recorded attempts under a limit. real: one run of each on two models.
    """
    sixteen, packed, prepared, *_ = map(whole, stages.values())
    most, *_, least = (one["saved for backward"] for one in held.values())
    four, kernels, half = against(runs, FOUR), against(runs, FOUR, UNPACKED), against(runs, HALF, FOUR)  # fmt: skip
    put, mended = carried_against(runs, FOUR), repaired(runs, FOUR)
    low, two = at_low(runs), repaired(runs, TWO)
    large = max(limits, key=lambda run: run["allowed"])
    same = estimates.compared
    rows = [
        (
            "Packing shrinks the parameters; preparing the model takes part of it back",
            f"16 bits {size(sixteen)}, NF4 {size(packed)}, prepared {size(prepared)}",
            f"not prepared, A and B in 16 bits: {size(most)} saved for backward become {size(least)}",
            "a small model with a large vocabulary; short sequences",
        ),
        (
            f"QLoRA's test loss against LoRA's on 16 bits: {same(four)}",
            times(four),
            f"both at {SAME:g}: {times(against(runs, FOUR, rate=SAME))}; 2 bits, each at its own: {times(against(runs, TWO))}; 4-bit layers ÷ plain layers with their values: {times(kernels)}, {same(kernels)}",
            f"SmolLM2, one seed, an observation: ×{real_ratio(real, 'smollm2-instruct'):.2f}; best learning rate at the end of its grid: {at_the_edge(runs)}",
        ),
        (
            f"4 bits: an adapter trained on them has a {verdict(mended, 'higher loss', 'lower loss', 'loss whose difference is not settled', neutral=1.0)} than one put on them",
            times(mended),
            f"put on them ÷ on its own 16 bits: {times(put)}, {verdict(put, 'higher', 'lower', neutral=1.0)}",
            f"3 bits: {times(repaired(runs, THREE))}; 2 bits: {times(two)}, ×{against(runs, TWO)[0]:.1f} of the loss on 16 bits is left; with the learning rate in favor of the other: {times(at_best_for_it(runs, FOUR))} at 4 bits, {times(at_best_for_it(runs, TWO))} at 2",
        ),
        (
            f"A, B and moments in bfloat16: test loss {same(half)}",
            times(half),
            f"at the learning rate {LOW:g} the loss falls by {times(low)} as much: {verdict(low, 'more', 'less', neutral=1.0)}",
            "24 steps at a constant learning rate; products in float32",
        ),
        (
            f"Under {size(large['allowed'])} a base of {SHAPES[large['shape']].parameters / 1e9:.2f} billion weights {'trains in 4 bits' if large['4 bits']['fits'] else 'does not train in 4 bits'}",
            f"at most {size(large['4 bits']['peak'])}",
            f"in 16 bits: {'it fits too' if large['16 bits']['fits'] else large['16 bits']['said']}",
            "random weights, one sequence of 8 tokens: memory alone is shown",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
