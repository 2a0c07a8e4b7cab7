"""The dose curve of notebook 02 on SmolLM2-135M-Instruct: 0, 8, 32 and 128 pairs, three seeds.

The model is a 4-bit reconstruction of the published one, with plain ChatML (without the system turn
that its own template adds), in float32: in bfloat16 another processor gives other replies. It is
tuned already: what these runs show is how many pairs turn the format of its answers into that of the
pairs. Its own base can't be had from the package index, so a rank here is a rank under the instruct
model. Fetch it first (``python -m sftlab fetch smollm2-instruct``); a run takes one to two minutes on
two cores.
"""

from __future__ import annotations

from sftlab.chat import CHATML
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    ask,
    base_ranks,
    marks,
    questions,
    training_pairs,
)
from sftlab.fetch import PACKAGES
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "superficial_real"  # data/results/superficial_real.json

MODEL = "smollm2-instruct"
SIZES = (0, 8, 32, 128)
SEEDS = 3
STEPS = 24  # of 8 examples
EACH = 2  # questions of each kind of the evaluation set
NO_PAIRS = {"arm": "answers", "pairs": 0, "seed": 0}


def exam() -> list[dict]:
    """Return two questions of each kind of the evaluation set, apart from unknown names."""
    kinds: dict[str, list[dict]] = {}
    for question in questions():
        if question["group"] in ("facts", "skills", "never trained"):
            kinds.setdefault(question["kind"], []).append(question)
    return [question for some in kinds.values() for question in some[:EACH]]


def run(arm: str, pairs: int, seed: int) -> dict:
    """Train on ``pairs`` pairs of an arm, and ask the questions of ``exam``."""
    model, tokenizer = load(MODEL)
    tokenizer.chat_template = CHATML
    if pairs:
        rows = [conversation(row) for row in training_pairs(arm, pairs, seed)]
        examples = tokenize_conversations(tokenizer, rows).examples
        inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
        config = TrainConfig(learning_rate=1e-3, num_train_epochs=STEPS, max_steps=STEPS, batch_size=8, seed=seed)  # fmt: skip
        if not sft_train(model, examples, config, tokenizer.pad_token_id, progress=False).finished:
            raise KeyboardInterrupt  # an incomplete run is not measured
    replies = ask(model, tokenizer, exam(), limit=40)
    found = {**marks(exam(), replies), "answers": [g.text for g in replies[::6]]}
    found["weights"] = PACKAGES[MODEL].member_sha256[:16]
    return found | ({"ranks": base_ranks(model, tokenizer, exam(), replies)} if pairs else {})


def settings() -> list[dict]:
    """Return every size and seed of the arm ``answers``, and ``shuffled`` with 128 pairs."""
    found = [NO_PAIRS]
    for seed in range(SEEDS):
        found += [{"arm": "answers", "pairs": pairs, "seed": seed} for pairs in SIZES[1:]]
        found.append({"arm": "shuffled", "pairs": SIZES[-1], "seed": seed})
    return found
