"""Notebook 20: what rounding takes from a merge, and what another α does to the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import curves
from sftlab.statistics import share_interval


def rounding(sizes: Sequence[float], lost: Sequence[tuple[float, float]]):
    """Share of weights unchanged, and error of the update, over the size of the update.

    ``sizes``: ‖ΔW‖/‖W‖, the largest first. ``lost``: what ``merging.rounding_loss`` gives for each.
    """
    found = {
        label: {100 * size: pair[k] for size, pair in zip(sizes, lost, strict=True)}
        for k, label in enumerate(("weights that do not move", "error of the update that arrives"))
    }
    (still, wrong), (still_small, wrong_small) = lost[0], lost[-1]
    smaller = f"1/{sizes[0] / sizes[-1]:.0f}"
    return curves(
        found,
        f"As trained, {still:.0%} of the weights do not move; at {smaller} of it, {still_small:.0%}",
        "Two falling lines over the size of the update: the share of weights that a merge in bfloat16 leaves unchanged, "
        f"from {still_small:.0%} for the smallest update to {still:.0%} as trained, and the error of the update that "
        f"arrives, from {wrong_small:.0%} to {wrong:.0%}.",
        direct=False, percent="y", axvline={100 * sizes[0]: "as trained"}, xscale="log", xticks=[100 * s for s in sizes],
        xticklabels=[f"{100 * s:.2g}" for s in sizes], xlabel="size of the update, % of the weight's norm", ylim=(0, None), figsize=(7.4, 3.7),
    )  # fmt: skip


def strength_curve(counts: Mapping[float, int], total: int):
    """Exact answers over the merge strength, with 95% intervals; 1 is the trained α."""
    found = {strength: (n / total, share_interval(n, total)) for strength, n in counts.items()}
    told = ", ".join(f"{share:.0%} at {strength:g}" for strength, (share, _) in found.items())
    best = max(found, key=lambda strength: found[strength][0])
    ends = min(found), max(found)
    return curves(
        found,
        f"Exactly right: {found[best][0]:.0%} at {best:g} times the trained α, {found[ends[1]][0]:.0%} at {ends[1]:g} times",
        f"Line with intervals: the share of held-out questions answered exactly right over the merge strength: {told}.",
        percent="y", axvline={1: "as trained"}, ylim=(0, 1.05), xlabel="merge strength (times the trained α)", ylabel="exactly right",
    )  # fmt: skip
