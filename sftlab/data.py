"""From a file to batches: read, validate, tokenize, mask and pad conversations.

No example is dropped, truncated or repaired silently. An unusable example is an error that names
its place; examples that are too long are dropped only on request and are listed. Lines, rows and
messages are numbered from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS as INSTRUCTIONS  # re-exported for the notebooks
from sftlab.architectures import Limits
from sftlab.chat import Message, render, special_tokens, validate
from sftlab.errors import WorkbookError
from sftlab.formats import Conversation, DataConfig, Dropped, ReadingReport, read_conversations
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, mask_all_but_assistant
from sftlab.rows import read_rows
from sftlab.templates import keeps_earlier_answers


def read_jsonl(path: str | Path) -> list[dict]:
    """Return the rows of a JSONL file with one JSON object per line; blank lines are skipped.

    Raises:
        WorkbookError: the file does not exist, is not UTF-8 text, or a line is not a JSON object.
    """
    found = []
    for place, row in read_rows(path):
        if isinstance(row, WorkbookError):
            raise WorkbookError(f"{path}, {place}: {row}")
        found.append(row)
    return found


def write_jsonl(path: str | Path, rows: Sequence[dict]) -> None:
    """Write one JSON object per line, as UTF-8."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(path).write_text(text, encoding="utf-8")


def conversation(row: dict, place: str = "the row") -> list[Message]:
    """Return the messages of a row of a JSONL file.

    A row is ``{"messages": [...]}`` or ``{"prompt": ..., "response": ...}``.

    Args:
        place: beginning of the error message, such as "pairs.jsonl, line 3".

    Raises:
        WorkbookError: the row has none of these keys, or only one of ``prompt`` and ``response``.
    """
    if "messages" in row:
        return row["messages"]
    missing = [key for key in ("prompt", "response") if key not in row]
    if missing:
        raise WorkbookError(
            f'{place}: no "{missing[0]}"; expected "messages", or "prompt" and "response" '
            f"(found: {', '.join(row) or 'nothing'})"
        )
    return [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": row["response"]},
    ]


def load_conversations(path: str | Path, markers: Sequence[str] = ()) -> list[list[Message]]:
    """Read and validate the conversations of a file in any shape that ``formats`` recognizes.

    Args:
        markers: texts that no message may contain, usually ``chat.special_tokens(tokenizer)``.

    Raises:
        WorkbookError: the file cannot be read, has no rows, or a conversation is not valid.
    """
    report, found = ReadingReport(str(path)), []
    for conversation in read_conversations(path, DataConfig(), report):
        try:
            validate(conversation.messages, "", tuple(markers))
        except WorkbookError as error:
            report.refuse(conversation.place, error)
        found.append(conversation.messages)
    report.raise_if_refused()
    return found


EACH = (
    "the chat template renders earlier answers differently from the last one: each answer is trained "
    "in an example of its own"
)


class TooLong(WorkbookError):
    """An example has more tokens than are allowed."""

    def __init__(self, length: int, limit: str, most: int):
        self.length = length
        remedy = "raise max_length, shorten" if limit == "max_length" else "shorten"
        super().__init__(
            f"more tokens than {limit} = {most}, so its response would be cut; {remedy} the row, or "
            'leave such rows out (too_long = "drop_row")'
        )


class ExampleMaker:
    """Makes examples from conversations, as ``config`` says; ``preflight`` and training share it.

    Args:
        tokenizer: with the chat template for training; see ``templates.training_tokenizer``.
        report: receives what is left out.
    """

    def __init__(
        self, tokenizer, config: DataConfig, report: ReadingReport, limits: Limits | None = None
    ):
        self.tokenizer, self.config, self.report, self.limits = tokenizer, config, report, limits
        self.markers = special_tokens(tokenizer)
        self.roles = str(tokenizer.chat_template)
        self.answers = config.answers
        if self.answers == "auto":
            self.answers = "all" if keeps_earlier_answers(tokenizer) else "each"
        self.max_length = config.max_length
        if limits and limits.positions and (limits.hard or not self.max_length):
            self.max_length = min(self.max_length or limits.positions, limits.positions)
        elif limits and limits.positions and (self.max_length or 0) > limits.positions:
            report.notes[
                f"max_length = {self.max_length} is beyond the {limits.positions} positions that the model declares"
            ] = 0

    def examples(self, conversation: Conversation) -> list[Example]:
        """Return the examples of one conversation: one, or one for each trained answer.

        Raises:
            WorkbookError: the conversation cannot be used.
            Dropped: it is longer than ``max_length`` and ``too_long`` is "drop_row".
        """
        messages = self._with_known_roles(conversation.messages)
        validate(messages, "", self.markers)
        options = dict(conversation.template_options)
        if conversation.tools:
            options["tools"] = conversation.tools
        roles = [message["role"] for message in messages]
        trained = [on and role == "assistant" for on, role in zip(conversation.trained, roles, strict=True)]  # fmt: skip
        chosen = [k for k, on in enumerate(trained) if on]
        if self.answers == "last":
            chosen = chosen[-1:]
            if chosen[0] < len(messages) - 1:
                self.report.notes["messages after the last trained answer are left out"] += 1
        made = []
        for k in [len(messages) - 1] if self.answers == "all" else chosen:
            which = trained if self.answers == "all" else [i == k for i in range(k + 1)]
            self._check_rendering(messages[: k + 1], options, which)
            made.append(mask_all_but_assistant(self.tokenizer, messages[: k + 1], which, **options))
        for example in made:
            self._check_size(example)
        self._note_later_system(messages[: k + 1], options)
        return made

    def _with_known_roles(self, messages: list[Message]) -> list[Message]:
        """Return the messages with "developer" as "system" if the template has no such role."""
        developer = any(message["role"] == "developer" for message in messages)
        if developer and "developer" not in self.roles:
            self.report.notes['the role "developer" is read as "system"'] += 1
            return [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        return messages

    def _note_later_system(self, messages: list[Message], options: dict) -> None:
        """Note how the template writes system messages after the first message."""
        later = [n > 0 and m["role"] in ("system", "developer") for n, m in enumerate(messages)]
        if any(later):
            text = render(self.tokenizer, messages, **options)
            written = "system"
            for role in ("user", "assistant"):
                other = [
                    m | {"role": role} if x else m for m, x in zip(messages, later, strict=True)
                ]
                written = written if self._changes(text, other, options) else role
            self.report.notes[f"a later system message: the template writes it in its place, as one of the {written}"] += 1  # fmt: skip

    def _check_rendering(self, messages: list[Message], options: dict, trained: list[bool]) -> None:
        """Raise WorkbookError if the template leaves out something that the row contains.

        Contents are looked for in their order, without white space, which templates may change.
        """
        text = render(self.tokenizer, messages, **options)
        flat, at = "".join(text.split()), 0
        for number, (message, on) in enumerate(zip(messages, trained, strict=True), 1):
            content = "".join(message["content"].split())
            found = flat.find(content, at)
            if found >= 0:
                at = found + len(content)
            elif on or message["role"] != "assistant":
                moved = message["role"] == "system" and number > 1 and content in flat
                does = "writes it before earlier ones" if moved else "leaves out some of its text"
                raise WorkbookError(
                    f"message {number} ({message['role']}): the chat template {does}; "
                    "give a template for training (chat_template_path), or edit the row"
                )  # earlier answers may lose their reasoning, as at inference
        for key in (*WRITTEN, *NOTED):
            places = [n for n, m in enumerate(messages) if key in m]
            if key in WRITTEN:
                places = [n for n in places if trained[n]] or places * (key not in THOUGHTS)
            without = [
                {k: v for k, v in m.items() if k != key} if n in places else m
                for n, m in enumerate(messages)
            ]
            if places and not self._changes(text, without, options):
                if key in WRITTEN:
                    self._lost(f'"{key}"')
                self.report.unknown[f'"{key}" of a message (the template does not write it)'] += 1
        for name in options:
            rest = {key: value for key, value in options.items() if key != name}
            if not self._changes(text, messages, rest):
                if name == "tools":
                    self._lost('"tools"')
                self.report.unknown[
                    f'"{name}" of chat_template_kwargs (the template does not use it)'
                ] += 1

    def _changes(self, text: str, messages: list, options: dict) -> bool:
        """Return whether the rendering differs from ``text``."""
        try:
            return render(self.tokenizer, messages, **options) != text
        except WorkbookError:
            return True

    def _lost(self, what: str) -> None:
        raise WorkbookError(
            f"the chat template does not write {what}, so it would be lost; give a template that "
            "does (chat_template_path), or remove it from the row"
        )

    def _check_size(self, example: Example) -> None:
        most, length = self.max_length, len(example)
        if self.limits and max(example.input_ids) >= self.limits.vocabulary:
            raise WorkbookError(
                f"the token id {max(example.input_ids)} is beyond the model's "
                f"{self.limits.vocabulary} embeddings: the tokenizer does not belong to the model, or "
                "the model was not resized after tokens were added"
            )
        if most is None or length <= most:
            return
        if self.config.too_long == "drop_row":
            raise Dropped(f"longer than {most} tokens")
        named = (
            "max_length" if self.config.max_length == most else "the model's number of positions"
        )
        raise TooLong(length, named, most)


# Keys of messages that a template must write if they occur: thoughts in what is trained only.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
WRITTEN = ("tool_calls", *THOUGHTS)
NOTED = ("name", "tool_call_id")  # reported if it does not


def read_examples(
    path: str | Path, maker: ExampleMaker, report: ReadingReport
) -> Iterator[tuple[Conversation, Example]]:
    """Yield every example of a file with its conversation; note in ``report`` what is refused.

    Raises:
        WorkbookError: the file cannot be read at all.
    """
    for conversation in read_conversations(path, maker.config, report):
        try:
            made = maker.examples(conversation)
        except Dropped as reason:
            report.dropped[str(reason)] += 1
        except TooLong as problem:
            report.refuse(f"{conversation.place} ({problem.length} tokens)", problem)
        except WorkbookError as problem:
            report.refuse(conversation.place, problem)
        else:
            yield from ((conversation, example) for example in made)


@dataclass(frozen=True)
class TokenizedConversations:
    """Tokenized examples, and the numbers (from 1) of the conversations dropped as too long."""

    examples: list[Example]
    dropped: list[int] = field(default_factory=list)


def tokenize_conversations(
    tokenizer,
    conversations: Sequence[list[Message]],
    max_length: int | None = None,
    too_long: str = "error",
) -> TokenizedConversations:
    """Validate, tokenize and mask conversations.

    Args:
        max_length: largest number of tokens of an example; None for no limit.
        too_long: "error" (the default), or "drop" to leave out longer examples and list them. An
            example is never truncated: a truncated answer teaches the model to stop in the middle
            of a sentence, or leaves nothing to train.

    Raises:
        WorkbookError: a conversation is not valid or contains one of the tokenizer's special
            tokens, an example is too long, or there is nothing to train on.
    """
    if too_long not in ("error", "drop"):
        raise WorkbookError(f'too_long is {too_long!r}; use "error" or "drop"')
    examples, dropped = [], []
    markers = special_tokens(tokenizer)
    for number, messages in enumerate(conversations, 1):
        validate(messages, f"row {number}", markers)
        try:
            example = mask_all_but_assistant(tokenizer, messages)
        except WorkbookError as error:
            raise WorkbookError(f"row {number}: {error}") from None
        if max_length is None or len(example) <= max_length:
            examples.append(example)
        elif too_long == "drop":
            dropped.append(number)
        else:
            raise WorkbookError(
                f"row {number} has {len(example)} tokens, {len(example) - max_length} more than "
                f"max_length = {max_length}: its response would be cut. Raise max_length, shorten "
                'the row, or leave such rows out with too_long="drop"'
            )
    if dropped and not examples:
        raise WorkbookError(
            f"all {len(dropped)} rows have more tokens than max_length = {max_length}: there is "
            "nothing to train on. Raise max_length"
        )
    if not examples:
        raise WorkbookError("there is no row to train on; give at least one conversation")
    return TokenizedConversations(examples, dropped)


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Combine examples of different lengths into one batch, padded on the right.

    Each example is cut after its last trained token; later tokens cannot change the loss. The
    attention mask is computed from the lengths. ``ids != pad_id`` would also hide real tokens if
    the padding token has another use.

    Returns:
        input_ids, labels and attention_mask, each (batch, length of the longest example).

    Raises:
        WorkbookError: an example has no trained token.
    """
    kept = []
    for number, example in enumerate(examples, 1):
        if not example.trained:
            raise WorkbookError(
                f"row {number} of the batch has no trained token, so its loss would be undefined; "
                "leave it out, or check how it was masked"
            )
        kept.append((example.input_ids[: example.end], example.labels[: example.end]))
    width = max(len(ids) for ids, _ in kept)
    return {
        "input_ids": torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in kept]),
        "labels": torch.tensor([row + [IGNORE_INDEX] * (width - len(row)) for _, row in kept]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in kept]
        ),
    }


def batch_order(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """Yield the example indices of each batch, shuffled and grouped by similar length.

    Examples are shuffled, sorted by length within pools of eight batches, and split into batches;
    then the batches are shuffled. Grouping by length saves padding. Every example occurs exactly
    once, and the order depends only on ``lengths``, ``batch_size``, ``seed`` and ``epoch``.
    """
    rng = Random(f"{seed}:{epoch}")
    rows = list(range(len(lengths)))
    rng.shuffle(rows)
    batches = []
    for start in range(0, len(rows), 8 * batch_size):
        pool = sorted(rows[start : start + 8 * batch_size], key=lambda row: lengths[row])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    rng.shuffle(batches)
    yield from batches
