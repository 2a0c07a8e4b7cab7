"""A base model of 1.2 billion weights in a process limited to 2 GB more: in 16 bits and in 4 bits.

For machines that cannot limit a process in this way; notebook 21 runs it live where possible.
"""

from __future__ import annotations

from sftlab.memory.limit import ALLOWED, example, in_limited_process

RECORD = "memory_limit"  # data/results/memory_limit.json

BASES = {"bf16": "bf16", "4 bits": "nf4"}


def settings() -> list[dict]:
    """Return one run: both base models under the same limit."""
    return [{"allowed": ALLOWED}]


def run(allowed: int) -> dict[str, dict]:
    """Load and train each base model; return the results of `sftlab.memory.limit.attempt`."""
    return {name: in_limited_process(example(kept), allowed) for name, kept in BASES.items()}
