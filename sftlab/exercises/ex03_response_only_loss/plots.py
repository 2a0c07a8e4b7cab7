"""Figures of notebook 03: response-only against full-sequence loss, from recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sftlab.classroom.figures import bars, curves, dots
from sftlab.exercises.ex03_response_only_loss.experiment import SHAPES, SIZES, TALKS
from sftlab.statistics import change_by_seed, chosen, mean_with_interval

LOSSES = {"response": "response only", "all": "every token"}


def change_by_loss(
    runs: Sequence[dict], name: str, first: str = "response", second: str = "all", **cell
) -> tuple[float, tuple[float, float]]:
    """second − first of two losses, seed by seed on the same pairs: mean and 95% t interval."""
    return change_by_seed(runs, name, {"loss": first}, {"loss": second}, **cell)


def ratio(runs: Sequence[dict], shape: str) -> float:
    """Prompt tokens per response token, over all recorded pairs of a shape."""
    found = chosen(runs, shape=shape, loss="response")
    return sum(r["prompt_tokens"] for r in found) / sum(r["response_tokens"] for r in found)


def compared(runs: Sequence[dict], name: str, unit: str) -> list[list]:
    """One row per cell: response-only training, and what training on every token changes."""
    lines = []
    for shape in SHAPES:
        for size in SIZES:
            cell = {"shape": shape, "pairs": size}
            mean, _ = mean_with_interval(runs, name, loss="response", **cell)
            change, (low, high) = change_by_loss(runs, name, **cell)
            so = "no clear difference" if low <= 0 <= high else "higher" if low > 0 else "lower"
            interval = f"{low:+{unit}} to {high:+{unit}}"
            lines.append([shape, size, f"{mean:{unit}}", f"{change:+{unit}}", interval, so])
    return lines


def turns(runs: Sequence[dict]) -> list[list[str]]:
    """What 32 pairs or talks teach about the end of an answer and about what follows it."""
    lines = []
    for shape in (SHAPES[1], TALKS):
        for loss, label in LOSSES.items():
            line = [shape, label]
            for name in ("goes_on", "new_turn", "user_turn"):
                mean, (low, high) = mean_with_interval(runs, name, shape=shape, pairs=32, loss=loss)
                line.append(f"{mean:.0%}  ({max(0, low):.0%} to {min(1, high):.0%})")
            lines.append(line)
    return lines


def cells(runs: Sequence[dict]):
    """Exact answers after both losses in every cell: one panel per shape."""
    found, clear = {}, 0
    for shape in SHAPES:
        prompt, answer = shape.split(", ")
        panel = f"{prompt},\n{answer}\n{ratio(runs, shape):.1f} : 1"
        found[panel] = {
            label: {
                f"{size} pairs": mean_with_interval(runs, "exact", shape=shape, pairs=size, loss=loss)
                for size in SIZES
            }
            for loss, label in LOSSES.items()
        }  # fmt: skip
        clear += sum(change_by_loss(runs, "exact", shape=shape, pairs=n)[0] < 0 for n in SIZES)
    title = f"Training on the response alone gives more exact answers in {clear} of {len(SHAPES) * len(SIZES)} cells"
    told = "; ".join(
        f"{panel.replace(chr(10), ' ')}, {size}: {response[size][0]:.0%} and {every[size][0]:.0%}"
        for panel, (response, every) in ((k, v.values()) for k, v in found.items())
        for size in response
    )
    alt = f"{title}. Points with intervals, response only and every token: {told}."
    return dots(found, title, alt, panels=True, percent="x", xlim=(0, 1.02), xlabel="exactly right", figsize=(9, 3.3))  # fmt: skip


def learning(found: Mapping[str, Mapping[int, float]]):
    """Held-out loss on responses over the steps. ``found``: training loss -> step -> nats per token."""
    ends = {LOSSES[loss]: list(curve.values())[-1] for loss, curve in found.items()}
    told = ", ".join(f"{value:.2f} with {label}" for label, value in ends.items())
    return curves(
        {LOSSES[loss]: curve for loss, curve in found.items()},
        f"At the end: {told}",
        f"Line chart: the held-out loss on responses over the steps, at the end {told}.",
        yscale="log", xlabel="optimiser step", ylabel="held-out NLL of the response\n(nats per token)",
    )  # fmt: skip


def prompt_shares(runs: Sequence[dict], shape: str, size: int):
    """The prompt's share of tokens, loss and gradient, at the start and after training on all of it."""
    every = chosen(runs, shape=shape, pairs=size, loss="all")
    tokens = np.mean([r["prompt_tokens"] / (r["prompt_tokens"] + r["response_tokens"]) for r in every])  # fmt: skip
    found = {
        when: {f"of the {what}": np.mean([r[f"prompt_{what}_{key}"] for r in every]) for what in ("loss", "gradient")}
        for when, key in (("at the start", "start"), ("after training on every token", "end"))
    }  # fmt: skip
    start, end = (list(values.values()) for values in found.values())
    title = f"Of the gradient, {start[1]:.0%} belongs to the prompt at the start, {end[1]:.0%} at the end"
    alt = (
        f"Bars of the prompt's share. It has {tokens:.0%} of the tokens; of the loss {start[0]:.0%} at the start and "
        f"{end[0]:.0%} after training on every token, of the gradient {start[1]:.0%} and {end[1]:.0%}."
    )
    return bars(found, title, alt, fmt=".0%", percent="x", axvline={tokens: f"of the tokens {tokens:.0%}"},
                xlim=(0, 1.12), xlabel="share that belongs to the prompt", figsize=(7.4, 3))  # fmt: skip


def one_cell(runs: Sequence[dict], shape: str, size: int, alt: str):
    """The explorer's picture: exact match, NLL and the prompt's shares in one cell."""
    arms = {"exactly right": "exact", "NLL (nats per token)": "nll"}
    found = {
        panel: {
            label: mean_with_interval(runs, name, shape=shape, pairs=size, loss=loss)
            for loss, label in LOSSES.items()
        }
        for panel, name in arms.items()
    }
    every = chosen(runs, shape=shape, pairs=size, loss="all")
    found["the prompt's share"] = {
        f"{what}, {when}": np.mean([r[f"prompt_{what}_{when}"] for r in every])
        for what in ("loss", "gradient") for when in ("start", "end")
    }  # fmt: skip
    formats = dict(zip(found, (".0%", ".2f", ".0%"), strict=True))
    best, other = (mean for mean, _ in found["exactly right"].values())
    title = f"{size} pairs: {best:.0%} exactly right, {other:.0%} after training on every token"
    whole = {"xlim": (0, 1.3), "xticks": [0, 0.5, 1], "percent": "x"}
    each = {"exactly right": whole, "the prompt's share": whole}
    return bars(found, title, alt, panels=True, fmt=formats, each=each, figsize=(9.2, 2.9))
