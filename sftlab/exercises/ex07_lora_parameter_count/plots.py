"""Figures of notebook 07: how many parameters A and B have, beside the weight that they correct."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from sftlab.classroom.figures import BLUE, GREY, ORANGE, bars, curves
from sftlab.lora import break_even_rank, lora_parameter_count


def short(number: float) -> str:
    """A count in four characters or so: 65.5K, 16.8M, 70.6B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def over_ranks(shapes: Mapping[str, tuple[int, int]]):
    """Parameters of A and B over the rank, as a share of the weight, with the break-even ranks.

    ``shapes``: label -> (d_in, d_out).
    """
    last = {label: break_even_rank(*sides) for label, sides in shapes.items()}
    found = {
        f"{label}: up to r = {last[label]:,}": {2**n: lora_parameter_count(*sides, 2**n) / (sides[0] * sides[1]) for n in range(13)}
        for label, sides in shapes.items()
    }  # fmt: skip
    ends = ", ".join(f"{label} up to rank {r:,}" for label, r in last.items())
    few, many = min(last, key=lambda k: last[k]), max(last, key=lambda k: last[k])
    return curves(
        found,
        f"LoRA saves up to r = {last[few]:,} on {few}, up to {last[many]:,} on {many}",
        "Parallel rising lines on logarithmic axes: the share of the weight that A and B add up to, over the rank. "
        f"It is below 100% for {ends}.",
        direct=False, percent="y", axhline={1: ""}, marked={(r, 1): "" for r in last.values()}, xscale="log", yscale="log",
        xticks=[1, 8, 64, 512, 4096], yticks=[1e-3, 1e-2, 0.1, 1, 10], xlabel="rank r", ylabel="A and B / the weight", figsize=(8.4, 3.8),
    )  # fmt: skip


def shares_of_models(found: Mapping[str, tuple[float, float]]):
    """Which part of each model is trained. ``found``: name -> (share with q and v, with all)."""
    every = {name: pair[1] for name, pair in found.items()}
    some = {name: pair[0] for name, pair in found.items()}
    (first, most), *_, (last, least) = every.items()
    told = "; ".join(f"{name} {every[name]:.2%} and {some[name]:.2%}" for name in found)
    return bars(
        {"every linear layer": every, "q and v only": some},
        f"On every linear layer: {most:.1%} of {first}, {least:.2%} of {last}",
        f"Bars of the share of A and B at rank 8, on every linear layer and on q and v only: {told}.",
        fmt=".2%", percent="x", xlabel="A and B / all parameters of the model, r = 8",
    )  # fmt: skip


def to_scale(d_in: int, d_out: int, r: int):
    """The explorer's picture: W, A and B as areas to scale, and the counts."""
    trained, weight = lora_parameter_count(d_in, d_out, r), d_in * d_out
    gap = 0.05 * max(d_in, d_out, r)
    figure, axis = plt.subplots(figsize=(7.4, 3.9), layout="constrained")
    # A lies above W, with which it shares d_in; B stands to its right, with which it shares d_out.
    axis.add_patch(Rectangle((0, 0), d_in, d_out, facecolor=GREY, alpha=0.4, lw=0))
    axis.add_patch(Rectangle((0, d_out + gap), d_in, r, facecolor=BLUE, lw=0.8, ec=BLUE))
    axis.add_patch(Rectangle((d_in + gap, 0), r, d_out, facecolor=ORANGE, lw=0.8, ec=ORANGE))
    last = break_even_rank(d_in, d_out)
    sizes = (
        (f"W, frozen: {d_out:,} × {d_in:,} = {short(weight)}", "#4d4d4d"),
        (f"A, above: {r:,} × {d_in:,} = {short(r * d_in)}", BLUE),
        (f"B, right: {d_out:,} × {r:,} = {short(d_out * r)}", "#9a6700"),
        (f"fewer than W up to r = {last:,}", "black"),
    )
    for line, (text, colour) in enumerate(sizes):
        figure.text(0.62, 0.6 - 0.09 * line, text, color=colour, weight="bold", fontsize=10)
    ratio = weight / trained
    relation = f"{ratio:,.4g} times fewer than W"
    if ratio < 1:
        relation = f"{1 / ratio:,.4g} times as many as W"
    elif ratio == 1:
        relation = "exactly as many as W"
    figure.suptitle(f"{trained:,} parameters, {relation}", x=0.01, ha="left", weight="bold")
    axis.set(xlim=(-gap, d_in + 2 * gap + r), ylim=(-gap, d_out + 2 * gap + r), aspect="equal")
    axis.axis("off")
    figure.get_layout_engine().set(rect=(0, 0, 0.6, 0.98))
    return figure
