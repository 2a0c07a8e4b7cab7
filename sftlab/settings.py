"""All settings of a run, with their ranges, and the file that holds them.

A file such as ``configs/sft.json`` is checked before anything is loaded. A message names the
setting, its value, its range, and the nearest name where one is unknown.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sftlab._internal.paths import ROOT
from sftlab._internal.ranges import check_clipping, check_number, check_seed, check_whole
from sftlab.errors import WorkbookError
from sftlab.formats import SETTINGS as FORMATS
from sftlab.formats import DataConfig
from sftlab.lora import check_lora_settings
from sftlab.rows import no_key_twice

EXAMPLE = ROOT / "configs" / "sft.json"
PRECISIONS = ("auto", "fp32", "bf16")
MOST_EPOCHS = 100_000  # an accidental extra digit would plan batches for hours
# pydantic rules for configuration files: unknown settings and numbers in quotes are errors.
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    The defaults suit LoRA on the embedded model. Full fine-tuning needs a tenth of the learning
    rate.
    """

    learning_rate: float = 2e-3
    num_train_epochs: int = 8
    max_steps: int | None = None  # limit; the schedule is planned for the steps that are run
    batch_size: int = 16  # examples per optimizer step
    micro_batch_size: int | None = None  # examples per forward pass, to save memory; same result
    warmup_ratio: float = 0.1  # share of the steps
    lr_scheduler_type: str = "cosine"  # or "constant"
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0  # gradient clipping; 0 or None: no clipping
    precision: str = "auto"  # of the forward pass: "fp32", "bf16" (autocast), "auto" (bf16 on CUDA)
    seed: int = 0
    save_steps: int = 50  # steps between checkpoints, if there is a folder for them
    packing: bool = False  # examples of a step share sequences; same result, less padding
    packed_length: int = 1024  # with packing: tokens per sequence; micro_batch_size counts these
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_whole("num_train_epochs", self.num_train_epochs, 1, MOST_EPOCHS)
        for name in ("max_steps", "batch_size", "micro_batch_size", "save_steps", "packed_length"):
            value = getattr(self, name)
            if value is not None or name not in ("max_steps", "micro_batch_size"):
                check_whole(name, value, 1)
        check_seed(self.seed)
        check_number("learning_rate", self.learning_rate, lambda rate: 0 < rate < math.inf,
                     "it must be above 0, and finite")  # fmt: skip
        check_number("warmup_ratio", self.warmup_ratio, lambda share: 0 <= share <= 1,
                     "it is a share of the steps, from 0 to 1")  # fmt: skip
        check_number("weight_decay", self.weight_decay, lambda decay: 0 <= decay < math.inf,
                     "it must be at least 0, and finite")  # fmt: skip
        check_clipping(self.max_grad_norm)
        if self.lr_scheduler_type not in ("cosine", "constant"):
            raise WorkbookError(
                f'lr_scheduler_type is {self.lr_scheduler_type!r}; use "cosine" or "constant"'
            )
        if self.precision not in PRECISIONS:
            raise WorkbookError(
                f"precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}"
            )

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step: linear warm-up, then constant or a cosine to 0.

        Args:
            step: number of the step, from 0.
            steps: number of steps of the run.
        """
        warm = max(1, round(self.warmup_ratio * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.lr_scheduler_type == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, steps - warm)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Adapter:
    """Settings of the trained LoRA layers; see ``lora.inject_lora``."""

    target_modules: str | list[str] = "all-linear"
    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.target_modules in ("all", "all_linear", "all-linear-layers", "linear"):
            raise WorkbookError(
                f'target_modules is "{self.target_modules}"; did you mean "all-linear"?'
            )
        if isinstance(self.target_modules, str) and "," in self.target_modules:
            raise WorkbookError(
                f'target_modules is "{self.target_modules}"; write a list: ["q_proj", "v_proj"]'
            )
        check_lora_settings(self.target_modules, self.r, self.lora_alpha, self.lora_dropout)


@dataclass(frozen=True, kw_only=True)
class Run(DataConfig):
    """Settings of one training run, as read from its file."""

    model: str  # a name accepted by models.load, or a folder
    data: str  # a file of conversations; see `formats`
    output: str  # folder for checkpoints and results
    adapter: Adapter | None  # null: train all parameters
    train: TrainConfig
    heldout: str | None = None  # a file of questions that must not be among the prompts
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model", "data", "output"):
            if not getattr(self, name):
                raise WorkbookError(f'{name} is ""; it must be a name or a path')


SETTINGS = TypeAdapter(Run)
PARTS = {"": Run, "adapter": Adapter, "train": TrainConfig}
# Names of the first edition, read with a note, and of other trainers, named in the error.
FORMER = {
    "adapter": {"targets": "target_modules", "alpha": "lora_alpha", "dropout": "lora_dropout"},
    "train": {
        "epochs": "num_train_epochs", "micro_batch": "micro_batch_size", "save_every": "save_steps",
        "warmup": "warmup_ratio", "schedule": "lr_scheduler_type",
    },
}  # fmt: skip
ELSEWHERE = {
    "rank": "r", "lora_r": "r", "lora_rank": "r", "lora_target": "target_modules",
    "lora_target_modules": "target_modules", "lora_target_linear": "target_modules", "lr": "learning_rate",
    "per_device_train_batch_size": "micro_batch_size (examples per forward pass; batch_size counts those of a step)",
    "gradient_accumulation_steps": "micro_batch_size (examples per forward pass; batch_size counts those of a step)",
    "micro_batch_size_per_gpu": "micro_batch_size", "n_epochs": "num_train_epochs", "optim": "= the optimizer is AdamW",
    "num_epochs": "num_train_epochs", "sequence_len": "max_length", "cutoff_len": "max_length",
    "max_seq_length": "max_length", "max_seq_len": "max_length", "warmup_steps": "warmup_ratio (a share of the steps)",
    "bf16": 'precision ("bf16")', "fp16": 'precision ("bf16")', "base_model": "model", "model_name_or_path": "model",
    "output_dir": "output", "dataset": "data", "datasets": "data", "train_file": "data", "dataset_name": "data",
    "eval_steps": "= a run does not evaluate", "eval_strategy": "= a run does not evaluate", "clip_grad": "max_grad_norm", "gradient_clipping": "max_grad_norm", "random_seed": "seed",
    "learning_rate_multiplier": "learning_rate", "use_rslora": "= the factor is α/r",
    "train_on_inputs": 'answers (prompts are never trained; "all", "last" or "each" answer)', "mask_history": 'answers ("last")',
    "completion_only_loss": "answers (prompts are never trained)", "assistant_only_loss": "answers (prompts are never trained)",
    "sample_packing": "packing", "packing_length": "packed_length",
}  # fmt: skip


def read_run(path: str | Path, notes: list[str] | None = None) -> Run:
    """Read and validate the file of a run. Paths in it are relative to its folder.

    Args:
        notes: a list that receives one sentence for each former name of a setting.

    Raises:
        WorkbookError: the file cannot be read, is not JSON, or has an unknown, missing or invalid
            setting, which the message names.
    """
    path = Path(path)
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")  # as some editors write
    except OSError as error:
        raise WorkbookError(f"{path} cannot be read: {error.strerror}; give a run's file") from None
    try:
        run = SETTINGS.validate_json(_renamed(path, text, [] if notes is None else notes))
    except ValidationError as error:
        raise WorkbookError(_told(path, error.errors()[0])) from None
    if "://" in run.data:
        raise WorkbookError(f'{path}: data is "{run.data}", an address; download the file first')
    here = path.resolve().parent
    placed: dict[str, Any] = {
        name: str(here / getattr(run, name))
        for name in ("data", "output", "heldout", "chat_template_path")
        if getattr(run, name)
    }
    return replace(run, **placed, model=str(here / run.model) if _is_folder(here / run.model) else run.model)  # fmt: skip


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or a null character
        return False


def is_run(path: Path) -> bool:
    """Return whether a file looks like that of a run, and not like data."""
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > 1_000_000:
        return False
    try:
        found = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return False
    parts = {"data", "dataset", "output", "train", "adapter"}
    return (
        isinstance(found, dict) and isinstance(found.get("model"), str) and bool(parts & set(found))
    )


def _renamed(path: Path, text: bytes, notes: list[str]) -> bytes | str:
    """Return the text with former names of settings replaced by today's."""
    try:
        found = json.loads(text, object_pairs_hook=no_key_twice)
    except json.JSONDecodeError:
        return text  # pydantic says what is wrong
    except (ValueError, RecursionError) as error:
        raise WorkbookError(f"{path}: {error}") from None
    for part, names in FORMER.items():
        inside = found.get(part) if isinstance(found, dict) else None
        if not isinstance(inside, dict):
            continue
        for old, new in names.items():
            if old in inside and new not in inside:
                inside[new] = inside.pop(old)
                notes.append(f'"{part}": "{old}" is now called "{new}"')
    return json.dumps(found) if notes else text


def _told(path: Path, found: Any) -> str:
    """Return one sentence for a pydantic error: the file, the setting and the expected value."""
    steps = [str(step) for step in found["loc"]]
    part = steps[0] if steps and steps[0] in PARTS and len(steps) > 1 else ""
    name = "".join(steps[1:2] if part else steps[:1])
    place = f'{path}, "{part}"' if part else str(path)
    settings = {field.name: str(field.type) for field in fields(PARTS[part])}
    if found["type"] == "json_invalid":
        return f"{path} is no valid JSON ({found['ctx']['error']}); see configs/sft.json"
    if found["type"] == "value_error":  # raised by __post_init__: a value out of range
        return f"{path}: {found['ctx']['error']}"
    if found["type"] == "unexpected_keyword_argument":
        near = get_close_matches(name, settings, n=1, cutoff=0.6)
        meant = f'did you mean "{near[0]}"? ' if near else ""
        if name in ELSEWHERE:
            meant = (
                ELSEWHERE[name].removeprefix("= ") + ". "
                if ELSEWHERE[name].startswith("= ")
                else f"here it is {ELSEWHERE[name]}. "
            )
        elif not near:
            elsewhere = [f'"{p or "the file itself"}"' for p, kind in PARTS.items()
                         if name in {f.name for f in fields(kind)}]  # fmt: skip
            meant = f"it belongs into {elsewhere[0]}. " if elsewhere else ""
        return f'{place}: unknown setting "{name}"; {meant}Known: {", ".join(sorted(settings, key=lambda known: known in FORMATS))}'
    if not name:
        return f"{path}: expected an object in braces, found {json.dumps(found['input'])}"
    if found["type"] == "missing":
        return f'{place}: the setting "{name}" is missing'
    wanted = found["msg"].removeprefix("Input should be ")
    wanted += " or null" if "None" in settings[name] else ""
    return f'{place}: "{name}" is {json.dumps(found["input"])}; expected {wanted}'
