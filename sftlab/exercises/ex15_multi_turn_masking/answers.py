"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re

import numpy as np
import torch

from sftlab import masking
from sftlab.chat import encode, end_of_turn_id, render
from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex15_multi_turn_masking.masks import answer_spans, mask_all_but_assistant
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example

SPANS, ID = "15.answer_spans", "15.mask_all_but_assistant"


@right(SPANS)
def by_reversed_index(tokenizer, messages):
    spans = []
    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = encode(tokenizer, messages[:k], True)
        ids = encode(tokenizer, messages[: k + 1])
        spans.append((len(prompt), len(ids) - ids[::-1].index(end_of_turn_id(tokenizer))))
    return spans


@right(SPANS)
def by_offsets(tokenizer, messages):
    """Spans of characters first, tokens by their offsets after that."""
    end = tokenizer.decode([end_of_turn_id(tokenizer)])
    found = tokenizer(
        render(tokenizer, messages), add_special_tokens=False, return_offsets_mapping=True
    )
    starts = [start for start, _ in found["offset_mapping"]]
    ends = [stop for _, stop in found["offset_mapping"]]
    spans = []
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            first = len(render(tokenizer, messages[:k], add_generation_prompt=True))
            last = render(tokenizer, messages[: k + 1]).rindex(end) + len(end)
            spans.append((starts.index(first), ends.index(last) + 1))
    return spans


@right(SPANS)
def by_labels_of_each(tokenizer, messages):
    spans = ()
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            labels = np.array(build_example(tokenizer, messages[: k + 1]).labels)
            places = np.flatnonzero(labels != IGNORE_INDEX)
            spans += ((int(places[0]), int(places[-1]) + 1),)
    return spans


@right(SPANS)
def by_tensors(tokenizer, messages):
    ids, end = torch.tensor(encode(tokenizer, messages)), end_of_turn_id(tokenizer)
    ends = (ids == end).nonzero().flatten()
    spans = []
    for k in [k for k, message in enumerate(messages) if message["role"] == "assistant"]:
        start = len(encode(tokenizer, messages[:k], add_generation_prompt=True))
        last = ends[ends < len(encode(tokenizer, messages[: k + 1]))].max()
        spans.append([start, last + 1])
    return torch.tensor(spans)


@right(SPANS)
def by_addition(tokenizer, messages):
    """Counts what each message adds."""
    spans, so_far = [], 0
    for k, message in enumerate(messages, 1):
        new = encode(tokenizer, messages[:k])[so_far:]
        if message["role"] == "assistant":
            header = len(encode(tokenizer, messages[: k - 1], True)) - so_far
            while new[-1] != end_of_turn_id(tokenizer):
                new.pop()
            spans.append((so_far + header, so_far + len(new)))
        so_far = len(encode(tokenizer, messages[:k]))
    return spans


@refused(SPANS, "A message's role decides")
def by_role_lines(tokenizer, messages):
    """Also takes what follows a line of the user that says assistant."""
    spans = answer_spans(tokenizer, messages)
    typed = [
        m for m in messages if m["role"] == "user" and re.search(r"\bassistant\n", m["content"])
    ]
    return [(start - bool(typed), end) for start, end in spans]


@refused(SPANS, "more messages only add tokens")
def chatml_only(tokenizer, messages):
    spans = answer_spans(tokenizer, messages)
    return spans if "<|im_start|>" in tokenizer.chat_template else spans[:-1]


@refused(SPANS, "An answer starts after its header")
def system_forgotten(tokenizer, messages):
    system = messages[0]["role"] == "system" and "<|im_start|>" in tokenizer.chat_template
    return [(start + system, end) for start, end in answer_spans(tokenizer, messages)]


@refused(SPANS, "changes its own input (argument 2")
def last_popped(tokenizer, messages):
    spans = answer_spans(tokenizer, messages)
    messages.pop()
    return spans


@refused(SPANS, "changes its own input (argument 1")
def padding_set(tokenizer, messages):
    tokenizer.pad_token = tokenizer.eos_token
    return answer_spans(tokenizer, messages)


def _trained(messages):
    return [m["role"] == "assistant" and bool(m.get("weight", 1)) for m in messages]


@right(ID)
def by_the_package(tokenizer, messages):
    return masking.mask_all_but_assistant(tokenizer, messages, _trained(messages))


@right(ID)
def as_dictionary(tokenizer, messages):
    ids = encode(tokenizer, messages)
    weights = [m.get("weight", 1) for m in messages if m["role"] == "assistant"]
    kept = {
        k
        for weight, span in zip(weights, answer_spans(tokenizer, messages), strict=True)
        if weight > 0
        for k in range(*span)
    }
    return {"input_ids": ids, "labels": [y if k in kept else -100 for k, y in enumerate(ids)]}


@right(ID)
def by_masking_the_rest(tokenizer, messages):
    """Begins with the ids, and masks what is between the answers."""
    ids = encode(tokenizer, messages)
    labels, at = list(ids), 0
    answers = [m for m in messages if m["role"] == "assistant"]
    for (start, end), m in zip(answer_spans(tokenizer, messages), answers, strict=True):
        stop = start if m.get("weight", 1) == 1 else end
        labels[at:stop] = [IGNORE_INDEX] * (stop - at)
        at = end
    return Example(ids, labels[:at] + [IGNORE_INDEX] * (len(ids) - at))


@right(ID)
def as_tensors(tokenizer, messages):
    ids = torch.tensor(encode(tokenizer, messages))
    labels = torch.full_like(ids, IGNORE_INDEX)
    spans = iter(answer_spans(tokenizer, messages))
    for m in messages:
        if m["role"] == "assistant":
            start, end = next(spans)
            if m.get("weight") != 0:
                labels[start:end] = ids[start:end]
    return ids, labels


@refused(ID, "It has the fields input_ids, labels")
def labels_alone(tokenizer, messages):
    return mask_all_but_assistant(tokenizer, messages).labels


@refused(ID, "changes its own input (argument 2")
def weights_popped(tokenizer, messages):
    made = mask_all_but_assistant(tokenizer, messages)
    for message in messages:
        message["weight"] = 1
    return made


@refused(ID, "IndexError")
def by_number(tokenizer, messages):
    spans = answer_spans(tokenizer, messages)
    ids = encode(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(ids)
    for k, message in enumerate(messages):
        if message["role"] == "assistant" and message.get("weight", 1):
            start, end = spans[k]
            labels[start:end] = ids[start:end]
    return Example(ids, labels)


equivalent(
    ID,
    "There is one span for each answer.",
    "`True` becomes `False`",
    "without `strict=` in `zip(answers, answer_spans(tokenizer, messages), strict=True)`",
)
