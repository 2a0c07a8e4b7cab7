"""From a JSONL file to batches: read, validate, tokenize, mask and pad conversations.

No example is dropped, truncated or repaired silently. An unusable example raises an error that
names its number; examples that are too long are dropped only on request and are listed. Lines, rows
and messages are numbered from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS as INSTRUCTIONS  # re-exported for the notebooks
from sftlab.chat import Message, special_tokens, validate
from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, mask_all_but_assistant


def read_jsonl(path: str | Path) -> list[dict]:
    """Return the rows of a JSONL file with one JSON object per line; blank lines are skipped.

    Raises:
        WorkbookError: the file does not exist, is not UTF-8 text, or a line is not a JSON object.
    """
    return [row for _, row in _numbered_rows(Path(path))]


def _numbered_rows(path: Path) -> list[tuple[int, dict]]:
    """Return the rows of a JSONL file with their line numbers."""
    if not path.is_file():
        raise WorkbookError(f"{path} is no file; expected a JSONL file, one JSON object per line")
    rows = []
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise WorkbookError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    # Not splitlines(), which also splits at characters such as U+2028 inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise WorkbookError(
                f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}); "
                'expected one object per line, such as {"prompt": "...", "response": "..."}'
            ) from None
        if not isinstance(row, dict):
            raise WorkbookError(
                f"{path}, line {number}: expected a JSON object "
                f'such as {{"prompt": "...", "response": "..."}}, found {type(row).__name__}'
            )
        rows.append((number, row))
    return rows


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
    """Read and validate the conversations of a JSONL file, as ``chat.validate`` does.

    Args:
        markers: texts that no message may contain, usually ``chat.special_tokens(tokenizer)``.

    Raises:
        WorkbookError: the file cannot be read, has no rows, or a conversation is not valid.
    """
    found = []
    for number, row in _numbered_rows(Path(path)):
        place = f"{path}, line {number}"
        messages = conversation(row, place)
        validate(messages, place, tuple(markers))
        found.append(messages)
    if not found:
        raise WorkbookError(f"{path} has no rows; expected one JSON object per line")
    return found


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
        end = max(i for i, label in enumerate(example.labels) if label != IGNORE_INDEX) + 1
        kept.append((example.input_ids[:end], example.labels[:end]))
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
