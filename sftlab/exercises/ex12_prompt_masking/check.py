"""Checks of notebook 12: labels for a prompt and its response."""

from __future__ import annotations

import copy
import functools

import torch

from sftlab._internal.paths import MODELS
from sftlab.chat import encode, end_of_turn_id
from sftlab.classroom.checking import Case, Exercise
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import (
    Example,
    build_example,
    mask_all_but_assistant,
    mask_prompt,
)

# --- slips of mask_prompt ------------------------------------------------------------------


def _filled(value: int):
    def slip(input_ids, prompt_length):
        labels = input_ids.clone()
        labels[:prompt_length] = value
        return labels

    return slip


def _unmasked(input_ids, prompt_length):
    return input_ids.clone()


def _one_more(input_ids, prompt_length):
    return mask_prompt(input_ids, prompt_length + 1)


def _one_less(input_ids, prompt_length):
    return mask_prompt(input_ids, max(prompt_length - 1, 0))


def _response_masked(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[prompt_length:] = IGNORE_INDEX
    return labels


def _by_value(input_ids, prompt_length):
    found = torch.isin(input_ids, input_ids[:prompt_length])
    return input_ids.masked_fill(found, IGNORE_INDEX)


def _counted_from_the_end(input_ids, prompt_length):
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[-(len(labels) - prompt_length) :] = input_ids[-(len(labels) - prompt_length) :]
    return labels


def _last_masked(input_ids, prompt_length):
    labels = mask_prompt(input_ids, prompt_length)
    labels[-1:] = IGNORE_INDEX
    return labels


def _shifted(input_ids, prompt_length):
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[:-1] = mask_prompt(input_ids, prompt_length)[1:]
    return labels


def _zero_masked(input_ids, prompt_length):
    labels = mask_prompt(input_ids, prompt_length)
    return labels.masked_fill(labels == 0, IGNORE_INDEX)


def _response_alone(input_ids, prompt_length):
    return input_ids[prompt_length:]


def _prompt_all_masked_alone(input_ids, prompt_length):
    return torch.full_like(input_ids, IGNORE_INDEX)


MASK_MISTAKES = (
    (
        _unmasked,
        "Nothing is masked: the prompt keeps its labels, so the model would be trained to write "
        "the user's words. Look at labels[:prompt_length].",
    ),
    (
        _prompt_all_masked_alone,
        "Everything is masked: no token is left to learn from. The response keeps its ids.",
    ),
    (
        _response_masked,
        "The wrong part is masked: here the prompt is trained and the response is not.",
    ),
    (
        _one_more,
        "Off by one: the first response token is masked too. labels[prompt_length] must still be "
        "a real id.",
    ),
    (
        _one_less,
        "Off by one: the last prompt token is still trained. labels[prompt_length - 1] must be "
        "-100.",
    ),
    (
        _shifted,
        "The labels are shifted already. They stay in line with input_ids; the loss shifts them, "
        "and to do it twice would train the token after next.",
    ),
    (
        _last_masked,
        "The last token is masked as well. It is the end of the answer: without it the model "
        "never learns to stop.",
    ),
    (
        _by_value,
        "Response tokens are masked because the same ids occur in the prompt. The mask goes by "
        "position, not by value.",
    ),
    (
        _zero_masked,
        "Token 0 in the response is masked. 0 is an id like any other, not a padding sign.",
    ),
    (
        _filled(0),
        "The prompt is labelled 0, but 0 is a real token: the model would be trained to write it. "
        "The loss leaves out -100 only.",
    ),
    (
        _filled(-1),
        "The prompt is labelled -1. The loss leaves out -100 only.",
    ),
    (
        _filled(100),
        "The prompt is labelled 100: a sign is missing. The loss leaves out -100 only.",
    ),
    (
        _counted_from_the_end,
        "Counted from the end, a response of no tokens becomes the whole row: in Python, "
        "`x[-0:]` is all of x. Count from the front.",
    ),
    (
        _response_alone,
        "Only the response is returned. The labels need one entry for every input token, masked "
        "where the prompt is.",
    ),
)


def _mask_case(ids: list[int], prompt_length: int, remark: str) -> Case:
    return Case(
        f"`mask_prompt(tensor({ids}), {prompt_length})`: {remark}",
        lambda: (torch.tensor(ids), prompt_length),
        mask_prompt,
        MASK_MISTAKES,
    )


MASK_CASES = (
    _mask_case([7, 3, 9, 4, 8, 2], 3, "three tokens of prompt, three of response"),
    _mask_case([5, 6, 5, 6, 6, 2], 2, "the response repeats the prompt's tokens"),
    _mask_case([4, 9, 0, 0, 2], 2, "the response contains token 0"),
    _mask_case([8, 3, 2], 0, "no prompt"),
    _mask_case([8, 3, 2], 3, "no response"),
    _mask_case([8, 3, 5, 2], 3, "a response of one token"),
)

# --- slips of build_example ----------------------------------------------------------------


def _relabelled(change):
    """A slip that changes the right labels: ``change(labels, first, last)`` of the response."""

    def slip(tokenizer, messages):
        right = build_example(tokenizer, messages)
        labels = list(right.labels)
        trained = [at for at, label in enumerate(labels) if label != IGNORE_INDEX]
        return Example(
            right.input_ids, change(labels, right.input_ids, trained[0], trained[-1] + 1)
        )

    return slip


def _from_prompt_of(prompt_of):
    """A slip that takes another length for the prompt, and trains all that follows."""

    def slip(tokenizer, messages):
        whole = encode(tokenizer, messages)
        start = prompt_of(tokenizer, messages)
        return Example(whole, [IGNORE_INDEX] * start + whole[start:])

    return slip


def _without_header(tokenizer, messages):
    return len(encode(tokenizer, messages[:-1]))


def _with_header(tokenizer, messages):
    return len(encode(tokenizer, messages[:-1], add_generation_prompt=True))


def _header_trained(tokenizer, messages):
    right = build_example(tokenizer, messages)
    start = _without_header(tokenizer, messages)
    first = _with_header(tokenizer, messages)
    labels = list(right.labels)
    labels[start:first] = right.input_ids[start:first]
    return Example(right.input_ids, labels)


def _inputs_masked(tokenizer, messages):
    right = build_example(tokenizer, messages)
    masked = [IGNORE_INDEX] * _with_header(tokenizer, messages)
    return Example(masked + right.input_ids[len(masked) :], right.labels)


def _without_system(tokenizer, messages):
    return build_example(tokenizer, [m for m in messages if m["role"] != "system"])


def _last_exchange(tokenizer, messages):
    return build_example(tokenizer, messages[-2:])


def _response_inputs_alone(tokenizer, messages):
    right = build_example(tokenizer, messages)
    start = _with_header(tokenizer, messages)
    return Example(right.input_ids[start:], right.labels[start:])


def _prompt_filled(value_of):
    def slip(tokenizer, messages):
        right = build_example(tokenizer, messages)
        value = value_of(tokenizer)
        return Example(right.input_ids, [value if y == IGNORE_INDEX else y for y in right.labels])

    return slip


def _ended_at_the_answer(tokenizer, messages):
    right = build_example(tokenizer, messages)
    end = len(right.labels) - right.labels[::-1].index(end_of_turn_id(tokenizer))
    return Example(right.input_ids[: end - 1], right.labels[: end - 1])


EXAMPLE_MISTAKES = (
    (
        _relabelled(lambda labels, ids, first, last: list(ids)),
        "Nothing is masked: the user's words are trained as well as the answer.",
    ),
    (
        _from_prompt_of(_without_header),
        "The assistant's header is trained. At inference it is part of the prompt: render the "
        "prompt with its generation prompt, and see what the first trained token is then.",
    ),
    (
        _header_trained,
        "The assistant's header is trained. At inference it is part of the prompt: the first "
        "trained token must be the first of the answer.",
    ),
    (
        _relabelled(
            lambda labels, ids, first, last: [*labels[: last - 1], IGNORE_INDEX, *labels[last:]]
        ),
        "The end-of-turn marker is masked. It belongs to the answer: without it in the loss the "
        "model never learns to stop.",
    ),
    (
        _ended_at_the_answer,
        "The end-of-turn marker is missing from the row. It belongs to the answer: without it the "
        "model never learns to stop.",
    ),
    (
        _from_prompt_of(_with_header),
        "What the template writes after the end-of-turn marker is trained. The model stops at the "
        "marker, so it never has to write what follows.",
    ),
    (
        _relabelled(
            lambda labels, ids, first, last: [*labels[:first], IGNORE_INDEX, *labels[first + 1 :]]
        ),
        "Off by one: the first token of the answer is masked.",
    ),
    (
        _relabelled(
            lambda labels, ids, first, last: [
                *labels[: first - 1],
                ids[first - 1],
                *labels[first:],
            ]
        ),
        "Off by one: the last token of the prompt is trained.",
    ),
    (
        _relabelled(lambda labels, ids, first, last: [*labels[1:], IGNORE_INDEX]),
        "The labels are shifted already. They stay in line with input_ids; the loss does the "
        "shifting.",
    ),
    (
        _inputs_masked,
        "The prompt is masked in input_ids: the model could no longer read the question. Only "
        "labels are masked.",
    ),
    (
        mask_all_but_assistant,
        "Every assistant turn is trained. Here only the last answer is: the earlier ones belong "
        "to its prompt.",
    ),
    (
        _without_system,
        "The system turn is missing from the row. It is part of the prompt that the model reads.",
    ),
    (
        _last_exchange,
        "Only the last question and its answer are in the row. The earlier turns belong to the "
        "prompt.",
    ),
    (
        _response_inputs_alone,
        "Only the answer is in the row. The model reads the prompt as well, with its labels "
        "masked.",
    ),
    (
        _prompt_filled(lambda tokenizer: 0),
        "Masked positions are labelled 0, but 0 is a real token. The loss leaves out -100 only.",
    ),
    (
        _prompt_filled(lambda tokenizer: tokenizer.pad_token_id),
        "Masked positions carry the padding id, which is a token like any other to the loss. It "
        "leaves out -100 only.",
    ),
)

# A second family: other headers, an end marker with nothing after it.
OTHER_FAMILY = (
    "{% for message in messages %}"
    "[{{ message['role'] }}]: {{ message['content'] }}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}[assistant]:{% endif %}"
)


@functools.cache
def _embedded_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODELS / "almanac-base")


def _tokenizer(template: str | None = None):
    tokenizer = copy.deepcopy(_embedded_tokenizer())
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def _conversation(*texts: str, system: str = "") -> list[dict[str, str]]:
    """User and assistant in turn, after an optional system message."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _example_case(remark: str, *texts: str, system: str = "", template: str | None = None) -> Case:
    return Case(
        f"`build_example(tokenizer, messages)`: {remark}",
        lambda: (_tokenizer(template), _conversation(*texts, system=system)),
        build_example,
        EXAMPLE_MISTAKES,
    )


EXAMPLE_CASES = (
    _example_case("one question, one answer", "What is the capital of Peru?", "Lima."),
    _example_case("the answer repeats the question", "Say yes.", "Say yes."),
    _example_case("with a system turn", "Where do frogs live?", "In ponds.", system="Be brief."),
    _example_case(
        "two questions: the first answer is part of the prompt",
        "What is the opposite of hot?",
        "Cold.",
        "And of big?",
        "Small.",
    ),
    _example_case(
        "another family's template", "Where do frogs live?", "In ponds.", template=OTHER_FAMILY
    ),
)

EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            "12.mask_prompt",
            "Masking the prompt",
            mask_prompt,
            MASK_CASES,
            hints=(
                "The result is as long as input_ids. Which of its entries are -100?",
                "Begin with a copy of input_ids: what you were given must stay as it is.",
                "A slice assignment on the copy sets all of the prompt at once.",
            ),
            why="The labels are a copy, because the inputs are still needed: the model reads the "
            "prompt, it is only not trained to write it. -100 is the value that PyTorch's cross "
            "entropy leaves out by default. Nothing is shifted here; the loss does that.",
        ),
        Exercise(
            "12.build_example",
            "The training row of a conversation",
            build_example,
            EXAMPLE_CASES,
            hints=(
                "Render the prompt exactly as it will be at inference. What does the template add "
                "when it is asked for a generation prompt?",
                "The rendered prompt is the beginning of the rendered conversation, so its length "
                "in tokens says where the answer begins.",
                "The answer ends with the end-of-turn marker, `end_of_turn_id(tokenizer)`. Look at "
                "what your template writes after it.",
            ),
            why="The prompt is rendered as it will be at inference, and the whole conversation is "
            "tokenised in one go: tokenised apart, the pieces may meet at another boundary than "
            "they do in the whole. That the prompt is a beginning of the whole is checked and not "
            "assumed. The end-of-turn marker is trained, because the model has to write it; the "
            "newline after it is not, because generation has stopped by then.",
        ),
    )
}
