"""A base of 1.2 billion weights in a process that may hold 2 GB more: in 16 bits, and in 4 bits.

For machines that hold no process to such a limit; notebook 21 tries it live where it can.
"""

from __future__ import annotations

from sftlab.memory.limit import ALLOWED, example, in_limited_process

RECORD = "memory_limit"  # data/results/memory_limit.json

BASES = {"bf16": "bf16", "4 bits": "nf4"}


def settings() -> list[dict]:
    """One run: both bases under the same limit."""
    return [{"allowed": ALLOWED}]


def run(allowed: int) -> dict[str, dict]:
    """What came of loading and training each base; bytes, see `sftlab.memory.limit.attempt`."""
    return {name: in_limited_process(example(kept), allowed) for name, kept in BASES.items()}
