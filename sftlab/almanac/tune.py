"""Make almanac-chat: LoRA on the base model, on pairs of every kind and on conversations.

    python -m sftlab.almanac.tune        # about two minutes on two cores; writes
    data/models/almanac-chat

Half of the conversations have system turns. Only the adapter is stored, in PEFT's format;
``sftlab.models.load`` merges it into the base model.
"""

from __future__ import annotations

import json

from sftlab._internal.paths import MODELS
from sftlab.adapters import save_adapter
from sftlab.almanac.pairs import conversations, pairs
from sftlab.almanac.report import LORA
from sftlab.almanac.skills import SKILLS
from sftlab.data import conversation, tokenize_conversations
from sftlab.lora import inject_lora
from sftlab.models import load, record_checksums
from sftlab.train import History, TrainConfig, sft_train

CONFIG = TrainConfig(learning_rate=2e-3, num_train_epochs=3, batch_size=16, seed=0)


def training_rows() -> list[dict]:
    """Return 500 pairs of every kind of question and instruction, and 400 conversations."""
    return pairs(500, skills=(*SKILLS, "tips", "tips")) + conversations(400)


def tune() -> History:
    """Train the adapter, save it, and record the checksums of the embedded models."""
    model, tokenizer = load("almanac")
    rows = tokenize_conversations(
        tokenizer, [conversation(row) for row in training_rows()]
    ).examples
    inject_lora(model, **LORA, seed=CONFIG.seed)
    history = sft_train(model, rows, CONFIG, tokenizer.pad_token_id)
    folder = MODELS / "almanac-chat"
    save_adapter(model, folder, base_name="almanac-base")
    losses = [round(loss, 4) for loss in history.losses]
    record = {"rows": len(rows), "trained_tokens": history.tokens, "losses": losses}
    (folder / "training.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    record_checksums()
    return history


if __name__ == "__main__":
    found = tune()
    print(f"{len(found.losses)} steps, loss {found.losses[0]:.2f} to {found.losses[-1]:.2f}")
