"""Chat templates: rendering messages as one text with special tokens, and comparing renderings.

A message is a dictionary with ``role`` (system, user, assistant, tool) and ``content``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TypedDict

from jinja2 import TemplateSyntaxError

from sftlab.errors import WorkbookError

ROLES = ("system", "developer", "user", "assistant", "tool")

# ChatML. The generation block contains what the assistant writes: its text and the end-of-turn
# token.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Message(TypedDict):
    role: str
    content: str


def chatml(messages: list[Message], add_generation_prompt: bool = False) -> str:
    """Return the ChatML rendering of the messages: the template above in plain Python."""
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
    if add_generation_prompt:
        text += "<|im_start|>assistant\n"
    return text


def user(content: str) -> list[Message]:
    """Return a conversation of one user message."""
    return [{"role": "user", "content": content}]


def render(
    tokenizer, messages: list[Message], add_generation_prompt: bool = False, **options
) -> str:
    """Return the text that the tokenizer's chat template makes of the messages.

    Args:
        options: what else the template reads, such as ``tools``.

    Raises:
        WorkbookError: the tokenizer has no chat template, or the template rejects the messages.
    """
    return _apply(tokenizer, messages, add_generation_prompt, tokenize=False, **options)


def encode(
    tokenizer, messages: list[Message], add_generation_prompt: bool = False, **options
) -> list[int]:
    """Return the token ids of the rendering as a list. Arguments and errors as in ``render``."""
    found = _apply(tokenizer, messages, add_generation_prompt, return_dict=True, **options)
    return list(found["input_ids"])


def _apply(tokenizer, messages: list[Message], add_generation_prompt: bool, **options):
    if not tokenizer.chat_template:
        raise WorkbookError(
            "this tokenizer has no chat template, as is usual for a base model: load the chat "
            "model, or give it one with  tokenizer.chat_template = sftlab.chat.CHATML"
        )
    try:
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, **options
        )
    except TemplateSyntaxError as error:
        raise WorkbookError(f"the chat template is not valid Jinja ({error}); repair it") from error
    except Exception as error:  # of any type: some families have no system role, for example
        raise WorkbookError(
            f"the chat template refuses these messages ({error}); change them to what it allows"
        ) from error


def special_tokens(tokenizer) -> tuple[str, ...]:
    """Return the text of every special token: what a message must not contain (see ``validate``).

    Includes special tokens that ``all_special_tokens`` does not list because they have no purpose
    such as begin, end or padding. Many chat templates use such tokens.
    """
    added = tokenizer.added_tokens_decoder.values()
    texts = [*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)]
    return tuple(dict.fromkeys(texts))


def end_of_turn_id(tokenizer) -> int:
    """Return the id of the token that ends an assistant turn in the chat template.

    It is the first special token after an answer in a rendering, or the last of several that follow
    each other directly. ``eos_token`` can differ from it, as with Gemma, and templates may write
    more after it, as with Phi-3.

    Raises:
        WorkbookError: the template writes no special token after the assistant's text.
    """
    return _end_of_turn_id(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=16)
def _end_of_turn_id(tokenizer, template: str) -> int:  # cached for each template
    question, answer = "Question", "Answer"  # templates may trim or reject other texts
    turn: list[Message] = [*user(question), {"role": "assistant", "content": answer}]
    text, ids = render(tokenizer, turn), encode(tokenizer, turn)
    after = text[text.rindex(answer) + len(answer) :] if answer in text else ""
    known = "|".join(map(re.escape, sorted(special_tokens(tokenizer), key=len, reverse=True)))
    run = re.search(f"(?:{known})+", after)  # some families write two, as Cohere
    if run and (token := tokenizer.convert_tokens_to_ids(re.findall(known, run[0])[-1])) in ids:
        return token
    raise WorkbookError(
        "this chat template writes no special token after the assistant's text, so nothing could "
        "teach the model to stop; use another template"
    )


def validate(
    messages: list[Message], place: str = "the conversation", markers: tuple[str, ...] = ()
) -> None:
    """Check that the messages form a conversation that can be used for training.

    A valid conversation has alternating user and assistant messages and ends with the assistant.
    System (or developer) messages may stand anywhere before; what the template makes of later ones
    is looked at in ``data.ExampleMaker``. Results of tools may follow an assistant message with
    ``tool_calls``, and the assistant continues after them. No content is empty, except beside tool
    calls, or contains one of ``markers``.

    Args:
        place: beginning of the error message, such as "pairs.jsonl, line 3"; may be empty.
        markers: texts that no message may contain, usually ``special_tokens(tokenizer)``; the model
            would read them as the beginning or end of a turn.

    Raises:
        WorkbookError: the messages are not a valid conversation.
    """
    begin = f"{place}: " if place else ""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise WorkbookError(
            f'{begin}the messages must be a list of {{"role": ..., "content": ...}}'
        )
    if not messages:
        raise WorkbookError(f"{begin}there are no messages; a conversation needs at least two")
    expected, called = "user", False
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        where = f"{begin}message {number}"
        if role not in ROLES:
            raise WorkbookError(f"{where} has the role {role!r}; use one of {', '.join(ROLES)}")
        if role == "tool":
            if not called:
                raise WorkbookError(f"{where} is a tool's result, but no message before it calls a tool")  # fmt: skip
            expected = "assistant"
        elif role in ("user", "assistant"):
            if role != expected:
                raise WorkbookError(
                    f"{where} comes from the {role}, but it is the {expected}'s turn; user and "
                    "assistant must alternate, beginning with the user"
                )
            expected = "assistant" if role == "user" else "user"
            called = bool(message.get("tool_calls"))
        if not isinstance(content, str):
            kind = type(content).__name__
            raise WorkbookError(f"{where} ({role}) has no text: its content is of type {kind}")
        if not content.strip() and not message.get("tool_calls"):
            raise WorkbookError(f"{where} ({role}) is empty; write its text or remove the row")
        if not content.isascii() and any("\ud800" <= sign <= "\udfff" for sign in content):
            raise WorkbookError(
                f"{where} ({role}) contains half of a character (a lone surrogate), which no tokenizer "
                "can read; a cut text is the usual cause: repair or remove the row"
            )
        for marker in markers:
            if marker in content:
                raise WorkbookError(
                    f"{where} ({role}) contains {marker}, which would be read as a marker and not "
                    "as text; remove it"
                )
    if (last := messages[-1]["role"]) != "assistant":
        raise WorkbookError(
            f"{begin}the last message comes from the {last}, so there is nothing to train; end "
            "with an answer of the assistant"
        )


def difference(right: Sequence, wrong: Sequence) -> list[tuple[str, Sequence, Sequence]]:
    """Return the edits between two sequences as (operation, items of right, items of wrong) tuples.

    The operation is "equal", "replace", "delete" (missing from ``wrong``) or "insert" (only in
    ``wrong``).
    """
    matcher = SequenceMatcher(a=right, b=wrong, autojunk=False)
    return [(what, right[a:b], wrong[c:d]) for what, a, b, c, d in matcher.get_opcodes()]


def render_prompt(messages: list[Message]) -> str:
    """Return what a ChatML model reads before it answers: every turn, then the assistant header.

    Equal to ``render(tokenizer, messages, add_generation_prompt=True)``. Contents are inserted
    unchanged, and only a newline follows the last header.
    """
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def spot_the_difference(right: Sequence, wrong: Sequence) -> tuple[int, list, list]:
    """Return where two sequences differ, as (start, items of right, items of wrong).

    The longest common prefix is removed, then the longest common suffix of the rest. What remains
    is the difference. ``start`` counts from 0. Equal sequences give (their length, [], []).
    """
    shorter = min(len(right), len(wrong))
    start = 0
    while start < shorter and right[start] == wrong[start]:
        start += 1
    end = 0
    while end < shorter - start and right[-1 - end] == wrong[-1 - end]:
        end += 1
    return start, list(right[start : len(right) - end]), list(wrong[start : len(wrong) - end])
