"""The training pipeline from one configuration file: data, tokens, batches, training, adapter.

    python -m sftlab train configs/sft.json                                    # one process
    torchrun --nproc_per_node 2 -m sftlab train configs/sft.json               # two processes
    accelerate launch --multi_gpu --num_processes 2 -m sftlab train configs/sft.json    # the same

Accelerate connects the processes and chooses the device: GPUs if available, otherwise CPUs. The
same file works everywhere. Paths in it are relative to the folder of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sftlab._internal.paths import ROOT
from sftlab._internal.ranges import check_whole
from sftlab.adapters import save_adapter
from sftlab.checkpoints import check_folder
from sftlab.data import TokenizedConversations, load_conversations, tokenize_conversations
from sftlab.distributed import rank_and_world_size
from sftlab.errors import WorkbookError
from sftlab.lora import check_lora_settings, inject_lora
from sftlab.models import load
from sftlab.templates import with_clock_at, writes_the_date
from sftlab.train import STRICT, History, TrainConfig, sft_train

BEGUN = "begun.txt"  # in the output folder, if the chat template writes the date
EXAMPLE = ROOT / "configs" / "sft.json"


@dataclass(frozen=True)
class Adapter:
    """Settings of the trained LoRA layers; see ``lora.inject_lora``."""

    target_modules: str | list[str] = "all-linear"
    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_lora_settings(self.target_modules, self.r, self.lora_alpha, self.lora_dropout)


@dataclass(frozen=True)
class Run:
    """Settings of one training run, as read from its configuration file."""

    model: str  # a name accepted by models.load, or a folder
    data: str  # JSONL file of pairs or conversations
    output: str  # folder for checkpoints and results
    adapter: Adapter | None  # null: train all parameters
    train: TrainConfig
    max_length: int | None = None  # tokens of an example; a longer one is an error
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("model", "data", "output"):
            if not getattr(self, name):
                raise WorkbookError(f'{name} is ""; it must be a name or a path')
        if self.max_length is not None:
            check_whole("max_length", self.max_length, 1)


SETTINGS = TypeAdapter(Run)
PARTS = {"": Run, "adapter": Adapter, "train": TrainConfig}


def read_run(path: str | Path) -> Run:
    """Read and validate the configuration file of a run.

    Raises:
        WorkbookError: the file cannot be read, is not JSON, or has an unknown, missing or invalid
            setting, which the message names.
    """
    path = Path(path)
    try:
        run = SETTINGS.validate_json(path.read_bytes())
    except OSError as error:
        raise WorkbookError(f"{path} cannot be read: {error.strerror}; give a run's file") from None
    except ValidationError as error:
        raise WorkbookError(_told(path, error.errors()[0])) from None
    here = path.resolve().parent
    return replace(
        run,
        data=str(here / run.data),
        output=str(here / run.output),
        model=str(here / run.model) if (here / run.model).is_dir() else run.model,
    )


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
        near = get_close_matches(name, settings, n=1, cutoff=0.5)
        meant = f'did you mean "{near[0]}"? ' if near else ""
        return f'{place}: unknown setting "{name}"; {meant}Known: {", ".join(settings)}'
    if not name:
        return f"{path}: expected an object in braces, found {json.dumps(found['input'])}"
    if found["type"] == "missing":
        return f'{place}: the setting "{name}" is missing'
    wanted = found["msg"].removeprefix("Input should be ")
    wanted += " or null" if "None" in settings[name] else ""
    return f'{place}: "{name}" is {json.dumps(found["input"])}; expected {wanted}'


def load_rows(run: Run, tokenizer) -> TokenizedConversations:
    """Return the run's data, validated, tokenized and masked."""
    return tokenize_conversations(tokenizer, load_conversations(run.data), run.max_length)


def load_start(run: Run):
    """Return the model before its first training step, and its tokenizer."""
    model, tokenizer = load(run.model)
    if run.adapter is None:
        return model.requires_grad_(True), tokenizer
    return inject_lora(model, **asdict(run.adapter), seed=run.train.seed), tokenizer


def train_run(run: Run, device: str | None = None, progress: bool = True) -> History:
    """Train as configured, resume from a checkpoint if there is one, and save the result.

    The output folder then contains ``adapter/`` (or ``model/`` if all parameters were trained) and
    ``history.json``.

    Raises:
        WorkbookError: as in ``sft_train``. Before the model is loaded: the data file is missing or
            invalid, or the output folder cannot be written to.
    """
    check_folder("output", run.output)
    conversations = load_conversations(run.data)
    model, tokenizer = load_start(run)
    if device is not None:
        model.to(device)
    folder = Path(run.output)
    dated = tokenizer
    if writes_the_date(tokenizer):
        dated = with_clock_at(tokenizer, _begun(folder))
    rows = tokenize_conversations(dated, conversations, run.max_length).examples
    pad_id = tokenizer.pad_token_id or 0
    history = sft_train(
        model, rows, run.train, pad_id, folder=folder, progress=progress, name=run.model
    )
    if history.finished and rank_and_world_size()[0] == 0:
        _store(model, tokenizer, run, history, folder)
    return history


def _begun(folder: Path) -> datetime:
    """Return the start time of the run, which a template that writes the date uses until the end.

    With the current date instead, a run resumed on another day would see other examples.
    """
    path = folder / BEGUN
    if not path.exists():
        new = path.with_suffix(f".{rank_and_world_size()[0]}.new")
        new.write_text(datetime.now().isoformat(timespec="seconds") + "\n", encoding="utf-8")
        os.replace(new, path)
    moment = datetime.fromisoformat(path.read_text(encoding="utf-8").strip())
    if rank_and_world_size()[0] == 0:
        print(
            f"the chat template writes the date: this run keeps that of its start, {moment:%d %b %Y} "
            f"({BEGUN} in {folder})",
            file=sys.stderr,
        )
    return moment


def _store(model, tokenizer, run: Run, history: History, folder: Path) -> None:
    record = {
        "losses": history.losses,
        "trained_tokens": history.tokens,
        "seconds": round(history.seconds, 3),
        "processes": rank_and_world_size()[1],
        "device": str(model.device),
    }
    try:
        if run.adapter is None:
            model.save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")
        else:
            save_adapter(model, folder / "adapter", base_name=run.model)
        (folder / "history.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    except Exception as error:  # safetensors raises its own exception type on a full disk
        raise WorkbookError(
            f"the result cannot be written to {folder} ({str(error).splitlines()[0]}): free some "
            "space and run again; the training is done and kept in the checkpoint"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as configured in a file; return the exit status, 0 if the run is finished."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab train", description="Train as a file says; see configs/sft.json."
    )
    parser.add_argument("config", type=Path, help="the run's file")
    chosen = parser.parse_args(arguments)
    main_process = os.environ.get("RANK", "0") == "0"
    try:
        run = read_run(chosen.config)
        device = _connect()
        if main_process:
            print(f"{rank_and_world_size()[1]} process(es) on {device.type}", file=sys.stderr)
        history = train_run(run, device, progress=main_process)
    except WorkbookError as error:
        if main_process:
            print(error, file=sys.stderr)
        return 1
    finally:
        _disconnect()
    return 0 if history.finished else 1


def _connect():
    """Connect the processes with Accelerate, if there are several, and return the device."""
    import torch
    from accelerate import PartialState

    if torch.distributed.is_available():
        # Import this before the process group exists. Its default arguments would
        # otherwise keep the group alive, and with it threads that abort the program at
        # exit.
        import torch.distributed.nn
    if os.environ.get("MASTER_ADDR") and "RANK" not in os.environ:
        print(
            "accelerate launch --cpu starts one process, whatever number it is given; for several "
            "use  torchrun --nproc_per_node 2 -m sftlab train",
            file=sys.stderr,
        )
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=cpu or not torch.accelerator.is_available()).device


def _disconnect() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
