"""SmolLM2-135M-Instruct served in other forms of the prompt, as published and after some training.

As published, it reads the system turn that its own template adds, and answers 208 questions in five
forms. After LoRA on 32 pairs of the almanac in one of two forms, without the system turn, three seeds,
it answers 39 questions in the forms of ``AFTER``. The model is a reconstruction of the published one
from 4 bits, in float32: in bfloat16 another processor gives other replies. Fetch it first:
``python -m sftlab fetch smollm2-instruct``. This takes about a quarter of an hour.
"""

from __future__ import annotations

from sftlab.almanac.pairs import pairs
from sftlab.exercises.ex05_chat_template_mismatch.experiment import (
    example,
    prompt_ids,
    questions,
    serve,
)
from sftlab.exercises.ex05_chat_template_mismatch.forms import (
    BARE,
    BOUNDARY,
    ELSEWHERE,
    RIGHT,
    SWAPPED,
)
from sftlab.fetch import PACKAGES
from sftlab.generate import generate
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "template_mismatch_smollm2"  # data/results/template_mismatch_smollm2.json

MODEL = "smollm2-instruct"
PUBLISHED = "as published"
SYSTEM = [{"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}]  # fmt: skip
FORMS_ASKED = (RIGHT, BOUNDARY, ELSEWHERE, SWAPPED, BARE)
AFTER = {RIGHT: (RIGHT, BOUNDARY, SWAPPED), SWAPPED: (RIGHT, SWAPPED)}  # trained -> served
EACH, EACH_AFTER = 16, 3  # questions of each kind
SEEDS = 3


def run(trained: str, seed: int, form: str = "") -> dict:
    """Serve the published model in one form, or train it in one and serve it in others.

    Returns:
        What ``serve`` does: of one form, or by form; and ``breaks`` of the published model without its
        last line break: the share of replies that begin with one.
    """
    model, tokenizer = load(MODEL)
    weights = {"weights": PACKAGES[MODEL].member_sha256[:16]}
    if trained == PUBLISHED:
        asked = questions(EACH)
        found = serve(model, tokenizer, asked, form, SYSTEM) | weights
        if form == BOUNDARY:
            prompts = [prompt_ids(tokenizer, q["prompt"], form, SYSTEM) for q in asked]
            first = generate(model, tokenizer, prompts, 1)
            found["breaks"] = sum(reply.text[:1] == "\n" for reply in first) / len(asked)
        return found
    rows = [example(tokenizer, pair, trained) for pair in pairs(32, seed, skills=())]
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=1e-3, num_train_epochs=3, batch_size=8, seed=seed)  # fmt: skip
    history = sft_train(model, rows, config, tokenizer.pad_token_id, progress=False)
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    asked = questions(EACH_AFTER)
    return {form: serve(model, tokenizer, asked, form) for form in AFTER[trained]} | weights


def settings() -> list[dict]:
    """Return the forms of the published model, then the trained ones, seed by seed."""
    return [
        *({"trained": PUBLISHED, "form": form, "seed": 0} for form in FORMS_ASKED),
        *({"trained": form, "seed": seed} for seed in range(SEEDS) for form in AFTER),
    ]
