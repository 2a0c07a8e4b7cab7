"""Figures and tables of notebook 11. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import curves, dots, stacked
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.ex11_qlora_memory.experiment import (
    BITS,
    CODES,
    CONTROLS,
    EVEN,
    LARGEST_WAY,
    LLOYD,
    NF4,
    OFFSET,
    RANDOM_WAY,
    SHOWN,
    SPREAD,
    block_size,
)
from sftlab.memory.count import TrainingBytes

SHOWN_AS = {EVEN: "16 even values"}  # others take INT4 for 15 values with zero among them
INT4 = "INT4, −7 to 7"
CARDS = (16, 24, 48, 80)  # GB
STORED = {"bf16": "16 bits", "nf4": "4 bits"}

# Peak memory of fine-tuning in GB by length, as its authors measured it: one sequence, activations
# recomputed, r = 64 on all linear layers; an A100 with all that a process allocates there. Their 4
# bits are INT4 with an offset. Source: README of QwenLM/Qwen, "Profiling of Memory and Speed".
LENGTHS = (256, 1024, 4096, 8192)
PUBLISHED = {
    ("qwen-1.8b", "bf16"): (6.7, 8.4, 16.2, 21.8),
    ("qwen-7b", "bf16"): (20.1, 21.5, 29.7, 36.6),
    ("qwen-14b", "bf16"): (34.6, 35.3, 42.5, 55.2),
    ("qwen-1.8b", "nf4"): (5.8, 6.6, 10.2, 15.8),
    ("qwen-7b", "nf4"): (11.5, 12.3, 16.9, 23.5),
    ("qwen-14b", "nf4"): (18.7, 18.9, 23.0, 27.9),
    ("qwen-72b", "nf4"): (61.4, 62.9, 68.0, 75.6),
}

WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "An offset lets the 16 values cover the block's own range, without a gap at its short end. Its bits have to come from somewhere: at equal bits its blocks are longer, and a longer block has a wider range.",
    "c": "Four bits each would be 35 GB. Scales add to them, and the embedding and the output head stay in 16 bits.",
}  # fmt: skip


# --- codes -----------------------------------------------------------------------------------


def chosen(runs: Sequence[dict], **settings) -> list[dict]:
    """Return the runs with these settings, in the order of their draws."""
    return [run for run in runs if all(run[name] == value for name, value in settings.items())]


def shown_as(code: str) -> str:
    """Return a code's name in figures and tables."""
    return SHOWN_AS.get(code, code)


def code_values(found: Mapping[str, Sequence[float]]):
    """Draw the values of each code as ticks on a line from −1 to 1."""
    found = {shown_as(name): values for name, values in found.items()}
    near = {name: sum(abs(v) < 0.5 for v in values) for name, values in found.items()}
    told = ", ".join(f"{name} {n}" for name, n in near.items())
    return dots(
        found,
        "The values of each code",
        f"Rows of ticks from −1 to 1. Between −0.5 and 0.5 lie: {told}.",
        marker="|", mean=False, xlabel="value, in units of the block's scale", figsize=(7.4, 0.6 * len(found) + 1.3),
    )  # fmt: skip


def error_over_bits(found: Mapping[str, Mapping[str, Mapping[float, float]]]):
    """Draw the error over the bits per weight: panel -> code -> bits -> error ÷ size of the weights."""
    found = {
        panel: {shown_as(code): by for code, by in codes.items()} for panel, codes in found.items()
    }
    each = {
        panel: ", ".join(f"{code} {by[SHOWN]:.1%}" for code, by in codes.items())
        for panel, codes in found.items()
    }
    told = ". ".join(f"{panel}, at {SHOWN} bits: {words}" for panel, words in each.items())
    return curves(found, "Size of the error at equal bits per weight",
                  f"Falling curves over the bits per weight. {told}.", panels=True, percent="y", sharey=True,
                  xlabel="bits per weight", ylabel="error ÷ weights", figsize=(3.9 * len(found) + 0.6, 3.9))  # fmt: skip


def _layers(runs: Sequence[dict], arm: str, bits: float) -> dict[str, float]:
    """Return the errors of the layers in the run that leaves their columns in place."""
    (run,) = chosen(runs, arm=arm, bits=bits, draw=0)
    return run["error"]


def against_nf4(runs: Sequence[dict], arm: str, bits: float) -> Estimate:
    """Return an arm's error divided by NF4's. The interval is over layers and over their kinds."""
    mine, nf4 = _layers(runs, arm, bits), _layers(runs, NF4, bits)
    kinds = dict.fromkeys(name.split(".")[-1] for name in mine)
    blocks = dict.fromkeys(name.split(".")[2] for name in mine)
    table = [
        [
            float(np.log(mine[name] / nf4[name]))
            for kind in kinds
            for name in mine
            if name.split(".")[2] == block and name.endswith(kind)
        ]
        for block in blocks
    ]
    value, (low, high) = estimates.crossed(table)
    return float(np.exp(value)), (float(np.exp(low)), float(np.exp(high)))


def on_real(runs: Sequence[dict], arm: str, bits: float) -> str:
    """Return an arm's error divided by NF4's on SmolLM2's embedding: the mean, and the range of its parts.

    The parts of the vocabulary follow one another and differ steadily, so they are no sample.
    """
    (mine,), (nf4,) = (chosen(runs, arm=name, bits=bits) for name in (arm, NF4))
    found = [a / b for a, b in zip(mine["error"].values(), nf4["error"].values(), strict=True)]
    return f"×{np.mean(found):.2f} [{min(found):.2f} to {max(found):.2f}]"


def ratios_table(runs: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return each code's error divided by NF4's, by bits: the base model, and SmolLM2's embedding."""
    rows = {}
    for code in CODES[1:]:
        rows[shown_as(code)] = {f"{b} bits": times(against_nf4(runs, code, b)) for b in BITS}
        rows[f"{shown_as(code)}, SmolLM2"] = {f"{b} bits": on_real(real, code, b) for b in BITS}
    return pd.DataFrame(rows).T.rename_axis("error ÷ NF4's")


# --- loss ------------------------------------------------------------------------------------


def added_loss(runs: Sequence[dict], arm: str, over: str | None = None) -> Estimate:
    """Return by which share an arm raises the loss, or by which share more than another arm.

    The interval is over draws of the blocks and over documents.
    """
    added, other = (
        np.array([run["loss"] for run in chosen(runs, arm=name, bits=SHOWN)]) if name else 0.0
        for name in (arm, over)
    )
    return estimates.crossed(added - other)


def in_percent(found: Estimate) -> Estimate:
    """Return an estimate in percent."""
    value, (low, high) = found
    return 100 * value, (100 * low, 100 * high)


def why_small(runs: Sequence[dict]) -> str:
    """Return why prediction b comes out as it does; the words follow the controls."""
    told = "; ".join(
        f"{arm.partition(',')[0]} {_points(found)}, {verdict(found, 'NF4 costs more', 'NF4 costs less')}"
        for arm in CONTROLS
        for found in [added_loss(runs, NF4, arm)]
    )
    return f"A layer amplifies some directions far more than others. NF4's added loss minus that of an error of the same size: {told}."


def losses(runs: Sequence[dict]):
    """Draw by how much each arm raises the loss, one point for each draw of the blocks.

    The left panel ends where the second largest mean still fits, so that small ones can be told apart.
    """
    arms = (*CODES, *CONTROLS)
    found = {
        shown_as(arm): [float(np.mean(r["loss"])) for r in chosen(runs, arm=arm, bits=SHOWN)]
        for arm in arms
    }
    *_, large, _ = sorted(found.values(), key=np.mean)
    low, high = min(map(min, found.values())), 1.35 * max(large)
    near, whole = f"up to {high:.1%}", "all"
    left, right = min(0, low), max(map(max, found.values()))
    each = {
        near: {"xlim": (left - 0.05 * high, high)},
        whole: {"xlim": (left - 0.05 * right, 1.2 * right)},
    }
    told = "; ".join(f"{arm} {np.mean(values):.2%}" for arm, values in found.items())
    return dots({near: found, whole: found}, f"Loss added at {SHOWN} bits per weight, as a share of the loss",
                f"Rows of five points, twice: {near}, and all. Means: {told}.", panels=True, each=each, fmt=".2%", percent="x", xlabel="loss added",
                figsize=(9.4, 3.6))  # fmt: skip


# --- memory ----------------------------------------------------------------------------------


Planned = Mapping[tuple[str, str], Sequence[float]]  # (shape, weights) -> GB by length


def deviations(planned: Planned, weights: str, shapes: Collection[str]) -> dict[str, float]:
    """Return model and length -> published ÷ planned − 1, with weights stored like this."""
    return {
        f"{shape}, {length:,} tokens": there / plan - 1
        for (shape, stored), sizes in planned.items()
        if stored == weights and shape in shapes
        for length, plan, there in zip(LENGTHS, sizes, PUBLISHED[shape, stored], strict=True)
    }


def gaps(planned: Planned) -> pd.DataFrame:
    """Return planned and published GB of each model and length, and published ÷ planned − 1."""
    rows = {
        f"{shape}, {STORED[weights]}": {
            f"{length:,} tokens": f"{plan:.1f}, {there:.1f} ({there / plan - 1:+.0%})"
            for length, plan, there in zip(LENGTHS, sizes, PUBLISHED[shape, weights], strict=True)
        }
        for (shape, weights), sizes in planned.items()
    }
    return pd.DataFrame(rows).T.rename_axis("GB: planned, published (deviation)")


def same_gap(planned: Planned, close: float = 1.0) -> str:
    """Return in words whether published minus planned is the same everywhere, within ``close`` GB."""
    gap = {
        name: np.concatenate(
            [np.subtract(PUBLISHED[key], gb) for key, gb in planned.items() if key[1] == weights]
        )
        for weights, name in STORED.items()
    }
    same = all(np.ptp(each) <= close for each in gap.values())
    told = ", ".join(
        f"in {name} the gap goes from {min(each):+.1f} to {max(each):+.1f} GB"
        for name, each in gap.items()
    )
    return f"{'Yes' if same else 'No'}: {told}."


def _span(values: Mapping[str, float]) -> str:
    ends = (pick(values, key=values.__getitem__) for pick in (min, max))
    return " to ".join(f"{values[name]:+.0%} ({name})" for name in ends)


# --- what was found --------------------------------------------------------------------------


def claims(
    runs: Sequence[dict],
    real: Sequence[dict],
    normal: Mapping[str, Mapping[float, float]],
    planned: Mapping[tuple[str, str], Sequence[float]],
    in_64: Mapping[str, float],
    with_zero: Mapping[float, float],
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        normal: code -> bits -> error on normal numbers.
        planned: (shape, weights) -> planned GB by length.
        in_64: code -> error on the linear layers in blocks of 64.
        with_zero: bits -> error of ``INT4`` on the linear layers, divided by NF4's.
    """

    def than(found: Estimate) -> str:
        return verdict(found, "larger", "smaller", "not settled here", 1.0)

    even, offset = (against_nf4(runs, code, SHOWN) for code in (EVEN, OFFSET))
    best = against_nf4(runs, LLOYD, SHOWN)
    nf4, spread, by_chance, largest = (
        added_loss(runs, arm) for arm in (NF4, SPREAD, RANDOM_WAY, LARGEST_WAY)
    )
    by_bits = "; ".join(f"{b}: {times(against_nf4(runs, OFFSET, b))}" for b in BITS if b != SHOWN)
    first, last = BITS[0], BITS[-1]
    both = {shape for shape, weights in planned if weights == "bf16"}
    larger = sorted({shape for shape, _ in planned} - both)
    ranked = "; ".join(
        f"{shown_as(code)}: {verdict(found, 'higher', 'lower')}, {_points(found)}"
        for code in CODES[1:]
        for found in [added_loss(runs, code, NF4)]
    )
    rows = [
        (
            f"With 16 even values the error is {than(even)} than with NF4, at {SHOWN} bits",
            times(even),
            f"the best 16 values for normal numbers (Lloyd–Max): {times(best)}, so {than(best)} than NF4",
            f"{last:g} bits: {times(against_nf4(runs, EVEN, last))}; {INT4}, all layers together: ×{with_zero[SHOWN]:.2f} at {SHOWN} bits, ×{with_zero[last]:.2f} at {last:g}; SmolLM2's embedding, {SHOWN} bits: {on_real(real, EVEN, SHOWN)}, Lloyd–Max there {on_real(real, LLOYD, SHOWN)}",
        ),
        (
            f"With an offset and as many bits, INT4's error is {than(offset)} than NF4's, at {SHOWN} bits",
            times(offset),
            f"in blocks of 64, where the offset takes more bits: ×{in_64[OFFSET] / in_64[NF4]:.2f}; in its {block_size(OFFSET, SHOWN)}: {times(offset)}; at other bits per weight: {by_bits}",
            f"normal numbers: ×{normal[OFFSET][first] / normal[NF4][first]:.2f} at {first} and ×{normal[OFFSET][last] / normal[NF4][last]:.2f} at {last:g} bits; "
            f"SmolLM2's embedding: {on_real(real, OFFSET, first)} and {on_real(real, OFFSET, last)}",
        ),
        (
            f"NF4 at {SHOWN} bits: the loss on documents is {verdict(nf4, 'higher', 'lower')}",
            f"by {_percent(nf4)}",
            f"errors as large: in each layer's largest direction {_percent(largest)}; in a random one {_percent(by_chance)}; as noise {_percent(spread)}",
            f"one small model; other codes against NF4: {ranked}",
        ),
        (
            "Observation: the planner's peak memory against published measurements, 4 bits",
            f"published ÷ planned: {_span(deviations(planned, 'nf4', both))}",
            f"the same models in 16 bits: {_span(deviations(planned, 'bf16', both))}",
            f"{', '.join(larger)}: {_span(deviations(planned, 'nf4', larger))}; another implementation of 4 bits; the cause of the differences was not tested",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def _points(estimate: Estimate) -> str:
    value, (low, high) = estimate
    return f"{100 * value:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"


def _percent(estimate: Estimate) -> str:
    value, (low, high) = estimate
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


# --- explorer --------------------------------------------------------------------------------


def parts_of(planned: TrainingBytes) -> dict[str, int]:
    """Return what is held at the peak: the lasting parts, and what its moment takes on top."""
    lasting = {name: getattr(planned, name) for name in ("weights", "adapters", "optimizer")}
    rest = planned.peak - sum(lasting.values())
    gradients = min(planned.gradients, rest)
    return {**lasting, "gradients": gradients, "working memory": rest - gradients}


def against_cards(planned: TrainingBytes, title: str, alt: str):
    """Draw one stacked bar up to the peak, and a line for each size of card."""
    found = {name: size / 1e9 for name, size in parts_of(planned).items()}
    peak = sum(found.values())
    cards = {card: f"{card} GB" for card in CARDS}
    return stacked({"": found}, title, alt, axvline=cards, xlim=(0, max(1.05 * peak, 88)),
                     xlabel="GB; dotted lines are cards", figsize=(7.6, 2.6))  # fmt: skip
