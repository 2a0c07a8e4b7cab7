"""The workbook's figures. Each takes measured numbers and says in its title what they show.

All are readable without colour: direct labels, hatches, or one series per panel.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sftlab.classroom import html_cards
from sftlab.classroom.views import visible

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8c8c8c"


def top_tokens(found: Mapping[str, Sequence[tuple[str, float]]], title: str):
    """The likeliest first tokens, one panel per model. ``found``: label -> (token, probability) pairs."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.2 * len(found), 2.4), squeeze=False)
    for axis, colour, (label, pairs) in zip(
        axes[0], (BLUE, GREEN, ORANGE), found.items(), strict=False
    ):
        tokens, chances = [visible(t) for t, _ in pairs], [p for _, p in pairs]
        bars = axis.barh(range(len(tokens)), chances, color=colour)
        axis.bar_label(
            bars, ["<0.01" if p < 0.005 else f"{p:.2f}" for p in chances], padding=3, fontsize=9
        )
        axis.set(
            yticks=range(len(tokens)),
            yticklabels=tokens,
            xlim=(0, 1.18),
            xlabel="probability",
            title=label,
        )
        axis.invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def per_token(
    tokens: Sequence[str],
    values: Sequence[float],
    ylabel: str,
    title: str,
    marked: Sequence[bool] | None = None,
    marks: tuple[str, str] = ("trained", "masked"),
):
    """One bar per token; ``marked`` ones are green and solid, the others grey and hatched."""
    figure, axis = plt.subplots(figsize=(max(6.5, 0.42 * len(tokens)), 2.9))
    marked = [True] * len(tokens) if marked is None else marked
    for wanted, colour, hatch, label in (
        (True, GREEN, "", marks[0]),
        (False, GREY, "///", marks[1]),
    ):
        at = [i for i, m in enumerate(marked) if m == wanted]
        if at:
            axis.bar(
                at,
                [values[i] for i in at],
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=label,
            )
    axis.set(ylabel=ylabel, title=title, xticks=range(len(tokens)))
    axis.set_xticklabels([visible(t) for t in tokens], rotation=60, ha="right", fontsize=9)
    if not all(marked):
        axis.legend(frameon=False)
    return figure


def shares(
    found: Mapping[str, tuple[float, tuple[float, float]]],
    title: str,
    xlabel: str = "share of the answers",
):
    """Shares with 95% intervals, one bar each. ``found``: label -> (share, (low, high))."""
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(found) + 1.2))
    for place, (share, (low, high)) in enumerate(found.values()):
        axis.barh(place, share, color=BLUE if place % 2 == 0 else ORANGE, height=0.62)
        axis.errorbar(
            share,
            place,
            xerr=[[max(0, share - low)], [max(0, high - share)]],
            color="black",
            capsize=3,
            lw=1.2,
        )
        axis.text(max(high, share) + 0.02, place, f"{share:.0%}", va="center", fontsize=10)
    axis.set(
        yticks=range(len(found)),
        yticklabels=list(found),
        xlim=(0, 1.14),
        xlabel=xlabel,
        title=title,
    )
    axis.set_xticks(np.linspace(0, 1, 6), [f"{x:.0%}" for x in np.linspace(0, 1, 6)])
    axis.invert_yaxis()
    return figure


def loss_terms(tokens: Sequence[str], probabilities: Sequence[float]):
    """Each token's term −log p, and the mean that is the loss."""
    terms = np.abs(np.log(probabilities))  # -log p, with 0 for p = 1 and not -0
    figure, axis = plt.subplots(figsize=(max(6.0, 0.8 * len(tokens)), 3))
    bars = axis.bar(range(len(tokens)), terms, color=BLUE)
    axis.bar_label(bars, [f"{t:.2f}" for t in terms], padding=2, fontsize=9)
    axis.axhline(terms.mean(), color=RED, ls="--", lw=1.4)
    axis.text(
        len(tokens) - 0.4,
        terms.mean(),
        f" mean {terms.mean():.2f}\n = the loss",
        color=RED,
        va="bottom",
        fontsize=9,
    )
    axis.set(ylabel="−log p  (nats)", xticks=range(len(tokens)), xlim=(-0.6, len(tokens) + 0.9), ylim=(0, max(terms.max() * 1.2, 0.5)),
             title=f"Loss {terms.mean():.2f} nats per token: perplexity {np.exp(terms.mean()):.2f}")  # fmt: skip
    axis.set_xticklabels(
        [f"{visible(t)}\np = {p:.2g}" for t, p in zip(tokens, probabilities, strict=True)],
        fontsize=9,
    )
    return figure


def loss_curve(losses: Sequence[float], title: str, marked: int | None = None):
    """Training loss over the steps; ``marked`` puts a dot on one step."""
    figure, axis = plt.subplots(figsize=(6.5, 2.8))
    steps = range(1, len(losses) + 1)
    axis.plot(steps, losses, color=BLUE, lw=2)
    if marked:
        axis.plot(marked, losses[marked - 1], "o", color=RED, ms=8)
        axis.annotate(
            f"step {marked}: {losses[marked - 1]:.2f}",
            (marked, losses[marked - 1]),
            xytext=(8, 8),
            textcoords="offset points",
        )
    axis.set(
        xlabel="optimiser step", ylabel="loss (nats per trained token)", ylim=(0, None), title=title
    )
    return figure


def accumulation(found: Mapping[str, tuple[float, float]], title: str):
    """How far the gradient of the mean of means lies from the right one: L2 distance and angle."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 2.4), sharey=True)
    panels = (
        (0, "distance / length of the right gradient"),
        (1, "angle to the right gradient (degrees)"),
    )
    for axis, (which, label) in zip(axes, panels, strict=True):
        values = [
            pair[0] if which == 0 else np.degrees(np.arccos(pair[1])) for pair in found.values()
        ]
        bars = axis.barh(range(len(found)), values, color=(BLUE, ORANGE)[which], height=0.55)
        axis.bar_label(bars, [f"{v:.2f}" for v in values], padding=3, fontsize=9)
        axis.set(
            yticks=range(len(found)),
            yticklabels=list(found),
            xlabel=label,
            xlim=(0, max(values) * 1.25 + 1e-12),
        )
    axes[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def cuts(found: Mapping[int, Mapping[str, float]], title: str, unit: str):
    """What a cut at each length does to the rows: stacked shares, hatched apart. ``found``: length -> {damage: share}."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    looks = ((GREEN, ""), ("#56B4E9", ".."), (ORANGE, "//"), (RED, "xx"), ("#4d4d4d", "--"))
    names, places = list(next(iter(found.values()))), range(len(found))
    below = np.zeros(len(found))
    for name, (colour, hatch) in zip(names, looks, strict=True):
        shares = np.array([row[name] for row in found.values()])
        axis.bar(
            places, shares, bottom=below, color=colour, hatch=hatch, edgecolor="white", label=name
        )
        below += shares  # fmt: skip
    axis.set(
        xticks=places,
        xticklabels=list(found),
        xlabel="max_length (tokens)",
        ylabel=unit,
        ylim=(0, 1),
    )
    axis.set_title(title)
    axis.set_yticks(np.linspace(0, 1, 5), [f"{x:.0%}" for x in np.linspace(0, 1, 5)])
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=9)
    return figure


# Okabe and Ito's palette, in the order in which neighbours differ in brightness as well.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")


def use_style() -> None:
    """Set matplotlib's defaults for the workbook. Line styles vary with the colours."""
    import matplotlib as mpl
    from cycler import cycler

    dashes = ("-", "--", "-.", ":", "-", "--", "-.")
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=dashes),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "font.size": 10.5,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.figsize": (7.0, 3.6),
            "figure.facecolor": "white",
            "image.cmap": "cividis",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "savefig.dpi": 110,
            "svg.hashsalt": "sftlab",
        }
    )


def png(figure: Any) -> bytes:
    """The figure as PNG. No date and no version are stored, so equal plots are equal bytes."""
    wrap_titles(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def wrap_titles(figure: Any) -> None:
    """Break titles that would run out of the picture into lines that fit. Others stay as they are.

    A title states a finding, often with measured numbers in it: nobody knows its length beforehand.
    """
    from matplotlib.text import Text

    figure.draw_without_rendering()  # places everything, so that extents are known
    right = figure.bbox.x1 - 4  # pixels
    for axis in figure.axes:
        text = axis.get_title(loc="left")
        drawn = [t for t in axis.get_children() if isinstance(t, Text) and t.get_text() == text]
        extent = drawn[0].get_window_extent() if text and drawn else None
        if extent and extent.x1 > right:
            axis.set_title(_folded(text, extent, right), loc="left")
    above = [t for t in figure.texts if t.get_text() and t.get_text() == figure.get_suptitle()]
    for drawn in above:
        extent = drawn.get_window_extent()
        if extent.x1 > right:
            drawn.set_text(_folded(drawn.get_text(), extent, right))


def _folded(text: str, extent: Any, right: float) -> str:
    return textwrap.fill(text, int(len(text) * (right - extent.x0) / extent.width))


def show(figure: Any, alt: str = "", in_words: bool = True) -> None:
    """Show a matplotlib figure as PNG with its text, and close it.

    The text stands in ``metadata["image/png"]["alt"]``, where nbconvert finds it. JupyterLab reads
    no such field, so the same text follows, folded, under the picture (``in_words=False`` leaves
    it out).

    Args:
        alt: what the picture shows, as you would tell it on the telephone: the finding first. The
            figures of `sftlab.classroom.figures` carry it with them, in ``figure.alt``.

    Raises:
        ValueError: there is no such text.
    """
    alt = alt or getattr(figure, "alt", "")
    if not alt.strip():
        raise ValueError("show needs alt: say in a sentence what the figure shows")
    import matplotlib.pyplot as plt

    data = png(figure)
    plt.close(figure)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(alt)
        return
    bundle, metadata = picture_bundle(data, alt)
    display(bundle, metadata=metadata, raw=True)
    if in_words:
        words = html_cards.folded("This figure in words", html_cards.inline(alt))
        html_cards.show(f"<small>{words}</small>", f"This figure in words: {alt}")


def picture_bundle(data: bytes, alt: str) -> tuple[dict, dict]:
    """The mime bundle of a PNG and its metadata, with the text as what plain readers get."""
    import base64

    encoded = base64.b64encode(data).decode()
    return {"image/png": encoded, "text/plain": alt}, {"image/png": {"alt": alt}}
