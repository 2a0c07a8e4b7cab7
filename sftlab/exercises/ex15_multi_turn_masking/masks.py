"""The functions that the student of notebook 15 writes: spans of answers, and labels from them."""

from __future__ import annotations

from sftlab.chat import Message, encode, end_of_turn_id
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example


def answer_spans(tokenizer, messages: list[Message]) -> list[tuple[int, int]]:
    """Return where each answer stands among the tokens of the conversation, end exclusive.

    An answer begins after the assistant header and ends with the last end-of-turn token that its
    message adds. Both places follow from renderings of the first messages, so no text that looks
    like a turn has an effect.
    """
    spans = []
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(encode(tokenizer, messages[:k], add_generation_prompt=True))
            ids = encode(tokenizer, messages[: k + 1])
            end = len(ids)
            while ids[end - 1] != end_of_turn_id(tokenizer):
                end -= 1
            spans.append((start, end))
    return spans


def mask_all_but_assistant(tokenizer, messages: list[Message]) -> Example:
    """Return the example of a conversation in which every answer is trained, unless its weight is 0.

    A message may have a ``weight``, 0 or 1; without one it is 1. Those of other roles have no effect.
    """
    ids = encode(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(ids)
    answers = [message for message in messages if message["role"] == "assistant"]
    for message, (start, end) in zip(answers, answer_spans(tokenizer, messages), strict=True):
        if message.get("weight", 1) == 1:
            labels[start:end] = ids[start:end]
    return Example(ids, labels)
