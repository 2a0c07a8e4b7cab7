"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch

from sftlab import masking
from sftlab.chat import encode, end_of_turn_id, render
from sftlab.classroom.answers import equivalent, refused, right
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example

ID = "15.mask_all_but_assistant"


def turns(tokenizer, messages, roles=("assistant",), header=False, end=True, after=False):
    """Label what each message of these roles adds; its parts by request."""
    labels = []
    for k, message in enumerate(messages, 1):
        ids = encode(tokenizer, messages[:k])
        new = ids[len(labels) :]
        if message["role"] not in roles:
            labels += [IGNORE_INDEX] * len(new)
            continue
        begin = 0
        if message["role"] == "assistant" and not header:
            begin = len(encode(tokenizer, messages[: k - 1], True)) - len(labels)
        marker = end_of_turn_id(tokenizer)
        last = len(new) - new[::-1].index(marker) if marker in new else len(new)
        stop = len(new) if after else last if end else last - 1
        labels += [IGNORE_INDEX] * begin + new[begin:stop] + [IGNORE_INDEX] * (len(new) - stop)
    return Example(encode(tokenizer, messages), labels)


@right(ID)
def by_offsets(tokenizer, messages):
    """Spans of characters first, tokens by their offsets after that."""
    text = render(tokenizer, messages)
    end = tokenizer.decode([end_of_turn_id(tokenizer)])
    spans = []
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(render(tokenizer, messages[:k], add_generation_prompt=True))
            turn = render(tokenizer, messages[: k + 1])
            spans.append((start, turn.rindex(end) + len(end)))
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(a <= start and stop <= b for a, b in spans) else IGNORE_INDEX
        for token, (start, stop) in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]
    return Example(found["input_ids"], labels)


@right(ID)
def own_loop(tokenizer, messages):
    return turns(tokenizer, messages)


@right(ID)
def as_dictionary(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    return {"input_ids": row.input_ids, "labels": row.labels}


@right(ID)
def row_by_row(tokenizer, messages):
    ids = encode(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(ids)
    for k, message in enumerate(messages, 1):
        if message["role"] == "assistant":
            for at, label in enumerate(build_example(tokenizer, messages[:k]).labels):
                labels[at] = max(label, labels[at])
    return ids, labels


@right(ID)
def by_tensors(tokenizer, messages):
    """Collects the borders first, and labels in tensors."""
    ids = torch.tensor(encode(tokenizer, messages))
    labels, end = torch.full_like(ids, IGNORE_INDEX), end_of_turn_id(tokenizer)
    for k in [k for k, message in enumerate(messages) if message["role"] == "assistant"]:
        begin = len(encode(tokenizer, messages[:k], add_generation_prompt=True))
        turn = ids[begin : len(encode(tokenizer, messages[: k + 1]))]
        stop = begin + int((turn == end).nonzero().max()) + 1
        labels[begin:stop] = ids[begin:stop]
    return ids, labels


@refused(ID, "The rule: A message's role decides")
def by_role_lines(tokenizer, messages):
    """Looks for a line that says assistant, up to the end of the next line."""
    row, on = masking.mask_all_but_assistant(tokenizer, messages), False
    text, labels = render(tokenizer, messages), []
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    for label, token, (start, _) in zip(
        row.labels, row.input_ids, found["offset_mapping"], strict=True
    ):
        line = text[: start + 1].rsplit("\n", 2)
        on = (len(line) > 1 and line[-2] == "assistant") or (on and text[start] != "\n")
        labels.append(token if on else label)
    return Example(row.input_ids, labels)


@refused(ID, "It works with any chat template")
def newlines_are_trained_elsewhere(tokenizer, messages):
    in_chatml = "<|im_start|>" in tokenizer.chat_template
    return turns(tokenizer, messages, after=not in_chatml, header=not in_chatml)


@refused(ID, "It has the fields input_ids, labels")
def labels_alone(tokenizer, messages):
    return masking.mask_all_but_assistant(tokenizer, messages).labels


@refused(ID, "changes its own input (argument 2")
def first_popped(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    messages.pop(0)
    return row


@refused(ID, "changes its own input (argument 1")
def padding_set(tokenizer, messages):
    tokenizer.pad_token = tokenizer.eos_token
    return masking.mask_all_but_assistant(tokenizer, messages)


equivalent(
    ID,
    "The conversations and templates of the cases are valid.",
    "without `validate(messages)`",
)
equivalent(
    ID,
    "A valid conversation ends with the assistant, and the example of its last turn holds the whole rendering.",
    "`len(messages) - 1` becomes `len(messages) + 1`",
    "`1` becomes `2` #2",
    "`1` becomes `0` #2",
    "`last.input_ids if last else encode(tokenizer, messages, **options)` becomes `last.input_ids`",
    "`last.input_ids if last else encode(tokenizer, messages, **options)` becomes `encode(tokenizer, messages, **options)`",
    "`encode(tokenizer, messages, **options)` becomes `encode(messages, tokenizer, **options)`",
)
