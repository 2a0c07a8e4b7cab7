"""The labels that libraries make of the same conversations, and the templates that part them."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pandas as pd

from sftlab.chat import Message
from sftlab.classroom.views import visible
from sftlab.data import DataConfig
from sftlab.errors import WorkbookError
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


def from_transformers(tokenizer, messages: Sequence[Message]) -> Example:
    """Return the example given by the assistant mask of transformers."""
    with quietly():
        found = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return Example(found["input_ids"], [token if on else IGNORE_INDEX for token, on in pairs])


# --- tables ----------------------------------------------------------------------------------


def _trained(example: Example) -> set[int]:
    return {k for k, label in enumerate(example.labels) if label != IGNORE_INDEX and k}


def agreement(tokenizer, made: Made) -> pd.DataFrame:
    """Return, for each way, how its labels differ from those of the first, in conversations and tokens."""
    first, lines = next(iter(made.values())), {}
    for way, examples in made.items():
        pairs = [(_trained(a), _trained(b), a) for a, b in zip(first, examples, strict=True)]
        extra = [e.input_ids[k] for a, b, e in pairs for k in sorted(b - a)]
        words = [visible(tokenizer.decode([token])) for token in extra]
        whole = pd.Series([word for word in words if "�" not in word], dtype=object)
        common = ", ".join(whole.value_counts().index[:3])
        lines[way] = {
            "conversations equal": f"{count_equal(first, examples)} of {len(pairs)}",
            "tokens trained": f"{sum(len(b) for _, b, _ in pairs) / sum(len(e) for e in examples):.0%}",
            "only here": len(extra),
            "not here": sum(len(a - b) for a, b, _ in pairs),
            "most frequent only here": common or "–",
        }
    return pd.DataFrame(lines).T


def token_by_token(tokenizer, made: Mapping[str, Example]) -> pd.DataFrame:
    """Return a row for each token of one conversation: a dot for every way that trains it."""
    ids = next(iter(made.values())).input_ids
    chosen = {way: _trained(example) for way, example in made.items()}
    marks = {
        way: ["●" if k in kept else "" for k in range(len(ids))] for way, kept in chosen.items()
    }
    return pd.DataFrame(marks, index=[visible(tokenizer.decode([token])) for token in ids])


def count_equal(one: Sequence[Example], other: Sequence[Example]) -> int:
    """Return in how many conversations the same tokens are trained."""
    return sum(_trained(a) == _trained(b) for a, b in zip(one, other, strict=True))


def trained_text(tokenizer, example: Example) -> str:
    """Return the trained tokens of an example, its runs separated by a bar."""
    runs, before = [], False
    for token, label in zip(example.input_ids, example.labels, strict=True):
        if label != IGNORE_INDEX:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = label != IGNORE_INDEX
    return " | ".join(visible(tokenizer.decode(run)) for run in runs) or "nothing"


def text_or_error(
    tokenizer, make: Callable[[list[Message]], Example], messages: list[Message]
) -> str:
    """Return the trained text of a way to make an example, or the beginning of its error."""
    try:
        return trained_text(tokenizer, make(messages))
    except (WorkbookError, ValueError, RuntimeError) as error:
        return f"error: {str(error).split(' (')[0].split(', so')[0]}"


def defaults() -> pd.DataFrame:
    """Return what each trainer does with a conversation by default, and how we know it."""
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    tried = f"TRL {version('trl')}"
    fields = SFTConfig.__dataclass_fields__
    only = fields["assistant_only_loss"].default
    length, mode = fields["max_length"].default, fields["truncation_mode"].default
    mask = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    read = "its source was read, not run"
    lines = {
        f"{tried}, messages": (
            "run here",
            f"assistant_only_loss={only}: " + ("answers" if only else "every token"),
            f"max_length={length}, {mode}; drops fully masked examples",
        ),
        f"{tried}, prompt and completion": (
            "run here",
            "the completion, with what the template writes after it",
            "as above",
        ),
        f"transformers {version('transformers')}": (
            "run here",
            f"return_assistant_tokens_mask={mask['return_assistant_tokens_mask'].default}; makes no labels",
            f"truncation={mask['truncation'].default}",
        ),
        "torchtune": (
            read,
            "per message; Llama-3 header trained, final end-of-turn token masked",
            "forces an end-of-turn token at the cut",
        ),
        "axolotl": (read, "finds spans; train_on_eos=turn", "drops examples that are too long"),
        "LLaMA-Factory": (
            read,
            "pairs of turns; mask_history: last turn only",
            "cuts question and answer in proportion",
        ),
        "nanochat": (read, "per message; end-of-turn token trained, header not", "first 2048 tokens"),
        f"sftlab {version('sftlab')}": (
            "run here",
            "every answer with its end-of-turn token",
            f"too_long={DataConfig().too_long!r}: an error with the number of the example",
        ),
    }  # fmt: skip
    return pd.DataFrame(lines, index=["how we know", "trained by default", "too long"]).T
