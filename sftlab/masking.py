"""Which tokens are trained: their labels are the token ids; all others get ``IGNORE_INDEX``."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sftlab.chat import Message, encode, end_of_turn_id, render, validate
from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX


def count_trained(labels: list[int]) -> int:
    """How many tokens of a row carry loss: those whose label is not ``IGNORE_INDEX`` (-100)."""
    return sum(label != IGNORE_INDEX for label in labels)


@dataclass(frozen=True)
class Example:
    """One training row: ``input_ids`` as the model reads them, ``labels`` of the same length."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """Number of tokens that carry loss: the first of a row never does, nothing precedes it."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    def __len__(self) -> int:
        return len(self.input_ids)


def mask_prompt(input_ids: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Labels for one prompt and its response: ``IGNORE_INDEX`` on the prompt, then the ids themselves.

    Args:
        input_ids: (length,) token ids of prompt and response together. It is not changed.
        prompt_length: how many of them are the prompt, from 0 to length.

    Returns:
        (length,) labels. They are *not* shifted: the loss does that.
    """
    labels = input_ids.clone()
    labels[:prompt_length] = IGNORE_INDEX
    return labels


def build_example(tokenizer, messages: list[Message]) -> Example:
    """The training row of a conversation that ends with the assistant's answer, alone trained.

    The prompt is rendered as it will be at inference, with the assistant's header: so the header
    is not trained. The end-of-turn marker belongs to the answer: without it the model never learns
    to stop. Whatever the template writes after that marker (a newline in ChatML) is not trained.

    Raises WorkbookError if the conversation is not valid, or if its tokens do not begin with the
    tokens of its prompt.
    """
    validate(messages)
    prompt = encode(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = encode(tokenizer, messages)
    if whole[: len(prompt)] != prompt:
        raise WorkbookError(_why_no_prefix(tokenizer, messages))
    end = len(whole) - whole[::-1].index(end_of_turn_id(tokenizer))
    labels = (
        [IGNORE_INDEX] * len(prompt)
        + whole[len(prompt) : end]
        + [IGNORE_INDEX] * (len(whole) - end)
    )
    return Example(whole, labels)


def _why_no_prefix(tokenizer, messages: list[Message]) -> str:
    """Why a conversation's tokens do not begin with its prompt's tokens, and what to do."""
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
    if render(tokenizer, messages).startswith(prompt):
        return (
            f"message {len(messages)} (assistant): the tokenizer joins its first character to the "
            "template's header, so no token boundary separates prompt and answer; remove the white "
            "space at the beginning of the text"
        )
    return (
        "the rendered prompt is not the beginning of the rendered conversation: this template "
        "writes prompts and answers differently, so no length separates them; use another template"
    )


def mask_all_but_assistant(tokenizer, messages: list[Message]) -> Example:
    """The training row of a conversation: every assistant turn is trained with its end marker.

    System turns, user turns and all role markers are masked. Works with any template whose
    rendering of the first k messages is a prefix of the rendering of k + 1, and raises
    WorkbookError otherwise: each turn is found as what its message adds, so text that merely looks
    like another turn cannot mislead it.
    """
    validate(messages)
    whole = encode(tokenizer, messages)
    labels = [IGNORE_INDEX] * len(whole)
    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = build_example(tokenizer, messages[: k + 1])
        if whole[: len(turn)] != turn.input_ids:
            raise WorkbookError(
                f"message {k + 1}: the template renders the first {k + 1} messages differently "
                "when more follow, so its tokens cannot be located; use another template"
            )
        for place, label in enumerate(turn.labels):
            if label != IGNORE_INDEX:
                labels[place] = label
    return Example(whole, labels)


def template_mask(tokenizer, messages: list[Message]) -> Example:
    """The same row from the tokenizer's own ``{% generation %}`` mask: the peer of our own."""
    found = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = found["input_ids"], found["assistant_masks"]
    if not any(mask):
        raise WorkbookError(
            "the assistant mask is all zero: this chat template has no {% generation %} block; "
            "use mask_all_but_assistant instead"
        )
    return Example(
        ids, [token if on else IGNORE_INDEX for token, on in zip(ids, mask, strict=True)]
    )
