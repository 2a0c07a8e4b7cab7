"""Figures and tables of notebook 21. Their words follow the numbers."""

from __future__ import annotations

from collections import Counter
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
    PRODUCTS,
    RATES,
    THREE,
    TWO,
)
from sftlab.exercises.ex21_qlora_finetuning.bases import FULL as SIXTEEN
from sftlab.exercises.sizes import size
from sftlab.lora import lora_parameter_count
from sftlab.memory.shapes import SHAPES, build, linear_layers
from sftlab.quant import bits_per_parameter
from sftlab.statistics import chosen

Census = Mapping[tuple[str, str], tuple[int, int]]  # (kind, dtype) -> (parameters, bytes)

ARMS = (SIXTEEN, FOUR, HALF, THREE, TWO)
PARTS = ("linear layers", "embedding and head", "adapters", "gradients", "moments of AdamW")
SAME = 1.6e-3  # a learning rate at which arms are compared, too
STORED = {"16 bits": 16.0, "NF4": bits_per_parameter(), "NF4, double": bits_per_parameter(double=True)}  # fmt: skip
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "The function casts every 16-bit parameter that is not packed to float32. That doubles the embedding, which is also the output head and takes more bytes here than all packed layers.",
    "b": "The adapter is trained through the rounded weights, so its gradients include their errors. The packed layers have the logits of plain layers with the same values: they only round.",
    "c": "Both have the same rounded base. The first adapter was trained on it and can correct its errors, as far as rank 8 reaches. The second was trained without them.",
}  # fmt: skip


# --- bytes -----------------------------------------------------------------------------------


def by_stage(stages: Mapping[str, Census]):
    """Draw the megabytes of a model's parameters after each call, by kind and dtype."""
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
    return stacked(found, "Bytes of the parameters after each call", f"Stacked bars in MB. {told}.",
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


def two_recipes(made: Mapping[str, Census]) -> str:
    """Return in words how the second of two ways to prepare a model differs from the first."""
    (one, theirs), (other, found) = made.items()
    dtypes = [
        f"{kind} in {' and '.join(dtype for k, dtype in found if k == kind)}"
        for kind in ("embedding", "adapter")
    ]
    return f"{other} holds {whole(found) / whole(theirs):.0%} of the bytes of {one}: {', '.join(dtypes)}."


# --- training --------------------------------------------------------------------------------


def best(runs: Sequence[dict], base: str) -> list[dict]:
    """Return an arm's runs at the learning rate with the lowest validation loss."""
    tried = [run for run in chosen(runs, base=base) if run["learning_rate"] in RATES]
    return estimates.tuned(tried, lambda run: run["validation"])


def loss(runs: Sequence[dict], base: str, name: str = "test", rate: float = 0) -> dict[int, float]:
    """Return seed -> an arm's loss, at its own learning rate or at another one."""
    found = chosen(runs, base=base, learning_rate=rate) if rate else best(runs, base)
    return {run["seed"]: run[name] for run in found}


def carried(runs: Sequence[dict], base: str, rate: float = 0) -> dict[int, float]:
    """Return seed -> the test loss of the adapter that was trained on 16 bits, put on another base."""
    found = chosen(runs, base=SIXTEEN, learning_rate=rate) if rate else best(runs, SIXTEEN)
    return {run["seed"]: run["moved"][base] for run in found}


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


def repaired(runs: Sequence[dict], base: str, rate: float = 0) -> Estimate:
    """Return the loss of the adapter trained on a base over that of the one put on it.

    Both have one learning rate, or each that of its own training, which is on 16 bits for the second.
    """
    return paired(carried(runs, base, rate), loss(runs, base, rate=rate))


def at_best_for_it(runs: Sequence[dict], base: str) -> Estimate:
    """Return ``repaired`` with the adapter put on the base trained at the learning rate best for that.

    It is chosen on the test questions themselves, so in favor of the adapter that was not trained on the base.
    """
    found = estimates.tuned(chosen(runs, base=SIXTEEN), lambda run: run["moved"][base])
    return paired({run["seed"]: run["moved"][base] for run in found}, loss(runs, base))


def forgetting(runs: Sequence[dict], base: str, rate: float = 0) -> Estimate:
    """Return the loss on documents after training over that of the arm on 16 bits."""
    one, other = (loss(runs, each, "documents", rate) for each in (SIXTEEN, base))
    return paired(one, other)


def at_low(runs: Sequence[dict], base: str) -> Estimate:
    """Return an arm's fall of the test loss at the low learning rate over that in float32."""
    falls = [
        {
            run["seed"]: run["before"]["test"] - run["test"]
            for run in chosen(runs, base=arm, learning_rate=LOW)
        }
        for arm in (FOUR, base)
    ]
    return paired(*falls)


def low_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return ``at_low`` of the arm in bfloat16 and of its control, with what each says."""
    rows = {
        base: {"÷ fall with A and B in float32": times(found), "the loss falls": estimates.compared(found).replace("higher", "more").replace("lower", "less")}
        for base, found in ((base, at_low(runs, base)) for base in (HALF, PRODUCTS))
    }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis(f"fall of the test loss at {LOW:g}")


def before(runs: Sequence[dict], base: str, name: str) -> float:
    """Return a loss of a base before training."""
    return best(runs, base)[0]["before"][name]


def trade_off(runs: Sequence[dict]):
    """Draw the test loss over the loss on documents, by learning rate, for four ways to store the base."""
    found = {
        base: {
            float(np.mean(list(loss(runs, base, "documents", rate).values()))): list(loss(runs, base, rate=rate).values())
            for rate in RATES
        }
        for base in (SIXTEEN, FOUR, THREE, TWO)
    }  # fmt: skip
    ordered = all(sorted(by) == list(by) for by in found.values())
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    told = "; ".join(
        f"{base}: " + ", ".join(f"{np.mean(v):.3f} at {documents:.2f}" for documents, v in by.items())
        for base, by in found.items()
    )  # fmt: skip
    return curves(found, f"Learning rates {rates}{' from left to right' * ordered}, 24 steps", f"Test loss at the loss on documents, with the range over seeds, for the learning rates {rates} in this order. {told}.",
                  direct=False, xscale="log", yscale="log", xlabel="loss on documents (nats per token)", ylabel="test loss (nats per token)",
                  xticks=[0.6, 0.8, 1, 1.5, 2, 3, 4], figsize=(7.8, 3.8))  # fmt: skip


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return each arm at its own learning rate, against the 16-bit base."""
    rows = {}
    for base in ARMS:
        mean = {name: np.mean(list(loss(runs, base, name).values())) for name in ("test", "documents")}  # fmt: skip
        rows[base] = {
            "learning rate": f"{best(runs, base)[0]['learning_rate']:g}",
            **{
                f"{name}, before → after": f"{before(runs, base, name):.2f} → {after:.3f}"
                for name, after in mean.items()
            },
            "test ÷ 16 bits": times(against(runs, base)),
            f"both at {SAME:g}": times(against(runs, base, rate=SAME)),
            "documents ÷ 16 bits": times(forgetting(runs, base)),
            f"both at {SAME:g} ": times(forgetting(runs, base, SAME)),
        }
        if base == SIXTEEN:
            rows[base] |= dict.fromkeys(list(rows[base])[3:], "")
    return pd.DataFrame(rows).T.rename_axis(f"trained on; learning rates: {rates_chosen(runs)}")


def repairs(runs: Sequence[dict]):
    """Draw, by learning rate, the test loss of adapters trained on a base over that of those moved to it."""
    found = {}
    for rate in RATES[:-1]:
        found[f"{rate:g}"] = {}
        for base in (FOUR, THREE, TWO):
            moved, own = carried(runs, base, rate), loss(runs, base, rate=rate)
            found[f"{rate:g}"][base] = [own[seed] / moved[seed] for seed in moved]
    told = "; ".join(
        f"learning rate {rate}: " + ", ".join(f"{base} ×{np.exp(np.mean(np.log(v))):.2f}" for base, v in by.items())
        for rate, by in found.items()
    )  # fmt: skip
    return dots(found, "Test loss, trained on the base ÷ moved to it, by learning rate", f"Dots for the seeds. {told}.",
                axvline={1: "equal"}, xlabel="ratio of test losses, both adapters at this learning rate", figsize=(7.8, 3.6))  # fmt: skip


def repairs_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the same as ratios with intervals, at each arm's own learning rate and at others."""
    rows = {
        base: {
            "moved ÷ on 16 bits": times(carried_against(runs, base)),
            "trained on this base ÷ moved, each at its own learning rate": times(
                repaired(runs, base)
            ),
            **{f"both at {rate:g}": times(repaired(runs, base, rate)) for rate in RATES[:2]},
            "at the learning rate best for moved": times(at_best_for_it(runs, base)),
        }
        for base in (FOUR, THREE, TWO)
    }
    return pd.DataFrame(rows).T.rename_axis(
        "base; moved: adapter trained on 16 bits, used on this base"
    )


def real_table(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return what 4 bits do to two models: bytes, and the held-out loss before and after training."""
    rows = {}
    for run in recorded:
        linear, whole_ = (one / other for one, other in run["bytes"].values())
        rows[f"{run['model']}, {run['stored']}"] = {
            "linear layers, 16 bits ÷ stored": f"{linear:.1f}×",
            "all parameters, 16 bits ÷ stored": f"{whole_:.1f}×",
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


def rates_chosen(runs: Sequence[dict]) -> str:
    """Return in words which learning rates the arms chose."""
    found = {best(runs, base)[0]["learning_rate"] for base in ARMS}
    return (
        f"{', '.join(f'{rate:g}' for rate in sorted(found))}{' in every arm' * (len(found) == 1)}"
    )


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
        stages: call -> census after it, in the order of the calls.
        held: way to prepare -> "parameters" and "saved for backward" in bytes, most library steps first.
        limits: the recorded attempts under a limit. real: one run of each on two models.
    """
    sixteen, packed, prepared, *_ = map(whole, stages.values())
    part = Counter({kind: held_ for (kind, _), (_, held_) in next(iter(stages.values())).items()})
    most, *_, least = (one["parameters"] for one in held.values())
    four, forgotten, half = against(runs, FOUR), forgetting(runs, FOUR), against(runs, HALF, FOUR)
    put, mended, three = carried_against(runs, FOUR), repaired(runs, FOUR), forgetting(runs, THREE)
    low, products = at_low(runs, HALF), at_low(runs, PRODUCTS)
    starts = [before(runs, base, "test") for base in (SIXTEEN, FOUR)]
    large = max(limits, key=lambda run: run["allowed"])
    same = estimates.compared
    rows = [
        (
            "Packing shrinks the parameters; preparing the model takes part of it back",
            f"16 bits {size(sixteen)}, NF4 {size(packed)}, prepared {size(prepared)}",
            f"with A and B: prepared {size(most)}, not prepared and A and B in 16 bits {size(least)}",
            f"a small model: its embedding is {part['embedding'] / sixteen:.0%} of its bytes in 16 bits",
        ),
        (
            f"QLoRA against LoRA on 16 bits: test loss {same(four)}, loss on documents {same(forgotten)}",
            f"test {times(four)}, documents {times(forgotten)}; learning rate {rates_chosen(runs)}",
            f"both at {SAME:g}: test {times(against(runs, FOUR, rate=SAME))}, documents {times(forgetting(runs, FOUR, SAME))}",
            f"documents at the learning rate {RATES[-1]:g}: {times(forgetting(runs, FOUR, RATES[-1]))}; at 3 bits: {times(three)}, {same(three)}{'' if (three[0] > 1) == (forgotten[0] > 1) else ', against the simple story that less precision forgets more'}; SmolLM2 with products in bfloat16, one seed, an observation: test ×{real_ratio(real, 'smollm2-instruct'):.2f}; one rounding of one base",
        ),
        (
            f"4 bits: an adapter trained on them has a {verdict(mended, 'higher loss', 'lower loss', 'loss whose difference is not settled', neutral=1.0)} than one moved to them from 16 bits",
            f"{times(mended)}; both at {SAME:g}: {times(repaired(runs, FOUR, SAME))}",
            f"moved ÷ on its own 16 bits: {times(put)}, {verdict(put, 'higher', 'lower', neutral=1.0)}; before training 4 bits {starts[1]:.2f}, 16 bits {starts[0]:.2f}: {'no loss to recover' if starts[1] <= starts[0] else 'a loss to recover'}",
            f"3 bits: {times(repaired(runs, THREE))}, both at {SAME:g}: {times(repaired(runs, THREE, SAME))}, {same(repaired(runs, THREE, SAME))}; 2 bits: {times(repaired(runs, TWO))}, ×{against(runs, TWO)[0]:.1f} of the loss on 16 bits is left",
        ),
        (
            f"A, B, their products, gradients and moments in bfloat16: test loss {same(half)}",
            times(half),
            f"at {LOW:g} the loss falls by {times(low)} as much; with their products alone in bfloat16 by {times(products)}, {same(products)}",
            "24 steps at a constant learning rate",
        ),
        (
            f"A demonstration: under {size(large['allowed'])} a base of {SHAPES[large['shape']].parameters / 1e9:.2f} billion weights {'trains in 4 bits' if large['4 bits']['fits'] else 'does not train in 4 bits'}",
            f"at most {size(large['4 bits']['peak'])}",
            f"in 16 bits: {'it fits too' if large['16 bits']['fits'] else large['16 bits']['said']}; its weights take {size(2 * SHAPES[large['shape']].parameters)}",
            "it follows from the sizes; random weights, one sequence of 8 tokens",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
