"""The figures of `make bench` as a picture, and as the README's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def readme_table(runs: Sequence[dict], where: Mapping) -> str:
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
    told = [
        f"- {name}: {text}"
        for name, text in (
            ("LoRA on SmolLM2-135M", ratios(runs)),
            ("Largest difference of the losses of ours and TRL's", differences(runs)),
            ("Peak memory on SmolLM2-135M", peaks(runs)),
            ("Share of the machine's rate of matrix products that a step reaches", shares(runs)),
            ("Where a step's time goes on SmolLM2-135M", profiles(runs)),
            ("Generated tokens per second, ours and transformers' `generate()`", decoding(runs)),
            ("Seconds of a LoRA step on SmolLM2-135M", scaling(runs)),
        )
    ]
    machine = where["machine"]
    source = (
        f"Medians and ranges of the sittings of one run: {machine['processor']}, "
        f"{machine['threads']} cores, GPU: {machine['gpu']}, PyTorch {where['versions']['torch']}, {where['date']}."
    )
    return "\n".join([*lines, "", source, "", *told])


def ratios(runs: Sequence[dict]) -> str:
    """How many times as fast as TRL, at the same precision where both choose it."""
    rate = {k: median(v) for k, v in speed(runs, SHAPES[0], "lora").items()}
    pairs = [("bf16", "TRL default"), ("bf16", "TRL tuned, bf16"), ("fp32", "TRL tuned, fp32")]
    return "; ".join(f"{rate[f'ours, {p}'] / rate[t]:.2f} × {t}" for p, t in pairs)


def differences(runs: Sequence[dict]) -> str:
    """Of the same batches in the same order, per precision, over all models and methods."""
    cells = [(shape, method) for shape in SHAPES for method in METHODS]
    most = {
        p: max(farthest(runs, *cell, f"ours, {p}", f"TRL tuned, {p}") for cell in cells)
        for p in ("fp32", "bf16")
    }
    return "; ".join(f"{value:.4f} nats ({p})" for p, value in most.items())


def peaks(runs: Sequence[dict]) -> str:
    """Over the process's level before the model was made."""
    return "; ".join(
        f"{LABELS[method]} "
        + ", ".join(
            f"{one(runs, kind='memory', method=method, name=who.name)['bytes'] / 1e9:.2f} GB {who.name}"
            for who in CONTENDERS
        )
        for method in METHODS
    )


def shares(runs: Sequence[dict]) -> str:
    """Of the rate of x Wᵀ in the model's own shapes, at the same precision, in the same run."""
    found = [run for run in runs if run["kind"] == "limit"]
    return "; ".join(
        f"{NAMES[run['shape']]}, {LABELS[run['method']]}, {run['name'].split()[-1]} "
        f"{run['reached'] / run['limit']:.0%} of {run['limit'] / 1e9:,.0f} GFLOP/s"
        for run in found
    )


def profiles(runs: Sequence[dict]) -> str:
    """The groups of operations, the largest first, as the profiler sees them."""
    return "; ".join(
        f"{LABELS[run['method']]}, {run['name'].split()[-1]} "
        + ", ".join(f"{name} {share:.0%}" for name, share in run["shares"].items())
        + f" ({run['operations']:,} operations)"
        for run in (run for run in runs if run["kind"] == "profile")
    )


def decoding(runs: Sequence[dict]) -> str:
    """For batches of several sizes."""
    parts = []
    for run in (run for run in runs if run["kind"] == "decode"):
        counts = [
            f"{run['ours'][n]:,.0f} and {run['transformers'][n]:,.0f} ({n} prompts)"
            for n in run["ours"]
        ]
        parts.append(f"{NAMES[run['shape']]} {', '.join(counts)}")
    return "; ".join(parts)


def scaling(runs: Sequence[dict]) -> str:
    """Over rows and tokens of each."""
    found = [run for run in runs if run["kind"] == "scaling"]
    return ", ".join(f"{run['batch']} × {run['length']}: {run['seconds']:.2f}" for run in found)
