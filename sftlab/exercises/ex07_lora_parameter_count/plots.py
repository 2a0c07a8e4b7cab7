"""Figures of notebook 07: how many parameters A and B have, beside the weight that they correct."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from sftlab.classroom.plots import BLUE, GREEN, GREY, ORANGE, RED
from sftlab.lora import break_even_rank, lora_parameter_count

LOOKS = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"))


def short(number: float) -> str:
    """A count in four characters or so: 65.5K, 16.8M, 70.6B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def over_ranks(shapes: Mapping[str, tuple[int, int]], title: str):
    """Parameters of A and B over the rank, as a share of the weight, with the break-even ranks.

    ``shapes``: label -> (d_in, d_out).
    """
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    ranks = np.array([2.0**n for n in range(13)])
    for place, ((label, (d_in, d_out)), (colour, line, mark)) in enumerate(
        zip(shapes.items(), LOOKS, strict=False)
    ):
        share = ranks * (d_in + d_out) / (d_in * d_out)
        axis.plot(ranks, share, color=colour, ls=line)
        last = break_even_rank(d_in, d_out)
        axis.plot(last, 1, mark, color=colour, ms=8, clip_on=False)
        axis.annotate(
            f"{label}: up to r = {last:,}", (0.03, 0.93 - 0.08 * place), xycoords="axes fraction",
            color=colour, weight="bold", fontsize=9.5,
        )  # fmt: skip
        axis.plot(1.0, share[0], mark, color=colour, ms=6, clip_on=False)
    axis.axhline(1, color=RED, lw=1.2, ls=":")
    axis.text(1.1, 0.8, "as many as the weight itself", color=RED, fontsize=9, va="top")
    axis.set(xscale="log", yscale="log", xlabel="rank r", xlim=(1, 4096), ylim=(2e-4, 300),
             ylabel="A and B / the weight", title=title)  # fmt: skip
    axis.set_xticks([1, 8, 64, 512, 4096], ["1", "8", "64", "512", "4,096"])
    axis.set_yticks([1e-3, 1e-2, 0.1, 1, 10], ["0.1%", "1%", "10%", "100%", "10 times"])
    axis.minorticks_off()
    return figure


def shares_of_models(found: Mapping[str, tuple[float, float]], title: str):
    """Which part of each model is trained. ``found``: name -> (share with q and v, with all)."""
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(found) + 1.3))
    for place, (some, every) in enumerate(found.values()):
        for shift, share, colour, hatch in ((-0.2, every, BLUE, ""), (0.2, some, ORANGE, "//")):
            axis.barh(place + shift, share, height=0.38, color=colour, hatch=hatch, edgecolor="white")  # fmt: skip
            axis.annotate(f"{share:.2%}", (share, place + shift), xytext=(4, 0), va="center",
                          textcoords="offset points", fontsize=9)  # fmt: skip
    axis.barh(0, 0, color=BLUE, label="every linear layer")
    axis.barh(0, 0, color=ORANGE, hatch="//", edgecolor="white", label="q and v only")
    axis.legend(loc="lower right", fontsize=9)
    top = max(every for _, every in found.values())
    axis.set(yticks=range(len(found)), yticklabels=list(found), xlim=(0, 1.15 * top), title=title,
             xlabel="A and B / all parameters of the model, r = 8")  # fmt: skip
    axis.xaxis.set_major_locator(MultipleLocator(0.005))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axis.invert_yaxis()
    return figure


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
