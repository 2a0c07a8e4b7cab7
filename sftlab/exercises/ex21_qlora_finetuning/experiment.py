"""A base in a process with a memory limit: 16 bits are refused, 4 bits load and train.

The weights are random numbers in the shapes of two real models. It takes two minutes on one core.
"""

from __future__ import annotations

from sftlab.memory.limit import ALLOWED, PATIENCE, example, in_limited_process

RECORD = "memory_limit"  # data/results/memory_limit.json

BASES = {"4 bits": "nf4", "16 bits": "bf16"}  # the smaller one first
SMALL, LARGE = ALLOWED


def settings() -> list[dict]:
    """Return a run for each shape."""
    return [{"shape": shape, "allowed": allowed} for shape, allowed in ALLOWED.items()]


def run(shape: str, allowed: int) -> dict[str, dict]:
    """Load and train the base in 4 and in 16 bits; return the results of `sftlab.memory.limit.attempt`."""
    patience = PATIENCE if shape == SMALL else 20 * PATIENCE
    runs = [example(stored, shape) for stored in BASES.values()]
    return dict(zip(BASES, in_limited_process(runs, allowed, patience), strict=True))
