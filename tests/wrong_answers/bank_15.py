"""Answers to the check of notebook 15, as students write them."""

import torch

from sftlab.chat import encode, end_of_turn_id, render
from sftlab.masking import Example, build_example
from sftlab.masking import mask_all_but_assistant as right

IGNORE_INDEX = -100


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
        for token, (start, stop) in zip(found["input_ids"], found["offset_mapping"])
    ]
    return Example(found["input_ids"], labels)


def own_loop(tokenizer, messages):
    return turns(tokenizer, messages)


def as_dictionary(tokenizer, messages):
    row = right(tokenizer, messages)
    return {"input_ids": row.input_ids, "labels": row.labels}


def own_template(tokenizer, messages):
    found = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(found["input_ids"], found["assistant_masks"])
    return Example(found["input_ids"], [i if on else IGNORE_INDEX for i, on in pairs])


# --- wrong ---------------------------------------------------------------------------------


def with_parts(**parts):
    return lambda tokenizer, messages: turns(tokenizer, messages, **parts)


def everything(tokenizer, messages):
    ids = encode(tokenizer, messages)
    return Example(ids, list(ids))


def nothing(tokenizer, messages):
    ids = encode(tokenizer, messages)
    return Example(ids, [IGNORE_INDEX] * len(ids))


def prompt_masked_only(tokenizer, messages):
    """Everything after the first prompt, as if there were one exchange."""
    ids = encode(tokenizer, messages)
    first = next(k for k, m in enumerate(messages) if m["role"] == "assistant")
    start = len(encode(tokenizer, messages[:first], add_generation_prompt=True))
    return Example(ids, [IGNORE_INDEX] * start + ids[start:])


def first_answer(tokenizer, messages):
    first = next(k for k, m in enumerate(messages) if m["role"] == "assistant")
    labels = build_example(tokenizer, messages[: first + 1]).labels
    ids = encode(tokenizer, messages)
    return Example(ids, labels + [IGNORE_INDEX] * (len(ids) - len(labels)))


def relabelled(change):
    """The right row with its labels changed by ``change(labels, ids, tokenizer)``."""

    def answer(tokenizer, messages):
        row = right(tokenizer, messages)
        return Example(row.input_ids, change(list(row.labels), row.input_ids, tokenizer))

    return answer


def final_end_masked(labels, ids, tokenizer):
    last = max(k for k, y in enumerate(labels) if y != IGNORE_INDEX)
    return [*labels[:last], IGNORE_INDEX, *labels[last + 1 :]]


def firsts_masked(labels, ids, tokenizer):
    return [
        IGNORE_INDEX if k and labels[k - 1] == IGNORE_INDEX else y for k, y in enumerate(labels)
    ]  # fmt: skip


def end_by_id(labels, ids, tokenizer):
    return [IGNORE_INDEX if y == tokenizer.eos_token_id else y for y in labels]


def inputs_masked(tokenizer, messages):
    row = right(tokenizer, messages)
    pairs = zip(row.input_ids, row.labels)
    return Example([i if y != IGNORE_INDEX else IGNORE_INDEX for i, y in pairs], row.labels)


def system_dropped(tokenizer, messages):
    return right(tokenizer, [m for m in messages if m["role"] != "system"])


def last_exchange(tokenizer, messages):
    return right(tokenizer, messages[-2:])


def trimmed(tokenizer, messages):
    row = right(tokenizer, messages)
    stop = max(k for k, y in enumerate(row.labels) if y != IGNORE_INDEX) + 1
    return Example(row.input_ids[:stop], row.labels[:stop])


def labels_of_answers(tokenizer, messages):
    row = right(tokenizer, messages)
    return Example(row.input_ids, [y for y in row.labels if y != IGNORE_INDEX])


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


def by_role_lines(tokenizer, messages):
    """Looks for a line that says assistant, and for one that says user."""
    ids = encode(tokenizer, messages)
    row, on, at = right(tokenizer, messages), False, 0
    text, labels = render(tokenizer, messages), []
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    for k, (start, _) in enumerate(found["offset_mapping"]):
        line = text[: start + 1].rsplit("\n", 2)
        on = (len(line) > 1 and line[-2] == "assistant") or (on and text[start] != "\n")
        labels.append(ids[k] if on or row.labels[k] != IGNORE_INDEX else IGNORE_INDEX)
    return Example(ids, labels)


def quotes_masked(tokenizer, messages):
    """Masks whatever comes after the word user."""
    row = right(tokenizer, messages)
    word = tokenizer.encode("user")[0]
    labels = list(row.labels)
    for k, token in enumerate(row.input_ids):
        if token == word:
            labels[k : k + 3] = [IGNORE_INDEX] * len(labels[k : k + 3])
    return Example(row.input_ids, labels)


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


def tensors(tokenizer, messages):
    row = right(tokenizer, messages)
    return Example(torch.tensor(row.input_ids), torch.tensor(row.labels))


def labels_alone(tokenizer, messages):
    return right(tokenizer, messages).labels


def system_popped(tokenizer, messages):
    row = right(tokenizer, messages)
    messages.pop(0)
    return row


WRONG = {
    "15.mask_all_but_assistant": {
        "only the last answer": (
            lambda t, m: build_example(t, m),
            "Only the last answer is trained",
        ),
        "only the first answer": (first_answer, "Only the first answer is trained"),
        "everything": (everything, "Nothing is masked"),
        "nothing": (nothing, "Everything is masked"),
        "the first prompt alone masked": (prompt_masked_only, "user's turns are trained"),
        "users instead": (with_parts(roles=("user",)), "wrong turns are trained"),
        "users too": (with_parts(roles=("user", "assistant")), "user's turns are trained"),
        "system too": (with_parts(roles=("system", "assistant")), "system turn is trained"),
        "header": (with_parts(header=True), "header is trained"),
        "whole turn": (with_parts(header=True, after=True), "header is trained"),
        "after the end marker": (with_parts(after=True), "after the end marker is trained"),
        "end markers masked": (with_parts(end=False), "end-of-turn markers are masked"),
        "pad is eos": (relabelled(end_by_id), "end-of-turn markers are masked"),
        "final end marker masked": (relabelled(final_end_masked), "Some end-of-turn markers"),
        "first tokens masked": (relabelled(firsts_masked), "first token of an answer is masked"),
        "shifted": (relabelled(lambda y, *_: [*y[1:], IGNORE_INDEX]), "shifted already"),
        "zeros": (
            relabelled(lambda y, *_: [0 if v == IGNORE_INDEX else v for v in y]),
            "labelled 0",
        ),
        "padding ids": (
            relabelled(lambda y, i, t: [t.pad_token_id if v == IGNORE_INDEX else v for v in y]),
            "padding id",
        ),
        "inputs masked": (inputs_masked, "masked in input_ids"),
        "system dropped": (system_dropped, "system turn is missing"),
        "last exchange": (last_exchange, "Only the last exchange"),
        "trimmed": (trimmed, "row ends too early"),
        "labels of the answers": (labels_of_answers, "labels for"),
        "by markers": (by_markers, "looks like the assistant's"),
        "by lines": (by_role_lines, "looks like the assistant's"),
        "quotes masked": (quotes_masked, "only quotes a user"),
        "newline taken for granted": (chatml_newline, "end-of-turn markers are masked"),
        "tensors": (tensors, "is a tensor, but a list is expected"),
        "labels alone": (labels_alone, "It has the fields input_ids, labels"),
        "messages changed": (system_popped, "changes its own input (argument 2)"),
    },
}
RIGHT = {
    "15.mask_all_but_assistant": {
        "character offsets": by_offsets,
        "own loop": own_loop,
        "dictionary": as_dictionary,
        "the template's own mask": own_template,
    },
}
