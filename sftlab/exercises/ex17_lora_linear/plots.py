"""Notebook 17: what is inside a LoRA layer, and how long its matrices grow."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from sftlab.classroom.figures import BLUE, GREEN, GREY, ORANGE, dots
from sftlab.lora import LoRALinear, effective_update

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def norms(layer: LoRALinear, start_of_A: Tensor) -> dict:
    """The Frobenius norms of a layer's matrices now, with its shape and its factor α/r."""
    A, B = layer.A.detach(), layer.B.detach()
    update = effective_update(A, B, layer.alpha, layer.r)
    return {
        "A": A.norm().item(),
        "moved": (A - start_of_A).norm().item(),
        "B": B.norm().item(),
        "update": update.norm().item(),
        "weight": layer.base.weight.norm().item(),
        "shape": (B.shape[0], A.shape[1], layer.r),
        "scale": layer.scale,
    }


def corrections(shares: Mapping[str, float], steps: int):
    """‖ΔW‖/‖W‖ of every layer after some steps, one row of dots per kind. ``shares``: name -> share."""
    found: dict[str, list[float]] = {}
    for name, share in shares.items():
        kind = next((kind for kind in KINDS if name.endswith(kind)), "others")
        found.setdefault(kind, []).append(100 * share)
    low, typical, high = (sorted(shares.values())[k] for k in (0, len(shares) // 2, -1))
    return dots(
        {kind: found[kind] for kind in (*KINDS, "others") if kind in found},
        f"After {steps} steps a typical correction is {typical:.0%} of its weight",
        f"Dots, one for each of {len(shares)} layers: the norm of the correction as a share of the weight's norm, from {low:.0%} to {high:.0%}.",
        xlim=(0, None), xlabel="norm of the correction, % of the weight's norm  (dots: layers, bars: means)",
    )  # fmt: skip


def _box(axis, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.04", fc=colour, alpha=0.22, ec=colour, lw=2)  # fmt: skip
    axis.add_patch(shape)
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)


def _arrow(axis, start: tuple, end: tuple, width: float = 1.5, colour: str = "black") -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": width, "color": colour})


def layer_diagram(name: str, album: Mapping[int, Mapping[str, dict]], step: int):
    """The two paths through one layer at one step, over the norms of all steps."""
    now = album[step][name]
    d_out, d_in, r = now["shape"]
    share = now["update"] / now["weight"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), height_ratios=(1.15, 1))
    above.set(xlim=(0, 10), ylim=(0, 3.4))
    above.axis("off")
    _box(above, 1.4, 2.1, 5.4, 0.9, f"W  {d_out}×{d_in}, frozen\n‖W‖ = {now['weight']:.2f}", GREY)
    _box(above, 1.4, 0.3, 2.0, 0.9, f"A  {r}×{d_in}\n‖A‖ = {now['A']:.2f}", BLUE)
    _box(above, 4.8, 0.3, 2.0, 0.9, f"B  {d_out}×{r}\n‖B‖ = {now['B']:.2f}", ORANGE)
    thick = 0.6 + 40 * share
    for start, end in (((0.5, 1.65), (1.35, 2.5)), ((6.85, 2.5), (8.15, 1.8))):
        _arrow(above, start, end)
    for start, end in (((0.5, 1.55), (1.35, 0.75)), ((3.45, 0.75), (4.75, 0.75)), ((6.85, 0.75), (8.15, 1.45))):  # fmt: skip
        _arrow(above, start, end, min(thick, 8), GREEN)
    above.text(0.35, 1.6, "x", fontsize=14, ha="center", va="center", weight="bold")
    above.text(4.1, 0.98, "x Aᵀ", ha="center", fontsize=9)
    above.text(7.75, 0.55, f"× α/r = {now['scale']:g}", ha="left", fontsize=9.5)
    above.text(8.35, 1.62, "+", fontsize=16, ha="center", va="center", weight="bold")
    _arrow(above, (8.55, 1.62), (9.2, 1.62))
    above.text(9.45, 1.6, "y", fontsize=14, ha="center", va="center", weight="bold")
    above.set_title(f"After {step} steps the correction is {share:.1%} of the weight")

    steps = sorted(album)
    series = (("B", "‖B‖", ORANGE, "-"), ("moved", "A's distance from its start", BLUE, "--"))
    for key, label, colour, line in series:
        values = [album[s][name][key] for s in steps]
        below.plot(steps, values, line, color=colour, label=label)
        below.plot(step, now[key], "o", color=colour, ms=7)
    below.axvline(step, color=GREY, lw=1, ls=":")
    below.set(xlabel="optimiser step", ylabel="norm", ylim=(0, None), xlim=(-0.3, steps[-1] + 0.3))
    below.xaxis.get_major_locator().set_params(integer=True)
    below.legend(loc="lower right")
    return figure
