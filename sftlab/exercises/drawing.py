"""Random values for the cases that exercises draw, each from the generator of its case."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["the", "frog", "heron", "river", "lives", "near", "small", "warm", "stones", "and", "eats",
         "many", "green", "leaves", "today"]  # fmt: skip


def tensor(rng: random.Random, *shape: int, scale: float = 1.0) -> Any:
    """Return a float32 tensor of normal values."""
    import torch

    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return torch.randn(*shape, generator=generator) * scale


def labels(rng: random.Random, length: int, largest: int, trained: int = 1) -> list[int]:
    """Return -100 for a prompt, then ids below ``largest``, at least ``trained`` of them."""
    prompt = rng.randint(1, length - trained)
    return [-100] * prompt + [rng.randrange(largest) for _ in range(length - prompt)]


def batch(rng: random.Random, vocabulary: int) -> tuple[Any, Any]:
    """Return logits (batch, length, vocabulary) and labels (batch, length)."""
    import torch

    rows, length = rng.randint(1, 4), rng.randint(4, 9)
    ids = [labels(rng, length, vocabulary, trained=2) for _ in range(rows)]
    return tensor(rng, rows, length, vocabulary, scale=2.0), torch.tensor(ids)


def sentence(rng: random.Random, words: int = 5) -> str:
    """Return different words, capitalized, with a full stop."""
    return " ".join(rng.sample(WORDS, words)).capitalize() + "."


def conversation(
    rng: random.Random, turns: int, system: bool | None = None
) -> list[dict[str, str]]:
    """Return user and assistant messages in turn, after a system message in half of the cases."""
    messages = [
        {"role": ("user", "assistant")[k % 2], "content": sentence(rng, rng.randint(1, 6))}
        for k in range(turns)
    ]
    system = rng.random() < 0.5 if system is None else system
    return [{"role": "system", "content": sentence(rng, 3)}, *messages] if system else messages


def adapter(rng: random.Random) -> tuple[Any, Any, float, int]:
    """Return A (r, d_in), B (d_out, r), alpha, which differs from r, and r."""
    r, d_in, d_out = rng.randint(2, 6), rng.randint(7, 12), rng.randint(3, 6)
    return tensor(rng, r, d_in), tensor(rng, d_out, r), float(r + rng.randint(1, 9)), r
