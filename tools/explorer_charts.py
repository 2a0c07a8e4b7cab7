"""Figures as data: what a figure would draw, for pages on which the browser draws it.

Inside ``as_data`` the figure types that explorers use return their numbers and texts in place of a
picture. All texts are written by Python, with the formats of the figure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from sftlab.classroom import figures
from sftlab.classroom.figures import LOOKS, _estimate, _told


class Chart(dict):
    """A figure as data. As of a figure, the format of the numbers below its axis can be set."""

    @property
    def axes(self) -> list[Chart]:
        return [self]

    @property
    def xaxis(self) -> Chart:
        return self

    def set_major_formatter(self, told: Callable[[float, Any], str]) -> None:
        at = MaxNLocator(5).tick_values(0, self["high"])
        self["ticks"] = [float(value) for value in at if 0 <= value <= self["high"]]
        self["told"] = [told(value, None) for value in self["ticks"]]


@contextmanager
def as_data() -> Iterator[None]:
    """Let the figures of all exercises be data."""
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("sftlab.exercises")]
    replaced = [
        (module, name, recorder)
        for module in modules
        for name, recorder in RECORDERS.items()
        if vars(module).get(name) is getattr(figures, name)
    ]
    for module, name, recorder in replaced:
        setattr(module, name, recorder)
    try:
        yield
    finally:
        for module, name, _ in replaced:
            setattr(module, name, getattr(figures, name))


def _stacked(found: Mapping[str, Mapping[str, float]], title: str, alt: str, *, inside: Any = "",
             total: Any = "", peaks: Mapping[str, float] | None = None, **settings: Any) -> Chart:  # fmt: skip
    parts = list(next(iter(found.values())))
    values = [[float(by[part]) for part in parts] for by in found.values()]
    sums = list(map(sum, values))
    held = list((peaks or {}).values()) or sums
    room = 0.06 * max(sums)  # a narrower part has no room for its number
    return Chart(
        kind="stacked",
        title=title,
        alt=alt,
        rows=list(found),
        parts=[[part, *_look(look)] for part, look in zip(parts, cycle(LOOKS), strict=False)],
        values=[list(map(_short, row)) for row in values],
        inside=[[_told(v, inside) if inside and v > room else "" for v in row] for row in values],
        peaks=list(map(_short, held)) if peaks else [],
        totals=[_told(peak, total) if total else "" for peak in held],
        low=0,
        high=_short(settings.get("xlim", (0, max(*sums, *held)))[1]),
        **_axis(settings),
    )


def _dots(found: Mapping[str, Any], title: str, alt: str, *, fmt: Any = "", **settings: Any) -> Chart:  # fmt: skip
    return _rows("dots", found, title, alt, fmt, settings)


def _bars(found: Mapping[str, Any], title: str, alt: str, *, fmt: Any = ".2f", **settings: Any) -> Chart:  # fmt: skip
    return _rows("bars", found, title, alt, fmt, {"xlim": (0, max(found.values()) or 1), **settings})  # fmt: skip


def _rows(kind: str, found: Mapping[str, Any], title: str, alt: str, fmt: Any, settings: Mapping) -> Chart:  # fmt: skip
    estimates = [_estimate(value)[:3] for value in found.values()]
    ends = [end for estimate in estimates for end in estimate] + list(settings.get("axvline", {}))
    margin = 0.05 * (max(ends) - min(ends))
    low, high = settings.get("xlim", (min(ends) - margin, max(ends) + margin))
    return Chart(
        kind=kind,
        title=title,
        alt=alt,
        rows=list(found),
        parts=[["", *_look(LOOKS[0])]],
        values=[_short(middle) for middle, _, _ in estimates],
        ranges=[[_short(low), _short(high)] if low < high else [] for _, low, high in estimates],
        totals=[_told(middle, fmt) if fmt else "" for middle, _, _ in estimates],
        low=_short(low),
        high=_short(high),
        **_axis(settings),
    )


def _curves(found: Mapping, title: str, alt: str, *, panels: bool = False, mean: Callable = np.mean, direct: bool | None = None,
            picked: str = "", marked: Mapping | None = None, each: Mapping | None = None, **settings: Any) -> Chart:  # fmt: skip
    drawn = []
    for name, series in (found if panels else {"": found}).items():
        own, points = {**settings, **(each or {}).get(name, {})}, []
        for (label, by), (colour, dash, shape, _) in zip(
            series.items(), cycle(LOOKS), strict=False
        ):
            estimates = [_estimate(value, mean)[:3] for value in by.values()]
            points.append(
                {
                    "label": label,
                    "colour": colour,
                    "dash": DASHES[dash],
                    "shape": shape,
                    "pale": picked in series and label != picked,
                    "points": [[_short(x), *map(_short, e)] for x, e in zip(by, estimates, strict=True)],
                }
            )  # fmt: skip
        every = [point for line in points for point in line["points"]]
        drawn.append(
            {
                "name": name,
                "series": points,
                "x": _ruler("x", own, [x for x, *_ in every]),
                "y": _ruler("y", own, [y for _, *ys in every for y in ys]),
                "lines": [[_short(at), text] for at, text in own.get("axvline", {}).items()],
                "marked": [[*at, text] for at, text in ((marked or {}).get(name, {}) if panels else marked or {}).items()],
            }
        )  # fmt: skip
    shown = not panels if direct is None else direct
    return Chart(kind="curves", title=title, alt=alt, direct=shown, panels=drawn)


def _ruler(which: str, settings: Mapping[str, Any], values: list[float]) -> dict:
    """One axis of a panel: its scale, its ends, its ticks and its name."""
    scale = settings.get(f"{which}scale", "linear")
    scale = scale if isinstance(scale, dict) else {"value": scale}
    low, high = min(values), max(values)
    if scale["value"] == "log":
        ends = [low / (high / low) ** 0.05, high * (high / low) ** 0.05]
        subs = (1, 2, 5) if high < 30 * low else (1, 3) if high < 500 * low else (1,)
        at = [sub * 10.0**power for power in range(-9, 10) for sub in subs]
    else:
        ends, at = [low - 0.05 * (high - low), high + 0.05 * (high - low)], []
    given = settings.get(f"{which}lim", (None, None))
    ends = [end if end is not None else own for end, own in zip(given, ends, strict=True)]
    ticks = settings.get(f"{which}ticks", [tick for tick in at if ends[0] <= tick <= ends[1]])
    return {
        "scale": scale["value"],
        "linthresh": scale.get("linthresh", 0),
        "linscale": scale.get("linscale", 1),
        "low": _short(ends[0]),
        "high": _short(ends[1]),
        "ticks": [_short(tick) for tick in ticks],
        "label": settings.get(f"{which}label", ""),
    }


RECORDERS = {"stacked": _stacked, "dots": _dots, "bars": _bars, "curves": _curves}
DASHES = {"-": "", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}


def _axis(settings: Mapping[str, Any]) -> dict:
    lines = settings.get("axvline", {})
    return {
        "log": settings.get("xscale") == "log",
        "percent": settings.get("percent") == "x",
        "ticks": list(settings.get("xticks", [])),
        "lines": [[_short(at), text] for at, text in lines.items()],
        "xlabel": settings.get("xlabel", ""),
    }


def _look(look: tuple[str, str, str, str]) -> tuple[str, str]:
    colour, _, _, hatch = look
    return colour, hatch


def _short(value: float) -> float:
    """A number as exactly as a picture needs it."""
    return float(f"{value:.5g}")
