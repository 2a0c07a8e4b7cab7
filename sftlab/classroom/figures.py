"""The six types of figure: bars, dots, curves, stacked bars, tokens and a grid.

Each takes numbers with their labels, a title, and ``alt``: the same in words, for whoever does not see
it. Both are computed from the numbers by the caller. All are readable without colour.

A *value* is a number, an estimate with its interval ``(value, (low, high))``, or a list of
repetitions, seeds for instance. With ``panels=True`` data have one more level: panel -> data.
Other keywords go to matplotlib's ``Axes.set``; ``each`` holds further ones: panel -> keywords. Three
are ours: ``percent`` ("x", "y" or "xy": axes that show shares), and ``axvline`` and ``axhline``
(position -> text of a reference line).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from sftlab.classroom.plots import PALETTE
from sftlab.classroom.views import visible

BLUE, ORANGE, GREEN, RED, SKY = PALETTE[:5]
GREY, DARK = "#8c8c8c", "#4d4d4d"
# colour, line, marker and hatch of the first series, the second …
LOOKS = (
    (BLUE, "-", "o", ""),
    (ORANGE, "--", "s", "//"),
    (GREEN, "-.", "^", ".."),
    (RED, ":", "D", "xx"),
    (SKY, "-", "v", "--"),
    (GREY, "--", "P", "\\\\"),
)
Format = str | Callable[[float], str]


def _estimate(value: Any, mean: Callable = np.mean) -> tuple[float, float, float, list[float]]:
    """Mean, low and high end, and the single repetitions, of a value of any kind."""
    if isinstance(value, tuple):
        return value[0], *value[1], []
    each = np.atleast_1d(np.asarray(value, dtype=float))
    return float(mean(each)), each.min(), each.max(), list(each) if np.ndim(value) else []


def _told(value: float, fmt: Any, panel: str = "") -> str:
    fmt = fmt[panel] if isinstance(fmt, Mapping) else fmt
    return fmt(value) if callable(fmt) else f"{value:{fmt}}"


def _begin(found: Mapping, panels: bool, figsize: tuple, columns: int = 0, **shared) -> tuple:
    """A figure, and for each panel its axes, its name and its data: series -> label -> value."""
    found = found if panels else {"": found}
    columns = columns or len(found)
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=figsize, squeeze=False, **shared)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    nested = any(isinstance(v, Mapping) for data in found.values() for v in data.values())
    return figure, [
        (axis, name, data if nested else {"": data})
        for axis, (name, data) in zip(axes.flat, found.items(), strict=False)
    ]


def _dress(axis, name: str, settings: dict[str, Any], each: Mapping[str, dict] | None) -> None:
    """Labels, scales, ticks and reference lines of one panel."""
    settings = {**settings, **(each or {}).get(name, {})}
    percent, vertical, horizontal = (settings.pop(k, {}) for k in ("percent", "axvline", "axhline"))
    if name:
        axis.set_title(name, fontsize=10.5, weight="normal")
    if axis.get_subplotspec().colspan.start and axis.get_shared_y_axes().get_siblings(axis)[1:]:
        settings.pop("ylabel", None)
    for which, ruler in (("x", axis.xaxis), ("y", axis.yaxis)):
        scale = settings.pop(f"{which}scale", "linear")
        if scale != "linear":
            kind = scale if isinstance(scale, dict) else {"value": scale}
            getattr(axis, f"set_{which}scale")(**kind)
            low, high = axis.dataLim.intervalx if which == "x" else axis.dataLim.intervaly
            subs = (1, 2, 5) if high < 30 * low else (1, 3) if high < 500 * low else (1,)
            ruler.set_major_locator(LogLocator(subs=subs))
            ruler.set_major_formatter(lambda value, _: f"{value:,g}")
            ruler.set_minor_locator(plt.NullLocator())
        if which in percent:
            ruler.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        ticks = settings.pop(f"{which}ticks", None)
        if ticks is not None:
            plain = [f"{100 * t:g}%" if which in percent else f"{t:,g}" for t in ticks]
            ruler.set_ticks(ticks, settings.pop(f"{which}ticklabels", plain))
    axis.set(**settings)
    for at, text in vertical.items() if vertical else ():
        axis.axvline(at, color=DARK, lw=1.2, ls=":")
        axis.text(at, 1.0, text, transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)  # fmt: skip
    for at, text in horizontal.items() if horizontal else ():
        axis.axhline(at, color=DARK, lw=1.2, ls=":")
        axis.text(1.01, at, text, transform=axis.get_yaxis_transform(), va="center", fontsize=9)


def _end(figure, title: str, alt: str, legend: str = "", **how):
    """The title, the legend if there is more than one thing to tell apart, and the words."""
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=12)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if legend and len(names) > 1:
        turn = -1 if legend.startswith("outside right") else 1
        figure.legend(handles[::turn], names[::turn], loc=legend, fontsize=9, **how)
    figure.alt = alt
    return figure


def _rows(axis, series: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[float]]:
    """Name the rows of a panel from the top down; how far each series stands from their middle."""
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    axis.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    return labels, [(k - (len(series) - 1) / 2) / len(series) for k in range(len(series))]


def _height(found: Mapping, panels: bool, each: float) -> float:
    """How high a figure must be for its rows, in inches."""
    data = next(iter(found.values())) if panels else found
    nested = [v for v in data.values() if isinstance(v, Mapping)]
    return each * (len(nested[0]) * (1 + 0.5 * (len(nested) > 1)) if nested else len(data)) + 1.4


def bars(found: Mapping, title: str, alt: str, *, panels: bool = False, fmt: Format | Mapping = ".2f",
         figsize: tuple | None = None, each: Mapping | None = None, **settings: Any):  # fmt: skip
    """Horizontal bars from 0, their values written at the end (``fmt``: one format, or panel -> format).

    ``found``: label -> value, or series -> label -> value.
    """
    width = max(7, 3.6 * len(found)) if panels else 7.2
    figure, parts = _begin(found, panels, figsize or (width, _height(found, panels, 0.42)))
    before: list[str] = []
    for k, (axis, name, series) in enumerate(parts):
        labels, shifts = _rows(axis, series)
        size, top = 0.7 / len(series), 0.0
        for s, (label, values) in enumerate(series.items()):
            colour, _, _, hatch = LOOKS[s + k]
            for row, value in values.items():
                at = labels.index(row) + 0.76 * shifts[s]
                mean, low, high, _ = _estimate(value)
                axis.barh(at, mean, size, color=colour, hatch=hatch if s else "", edgecolor="white",
                          label=label if row == next(iter(values)) else "")  # fmt: skip
                if high > low:
                    reach = [[max(0, mean - low)], [max(0, high - mean)]]
                    axis.errorbar(mean, at, xerr=reach, color="black", capsize=2.5, lw=1.1)
                axis.annotate(_told(mean, fmt, name), (max(mean, high), at), xytext=(4, 0), va="center",
                              textcoords="offset points", fontsize=9.5)  # fmt: skip
                top = max(top, mean, high)
        if labels == before:
            axis.tick_params(labelleft=False)
        before = labels
        axis.set_xlim(0, (1.3 if panels else 1.18) * top or 1)
        _dress(axis, name, settings, each)
    return _end(figure, title, alt, "outside lower center", ncols=4)


def dots(found: Mapping, title: str, alt: str, *, panels: bool = False, fmt: Format = "", zero: bool = False,
         marker: str = "", mean: bool = True, figsize: tuple | None = None, each: Mapping | None = None, **settings: Any):  # fmt: skip
    """Estimates or repetitions, a row for each label. ``found``: label -> value, or series -> label -> value.

    Args:
        fmt: writes the means beside their rows.
        zero: values are differences: a line at 0, and grey diamonds where the interval includes it.
        mean: a bar marks the mean of repetitions.
    """
    width = max(7, 3.2 * len(found)) if panels else 7.4
    size = figsize or (width, _height(found, panels, 0.36))
    figure, parts = _begin(found, panels, size, sharey=True)
    for axis, name, series in parts:
        labels, shifts = _rows(axis, series)
        for s, (label, values) in enumerate(series.items()):
            for row, value in values.items():
                colour, _, shape, _ = LOOKS[s]
                at = labels.index(row) + 0.6 * shifts[s]
                middle, low, high, each_one = _estimate(value)
                if zero and low <= 0 <= high:
                    colour, shape = GREY, "D"
                named = label if row == next(iter(values)) else ""
                if each_one:
                    axis.plot(each_one, [at] * len(each_one), marker or shape, color=colour, label=named,
                              ms=22 if marker == "|" else 5.5, mew=2 if marker == "|" else 1, alpha=1 if marker else 0.6)  # fmt: skip
                    if mean:
                        axis.plot(middle, at, "|", color="black", ms=15 / len(series) + 3, mew=2)
                else:
                    axis.plot([low, high], [at, at], color=colour, lw=2, ls="-")
                    axis.plot(middle, at, shape, color=colour, ms=6.5, label=named)
                if fmt:
                    axis.annotate(_told(middle, fmt), (high, at), xytext=(8, 0), va="center",
                                  textcoords="offset points", fontsize=9)  # fmt: skip
        if zero:
            axis.axvline(0, color=RED, lw=1.2, ls="--")
        axis.grid(axis="x", alpha=0.3)
        _dress(axis, name, settings, each)
    return _end(figure, title, alt, "outside lower center", ncols=4)


def curves(found: Mapping, title: str, alt: str, *, panels: bool = False, spread: str = "range", mean: Callable = np.mean,
           lines: bool = True, direct: bool | None = None, picked: str = "", marked: Mapping | None = None,
           columns: int = 0, sharex: bool = False, sharey: bool = False, gridspec_kw: dict | None = None,
           figsize: tuple | None = None, each: Mapping | None = None, **settings: Any):  # fmt: skip
    """Lines over a numeric axis. ``found``: x -> value, or series -> x -> value; estimates get error bars.

    Args:
        spread: how repetitions are shown behind their mean: as a "range", as "dots" or as "lines".
        lines: False leaves the points alone: a scatter plot.
        direct: names stand at the lines' ends and not in a legend; without panels they do.
        picked: this series stands out, the others of its panel are thin and pale.
        marked: (x, y) -> text of points that are marked; with panels, panel -> such points.
        columns: panels in a row.
    """
    columns = columns or (len(found) if panels else 1)
    size = figsize or ((max(7, 3.2 * columns), 3.5) if panels else (7.2, 3.4))
    shared = {"sharex": sharex, "sharey": sharey, "gridspec_kw": gridspec_kw}
    figure, parts = _begin(found, panels, size, columns, **shared)
    direct = lines and not panels if direct is None else direct
    for axis, name, series in parts:
        ends = []
        for (label, points), (colour, dash, shape, _) in zip(series.items(), cycle(LOOKS), strict=False):  # fmt: skip
            xs = list(points)
            ys, low, high, each_one = zip(*(_estimate(v, mean) for v in points.values()), strict=True)  # fmt: skip
            pale = picked in series and label != picked
            look = {"color": colour, "ls": dash, "marker": shape, "ms": 4.5 if len(xs) < 40 else 0}
            look |= {"lw": 1, "alpha": 0.45, "ms": 0} if pale else {}
            if not lines:
                look |= {"ls": "", "ms": 6, "alpha": 0.75, "mfc": "white" if shape == "s" else colour}  # fmt: skip
            axis.plot(xs, ys, label=label, **look)
            if any(isinstance(value, tuple) for value in points.values()):
                reach = np.maximum(0, [np.subtract(ys, low), np.subtract(high, ys)])
                axis.errorbar(xs, ys, yerr=reach, fmt="none", color=colour, capsize=3, lw=1.3)
            elif any(each_one) and not pale:
                if spread == "range":
                    axis.fill_between(xs, low, high, color=colour, alpha=0.18, lw=0)
                elif spread == "lines":
                    axis.plot(xs, each_one, color=colour, lw=0.8, alpha=0.45, ls="-", marker="")
                else:
                    for x, values in zip(xs, each_one, strict=True):
                        axis.plot([x] * len(values), values, shape, color=colour, ms=3, alpha=0.5)
            ends += [(xs[-1], ys[-1], label, colour, pale)] if label else []
        _dress(axis, name, settings, each)
        for (x, y), text in ((marked or {}).get(name, {}) if panels else marked or {}).items():
            axis.plot(x, y, "o" if text else "x", color="black", ms=6 if text else 8, mew=2, zorder=5)  # fmt: skip
            if text:
                axis.annotate(text, (x, y), xytext=(5, 6), textcoords="offset points", fontsize=9)
        if direct:
            _name_ends(axis, ends)
    return _end(figure, title, alt, "" if direct else "outside lower center", ncols=4)


def _name_ends(axis, ends: list[tuple]) -> None:
    """Write the series' names at the ends of their lines, clear of each other and above the axis."""
    per_point = axis.figure.dpi / 72
    height = [axis.transData.transform(end[:2])[1] / per_point for end in ends]
    order = sorted(range(len(ends)), key=lambda k: -height[k])
    at, above, below = list(height), np.inf, axis.bbox.y0 / per_point - 8
    for k in order:
        above = at[k] = min(at[k], above - 12)
    for k in reversed(order):
        below = at[k] = max(at[k], below + 12)
    for (x, y, label, colour, pale), wanted, place in zip(ends, height, at, strict=True):
        axis.annotate(label, (x, y), xytext=(7, place - wanted), textcoords="offset points", va="center", fontsize=9.5,
                      color=colour, weight="normal" if pale else "bold", annotation_clip=False)  # fmt: skip


def stacked(found: Mapping[str, Mapping[str, float]], title: str, alt: str, *, inside: Format = "", total: Format = "",
            peaks: Mapping[str, float] | None = None, vertical: bool = False, figsize: tuple | None = None, **settings: Any):  # fmt: skip
    """Parts on top of each other. ``found``: bar -> part -> value.

    Args:
        inside: writes a part's value into it, where it is wide enough; ``total``: the sum at the end.
        peaks: bar -> a value marked across it.
        vertical: upright bars, for bars that are in order: of a length, say.
    """
    size = figsize or ((8, 3.6) if vertical else (8, 0.5 * len(found) + 1.6))
    figure, ((axis, _, bars_of),) = _begin(found, False, size)
    before = np.zeros(len(found))
    for part, (colour, _, _, hatch) in zip(next(iter(bars_of.values())), cycle(LOOKS), strict=False):  # fmt: skip
        values = np.array([parts[part] for parts in found.values()])
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": part}
        if vertical:
            axis.bar(range(len(found)), values, bottom=before, **look)
        else:
            axis.barh(range(len(found)), values, left=before, height=0.62, **look)
        for place, value in enumerate(values):
            if inside and value > 0.06 * max(sum(parts.values()) for parts in found.values()):
                axis.text(before[place] + value / 2, place, _told(value, inside), ha="center", va="center",
                          fontsize=9, bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85})  # fmt: skip
        before += values
    if vertical:
        axis.set(xticks=range(len(found)), xticklabels=list(found), ylim=(0, before.max()))
    else:
        _rows(axis, {"": found})
        held = np.array(list((peaks or {}).values()) or before)
        for place, peak in enumerate(held):
            if peaks:
                axis.plot(peak, place, "|", color="black", ms=30, mew=2.5)
            if total:
                end = max(peak, before[place])
                axis.annotate(_told(peak, total), (end, place), xytext=(7, 0), va="center",
                              textcoords="offset points", weight="bold", fontsize=9.5)  # fmt: skip
        axis.set_xlim(0, (1.25 if total else 1.0) * max(before.max(), held.max()))
    _dress(axis, "", settings, None)
    return _end(figure, title, alt, "outside right center" if vertical else "outside lower center", ncols=1 if vertical else 6)  # fmt: skip


def tokens(names: Sequence[str], values: Sequence[float], title: str, alt: str, *, marked: Sequence[bool] | None = None,
           marks: tuple[str, str] = ("trained", "masked"), fmt: Format = "", **settings: Any):  # fmt: skip
    """One bar for each token; ``marked`` ones are green, the others grey and hatched: ``marks`` says what that means."""
    figure, axis = plt.subplots(figsize=(max(6.5, 0.42 * len(names)), 3))
    told = [True] * len(names) if marked is None else marked
    for wanted, colour, hatch, label in ((True, GREEN, "", marks[0]), (False, GREY, "///", marks[1])):  # fmt: skip
        at = [i for i, m in enumerate(told) if m == wanted]
        if at:
            drawn = axis.bar(at, [values[i] for i in at], color=colour, hatch=hatch, edgecolor="white", label=label)  # fmt: skip
            if fmt:
                axis.bar_label(drawn, [_told(values[i], fmt) for i in at], padding=2, fontsize=9, bbox={"fc": "white", "ec": "none", "pad": 0.5})  # fmt: skip
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_xticks(range(len(names)), [visible(name) for name in names], rotation=60, ha="right", rotation_mode="anchor", fontsize=9)  # fmt: skip
    _dress(axis, "", settings, None)
    return _end(figure, title, alt, "outside right upper")


def grid(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str, alt: str, *,
         fmt: Format = ".0%", texts: Sequence[Sequence[str]] | None = None, bold: Callable[[int, int], bool] = lambda i, j: i == j,
         label: str = "", figsize: tuple = (8, 3.8), vmin: float = 0.0, vmax: float = 1.0, cmap: str = "cividis", **settings: Any):  # fmt: skip
    """A number in each cell, over its colour. ``texts`` stand there instead; ``label`` adds a scale."""
    figure, axis = plt.subplots(figsize=figsize)
    picture = axis.imshow(values, vmin=vmin, vmax=vmax, cmap=cmap, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            light = np.dot(picture.cmap(picture.norm(value))[:3], (0.3, 0.59, 0.11))
            axis.text(j, i, texts[i][j] if texts else _told(value, fmt), ha="center", va="center", fontsize=9.5,
                      weight="bold" if bold(i, j) else "normal", color="black" if light > 0.45 else "white")  # fmt: skip
    axis.set_xticks(range(len(columns)), [c.replace(" ", "\n", 1) for c in columns])
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if label:
        figure.colorbar(picture, label=label)
    _dress(axis, "", settings, None)
    return _end(figure, title, alt)
