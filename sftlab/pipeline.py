"""The training pipeline from one configuration file: data, tokens, batches, training, adapter.

    python -m sftlab train configs/sft.json                                    # one process
    torchrun --nproc_per_node 2 -m sftlab train configs/sft.json               # two processes
    accelerate launch --multi_gpu --num_processes 2 -m sftlab train configs/sft.json    # the same

Accelerate connects the processes and chooses the device: GPUs if available, otherwise CPUs. The
same file works everywhere. Paths in it are relative to the folder of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from sftlab.architectures import Limits, left_out, limits
from sftlab.chat import end_of_turn_id
from sftlab.checkpoints import check_folder
from sftlab.data import EACH, ExampleMaker, read_examples
from sftlab.distributed import rank_and_world_size
from sftlab.errors import WorkbookError
from sftlab.findings import format_findings
from sftlab.formats import ReadingReport, read_conversations
from sftlab.lora import inject_lora
from sftlab.masking import Example
from sftlab.models import load
from sftlab.preflight import held_out_questions, leak
from sftlab.results import data_record, save_result
from sftlab.settings import Run, read_run
from sftlab.survey import TextSurvey
from sftlab.templates import training_tokenizer, with_clock_at, writes_the_date
from sftlab.train import History, sft_train

KEPT = "the training is done and kept in the checkpoint"
BEGUN = "begun.txt"  # in the output folder, if the chat template writes the date


def load_examples(run: Run, tokenizer, report: ReadingReport, limits: Limits) -> list[Example]:
    """Return the run's examples; ``tokenizer`` has the chat template for training.

    Raises:
        WorkbookError: a row cannot be used; the message lists the first ten.
    """
    maker = ExampleMaker(tokenizer, run, report, limits)
    questions = held_out_questions(run.heldout) if run.heldout else []
    survey, examples = TextSurvey(questions), []
    for conversation, example in read_examples(run.data, maker, report):
        examples.append(example)
        if questions:
            survey.add(conversation.messages, conversation.place)
    report.raise_if_refused()
    if survey.leaked:
        print(format_findings([leak(survey, len(questions))]), file=sys.stderr)
    if maker.answers != "all" and run.answers == "auto":
        report.notes[EACH] = 0
    return examples


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
    report = ReadingReport(run.data)
    for _ in read_conversations(run.data, run, report):  # takes seconds; loading can take minutes
        pass
    report.raise_if_refused()
    source = data_record(run.data, report.rows)
    model, tokenizer = load_start(run)
    if device is not None:
        model.to(device)
    folder = Path(run.output)
    main_process = rank_and_world_size()[0] == 0
    trained, notes = training_tokenizer(tokenizer, run.chat_template_path)
    if writes_the_date(trained):
        trained = with_clock_at(trained, _begun(folder))
    report = ReadingReport(run.data)
    examples = load_examples(run, trained, report, limits(model))
    unreached = left_out(model, run.adapter.target_modules) if run.adapter else []
    for line in (*notes, *report.conversions(), *unreached) if main_process else ():
        print(line, file=sys.stderr)
    history = sft_train(
        model, examples, run.train, tokenizer.pad_token_id or 0, folder=folder, progress=progress,
        name=_names(run, trained, source), tokenizer=trained,
    )  # fmt: skip
    if history.finished and main_process:
        settings = asdict(run) | {"data": source}
        _store(model, tokenizer, settings, history, folder, [end_of_turn_id(trained)])
    return history


def _names(run: Run, tokenizer, source: dict) -> dict:
    """Return what is named when a checkpoint turns out to belong to another run."""
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    return {"model": run.model, "data": f"{source['file']}, sha256 {source['sha256']}",
            "template": f"sha256 {template}", "max_length": run.max_length, "answers": run.answers}  # fmt: skip


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


def _store(
    model, tokenizer, settings: dict, history: History, folder: Path, end_ids: Sequence[int]
) -> None:
    """Save the result and its history; on an error, the checkpoint still holds the training."""
    record = {
        "losses": history.losses,
        "trained_tokens": history.tokens,
        "seconds": round(history.seconds, 3),
        "processes": rank_and_world_size()[1],
        "device": str(model.device),
    }
    adapter = settings["adapter"] is not None
    try:
        save_result(
            model, tokenizer, folder / ("adapter" if adapter else "model"), base_name=settings["model"],
            run=settings, history=record, end_ids=end_ids, adapter=adapter,
        )  # fmt: skip
        (folder / "history.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    except WorkbookError as error:
        raise WorkbookError(f"{error}; {KEPT}") from error
    except OSError as error:
        raise WorkbookError(
            f"the history cannot be written to {folder} ({error.strerror}): free some space and run "
            f"again; {KEPT}"
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
        notes: list[str] = []
        run = read_run(chosen.config, notes)
        if main_process and notes:
            print(*notes, sep="\n", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main())
