"""The figures of `make bench` as a picture, and as the README's table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import matplotlib.pyplot as plt

from sftlab.bench.contenders import CONTENDERS, METHODS
from sftlab.bench.measure import SHAPES

NAMES = {"smollm2-135m": "SmolLM2-135M", "almanac": "embedded, 3 M"}
LABELS = {"lora": "LoRA", "full": "full"}


def one(runs: Sequence[dict], **settings) -> dict:
    """The run with these settings."""
    return next(run for run in runs if all(run.get(k) == v for k, v in settings.items()))


def speed(runs: Sequence[dict], shape: str, method: str) -> dict[str, list[float]]:
    """Tokens per second of every contender, one figure for each sitting."""
    found = one(runs, kind="steps", shape=shape, method=method)
    return {name: [found["tokens"] / s for s in each] for name, each in found["seconds"].items()}


def farthest(runs: Sequence[dict], shape: str, method: str, a: str, b: str) -> float:
    """The largest difference of two contenders' losses over the first sitting, in nats."""
    losses = one(runs, kind="steps", shape=shape, method=method)["losses"]
    return max(abs(x - y) for x, y in zip(losses[a], losses[b], strict=True))


def draw(runs: Sequence[dict]):
    """Tokens per second, with every sitting as a dot; one panel for each model and method."""
    cells = [(shape, method) for shape in SHAPES for method in METHODS]
    figure, axes = plt.subplots(2, 2, figsize=(9.2, 5.2), layout="constrained")
    for axis, (shape, method) in zip(axes.flat, cells, strict=True):
        found = speed(runs, shape, method)
        colours = ["#0072B2" if name.startswith("ours") else "#999999" for name in found]
        places = range(len(found))
        axis.barh(places, [median(v) for v in found.values()], color=colours, height=0.66)
        for place, values in zip(places, found.values(), strict=True):
            axis.plot(values, [place] * len(values), "|", color="black", ms=9)
        axis.set(yticks=places, yticklabels=list(found), xlim=(0, None))
        axis.set_title(f"{NAMES[shape]}, {LABELS[method]}", fontsize=10.5, loc="left")
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("tokens per second")
    figure.suptitle("Training speed on one machine; bars are medians, ticks single sittings", x=0.01, ha="left", weight="bold", fontsize=11)  # fmt: skip
    return figure


def readme_table(runs: Sequence[dict], machine: str) -> str:
    """Medians and ranges of tokens per second, and ratios to TRL's; in Markdown."""
    heads = ["tokens/s", *(f"{NAMES[s]}, {LABELS[m]}" for s in SHAPES for m in METHODS)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for who in CONTENDERS:
        cells = []
        for shape in SHAPES:
            for method in METHODS:
                values = speed(runs, shape, method)[who.name]
                cells.append(f"{median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})")
        lines.append(f"| {who.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Medians and ranges of the sittings of one run on {machine}."])
