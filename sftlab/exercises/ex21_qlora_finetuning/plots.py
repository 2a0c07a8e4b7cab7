"""Figures and tables of notebook 21. Their words follow the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from sftlab.classroom.figures import bars, curves, dots, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times
from sftlab.exercises.ex06_why_peft.reference import value_at
from sftlab.exercises.ex21_qlora_finetuning.bases import (
    FOUR,
    HALF,
    LOW,
    MOMENTS,
    PRODUCTS,
    RATES,
    THREE,
    TWO,
)
from sftlab.exercises.ex21_qlora_finetuning.bases import FULL as SIXTEEN
from sftlab.exercises.ex21_qlora_finetuning.roundings import NONE
from sftlab.exercises.sizes import size
from sftlab.lora import lora_parameter_count
from sftlab.memory.shapes import SHAPES, build, linear_layers
from sftlab.quant import bits_per_parameter
from sftlab.statistics import chosen

Census = Mapping[tuple[str, str], tuple[int, int]]  # (kind, dtype) -> (parameters, bytes)

ARMS = (SIXTEEN, FOUR, THREE, TWO)
PARTS = ("linear layers", "embedding and head", "adapters", "gradients", "moments of AdamW")
SAME = 1.6e-3  # a learning rate at which arms are compared, too
TARGETS = (0.06, 0.05)  # test losses at which the loss on documents is compared
STORED = {"16 bits": 16.0, "NF4": bits_per_parameter(), "NF4, double": bits_per_parameter(double=True)}  # fmt: skip
AT = TARGETS[0]
COMPARED = (
    f"documents, both at test loss {AT:g}",
    f"test, used on this rounding, both at {SAME:g}",
    f"test, used on 16 bits, both at {SAME:g}",
)
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "The function casts every 16-bit parameter that is not packed to float32. That doubles the embedding, which is also the output head and takes more bytes here than all packed layers.",
    "c": "The second adapter meets errors that it never saw, and those of 2 bits are large. The first was trained with them. Its loss on this base cannot tell whether it fits the errors or corrects them. On 16 bits, where there are none, it would have to be worse in both cases.",
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


def together(runs: Sequence[dict], *bases: str) -> list[dict]:
    """Return the runs of the seeds that all of these arms have: on them learning rates are chosen."""
    seeds = set.intersection(*({run["seed"] for run in chosen(runs, base=b)} for b in bases))
    return [run for run in runs if run["seed"] in seeds]


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
    runs = together(runs, base, other)
    return paired(loss(runs, other, rate=rate), loss(runs, base, rate=rate))


def moved_back(runs: Sequence[dict], back: Sequence[dict], base: str, rate: float = 0) -> Estimate:
    """Return, on 16 bits, the loss of an adapter trained on a rounded base over that of one trained there.

    Each at the learning rate of its own training, or both at the same. ``back``: the record of these moves.
    """
    at = rate or best(runs, base)[0]["learning_rate"]
    moved = {run["seed"]: run["moved"] for run in chosen(back, base=base, learning_rate=at)}
    return paired(loss(together(runs, SIXTEEN, base), SIXTEEN, rate=rate), moved)


def repaired(runs: Sequence[dict], base: str, rate: float = 0) -> Estimate:
    """Return the loss of the adapter trained on a base over that of the one put on it.

    Both have one learning rate, or each that of its own training, which is on 16 bits for the second.
    """
    runs = together(runs, SIXTEEN, base)
    return paired(carried(runs, base, rate), loss(runs, base, rate=rate))


def at_best_for_it(runs: Sequence[dict], base: str) -> Estimate:
    """Return ``repaired`` with the adapter put on the base trained at the learning rate best for that.

    It is chosen on the test questions themselves, so in favor of the adapter that was not trained on the base.
    """
    runs = together(runs, SIXTEEN, base)
    found = estimates.tuned(chosen(runs, base=SIXTEEN), lambda run: run["moved"][base])
    return paired({run["seed"]: run["moved"][base] for run in found}, loss(runs, base))


def documents_at(runs: Sequence[dict], base: str, target: float) -> dict[int, float]:
    """Return seed -> an arm's loss on documents where its test loss falls to a target.

    Each seed has a curve over the learning rates, interpolated in the logarithms of both losses. Seeds
    without a run on either side of the target are left out.
    """
    found = {}
    for seed in {run["seed"]: 0 for run in chosen(runs, base=base)}:
        curve = [r for r in chosen(runs, base=base, seed=seed) if r["learning_rate"] in RATES]
        curve.sort(key=lambda run: run["learning_rate"])
        tests, texts = ([point[name] for point in curve] for name in ("test", "documents"))
        value = value_at(tests, np.log(texts).tolist(), target)
        if value is not None and tests[0] > target:
            found[seed] = float(np.exp(value))
    return found


def at_equal_loss(runs: Sequence[dict], base: str, target: float) -> Estimate | None:
    """Return ``documents_at`` over that of the arm on 16 bits; None unless every seed gets there."""
    runs = together(runs, SIXTEEN, base)
    one, other = (documents_at(runs, arm, target) for arm in (SIXTEEN, base))
    seeds = {run["seed"] for run in runs}
    return paired(one, other) if one.keys() == other.keys() == seeds else None


def equal(found: Estimate | None) -> str:
    """Return ``at_equal_loss`` as text."""
    return times(found) if found else "not reached by every seed"


def at_targets(found: Sequence[Estimate | None]) -> str:
    """Return ``at_equal_loss`` at each target as text."""
    return ", ".join(f"{equal(each)} at {target:g}" for each, target in zip(found, TARGETS, strict=True))  # fmt: skip


def at_all(found: Sequence[Estimate]) -> str:
    """Return what ratios say, if they agree."""
    said = {estimates.compared(each) for each in found}
    return said.pop() if len(said) == 1 else estimates.OPEN


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
    """Return ``at_low`` of the arm in bfloat16 and of its controls, with what each says."""
    rows = {
        base: {"÷ fall with A and B in float32": times(found), "the loss falls": estimates.compared(found).replace("higher", "more").replace("lower", "less")}
        for base, found in ((base, at_low(runs, base)) for base in (HALF, MOMENTS, PRODUCTS))
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


def stable(runs: Sequence[dict], base: str) -> str:
    """Return an arm's learning rate, of the lowest mean, and in how many seeds it is lowest itself."""
    rate = best(runs, base)[0]["learning_rate"]
    some = [run for run in chosen(runs, base=base) if run["learning_rate"] in RATES]
    lowest = {
        seed: min((r for r in some if r["seed"] == seed), key=lambda r: r["validation"])
        for seed in loss(runs, base)
    }
    agree = sum(run["learning_rate"] == rate for run in lowest.values())
    return f"{rate:g} (lowest mean; lowest in {agree} of {len(lowest)} seeds)"


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return each arm at its own learning rate and at equal test loss, against the 16-bit base."""
    rows = {}
    for base in ARMS:
        test, texts = (
            np.mean(list(loss(runs, base, name).values())) for name in ("test", "documents")
        )
        start = before(runs, base, "documents")
        rows[base] = {
            "learning rate": stable(runs, base),
            "test, before → after": f"{before(runs, base, 'test'):.2f} → {test:.3f}",
            "documents, before → after": f"{start:.2f} → {texts:.2f} (×{texts / start:.1f})",
            "test ÷ 16 bits": times(against(runs, base)),
        }
        for target in TARGETS:
            found = equal(at_equal_loss(runs, base, target))
            rows[base][f"documents ÷ 16 bits, both at test loss {target:g}"] = found
        if base == SIXTEEN:
            rows[base] |= dict.fromkeys(list(rows[base])[3:], "")
    return pd.DataFrame(rows).T.rename_axis("trained on")


def why_same(runs: Sequence[dict]) -> str:
    """Return why prediction b comes out as it does: what packed layers do, and what fewer bits cost."""
    told = "; ".join(f"{base} {times(found)}, {estimates.compared(found)}" for base, found in ((base, against(runs, base)) for base in (FOUR, THREE, TWO)))  # fmt: skip
    return (
        "Packed layers have the logits and the gradients of plain layers with the same values: they only round. "
        f"What this costs depends on the error. Test loss after training, ÷ 16 bits: {told}. (3 and 2 bits are another code, too.)"
    )


def repairs(runs: Sequence[dict]):
    """Draw, by learning rate, the test loss of adapters trained on a base over that of those moved to it."""
    found = {}
    for rate in RATES[:-1]:
        found[f"{rate:g}"] = {}
        for base in (FOUR, THREE, TWO):
            moved, own = carried(runs, base, rate), loss(runs, base, rate=rate)
            found[f"{rate:g}"][base] = [own[seed] / moved[seed] for seed in own]
    told = "; ".join(
        f"learning rate {rate}: " + ", ".join(f"{base} ×{np.exp(np.mean(np.log(v))):.2f}" for base, v in by.items())
        for rate, by in found.items()
    )  # fmt: skip
    return dots(found, "Test loss, trained on the base ÷ moved to it, by learning rate", f"Dots for the seeds. {told}.",
                axvline={1: "equal"}, xlabel="ratio of test losses, both adapters at this learning rate", figsize=(7.8, 3.6))  # fmt: skip


def match(rounded: Estimate, sixteen: Estimate) -> str:
    """Return in words whether adapters fit the base they were trained on.

    Both are the loss of one trained on a rounded base over that of one trained on 16 bits, used on the
    rounded base and on 16 bits.
    """
    if rounded[1][1] < 1 < sixteen[1][0]:
        return "each fits its own base"
    if rounded[1][0] > 1 or sixteen[1][1] < 1:
        return "the match of adapter and base does not explain it"
    return f"whether each fits its own base is {estimates.OPEN}"


def roundings(
    runs: Sequence[dict], back: Sequence[dict], others: Sequence[dict]
) -> dict[str, dict[str, dict[int, float]]]:
    """Return rounding of the base to NF4 -> what is compared -> seed -> ratio to the base in 16 bits.

    The usual rounding is that of ``runs`` and ``back``; ``others`` is the record of further ones.
    """
    sixteen, texts = loss(runs, SIXTEEN, rate=SAME), documents_at(runs, SIXTEEN, AT)
    put = {run["seed"]: run["moved"] for run in chosen(others, order=NONE)}
    usual = {run["seed"]: run["moved"] for run in chosen(back, base=FOUR, learning_rate=SAME)}
    arms = {"the usual one": (chosen(runs, base=FOUR), carried(runs, FOUR, SAME), usual)}
    for order in sorted({run["order"] for run in others} - {NONE}):
        own = [{**run, "base": FOUR} for run in chosen(others, order=order)]
        returned = {r["seed"]: r["moved"][str(NONE)] for r in chosen(own, learning_rate=SAME)}
        arms[f"columns in order {order}"] = own, {s: on[str(order)] for s, on in put.items()}, returned  # fmt: skip
    found = {}
    for name, (own, moved, returned) in arms.items():
        pairs = (texts, documents_at(own, FOUR, AT)), (moved, loss(own, FOUR, rate=SAME)), (sixteen, returned)  # fmt: skip
        found[name] = {
            what: {seed: other[seed] / one[seed] for seed in one if seed in other}
            for what, (one, other) in zip(COMPARED, pairs, strict=True)
        }
    return found


def over_roundings(
    found: Mapping[str, Mapping[str, Mapping[int, float]]], what: str
) -> Estimate | None:
    """Return the geometric mean of ``roundings`` and its interval over roundings and over seeds, if any seed has all."""
    rows = [each[what] for each in found.values()]
    seeds = [seed for seed in rows[0] if all(seed in row for row in rows)]
    if not seeds:
        return None
    value, interval = estimates.crossed(np.log([[row[seed] for seed in seeds] for row in rows]))
    low, high = np.exp(interval).tolist()
    return float(np.exp(value)), (low, high)


def roundings_table(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> pd.DataFrame:
    """Return ``roundings``: each with its interval over seeds, and all together."""
    rows = {
        name: {
            what: equal(paired(dict.fromkeys(by, 1.0), by) if by else None)
            for what, by in each.items()
        }
        for name, each in found.items()
    }
    rows["over roundings and seeds"] = {what: equal(over_roundings(found, what)) for what in COMPARED}  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis("rounding; trained on it ÷ on 16 bits")


def repairs_table(runs: Sequence[dict], back: Sequence[dict]) -> pd.DataFrame:
    """Return adapters trained on a rounded base against those trained on 16 bits, used on either."""
    rows = {
        base: {
            "used on this base": times(repaired(runs, base)),
            f"both at {SAME:g}": times(repaired(runs, base, SAME)),
            "used on this base; the 16-bit one at its best rate there": times(
                at_best_for_it(runs, base)
            ),
            "used on 16 bits": times(moved_back(runs, back, base)),
            f"both at {SAME:g} ": times(moved_back(runs, back, base, SAME)),
            "so": match(repaired(runs, base), moved_back(runs, back, base)),
        }
        for base in (FOUR, THREE, TWO)
    }
    return pd.DataFrame(rows).T.rename_axis("test loss, trained on this base ÷ on 16 bits")


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


def under_limit(found: Mapping) -> str:
    """Return in words how an attempt under a memory limit ended."""
    return f"trains, peak {size(found['peak'])}" if found["fits"] else found["said"]


def limit_table(limits: Sequence[dict]) -> pd.DataFrame:
    """Return the attempts to load and train a base under a limit, in 4 and in 16 bits."""
    rows = {
        f"{run['shape']}, {SHAPES[run['shape']].parameters / 1e9:.2f} billion weights": {
            "weights in 16 bits": size(2 * SHAPES[run["shape"]].parameters),
            "limit": size(run["allowed"]),
            **{name: under_limit(run[name]) for name in (SIXTEEN, FOUR)},
        }
        for run in limits
    }
    return pd.DataFrame(rows).T.rename_axis("model")


def real_ratio(recorded: Sequence[dict], model: str) -> float:
    """Return the loss after training on 4 bits over that on 16 bits, of one run each."""
    four, sixteen = (chosen(recorded, model=model, stored=s)[0]["nll"] for s in ("nf4", "bf16"))
    return four / sixteen


# --- what was found --------------------------------------------------------------------------


def claims(
    stages: Mapping[str, Census],
    held: Mapping[str, Mapping[str, float]],
    runs: Sequence[dict],
    back: Sequence[dict],
    others: Sequence[dict],
    limits: Sequence[dict],
    real: Sequence[dict],
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        stages: call -> census after it, in the order of the calls.
        held: way to prepare -> "parameters" in bytes, most library steps first.
        runs, back, others: the recorded training, the adapters moved back to 16 bits, other roundings.
        limits: the recorded attempts under a limit. real: one run of each on two models.
    """
    sixteen, packed, prepared, *_ = map(whole, stages.values())
    part = Counter({kind: held_ for (kind, _), (_, held_) in next(iter(stages.values())).items()})
    most, *_, least = (one["parameters"] for one in held.values())
    ways = roundings(runs, back, others)
    texts, mended, returned = (over_roundings(ways, what) for what in COMPARED)
    four, low, products = against(runs, FOUR), at_low(runs, HALF), at_low(runs, PRODUCTS)
    half = {rate: against(runs, HALF, FOUR, rate) for rate in RATES}
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
            f"At equal test loss ({AT:g}) the loss on documents on 4 bits, compared with 16, is {estimates.verdict(texts, 'higher', 'lower', neutral=1.0) if texts else estimates.OPEN}",
            f"{equal(texts)} over {len(ways)} roundings and {len(loss(runs, FOUR))} seeds; test, each at its own learning rate, {times(four)}, {same(four)}",
            f"a dose, 3 bits: {at_targets([at_equal_loss(runs, THREE, target) for target in TARGETS])}",
            f"the usual rounding alone, over seeds: {at_targets([at_equal_loss(runs, FOUR, target) for target in TARGETS])}; SmolLM2, one seed, an observation: test ×{real_ratio(real, 'smollm2-instruct'):.2f}",
        ),
        (
            f"An adapter trained on 4 bits, against one trained on 16: loss {same(mended)} used on 4 bits, {same(returned)} used on 16: {match(mended, returned)}",
            f"used on 4 bits {times(mended)}, used on 16 bits {times(returned)}, over roundings and seeds, both at {SAME:g}",
            "; ".join(f"{base}: {times(repaired(runs, base))}, used on 16 bits {times(moved_back(runs, back, base))}" for base in (THREE, TWO)),
            f"the usual rounding, each at its own learning rate: {times(repaired(runs, FOUR))}, used on 16 bits {times(moved_back(runs, back, FOUR))}; used on 4 bits, with the learning rate best there for the one from 16 bits: {times(at_best_for_it(runs, FOUR))}",
        ),
        (
            f"A, B, their products, gradients and moments in bfloat16: test loss at {len(half)} learning rates {at_all(list(half.values()))}",
            "; ".join(f"{times(found)} at {rate:g}" for rate, found in half.items()),
            f"at {LOW:g} the loss falls by {times(low)} as much; with only the moments in float32 by {times(at_low(runs, MOMENTS))}, with their products alone in bfloat16 by {times(products)}",
            "24 steps at a constant learning rate",
        ),
        (
            f"A demonstration: under {size(large['allowed'])} a base of {SHAPES[large['shape']].parameters / 1e9:.2f} billion weights {'trains in 4 bits' if large['4 bits']['fits'] else 'does not train in 4 bits'}",
            f"at most {size(large['4 bits']['peak'])}",
            f"in 16 bits: {under_limit(large['16 bits'])}",
            "it follows from the sizes; random weights, one sequence of 8 tokens",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
