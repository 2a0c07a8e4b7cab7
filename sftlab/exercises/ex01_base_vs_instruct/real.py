"""The replies of SmolLM2-135M-Instruct to the same prompts on bare text, in its template, after "Q:".

The prompts are the sixty of the record ``real_models``, in which the base of Gemma 3 270M read them.
SmolLM2's own base isn't in the package index. Both models are 4-bit reconstructions of the published
ones, in bfloat16. Greedy decoding: there is no seed to vary. Fetch the model first: ``python -m sftlab
fetch smollm2-instruct``. This takes about four minutes on two cores.
"""

from __future__ import annotations

import torch

from sftlab.exercises.ex01_base_vs_instruct.experiment import (
    BARE,
    LIMIT,
    PAGE,
    TEMPLATE,
    chance_of_end,
    renderings,
)
from sftlab.exercises.real_models import questions
from sftlab.fetch import PACKAGES
from sftlab.generate import generate
from sftlab.models import load

RECORD = "answer_or_continue_real"  # data/results/answer_or_continue_real.json

MODEL = "smollm2-instruct"


def run(rendering: str) -> dict:
    """Return the replies to all prompts in one rendering, whether each ended, and the probability of
    the end-of-turn token directly after the prompt."""
    model, tokenizer = load(MODEL, dtype=torch.bfloat16)
    render = renderings(tokenizer)[rendering]
    prompts = [render(question["prompt"]) for question in questions()]
    written = generate(model, tokenizer, prompts, LIMIT)
    return {
        "replies": [g.text for g in written],
        "stops": "".join(str(int(g.stopped)) for g in written),
        "end at once": sum(chance_of_end(model, tokenizer, prompts)) / len(prompts),
        "weights": PACKAGES[MODEL].member_sha256[:16],
    }


def settings() -> list[dict]:
    """Return the three renderings."""
    return [{"rendering": rendering} for rendering in (BARE, TEMPLATE, PAGE)]
