"""Notebook 18: the share of real models that LoRA trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import bars, curves
from sftlab.lora import lora_parameter_count
from sftlab.memory.count import targeted_layers

TARGETS = {
    "q and v": ["q_proj", "v_proj"],
    "q, k, v and o": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "the MLP": ["gate_proj", "up_proj", "down_proj"],
    "all linear layers": "all-linear",
}


def sizes(model) -> dict:
    """What the formula needs of a model: its parameters, and d_in + d_out added up per target."""
    per_rank = {
        name: sum(lora_parameter_count(a, b, 1) for a, b in targeted_layers(model, targets).values())
        for name, targets in TARGETS.items()
    }  # fmt: skip
    return {"parameters": sum(p.numel() for p in model.parameters()), "per rank": per_rank}


def trained(size: Mapping, target: str, r: int) -> tuple[int, float]:
    """Trained parameters and their share of all, the adapter included, by the formula."""
    count = r * size["per rank"][target]
    return count, count / (count + size["parameters"])


def share_over_rank(models: Mapping[str, Mapping], ranks: Sequence[int]):
    """The trained share over the rank, one line per model; q and v on the left, all on the right."""
    chosen = ("q and v", "all linear layers")
    found = {
        target: {name: {r: trained(size, target, r)[1] for r in ranks} for name, size in models.items()}
        for target in chosen
    }  # fmt: skip
    under = sum(trained(size, chosen[1], 8)[1] < 0.01 for size in models.values())
    told = "; ".join(
        f"{target}: "
        + ", ".join(
            f"{name} {points[ranks[0]]:.2g} to {points[ranks[-1]]:.2g}"
            for name, points in lines.items()
        )
        for target, lines in found.items()
    )
    return curves(
        found,
        f"Rank 8 on all linear layers: {under} of {len(models)} models are under 1%",
        f"Two panels: the trained share grows with the rank, from {ranks[0]} to {ranks[-1]}. {told}. A line marks 1%.",
        panels=True, direct=True, sharey=True, percent="y", axhline={0.01: ""}, xscale="log", yscale="log", xticks=ranks,
        yticks=[1e-4, 1e-3, 0.01, 0.1, 1], xlabel="rank r", ylabel="trained share of all weights", figsize=(9.6, 3.9),
    )  # fmt: skip


def shares_at(models: Mapping[str, Mapping], target: str, r: int, alt: str):
    """Share of every model at one rank, as bars, with 1% marked; the count stands beside the name."""
    found = {}
    for name, size in models.items():
        count, share = trained(size, target, r)
        found[f"{name}\n{count:,}"] = share
    below = sum(share < 0.01 for share in found.values())
    return bars(
        found, f"r = {r} on {target}: {below} of {len(models)} models stay under 1%", alt,
        fmt=lambda share: f"{100 * share:.2g}%", percent="x", xscale="log", xlim=(1e-5, 3), xticks=[1e-5, 1e-4, 1e-3, 0.01, 0.1, 1],
        axvline={0.01: "1%"}, xlabel="trained share (under the names: trained parameters)", figsize=(8, 0.5 * len(models) + 1.6),
    )  # fmt: skip
