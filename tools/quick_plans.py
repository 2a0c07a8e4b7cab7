"""Thousands of memory plans in seconds: the counts of a dry run are computed from a few dry runs.

With LoRA, on sequences of which half of the tokens are trained, what is saved is a sum of four terms: a
constant, one with the length of a sequence, one with the number of tokens, and one with rank times
tokens. What the adapters take is a constant and a term with the rank. Four dry runs give all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import cache

from sftlab.memory import plan as planner
from sftlab.memory.plan import Run

_dry_run = planner._dry_run  # the planner's own, whatever stands in its place


@cache
def _corners(run: Run, layers: int) -> list[dict[str, int]]:
    """Count one short run; then one that is longer, one with two sequences, and one of rank 8."""
    changes = ({}, {"length": 512, "trained_per_row": 256}, {"batch": 2}, {"r": 8})
    return [_dry_run(replace(run, **change), layers) for change in changes]


def counts(run: Run, layers: int) -> dict[str, int]:
    """Return what ``sftlab.memory.plan._dry_run`` returns, in bytes.

    Run it if the run is of another kind, or if a term is not a whole number of bytes.
    """
    if run.r is None or run.padded or 2 * run.trained_per_row != run.length:
        return _dry_run(run, layers)
    small = Run(run.shape, 1, 128, 64, 1, run.targets, run.weights)
    found = {"frozen": _dry_run(small, layers)["frozen"]}
    if run.weights == "nf4":  # computes in 16 bits: a dry run saves as much as without packing
        small = replace(small, weights="bf16")
    first, longer, two, rank = _corners(small, layers)
    for part in ("trained", "moments", "largest"):
        found[part] = first[part] + Fraction(rank[part] - first[part], 7) * (run.r - 1)
    tokens = run.batch * run.length
    by_rank = Fraction(rank["saved"] - first["saved"], 7 * 128)
    by_tokens = Fraction(two["saved"] - first["saved"], 128) - by_rank
    by_length = Fraction(longer["saved"] - first["saved"], 384) - by_tokens - by_rank
    constant = first["saved"] - 128 * (by_length + by_tokens + by_rank)
    found["saved"] = constant + by_length * run.length + (by_tokens + by_rank * run.r) * tokens
    if any(Fraction(count).denominator != 1 for count in found.values()):
        return _dry_run(run, layers)
    return {part: int(count) for part, count in found.items()}


@contextmanager
def interpolated() -> Iterator[None]:
    """Let ``sftlab.memory.plan.plan`` work with ``counts``."""
    planner._dry_run = counts
    try:
        yield
    finally:
        planner._dry_run = _dry_run
