"""Loss masks: trained tokens have their id as label, all others have ``IGNORE_INDEX``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from sftlab.chat import Message, encode, end_of_turn_id, render, special_tokens, validate
from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX


def count_trained(labels: list[int]) -> int:
    """Count the labels that are not ``IGNORE_INDEX`` (-100)."""
    return sum(label != IGNORE_INDEX for label in labels)


@dataclass(frozen=True)
class Example:
    """One training example: the token ids the model reads, and one label for each token."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """Number of tokens with loss.

        The first token has none because no earlier token predicts it.
        """
        return len(self.labels[1:]) - self.labels[1:].count(IGNORE_INDEX)

    @property
    def end(self) -> int:
        """Number of tokens up to the last trained one; later tokens cannot change the loss."""
        backwards = (
            i for i in range(len(self.labels), 0, -1) if self.labels[i - 1] != IGNORE_INDEX
        )
        return next(backwards, 0)

    def __len__(self) -> int:
        return len(self.input_ids)


def mask_prompt(input_ids: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Return labels for one prompt and its response: ``IGNORE_INDEX`` on the prompt, ids after it.

    Args:
        input_ids: (length,), token ids of the prompt and the response. The tensor is not changed.
        prompt_length: number of prompt tokens, from 0 to length.

    Returns:
        (length,), the labels. They are *not* shifted; the loss does that.
    """
    labels = input_ids.clone()
    labels[:prompt_length] = IGNORE_INDEX
    return labels


Spans = dict[str, list[tuple[int, int]]]  # part of an example -> its (start, end), end exclusive


def training_labels(input_ids: Sequence[int], spans: Spans, train: Collection[str]) -> list[int]:
    """Return labels for one example: token ids in the spans to train, ``IGNORE_INDEX`` elsewhere.

    Args:
        input_ids: token ids of the whole example.
        spans: where each part of the example stands, such as ``{"question": [(3, 12)], …}``. Spans
            are not trained unless their name is in ``train``.
        train: names of the parts that are trained.

    The first token is never trained because no earlier token predicts it. Labels are not shifted; the
    loss does that.
    """
    labels = [IGNORE_INDEX] * len(input_ids)
    for name in train:
        for start, end in spans[name]:
            labels[start:end] = input_ids[start:end]
    labels[0] = IGNORE_INDEX
    return labels


def build_example(tokenizer, messages: list[Message], **options) -> Example:
    """Return the training example of a conversation in which only the last turn is trained.

    The conversation ends with an assistant turn. Its prompt is rendered as at inference, including
    the assistant header, so the header is masked. The end-of-turn token is trained; without it the
    model does not learn to stop. Anything the template writes after that token (a newline in
    ChatML) is masked. ``options`` are what else the template reads; see ``chat.render``.

    Raises:
        WorkbookError: the conversation is not valid, or its tokens do not begin with the tokens of
            its prompt.
    """
    validate(messages)
    prompt = encode(tokenizer, messages[:-1], add_generation_prompt=True, **options)
    whole = encode(tokenizer, messages, **options)
    if whole[: len(prompt)] != prompt:
        raise WorkbookError(_why_no_prefix(tokenizer, messages, **options))
    end = _end_of_answer(tokenizer, whole, len(prompt), messages[-1])
    labels = (
        [IGNORE_INDEX] * len(prompt)
        + whole[len(prompt) : end]
        + [IGNORE_INDEX] * (len(whole) - end)
    )
    return Example(whole, labels)


def _end_of_answer(tokenizer, whole: list[int], start: int, message: Message) -> int:
    """Return the position after the end-of-turn token of the answer that begins at ``start``.

    A few families end a tool call with another special token; then it is the last one.
    """
    ends = {end_of_turn_id(tokenizer)}
    if message.get("tool_calls") and not ends.intersection(whole[start:]):
        ends = set(tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer))))
    for place in range(len(whole), start, -1):
        if whole[place - 1] in ends:
            return place
    raise WorkbookError(
        "the chat template does not end this answer with the token that ends others, so the model "
        "would not learn to stop; give a template for training (chat_template_path)"
    )


def _why_no_prefix(tokenizer, messages: list[Message], **options) -> str:
    """Explain why a conversation's tokens do not begin with its prompt's tokens, and what to do."""
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True, **options)
    if render(tokenizer, messages, **options).startswith(prompt):
        return (
            f"message {len(messages)} (assistant): the tokenizer joins its first character to the "
            "template's header, so no token boundary separates prompt and answer; remove the white "
            "space at the beginning of the text"
        )
    return (
        "the rendered prompt is not the beginning of the rendered conversation: this template "
        "writes prompts and answers differently, so no length separates them; give a template for "
        "training (chat_template_path)"
    )


def mask_all_but_assistant(
    tokenizer, messages: list[Message], trained: Sequence[bool] | None = None, **options
) -> Example:
    """Return the training example of a conversation in which every assistant turn is trained.

    The end-of-turn tokens of the assistant turns are trained. System turns, user turns and all
    headers are masked. Each turn is located by rendering the conversation up to it, so text that
    only looks like another turn has no effect.

    Args:
        trained: for each message, whether it is trained if it is an assistant turn; None: all are.
        options: what else the template reads; see ``chat.render``.

    Raises:
        WorkbookError: the conversation is not valid, or the rendering of its first k messages is
            not a prefix of the rendering of the first k + 1.
    """
    validate(messages)
    turns = {
        k: build_example(tokenizer, messages[: k + 1], **options)
        for k, message in enumerate(messages)
        if message["role"] == "assistant" and (trained is None or trained[k])
    }
    last = turns.get(len(messages) - 1)
    whole = last.input_ids if last else encode(tokenizer, messages, **options)
    labels = [IGNORE_INDEX] * len(whole)
    for k, turn in turns.items():
        if whole[: turn.end] != turn.input_ids[: turn.end]:
            raise WorkbookError(
                f"message {k + 1}: the template renders the first {k + 1} messages differently "
                "when more follow, so its tokens cannot be located; train each answer in an example "
                'of its own (answers = "each")'
            )
        for place, label in enumerate(turn.labels):
            if label != IGNORE_INDEX:
                labels[place] = label
    return Example(whole, labels)


def template_mask(tokenizer, messages: list[Message]) -> Example:
    """Return the example given by the ``{% generation %}`` mask of the tokenizer's chat template.

    Used for comparison with ``mask_all_but_assistant``.

    Raises:
        WorkbookError: the chat template has no ``{% generation %}`` block.
    """
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
