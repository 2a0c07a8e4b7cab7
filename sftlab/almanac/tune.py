"""Make almanac-chat: LoRA on the base model, on pairs of every kind and on conversations.

    python -m sftlab.almanac.tune        # about five minutes on one core; writes
    data/models/almanac-chat

Half of the conversations have system turns. The pairs of ``out_of_scope.jsonl`` show what to say
outside the model's world. So many pairs make the model forget facts that none of them asks for;
documents of its pretraining among them keep these. Only the adapter is stored, in PEFT's format;
``sftlab.models.load`` merges it into the base model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sftlab._internal.paths import MODELS
from sftlab.adapters import save_adapter
from sftlab.almanac.documents import documents
from sftlab.almanac.out_of_scope import out_of_scope
from sftlab.almanac.pairs import conversations, pairs
from sftlab.almanac.skills import SKILLS
from sftlab.data import conversation, tokenize_conversations
from sftlab.lora import inject_lora
from sftlab.masking import Example
from sftlab.models import load, record_checksums
from sftlab.train import History, TrainConfig, sft_train

LORA: dict[str, Any] = {"target_modules": "all-linear", "r": 16, "lora_alpha": 32}
CONFIG = TrainConfig(learning_rate=1.5e-3, num_train_epochs=3, batch_size=16, seed=0)
# How many pairs of each kind are for prompts outside the model's world, and in careless words.
DOSE = {"greeting": 400, "self": 300, "chat": 400, "code": 350, "language": 150, "nonsense": 200,
        "sum": 450, "yes_no": 600, "typo": 200, "unknown": 800, "known": 1000}  # fmt: skip
DOCUMENTS, LENGTH = 1600, 96  # how many documents, and their largest number of tokens


def rows_in_scope(count: int = 1200) -> list[dict]:
    """Return ``count`` pairs of every kind of question and instruction, and 400 conversations."""
    return pairs(count, skills=(*SKILLS, "tips", "tips")) + conversations(400)


def training_rows() -> list[dict]:
    """Return the rows in scope, and the pairs for prompts outside the model's world."""
    return rows_in_scope() + out_of_scope(DOSE)


def documents_again(tokenizer, count: int) -> list[Example]:
    """Return the beginnings of documents like those of pretraining; each token is trained.

    Rehearsal against forgetting, as the pretraining mix of Ouyang et al. (2022, arXiv:2203.02155).
    """
    found = []
    for text in islice(documents("again"), count):
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        found.append(Example(ids[:LENGTH], ids[:LENGTH]))
    return found


def trained(
    rows: Sequence[dict],
    documents: int = DOCUMENTS,
    lora: dict[str, Any] = LORA,
    config: TrainConfig = CONFIG,
    progress: bool = True,
) -> tuple[Any, Any, int, History]:
    """Train LoRA on the base; return model, tokenizer, the number of examples and the history."""
    model, tokenizer = load("almanac")
    examples = tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples
    examples += documents_again(tokenizer, documents)
    inject_lora(model, **lora, seed=config.seed)
    history = sft_train(model, examples, config, tokenizer.pad_token_id, progress=progress)
    return model, tokenizer, len(examples), history


def tune() -> History:
    """Train the adapter, save it, and record the checksums of the embedded models."""
    model, _, count, history = trained(training_rows())
    folder = MODELS / "almanac-chat"
    save_adapter(model, folder, base_name="almanac-base")
    losses = [round(loss, 4) for loss in history.losses]
    record = {
        "rows": count,
        "documents": DOCUMENTS,
        "trained_tokens": history.tokens,
        "losses": losses,
    }
    (folder / "training.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    record_checksums()
    return history


if __name__ == "__main__":
    found = tune()
    print(f"{len(found.losses)} steps, loss {found.losses[0]:.2f} to {found.losses[-1]:.2f}")
