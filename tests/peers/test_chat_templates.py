"""The chat templates of today's model families, as TRL keeps them, can be trained or are refused."""

from __future__ import annotations

import copy
import re
from importlib.resources import files

import pytest

from sftlab.chat import user
from sftlab.data import ExampleMaker
from sftlab.errors import WorkbookError
from sftlab.formats import Conversation, DataConfig, ReadingReport
from sftlab.templates import training_tokenizer

FOLDER = files("trl") / "chat_templates"
SERVING = sorted(
    f.name.removesuffix(".jinja")
    for f in FOLDER.iterdir()
    if f.name.endswith(".jinja") and not f.name.endswith("_training.jinja")
)
SPECIAL = r"<[|｜][^<>|｜\s]{1,30}[|｜]>|<(?:start|end)_of_turn>|<bos>|<eos>|</?s>|\[/?INST\]|\[gMASK\]|<sop>|<\|turn>|<turn\|>"
TALK = [*user("Which is larger?"), {"role": "assistant", "content": "The gull."},
        *user("And then?"), {"role": "assistant", "content": "The wren."}]  # fmt: skip
FOR_IMAGES = {"idefics3", "llava_next", "smolvlm"}  # their templates read parts, not texts
EACH = {"glm4moe", "gptoss", "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6"}
# What TRL trains after the answer where it differs: the next header, the end of a turn that isn't
# the last.
OTHER_END = {"glm4moe", "gptoss"}


def equipped(tokenizer, family):
    """The embedded tokenizer with the family's template and special tokens."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = (FOLDER / f"{family}.jinja").read_text(encoding="utf-8")
    changed.add_tokens(sorted(set(re.findall(SPECIAL, changed.chat_template))), special_tokens=True)
    return changed


def trained(tokenizer):
    training, _ = training_tokenizer(tokenizer)
    maker = ExampleMaker(training, DataConfig(), ReadingReport("rows.jsonl"))
    made = maker.examples(Conversation(TALK, [False, True, False, True]))
    texts = [training.decode([x for x in e.labels if x != -100]) for e in made]
    return maker.answers, "".join(texts)


@pytest.mark.parametrize("family", SERVING)
def test_both_answers_are_trained_with_their_end_and_nothing_of_the_user(family, tokenizer):
    ours = equipped(tokenizer, family)
    if family in FOR_IMAGES:
        with pytest.raises(WorkbookError, match="chat template"):
            trained(ours)
        return
    answers, text = trained(ours)
    assert answers == ("each" if family in EACH else "all")
    assert "The gull.<" in text and "The wren.<" in text
    assert "larger" not in text and "then" not in text
    path = FOLDER / f"{family}_training.jinja"
    if not path.is_file() or family in OTHER_END:
        return
    # TRL trains headers and white space around the answers too; what we train lies within.
    ours.chat_template = path.read_text(encoding="utf-8")
    found = ours.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    kept = zip(found["input_ids"], found["assistant_masks"], strict=True)
    theirs = "".join(ours.decode([token for token, on in kept if on]).split())
    for answer in re.findall(r"The \w+\.(?:<[^<>/]+>)+", text):
        assert "".join(answer.split()) in theirs


def test_what_is_changed_for_training_is_said_and_the_serving_template_stays(tokenizer):
    for family, said in (("deepseek_r1_distill", "'<think>\\n'"), ("glm4moe", "<|im_end|>")):
        serving = equipped(tokenizer, family)
        before = serving.chat_template
        _, notes = training_tokenizer(serving)
        assert said in notes[0] and serving.chat_template == before
