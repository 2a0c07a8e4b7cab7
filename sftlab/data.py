"""From a JSONL file to batches: read and check conversations, tokenise and mask them, pad them.

Nothing is dropped, cut or repaired silently: a row that cannot be used is an error with its number,
or is left out by request and counted. Numbers of lines, rows and messages count from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS as INSTRUCTIONS  # for notebooks
from sftlab.chat import Message, special_tokens, validate
from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, mask_all_but_assistant


def read_jsonl(path: str | Path) -> list[dict]:
    """The rows of a JSONL file, one JSON object per line; blank lines are skipped."""
    return [row for _, row in _numbered_rows(Path(path))]


def _numbered_rows(path: Path) -> list[tuple[int, dict]]:
    """The rows of a JSONL file with the numbers of their lines."""
    if not path.is_file():
        raise WorkbookError(f"{path} is no file; expected a JSONL file, one JSON object per line")
    rows = []
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark first
    except UnicodeDecodeError as error:
        raise WorkbookError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    # Not splitlines(): inside a JSON string that would also cut at characters such as U+2028.
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
    """The messages of a row: ``{"messages": [...]}`` or ``{"prompt": ..., "response": ...}``."""
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
    """Read and check a JSONL file of conversations; see ``chat.validate`` for what is checked.

    Args:
        markers: texts that no message may contain: ``chat.special_tokens(tokenizer)``.
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
    """Tokenised rows, and the numbers (from 1) of the rows that were left out as too long."""

    examples: list[Example]
    dropped: list[int] = field(default_factory=list)


def tokenize_conversations(
    tokenizer,
    conversations: Sequence[list[Message]],
    max_length: int | None = None,
    too_long: str = "error",
) -> TokenizedConversations:
    """Check, tokenise and mask conversations.

    Args:
        max_length: the most tokens a row may have; None for no limit.
        too_long: "error" (the default), or "drop" to leave such rows out and list them. A row is
            never cut: a cut answer teaches the model to stop in mid-sentence, or has nothing left
            to train.

    Raises:
        WorkbookError: a conversation that is not valid or contains one of the tokenizer's special
            tokens, a row that is too long, or nothing to train on.
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
    """Rows of unequal length as one batch, padded on the right.

    Each row ends with its last trained token: what follows cannot change the loss. The attention
    mask comes from the lengths, not from ``ids != pad``: a pad that equals another token would
    hide it.

    Returns:
        input_ids, labels and attention_mask, each (batch, longest row).
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
    """Indices of rows, batch by batch: shuffled, but rows of like length together to save padding.

    Rows are shuffled, sorted by length within pools of eight batches, cut into batches, and the
    batches shuffled. Every row occurs exactly once; the order follows from ``lengths``, ``seed``
    and ``epoch`` alone.
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
