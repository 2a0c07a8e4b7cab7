"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch

from sftlab import masking
from sftlab.chat import encode, end_of_turn_id, render
from sftlab.classroom.answers import refused, right
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
def own_template(tokenizer, messages):
    found = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return Example(found["input_ids"], [i if on else IGNORE_INDEX for i, on in pairs])


@refused(ID, "Only the last answer is trained")
def last_answer(tokenizer, messages):
    return build_example(tokenizer, messages)


@refused(ID, "wrong turns are trained")
def users_instead(tokenizer, messages):
    return turns(tokenizer, messages, roles=("user",))


@refused(ID, "user's turns are trained")
def users_too(tokenizer, messages):
    return turns(tokenizer, messages, roles=("user", "assistant"))


@refused(ID, "system turn is trained")
def system_too(tokenizer, messages):
    return turns(tokenizer, messages, roles=("system", "assistant"))


@refused(ID, "header is trained")
def header_trained(tokenizer, messages):
    return turns(tokenizer, messages, header=True)


@refused(ID, "header is trained")
def whole_turn(tokenizer, messages):
    return turns(tokenizer, messages, header=True, after=True)


@refused(ID, "after the end marker is trained")
def after_the_end_trained(tokenizer, messages):
    return turns(tokenizer, messages, after=True)


@refused(ID, "end-of-turn markers are masked")
def end_markers_masked(tokenizer, messages):
    return turns(tokenizer, messages, end=False)


@refused(ID, "Nothing is masked")
def everything(tokenizer, messages):
    ids = encode(tokenizer, messages)
    return Example(ids, list(ids))


@refused(ID, "Everything is masked")
def nothing(tokenizer, messages):
    ids = encode(tokenizer, messages)
    return Example(ids, [IGNORE_INDEX] * len(ids))


@refused(ID, "user's turns are trained")
def prompt_masked_only(tokenizer, messages):
    """Everything after the first prompt, as if there were one exchange."""
    ids = encode(tokenizer, messages)
    first = next(k for k, m in enumerate(messages) if m["role"] == "assistant")
    start = len(encode(tokenizer, messages[:first], add_generation_prompt=True))
    return Example(ids, [IGNORE_INDEX] * start + ids[start:])


@refused(ID, "Only the first answer is trained")
def first_answer(tokenizer, messages):
    first = next(k for k, m in enumerate(messages) if m["role"] == "assistant")
    labels = build_example(tokenizer, messages[: first + 1]).labels
    ids = encode(tokenizer, messages)
    return Example(ids, labels + [IGNORE_INDEX] * (len(ids) - len(labels)))


@refused(ID, "Some end-of-turn markers")
def final_end_masked(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    last = max(k for k, y in enumerate(row.labels) if y != IGNORE_INDEX)
    return Example(row.input_ids, [*row.labels[:last], IGNORE_INDEX, *row.labels[last + 1 :]])


@refused(ID, "first token of an answer is masked")
def first_tokens_masked(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    pairs = zip([IGNORE_INDEX, *row.labels], row.labels, strict=False)
    return Example(row.input_ids, [y if before != IGNORE_INDEX else before for before, y in pairs])


@refused(ID, "end-of-turn markers are masked")
def padding_is_the_end(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    end = tokenizer.eos_token_id
    return Example(row.input_ids, [IGNORE_INDEX if y == end else y for y in row.labels])


@refused(ID, "shifted already")
def shifted(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    return Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX])


@refused(ID, "labelled 0")
def masked_with_zero(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    return Example(row.input_ids, [0 if y == IGNORE_INDEX else y for y in row.labels])


@refused(ID, "padding id")
def masked_with_padding(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    pad = tokenizer.pad_token_id
    return Example(row.input_ids, [pad if y == IGNORE_INDEX else y for y in row.labels])


@refused(ID, "masked in input_ids")
def inputs_masked(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    pairs = zip(row.input_ids, row.labels, strict=True)
    return Example([i if y != IGNORE_INDEX else IGNORE_INDEX for i, y in pairs], row.labels)


@refused(ID, "system turn is missing")
def system_dropped(tokenizer, messages):
    return masking.mask_all_but_assistant(tokenizer, [m for m in messages if m["role"] != "system"])


@refused(ID, "Only the last exchange")
def last_exchange(tokenizer, messages):
    return masking.mask_all_but_assistant(tokenizer, messages[-2:])


@refused(ID, "row ends too early")
def trimmed(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    stop = max(k for k, y in enumerate(row.labels) if y != IGNORE_INDEX) + 1
    return Example(row.input_ids[:stop], row.labels[:stop])


@refused(ID, "labels for")
def labels_of_answers(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    return Example(row.input_ids, [y for y in row.labels if y != IGNORE_INDEX])


@refused(ID, "looks like the assistant's")
def by_markers(tokenizer, messages):
    """Looks for the assistant's header among the ids, and trains up to the next end marker."""
    ids = encode(tokenizer, messages)
    header = tokenizer.encode("<|im_start|>assistant\n")
    labels, on, k = [], False, 0
    while k < len(ids):
        if ids[k : k + len(header)] == header:
            labels += [IGNORE_INDEX] * len(header)
            on, k = True, k + len(header)
            continue
        labels.append(ids[k] if on else IGNORE_INDEX)
        on = on and ids[k] != tokenizer.eos_token_id
        k += 1
    return Example(ids, labels)


@refused(ID, "looks like the assistant's")
def by_role_lines(tokenizer, messages):
    """Looks for a line that says assistant, and for one that says user."""
    ids = encode(tokenizer, messages)
    row, on = masking.mask_all_but_assistant(tokenizer, messages), False
    text, labels = render(tokenizer, messages), []
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    for k, (start, _) in enumerate(found["offset_mapping"]):
        line = text[: start + 1].rsplit("\n", 2)
        on = (len(line) > 1 and line[-2] == "assistant") or (on and text[start] != "\n")
        labels.append(ids[k] if on or row.labels[k] != IGNORE_INDEX else IGNORE_INDEX)
    return Example(ids, labels)


@refused(ID, "only quotes a user")
def quotes_masked(tokenizer, messages):
    """Masks whatever comes after the word user."""
    row = masking.mask_all_but_assistant(tokenizer, messages)
    word = tokenizer.encode("user")[0]
    labels = list(row.labels)
    for k, token in enumerate(row.input_ids):
        if token == word:
            labels[k : k + 3] = [IGNORE_INDEX] * len(labels[k : k + 3])
    return Example(row.input_ids, labels)


@refused(ID, "end-of-turn markers are masked")
def chatml_newline(tokenizer, messages):
    """Takes it for granted that one token follows each end marker."""
    labels = []
    for k, message in enumerate(messages, 1):
        new = encode(tokenizer, messages[:k])[len(labels) :]
        if message["role"] == "assistant":
            begin = len(encode(tokenizer, messages[: k - 1], True)) - len(labels)
            labels += [IGNORE_INDEX] * begin + new[begin:-1] + [IGNORE_INDEX]
        else:
            labels += [IGNORE_INDEX] * len(new)
    return Example(encode(tokenizer, messages), labels)


@refused(ID, "is a tensor, but a list is expected")
def tensors(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    return Example(torch.tensor(row.input_ids), torch.tensor(row.labels))


@refused(ID, "It has the fields input_ids, labels")
def labels_alone(tokenizer, messages):
    return masking.mask_all_but_assistant(tokenizer, messages).labels


@refused(ID, "changes its own input (argument 2")
def system_popped(tokenizer, messages):
    row = masking.mask_all_but_assistant(tokenizer, messages)
    messages.pop(0)
    return row
