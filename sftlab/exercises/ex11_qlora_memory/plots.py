"""Notebook 11: codes of 4 bits, their errors, and a training step against graphics cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftlab.classroom.figures import curves, dots, stacked
from sftlab.memory.count import TrainingBytes

CARDS = (16, 24, 48, 80)  # GB


def codes(found: Mapping[str, Sequence[float]]):
    """The values of each code as ticks on a line from −1 to 1."""
    near = {name: sum(abs(v) < 0.5 for v in values) for name, values in found.items()}
    told = ", ".join(f"{name} {n}" for name, n in near.items())
    return dots(
        found,
        f"Values between −0.5 and 0.5: {told}",
        f"Rows of ticks from −1 to 1, the values of each code. Between −0.5 and 0.5 lie: {told}.",
        marker="|", mean=False, xlabel="value, in units of the block's largest magnitude", figsize=(7.4, 0.6 * len(found) + 1.3),
    )  # fmt: skip


def errors(found: Mapping[str, Mapping[int, float]], block: int = 64):
    """Relative error of the weights over the block's size, one line for each code; the title tells of one size."""
    lines = {name: {n: 100 * e for n, e in by_block.items()} for name, by_block in found.items()}
    best = min(lines, key=lambda name: lines[name][block])
    sizes = sorted(next(iter(lines.values())))
    told = ", ".join(f"{name} {line[sizes[0]]:.1f} to {line[sizes[-1]]:.1f}%" for name, line in lines.items())  # fmt: skip
    return curves(
        lines,
        f"On these weights {best} errs least in blocks of {block}",
        f"Lines over the size of a block, {sizes[0]} to {sizes[-1]} weights. The error: {told}.",
        xscale="log", xticks=sizes, xlabel="weights that share a scale", ylabel="error, % of the weights' size", ylim=(0, None),
    )  # fmt: skip


def parts_of(planned: TrainingBytes) -> dict[str, int]:
    """What is held at the peak: the lasting parts, and what the moment of the peak takes on top."""
    lasting = {name: getattr(planned, name) for name in ("weights", "adapters", "optimizer")}
    rest = planned.peak - sum(lasting.values())
    gradients = min(planned.gradients, rest)
    return {**lasting, "gradients": gradients, "working memory": rest - gradients}


def against_cards(planned: TrainingBytes, title: str, alt: str):
    """One stacked bar up to the peak, and a line for each size of card."""
    found = {name: size / 1e9 for name, size in parts_of(planned).items()}
    peak = sum(found.values())
    cards = {card: f"{card}\n{'fits' if peak <= card else 'too small'}" for card in CARDS}
    return stacked({"": found}, title, alt, axvline=cards, xlim=(0, max(1.05 * peak, 88)),
                     xlabel="GB; dotted lines are cards", figsize=(7.6, 2.6))  # fmt: skip
