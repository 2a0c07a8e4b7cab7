"""Answers to the checks of notebook 12, as students write them."""

import torch

from sftlab.chat import encode, end_of_turn_id, render
from sftlab.masking import Example, mask_all_but_assistant

IGNORE_INDEX = -100


def by_where(input_ids, prompt_length):
    positions = torch.arange(len(input_ids))
    return torch.where(positions < prompt_length, IGNORE_INDEX, input_ids)


def by_concatenation(input_ids, prompt_length):
    masked = torch.full((prompt_length,), IGNORE_INDEX)
    return torch.cat([masked, input_ids[prompt_length:]])


def by_list(input_ids, prompt_length):
    labels = [IGNORE_INDEX if t < prompt_length else x for t, x in enumerate(input_ids.tolist())]
    return torch.tensor(labels)


def nothing_masked(input_ids, prompt_length):
    return input_ids.clone()


def one_too_many(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[: prompt_length + 1] = IGNORE_INDEX
    return labels


def one_too_few(input_ids, prompt_length):
    labels = input_ids.clone()
    for t in range(prompt_length - 1):
        labels[t] = IGNORE_INDEX
    return labels


def response_masked(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[prompt_length:] = IGNORE_INDEX
    return labels


def everything_masked(input_ids, prompt_length):
    return torch.full_like(input_ids, IGNORE_INDEX)


def in_place(input_ids, prompt_length):
    labels = input_ids
    labels[:prompt_length] = IGNORE_INDEX
    return labels


def filled_with_zero(input_ids, prompt_length):
    labels = torch.zeros_like(input_ids)
    labels[prompt_length:] = input_ids[prompt_length:]
    return labels


def sign_forgotten(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[:prompt_length] = 100
    return labels


def by_value(input_ids, prompt_length):
    prompt = set(input_ids[:prompt_length].tolist())
    return torch.tensor([IGNORE_INDEX if x in prompt else x for x in input_ids.tolist()])


def shifted(input_ids, prompt_length):
    labels = by_where(input_ids, prompt_length)
    return torch.cat([labels[1:], torch.tensor([IGNORE_INDEX])])


def rolled(input_ids, prompt_length):
    return by_where(input_ids, prompt_length).roll(-1)


def end_masked(input_ids, prompt_length):
    labels = by_where(input_ids, prompt_length)
    labels[-1] = IGNORE_INDEX
    return labels


def zero_masked(input_ids, prompt_length):
    labels = by_where(input_ids, prompt_length)
    labels[labels == 0] = IGNORE_INDEX
    return labels


def negative_slice(input_ids, prompt_length):
    response = len(input_ids) - prompt_length
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[-response:] = input_ids[-response:]
    return labels


def response_alone(input_ids, prompt_length):
    return input_ids[prompt_length:]


def boolean_mask(input_ids, prompt_length):
    return torch.arange(len(input_ids)) >= prompt_length


def floats(input_ids, prompt_length):
    return by_where(input_ids, prompt_length).float()


def plain_list(input_ids, prompt_length):
    return by_list(input_ids, prompt_length).tolist()


# --- build_example -------------------------------------------------------------------------


def parts(tokenizer, messages):
    prompt = encode(tokenizer, messages[:-1], add_generation_prompt=True)
    return prompt, encode(tokenizer, messages)


def by_offsets(tokenizer, messages):
    """The answer is found in the text, and its tokens by their character offsets."""
    text = render(tokenizer, messages)
    start = len(render(tokenizer, messages[:-1], add_generation_prompt=True))
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, end = found["input_ids"], end_of_turn_id(tokenizer)
    labels, ended = [], False
    for token, (a, _) in zip(ids, found["offset_mapping"]):
        labels.append(token if a >= start and not ended else IGNORE_INDEX)
        ended = ended or (a >= start and token == end)
    return Example(ids, labels)


def as_dictionary(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(prompt)
    for token in whole[len(prompt) :]:
        labels.append(token)
        if token == end_of_turn_id(tokenizer):
            break
    labels += [IGNORE_INDEX] * (len(whole) - len(labels))
    return {"input_ids": whole, "labels": labels, "attention_mask": [1] * len(whole)}


def right(tokenizer, messages):
    return Example(**{k: v for k, v in as_dictionary(tokenizer, messages).items() if k[0] != "a"})


def example_unmasked(tokenizer, messages):
    whole = encode(tokenizer, messages)
    return Example(whole, list(whole))


def header_trained(tokenizer, messages):
    prompt, whole = encode(tokenizer, messages[:-1]), encode(tokenizer, messages)
    return Example(whole, [IGNORE_INDEX] * len(prompt) + whole[len(prompt) :])


def newline_trained(tokenizer, messages):
    prompt, whole = parts(tokenizer, messages)
    return Example(whole, [IGNORE_INDEX] * len(prompt) + whole[len(prompt) :])


def end_marker_masked(tokenizer, messages):
    row = right(tokenizer, messages)
    end = end_of_turn_id(tokenizer)
    return Example(row.input_ids, [IGNORE_INDEX if y == end else y for y in row.labels])


def end_marker_missing(tokenizer, messages):
    row = right(tokenizer, messages)
    end = max(t for t, y in enumerate(row.labels) if y != IGNORE_INDEX)
    return Example(row.input_ids[:end], row.labels[:end])


def first_token_masked(tokenizer, messages):
    row, (prompt, _) = right(tokenizer, messages), parts(tokenizer, messages)
    row.labels[len(prompt)] = IGNORE_INDEX
    return row


def last_prompt_token_trained(tokenizer, messages):
    row, (prompt, whole) = right(tokenizer, messages), parts(tokenizer, messages)
    row.labels[len(prompt) - 1] = whole[len(prompt) - 1]
    return row


def labels_shifted(tokenizer, messages):
    row = right(tokenizer, messages)
    return Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX])


def inputs_masked(tokenizer, messages):
    row, (prompt, whole) = right(tokenizer, messages), parts(tokenizer, messages)
    return Example([IGNORE_INDEX] * len(prompt) + whole[len(prompt) :], row.labels)


def system_dropped(tokenizer, messages):
    return right(tokenizer, [m for m in messages if m["role"] != "system"])


def last_two_messages(tokenizer, messages):
    return right(tokenizer, messages[-2:])


def answer_alone(tokenizer, messages):
    row, (prompt, _) = right(tokenizer, messages), parts(tokenizer, messages)
    return Example(row.input_ids[len(prompt) :], row.labels[len(prompt) :])


def masked_with_zero(tokenizer, messages):
    row = right(tokenizer, messages)
    return Example(row.input_ids, [0 if y == IGNORE_INDEX else y for y in row.labels])


def masked_with_pad(tokenizer, messages):
    row = right(tokenizer, messages)
    pad = tokenizer.pad_token_id
    return Example(row.input_ids, [pad if y == IGNORE_INDEX else y for y in row.labels])


def tensors(tokenizer, messages):
    row = right(tokenizer, messages)
    return Example(torch.tensor(row.input_ids), torch.tensor(row.labels))


def chatml_only(tokenizer, messages):
    """Takes the newline after the end marker for granted."""
    prompt, whole = parts(tokenizer, messages)
    return Example(whole, [IGNORE_INDEX] * len(prompt) + whole[len(prompt) : -1] + [IGNORE_INDEX])


def only_labels(tokenizer, messages):
    return right(tokenizer, messages).labels


def messages_emptied(tokenizer, messages):
    row = right(tokenizer, messages)
    messages.pop()
    return row


WRONG = {
    "12.mask_prompt": {
        "nothing masked": (nothing_masked, "Nothing is masked"),
        "one too many": (one_too_many, "first response token is masked too"),
        "one too few": (one_too_few, "last prompt token is still trained"),
        "response masked": (response_masked, "wrong part"),
        "everything masked": (everything_masked, "Everything is masked"),
        "in place": (in_place, "changes its own input (argument 1)"),
        "0 as mask": (filled_with_zero, "labelled 0"),
        "100 as mask": (sign_forgotten, "labelled 100"),
        "by value": (by_value, "by position, not by value"),
        "shifted": (shifted, "shifted already"),
        "rolled": (rolled, "shifted already"),
        "end masked": (end_masked, "last token is masked"),
        "token 0 masked": (zero_masked, "Token 0 in the response"),
        "counted from the end": (negative_slice, "Counted from the end"),
        "response alone": (response_alone, "Only the response is returned"),
        "boolean mask": (boolean_mask, "dtype torch.bool"),
        "floats": (floats, "dtype torch.float32"),
        "plain list": (plain_list, "of type list"),
    },
    "12.build_example": {
        "nothing masked": (example_unmasked, "Nothing is masked"),
        "header trained": (header_trained, "header is trained"),
        "newline trained": (newline_trained, "after the end-of-turn marker is trained"),
        "end marker masked": (end_marker_masked, "marker is masked"),
        "end marker missing": (end_marker_missing, "marker is missing"),
        "first token masked": (first_token_masked, "first token of the answer is masked"),
        "prompt token trained": (last_prompt_token_trained, "last token of the prompt is trained"),
        "shifted": (labels_shifted, "shifted already"),
        "inputs masked": (inputs_masked, "masked in input_ids"),
        "every turn trained": (mask_all_but_assistant, "Every assistant turn is trained"),
        "system turn dropped": (system_dropped, "system turn is missing"),
        "last two messages": (last_two_messages, "Only the last question"),
        "answer alone": (answer_alone, "Only the answer is in the row"),
        "0 as mask": (masked_with_zero, "labelled 0"),
        "pad as mask": (masked_with_pad, "padding id"),
        "tensors": (tensors, "is a tensor, but a list is expected"),
        "newline taken for granted": (chatml_only, "marker is masked"),
        "labels alone": (only_labels, "It has the fields input_ids, labels"),
        "messages emptied": (messages_emptied, "changes its own input (argument 2)"),
    },
}
RIGHT = {
    "12.mask_prompt": {
        "where": by_where,
        "concatenation": by_concatenation,
        "list": by_list,
    },
    "12.build_example": {
        "character offsets": by_offsets,
        "dictionary": as_dictionary,
        "loop": right,
    },
}
