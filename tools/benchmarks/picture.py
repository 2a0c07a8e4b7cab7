"""The figures of `make bench` as a picture, and as the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt

from tools.benchmarks.contenders import CONTENDERS, METHODS
from tools.benchmarks.measure import LAYOUTS, PROMPTS, SHAPES
from tools.benchmarks.profile import ADAPTERS, GROUPS, REST

NAMES = {"smollm2-135m": "SmolLM2-135M", "almanac": "embedded, 3 M"}
LABELS = {"lora": "LoRA", "full": "full"}
OURS = "#0072B2"


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
    """Tokens per second, with every sitting as a tick, and what a step costs with longer rows or more."""
    cells = [(shape, method) for shape in SHAPES for method in METHODS]
    figure, axes = plt.subplots(3, 2, figsize=(9.2, 7.6), layout="constrained")
    for axis, (shape, method) in zip(axes.flat, cells, strict=False):
        found = speed(runs, shape, method)
        colours = [OURS if name.startswith("ours") else "#999999" for name in found]
        places = range(len(found))
        axis.barh(places, [median(v) for v in found.values()], color=colours, height=0.66)
        for place, values in zip(places, found.values(), strict=True):
            axis.plot(values, [place] * len(values), "|", color="black", ms=9)
        axis.set(yticks=places, yticklabels=list(found), xlim=(0, None), xlabel="tokens per second")
        axis.set_title(f"{NAMES[shape]}, {LABELS[method]}", fontsize=10.5, loc="left")
        axis.invert_yaxis()
    _draw_costs(axes[2], runs)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Training speed on one machine; bars are medians, ticks single sittings", x=0.01, ha="left", weight="bold", fontsize=11)  # fmt: skip
    return figure


def _draw_costs(axes, runs: Sequence[dict]) -> None:
    """Seconds of a LoRA step over tokens of a row, and over rows, beside a line through the first."""
    found = [run for run in runs if run["kind"] == "scaling"]
    for axis, over, fixed, label in (
        (axes[0], "length", "batch", "tokens of each of {} rows"),
        (axes[1], "batch", "length", "rows of {} tokens"),
    ):
        (value, _), *_ = Counter(run[fixed] for run in found).most_common()
        line = sorted((run[over], run["seconds"]) for run in found if run[fixed] == value)
        sizes, seconds = zip(*line, strict=True)
        axis.plot(sizes, seconds, "o-", color=OURS, label="measured")
        straight = [seconds[0] * size / sizes[0] for size in sizes]
        axis.plot(sizes, straight, ":", color="#555555", label="in proportion to the first")
        axis.set(
            xlabel=label.format(value),
            ylabel="seconds",
            xlim=(0, None),
            ylim=(0, None),
            xticks=sizes,
        )
        axis.set_title(f"{NAMES[SHAPES[0]]}, a LoRA step, fp32", fontsize=10.5, loc="left")
        axis.legend(frameon=False, fontsize=9)


def readme_table(runs: Sequence[dict], where: Mapping) -> str:
    """Tables in Markdown: tokens per second, memory and time of a step on SmolLM2, generation."""
    machine = where["machine"]
    steps = one(runs, kind="steps")
    trained = steps["trained"] / steps["tokens"]
    source = (
        f"Medians and ranges of the sittings of one run: {machine['processor']}, "
        f"{machine['threads']} cores, GPU: {machine['gpu']}, PyTorch {where['versions']['torch']}, {where['date']}. "
        f"LoRA on {NAMES[SHAPES[0]]}: {ratios(runs)}. "
        f"All tokens count; the {trained:.0%} of them in responses are trained."
    )
    return "\n\n".join([_speeds(runs), source, _steps(runs), _decoding(runs), _packing(runs)])


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def _speeds(runs: Sequence[dict]) -> str:
    """Median and range of every contender."""
    cells = [(shape, method) for shape in SHAPES for method in METHODS]
    heads = ["tokens/s", *(f"{NAMES[shape]}, {LABELS[method]}" for shape, method in cells)]
    rows = []
    for who in CONTENDERS:
        found = [speed(runs, *cell)[who.name] for cell in cells]
        rows.append([who.name, *(f"{median(v):,.0f} ({min(v):,.0f}–{max(v):,.0f})" for v in found)])
    return _markdown(heads, rows)


def ratios(runs: Sequence[dict]) -> str:
    """How many times as fast as TRL, at the same precision where both choose it."""
    rate = {k: median(v) for k, v in speed(runs, SHAPES[0], "lora").items()}
    pairs = [("bf16", "TRL default"), ("bf16", "TRL tuned, bf16"), ("fp32", "TRL tuned, fp32")]
    return "; ".join(f"{rate[f'ours, {p}'] / rate[t]:.2f} × {t}" for p, t in pairs)


def _steps(runs: Sequence[dict]) -> str:
    """A step on SmolLM2, ours: losses against TRL's, memory, share of the machine's rate, profile."""
    shape = SHAPES[0]
    cells = [(method, precision) for method in METHODS for precision in ("fp32", "bf16")]
    ours = {cell: f"ours, {cell[1]}" for cell in cells}
    trl = {cell: f"TRL tuned, {cell[1]}" for cell in cells}
    limits = {c: one(runs, kind="limit", shape=shape, method=c[0], name=ours[c]) for c in cells}
    profiles = {c: one(runs, kind="profile", method=c[0], name=ours[c]) for c in cells}

    def memory(method: str, name: str) -> str:
        return f"{one(runs, kind='memory', method=method, name=name)['bytes'] / 1e9:.2f} GB"

    rows = [
        ["largest difference from TRL's loss, nats", *(f"{farthest(runs, shape, c[0], ours[c], trl[c]):.4f}" for c in cells)],
        ["peak memory, ours", *(memory(c[0], ours[c]) for c in cells)],
        ["peak memory, TRL tuned", *(memory(c[0], trl[c]) for c in cells)],
        ["peak memory, TRL default, which recomputes activations", *(memory(c[0], "TRL default") for c in cells)],
        ["matrix products alone, GFLOP/s", *(f"{limits[c]['limit'] / 1e9:,.0f}" for c in cells)],
        ["share of that rate in a whole step", *(f"{limits[c]['reached'] / limits[c]['limit']:.0%}" for c in cells)],
    ]  # fmt: skip
    for told in (*dict.fromkeys(GROUPS.values()), ADAPTERS, REST):
        found = [profiles[cell]["shares"].get(told, 0) for cell in cells]
        rows.append([f"time: {told}", *(f"{share:.0%}" for share in found)])
    rows.append(["operations", *(f"{profiles[cell]['operations']:,}" for cell in cells)])
    heads = [f"a step on {NAMES[shape]}", *(f"{LABELS[m]}, {p}" for m, p in cells)]
    return _markdown(heads, rows)


def _decoding(runs: Sequence[dict]) -> str:
    """Batches of several sizes."""
    rows = []
    for run in (run for run in runs if run["kind"] == "decode"):
        for way, told in (("ours", "ours"), ("transformers", "`generate()`")):
            rates = [f"{rate:,.0f}" for rate in run[way].values()]
            rows.append([f"{NAMES[run['shape']]}, {told}", *rates])
    heads = ["generated tokens/s", *(f"{n} prompt{'s' * (n > 1)}" for n in PROMPTS)]
    return _markdown(heads, rows)


def _packing(runs: Sequence[dict]) -> str:
    """Padded as they come, sorted by length, packed: tokens per second over those of the first."""
    cells = LAYOUTS
    found = {cell: one(runs, kind="packing", shape=cell[0], lengths=cell[1])["rates"] for cell in cells}  # fmt: skip
    first, *others = next(iter(found.values()))
    rows = [[first, *(f"{median(found[cell][first]):,.0f} tokens/s" for cell in cells)]]
    for way in others:
        ratios = [
            [a / b for a, b in zip(found[cell][way], found[cell][first], strict=True)]
            for cell in cells
        ]
        rows.append([way, *(f"×{median(r):.2f} ({min(r):.2f}–{max(r):.2f})" for r in ratios)])
    heads = ["a LoRA step, fp32", *(f"{NAMES[shape]}, {name} examples" for shape, name in cells)]
    return _markdown(heads, rows)
