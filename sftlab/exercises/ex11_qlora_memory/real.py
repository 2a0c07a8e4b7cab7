"""The codes of notebook 11 on real weights: the token embedding of SmolLM2-135M-Instruct.

The model as it can be fetched is a reconstruction from a file that stores the linear layers in 4
bits. They hold 16 values per block already, so they cannot tell codes of 4 bits apart. The file
stores the embedding in 8 bits, and only that matrix is used here.

Fetch it first: ``python -m sftlab fetch smollm2-instruct``. Takes about a minute with one thread.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

from sftlab.exercises.ex11_qlora_memory.experiment import BITS, CODES, packed
from sftlab.models import load

RECORD = "four_bit_codes_smollm2"  # data/results/four_bit_codes_smollm2.json

PARTS = 16  # of the vocabulary, 3,072 tokens each


@cache
def parts() -> tuple[Tensor, ...]:
    """Return the embedding in parts of (3072, 576)."""
    model, _ = load("smollm2-instruct")
    return model.get_input_embeddings().weight.detach().chunk(PARTS)


def run(arm: str, bits: float) -> dict:
    """Return ``error``: part of the vocabulary -> size of the error ÷ size of the weights."""
    found = {}
    for number, part in enumerate(parts()):
        error = (packed(part, arm, bits) - part).norm() / part.norm()
        found[str(number)] = round(error.item(), 5)
    return {"error": found}


def settings() -> list[dict]:
    """Return all settings."""
    return [{"arm": code, "bits": bits} for bits in BITS for code in CODES]
