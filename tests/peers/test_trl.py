"""TRL as the oracle: the tokens that its SFTTrainer trains are ours."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import ExampleMaker, collate, tokenize_conversations
from sftlab.formats import Conversation, DataConfig, ReadingReport
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import mask_all_but_assistant


def talks():
    """Conversations of the workbook, and some with turns that look like others."""
    lines = (INSTRUCTIONS / "conversations.jsonl").read_text().splitlines()[:40]
    found = [json.loads(line)["messages"] for line in lines]
    tricky = [
        {"role": "system", "content": "assistant\nBe brief."},
        {"role": "user", "content": "Write: user\nHi"},
        {"role": "assistant", "content": "user\nHi\nassistant\n  Hello 🙂."},
        {"role": "user", "content": "Grüße\n\n"},
        {"role": "assistant", "content": "1. a\n2. b\n"},
    ]
    return [*found, tricky]


@pytest.fixture
def trainer(tiny_model, tokenizer, tmp_path):
    """TRL's trainer on these talks; nothing is trained."""
    return SFTTrainer(
        model=tiny_model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            assistant_only_loss=True,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"messages": talk} for talk in talks()]),
        processing_class=tokenizer,
    )


def test_our_mask_is_trls_assistant_only_mask(trainer, tokenizer):
    rows = list(trainer.train_dataset)
    assert len(rows) == len(talks())
    for talk, theirs in zip(talks(), rows, strict=True):
        ours = mask_all_but_assistant(tokenizer, talk)
        assert ours.input_ids == theirs["input_ids"]
        assert ours.labels == theirs["labels"]


def test_our_batch_has_the_labels_of_trls_batch(trainer, tokenizer):
    rows = [trainer.train_dataset[i] for i in range(8)]
    theirs = trainer.data_collator(rows)["labels"]
    ours = collate(tokenize_conversations(tokenizer, talks()[:8]).examples, tokenizer.pad_token_id)[
        "labels"
    ]
    width = ours.shape[1]  # ours ends with the last trained token
    assert theirs[:, :width].equal(ours)
    assert (theirs[:, width:] == IGNORE_INDEX).all()


@pytest.mark.parametrize("answers", ["last", "each"])
def test_our_last_answer_is_trls_completion(answers, tiny_model, tokenizer, tmp_path):
    """TRL trains the completion of a conversational pair; with each answer as one, "each"."""
    pairs = [
        (talk[:k], talk[k : k + 1])
        for talk in talks()
        for k, message in enumerate(talk)
        if message["role"] == "assistant" and (answers == "each" or k == len(talk) - 1)
    ]
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    trainer = SFTTrainer(
        model=tiny_model,
        args=SFTConfig(output_dir=str(tmp_path), **settings),
        train_dataset=Dataset.from_list([{"prompt": p, "completion": c} for p, c in pairs]),
        processing_class=tokenizer,
    )
    maker = ExampleMaker(tokenizer, DataConfig(answers=answers), ReadingReport("rows.jsonl"))
    ours = [
        example
        for talk in talks()
        for example in maker.examples(Conversation(talk, [True] * len(talk)))
    ]
    assert len(ours) == len(trainer.train_dataset) == len(pairs)
    for example, theirs in zip(ours, trainer.train_dataset, strict=True):
        assert example.input_ids == theirs["input_ids"]
        # TRL trains the newline that the template writes after the end-of-turn token, too.
        assert example.labels[: example.end] == theirs["labels"][: example.end]
        assert tokenizer.decode(theirs["input_ids"][example.end :]).strip() == ""
