"""The borders of notebook 12 with SmolLM2-135M-Instruct: its tokenizer, and its answers.

Two kinds of runs. ``header``: how many answers, one for each token of the vocabulary, must not be
tokenized apart from it. ``layout``: the model, a reconstruction from 4 bits in bfloat16, answers the
questions of ``experiment`` after two examples in the same layout.

Fetch it first: ``python -m sftlab fetch smollm2-instruct``. Takes about two minutes with one thread
(``OMP_NUM_THREADS=1``).
"""

from __future__ import annotations

import torch

from sftlab.almanac.pairs import pairs
from sftlab.exercises.ex12_prompt_masking.experiment import (
    HEADERS,
    LAYOUTS,
    beginnings,
    questions,
    right,
    unsafe_answers,
)
from sftlab.models import load

RECORD = "border_smollm2"  # data/results/border_smollm2.json

SHOWN = 6  # unsafe beginnings that are recorded as text


def run(header: str = "", layout: str = "") -> dict:
    """Measure one header or one layout; see the module's text."""
    model, tokenizer = load("smollm2-instruct", dtype=torch.bfloat16)
    if header:
        answers = beginnings(tokenizer)
        unsafe = list(unsafe_answers(tokenizer, header, answers))
        return {"answers": len(answers), "unsafe": len(unsafe), "such as": unsafe[:SHOWN]}
    shots = "".join(
        f"Q: {pair['prompt']}\nA: {pair['response']}\n" for pair in pairs(2, 0, skills=())
    )
    found = right(model, tokenizer, shots + LAYOUTS[layout], questions()[1])
    return {"right": "".join("01"[one] for one in found)}


def settings() -> list[dict]:
    """Return all settings."""
    return [*({"header": header} for header in HEADERS), *({"layout": name} for name in LAYOUTS)]
