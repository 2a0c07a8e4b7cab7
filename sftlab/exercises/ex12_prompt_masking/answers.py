"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sftlab.chat import encode, end_of_turn_id, render
from sftlab.classroom.answers import equivalent, refused, right
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

MASK, EXAMPLE, UNSAFE = "12.mask_prompt", "12.build_example", "12.unsafe_answers"


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@right(UNSAFE)
def by_while(tokenizer, header, answers):
    found = {}
    for answer in answers:
        apart = ids(tokenizer, header) + ids(tokenizer, answer)
        together = ids(tokenizer, header + answer)
        place = 0
        while apart[place : place + 1] and apart[place : place + 1] == together[place : place + 1]:
            place += 1
        if place < max(len(apart), len(together)):
            found[answer] = place
    return found


@right(UNSAFE)
def by_comprehension(tokenizer, header, answers):
    both = {a: (ids(tokenizer, header) + ids(tokenizer, a), ids(tokenizer, header + a)) for a in answers}  # fmt: skip
    return {
        a: [x == y for x, y in zip(*pair, strict=False)].index(False)
        for a, pair in both.items()
        if pair[0] != pair[1]
    }


@right(UNSAFE)
def by_next(tokenizer, header, answers):
    found = {}
    for answer in answers:
        apart = ids(tokenizer, header) + ids(tokenizer, answer)
        together = ids(tokenizer, header + answer)
        places = (i for i in range(min(len(apart), len(together))) if apart[i] != together[i])
        place = next(places, None)
        if place is not None:
            found[answer] = place
    return found


@right(UNSAFE)
def by_comparing_tensors(tokenizer, header, answers):
    found = {}
    for answer in answers:
        apart = torch.tensor(ids(tokenizer, header) + ids(tokenizer, answer))
        together = torch.tensor(ids(tokenizer, header + answer))
        size = min(len(apart), len(together))
        if len(apart) != len(together) or not apart.equal(together):
            found[answer] = (apart[:size] != together[:size]).nonzero()[0].item()
    return found


equivalent(
    UNSAFE,
    "two lists for the same text differ before the shorter one ends, whichever comes first",
    "`zip(apart, together, strict=False)` becomes `zip(together, apart, strict=False)`",
    "without `strict=` in `zip(apart, together, strict=False)`",
)


@refused(UNSAFE, "of type list")
def a_list_of_answers(tokenizer, header, answers):
    return list(by_while(tokenizer, header, answers))


@refused(UNSAFE, "changes its own input (argument 3")
def answers_consumed(tokenizer, header, answers):
    result = by_while(tokenizer, header, list(answers))
    answers.clear()
    return result


@right(MASK)
def by_where(input_ids, prompt_length):
    positions = torch.arange(len(input_ids))
    return torch.where(positions < prompt_length, IGNORE_INDEX, input_ids)


@right(MASK)
def by_concatenation(input_ids, prompt_length):
    masked = torch.full((prompt_length,), IGNORE_INDEX)
    return torch.cat([masked, input_ids[prompt_length:]])


@right(MASK)
def by_list(input_ids, prompt_length):
    labels = [IGNORE_INDEX if t < prompt_length else x for t, x in enumerate(input_ids.tolist())]
    return torch.tensor(labels)


@right(MASK)
def by_padding(input_ids, prompt_length):
    return F.pad(input_ids[prompt_length:], (prompt_length, 0), value=IGNORE_INDEX)


@right(MASK)
def by_index(input_ids, prompt_length):
    return input_ids.index_fill(0, torch.arange(prompt_length), IGNORE_INDEX)


@refused(MASK, "changes its own input (argument 1")
def in_place(input_ids, prompt_length):
    labels = input_ids
    labels[:prompt_length] = IGNORE_INDEX
    return labels


@refused(MASK, "dtype torch.bool")
def boolean_mask(input_ids, prompt_length):
    return torch.arange(len(input_ids)) >= prompt_length


@refused(MASK, "dtype torch.float32")
def floats(input_ids, prompt_length):
    return by_where(input_ids, prompt_length).float()


@refused(MASK, "of type list")
def plain_list(input_ids, prompt_length):
    return by_list(input_ids, prompt_length).tolist()


def parts(tokenizer, messages):
    prompt = encode(tokenizer, messages[:-1], add_generation_prompt=True)
    return prompt, encode(tokenizer, messages)


@right(EXAMPLE)
def by_offsets(tokenizer, messages):
    text = render(tokenizer, messages)
    start = len(render(tokenizer, messages[:-1], add_generation_prompt=True))
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, end = found["input_ids"], end_of_turn_id(tokenizer)
    labels, ended = [], False
    for token, (a, _) in zip(ids, found["offset_mapping"], strict=True):
        labels.append(token if a >= start and not ended else IGNORE_INDEX)
        ended = ended or (a >= start and token == end)
    return Example(ids, labels)


@right(EXAMPLE)
def as_dictionary(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(prompt)
    for token in whole[len(prompt) :]:
        labels.append(token)
        if token == end_of_turn_id(tokenizer):
            break
    labels += [IGNORE_INDEX] * (len(whole) - len(labels))
    return {"input_ids": whole, "labels": labels, "attention_mask": [1] * len(whole)}


@right(EXAMPLE)
def by_slices(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    end = whole.index(end_of_turn_id(tokenizer), len(prompt)) + 1
    labels = whole.copy()
    labels[: len(prompt)] = [IGNORE_INDEX] * len(prompt)
    labels[end:] = [IGNORE_INDEX] * (len(whole) - end)
    return Example(input_ids=whole, labels=labels)


@right(EXAMPLE)
def by_tensor(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    labels = torch.tensor(whole)
    end = (labels == end_of_turn_id(tokenizer)).nonzero()[-1].item()
    labels[: len(prompt)] = labels[end + 1 :] = IGNORE_INDEX
    return whole, labels.tolist()


@right(EXAMPLE)
def by_watching_for_the_end(tokenizer, messages):
    prompt, ids = parts(tokenizer, messages)
    labels, answering = [], True
    for at, token in enumerate(ids):
        labels.append(token if answering and at >= len(prompt) else IGNORE_INDEX)
        answering = answering and labels[-1] != end_of_turn_id(tokenizer)
    return {"input_ids": ids, "labels": labels}


@right(EXAMPLE)
def by_tensors(tokenizer, messages):
    row = by_slices(tokenizer, messages)
    return torch.tensor(row.input_ids), torch.tensor(row.labels)


@refused(EXAMPLE, "The rule: Any chat template works")
def newline_taken_for_granted(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    return Example(whole, [IGNORE_INDEX] * len(prompt) + whole[len(prompt) : -1] + [IGNORE_INDEX])


@refused(EXAMPLE, "It has the fields input_ids, labels")
def labels_alone(tokenizer, messages):
    return by_slices(tokenizer, messages).labels


@refused(EXAMPLE, "changes its own input (argument 2")
def messages_emptied(tokenizer, messages):
    row = by_slices(tokenizer, messages)
    messages.pop()
    return row


equivalent(EXAMPLE, "The conversations of the cases are valid.", "without `validate(messages)`")
equivalent(
    EXAMPLE,
    "The last message is looked at for tool calls, which the cases do not have.",
    "`-1` becomes `1` #2",
    "`1` becomes `2` #2",
    "`1` becomes `0` #2",
)
