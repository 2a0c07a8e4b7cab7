"""The labels that TRL makes of the same conversations, and how they differ."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pandas as pd

from sftlab.data import DataConfig
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

Made = Mapping[str, Sequence[Example]]  # way -> its examples of the same conversations


@contextmanager
def quietly() -> Iterator[str]:
    """Silence the progress bars and warnings of TRL and datasets; yield a folder that is removed."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("trl", "transformers")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield folder
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def from_trl(model, tokenizer, rows: Sequence[dict], **settings: Any) -> list[Example]:
    """Return the examples that TRL's SFTTrainer makes of the rows; nothing is trained."""
    with quietly() as folder:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # takes seconds

        config = SFTConfig(output_dir=folder, use_cpu=True, report_to="none", **settings)
        data = Dataset.from_list(list(rows))
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)
    return [Example(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


# --- tables ----------------------------------------------------------------------------------


def _trained(example: Example, but_last: bool = False) -> set[int]:
    """Return the places of the trained tokens; the first token never has a loss."""
    return {
        k for k in range(1, len(example) - but_last) if example.labels[k] != IGNORE_INDEX
    }  # fmt: skip


def count_equal(one: Sequence[Example], other: Sequence[Example]) -> tuple[int, int]:
    """Return in how many conversations the same tokens are trained: whole, and without the last token."""
    whole, but = (
        sum(_trained(a, left) == _trained(b, left) for a, b in zip(one, other, strict=True))
        for left in (False, True)
    )
    return whole, but


def agreement(made: Made) -> pd.DataFrame:
    """Return, for each way, how its labels differ from those of the first, in conversations and tokens."""
    first, lines = next(iter(made.values())), {}
    for way, examples in made.items():
        pairs = [(_trained(a), _trained(b)) for a, b in zip(first, examples, strict=True)]
        whole, but = count_equal(first, examples)
        lines[way] = {
            "conversations equal": f"{whole} of {len(pairs)}",
            "without the last token": f"{but} of {len(pairs)}",
            "tokens trained": f"{sum(len(b) for _, b in pairs) / sum(len(e) for e in examples):.0%}",
            "only here": sum(len(b - a) for a, b in pairs),
            "not here": sum(len(a - b) for a, b in pairs),
        }
    return pd.DataFrame(lines).T


def defaults() -> pd.DataFrame:
    """Return what each installed trainer does with a conversation by default."""
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    fields = SFTConfig.__dataclass_fields__
    only = fields["assistant_only_loss"].default
    length, mode = fields["max_length"].default, fields["truncation_mode"].default
    mask = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    lines = {
        f"TRL {version('trl')}, messages": (
            f"assistant_only_loss={only}: " + ("answers" if only else "every token"),
            f"max_length={length}, {mode}",
        ),
        f"TRL {version('trl')}, prompt and completion": (
            "the completion, with what the template writes after it",
            "as above",
        ),
        f"transformers {version('transformers')}": (
            f"return_assistant_tokens_mask={mask['return_assistant_tokens_mask'].default}; makes no labels",
            f"truncation={mask['truncation'].default}",
        ),
        f"sftlab {version('sftlab')}": (
            "every answer with its end-of-turn token",
            f"too_long={DataConfig().too_long!r}: an error with the number of the example",
        ),
    }  # fmt: skip
    return pd.DataFrame(lines, index=["trained by default", "too long"]).T
