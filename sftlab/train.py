"""The SFT training loop: batches, optimizer steps, checkpoints, resuming, several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sftlab._internal.interrupts import DeferredInterrupt
from sftlab._internal.progress_bar import ProgressBar
from sftlab._internal.random_state import own_random_state
from sftlab._internal.ranges import check_clipping, check_whole
from sftlab.checkpoints import check_folder, load_checkpoint, save_checkpoint
from sftlab.data import batch_order, collate
from sftlab.distributed import (
    add_gradients,
    rank_and_world_size,
    sum_number_over_processes,
    sum_over_processes,
)
from sftlab.errors import WorkbookError
from sftlab.loss import model_loss, trained_tokens
from sftlab.masking import Example
from sftlab.packing import check_fit, check_model, collate_packed
from sftlab.preflight import BROKEN, LOSS, format_findings, preflight
from sftlab.run_identity import describe, starts_of
from sftlab.settings import TrainConfig

SHORT = 128  # tokens per sequence; plain and fused attention are equally fast at about 256


@dataclass
class History:
    """The record of a run, with one loss per optimizer step."""

    losses: list[float] = field(default_factory=list)  # nats per trained token
    tokens: int = 0  # number of trained tokens so far
    seconds: float = 0.0  # time in the steps, without checkpoints and ``on_step``
    finished: bool = False  # False after an interrupt; call again with the same folder to resume


def train_step(
    model,
    batch: dict[str, torch.Tensor],
    optimizer,
    max_grad_norm: float | None = 1.0,
    micro_batch_size: int | None = None,
    precision: str = "fp32",
) -> float:
    """Run one optimizer step on one batch from ``data.collate`` or ``packing.collate_packed``.

    The batch may be split into micro-batches, and its examples may be distributed over processes.
    The summed losses are divided by the number of trained tokens of the *whole* batch, so neither
    split changes the gradient.

    Args:
        max_grad_norm: gradients with a larger norm are scaled down to it; 0 or None for no
            clipping.
        micro_batch_size: examples per forward pass; None for the whole batch.
        precision: "fp32", "bf16" or "auto"; see ``precision_of``.

    Returns:
        The loss of the whole batch before the step, in nats per trained token.
    """
    check_clipping(max_grad_norm)
    if micro_batch_size is not None:
        check_whole("micro_batch_size", micro_batch_size, 1)
    optimizer.zero_grad()
    trained = sum_over_processes(trained_tokens(batch["labels"]))  # over all processes
    rows = len(batch["labels"])  # of this process
    loss = 0.0
    size = micro_batch_size or max(rows, 1)
    for start in range(0, rows, size):
        part = {name: tensor[start : start + size] for name, tensor in batch.items()}
        with _computing(trained.device, precision, part["input_ids"].shape[1]):
            share = model_loss(model, part)[0] / trained
        share.backward()
        loss += share.item()
    trainable = [p for p in model.parameters() if p.requires_grad]
    add_gradients(trainable)  # summed over all processes
    if max_grad_norm:
        torch.nn.utils.clip_grad_norm_(trainable, max_grad_norm)
    optimizer.step()
    return sum_number_over_processes(loss, trained.device)


def train_loop(
    model,
    batches: Iterable[dict[str, torch.Tensor]],
    optimizer,
    rates: Sequence[float],
    on_step: Callable[[int, float], None] | None = None,
    micro_batch_size: int | None = None,
    max_grad_norm: float | None = 1.0,
    precision: str = "fp32",
) -> list[float]:
    """Run one optimizer step on each batch, in the given order.

    Args:
        batches: any iterable. A generator creates each batch when it is needed.
        rates: the learning rate of each step, one per batch.
        on_step: called as ``on_step(steps_done, loss)`` after each step. It may use the model, for
            example to generate text.

    Returns:
        The losses, one per step. The model is in eval mode afterwards, even if ``on_step`` raises
        an exception.
    """
    losses = []
    try:
        for batch, rate in zip(batches, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()  # in every step because on_step may have switched to eval mode
            loss = train_step(model, batch, optimizer, max_grad_norm, micro_batch_size, precision)
            losses.append(loss)
            if on_step:
                on_step(len(losses), loss)
    finally:
        model.eval()
    return losses


def sft_train(
    model,
    examples: Sequence[Example],
    config: TrainConfig = TrainConfig(),
    pad_id: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    stop_after_steps: int | None = None,
    check: bool = True,
    name: str | Mapping[str, object] | None = None,
    tokenizer=None,
) -> History:
    """Train the parameters of ``model`` that require gradients; all others stay unchanged.

    An interrupt (the stop button) lets the current step finish, saves a checkpoint if there is a
    folder, and returns with ``finished`` False. The model is in eval mode afterwards. With several
    processes (``sftlab.distributed``), each takes its share of every batch. The first process shows
    the progress bar and writes the checkpoints; all processes read them.

    Args:
        pad_id: any token id; padding is neither attended to nor trained.
        on_step: called as ``on_step(steps_done, loss)`` after each step, and once before the first
            step with a loss of NaN.
        folder: folder for checkpoints. Called again with the same folder, an interrupted run
            resumes and ends with exactly the same weights as an uninterrupted one.
        progress: show a progress bar with the loss, trained tokens/s and remaining time.
        stop_after_steps: pause after this many steps, counted from the beginning of the run; 0
            trains no step.
        check: inspect the examples and adapters before the first step and print what is broken.
            ``sftlab.preflight`` reports more.
        name: name of the model, or of model, data and template, used in error messages that compare
            two runs.
        tokenizer: used by ``check`` alone, which then knows the end-of-turn token.

    Raises:
        WorkbookError: there is nothing to train, the model's architecture cannot be trained here,
            the loss is not finite, or a checkpoint is damaged, belongs to another run or cannot be
            written.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise WorkbookError(
            "no parameter requires a gradient, so nothing would be trained; inject LoRA, or "
            "unfreeze the model with  model.requires_grad_(True)"
        )
    if stop_after_steps is not None:
        check_whole("stop_after_steps", stop_after_steps, 0)
    if not examples:
        raise WorkbookError("there is no row to train on; give at least one example")
    if config.packing:
        check_fit(examples, config.packed_length)
        check_model(model, examples)
    plan = planned_batches(examples, config)
    optimizer = torch.optim.AdamW(  # fused: reads and writes each tensor once
        trainable.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    history = History()
    checkpoint, run = Path(folder) / "checkpoint.pt" if folder else None, {}
    if checkpoint:
        check_folder("folder", checkpoint.parent)
        if checkpoint.with_name("snapshot.pt").exists() and not checkpoint.exists():
            raise WorkbookError(
                f"{checkpoint.parent} holds a run that version 0.1 stopped (snapshot.pt): finish it with "
                "that version, or give another folder"
            )
        settings = asdict(config) | {"precision": precision_of(config.precision, model.device)}
        run = describe(model, trainable, examples, settings, len(plan), name)
        if checkpoint.exists():
            found, run = load_checkpoint(checkpoint, trainable, optimizer, run, starts_of(model))
            history = History(**found)
        starts_of(model).add(run["identity"]["start"])
    first, last = (
        len(history.losses),
        len(plan) if stop_after_steps is None else min(stop_after_steps, len(plan)),
    )
    main = rank_and_world_size()[0] == 0
    if (
        sum_number_over_processes(first, model.device) != first * rank_and_world_size()[1]
    ):  # otherwise they would wait for each other forever
        raise WorkbookError(
            f"the processes do not find the same checkpoint at {checkpoint}; give a folder that all of "
            "them can see"
        )
    gate = DeferredInterrupt()

    def save() -> None:
        if checkpoint and main:
            save_checkpoint(checkpoint, trainable, optimizer, asdict(history), run)

    def record(_: int, loss: float) -> None:
        done = len(history.losses) + 1
        if not math.isfinite(loss):
            raise WorkbookError(
                f"step {done}: the loss is {loss}; the learning rate {config.learning_rate} is "
                "probably too high: load the model anew and train it with a lower one"
            )
        history.losses.append(loss)
        history.tokens += sum(examples[row].trained for row in plan[done - 1])
        history.seconds += time.perf_counter() - gate.closed_at
        gate.open()
        speed = history.tokens / max(history.seconds, 1e-9)
        bar.update(note=f"loss {loss:.2f} · {speed:,.0f} trained tokens/s")
        if on_step:
            on_step(done, loss)
        if done % config.save_steps == 0:
            save()

    with ProgressBar(len(plan), "steps", first=first, shown=progress and main) as bar, gate:
        try:
            if check and not first:
                broken = [f for f in preflight(model, tokenizer, examples) if f.state == BROKEN]
                if unusable := [f for f in broken if f.guard == LOSS]:
                    raise WorkbookError(unusable[0].evidence)
                if broken and main:
                    print(format_findings(broken))
            if on_step and not first:
                on_step(0, math.nan)
            steps = range(first, last)
            rates = [config.learning_rate_at(step, len(plan)) for step in steps]
            with own_random_state(device=model.device) as reseed:
                batches = _batches(
                    examples, plan, steps, config, pad_id, model.device, gate, reseed
                )
                train_loop(model, batches, optimizer, rates, record, config.micro_batch_size,
                           config.max_grad_norm, config.precision)  # fmt: skip
        except KeyboardInterrupt:
            pass
        finally:
            model.eval()
        history.finished = len(history.losses) == len(plan)
        bar.done = _told(history, len(plan), len(examples), checkpoint)
        save()
    return history


def planned_batches(examples: Sequence[Example], config: TrainConfig) -> list[list[int]]:
    """Return the example indices of every batch of a run; each epoch is shuffled differently."""
    lengths = [len(example) for example in examples]
    planned = (
        rows
        for epoch in range(config.num_train_epochs)
        for rows in batch_order(lengths, config.batch_size, config.seed, epoch)
    )
    return list(islice(planned, config.max_steps))


def _batches(examples, plan, steps, config, pad_id, device, gate, reseed) -> Iterator[dict]:
    """Yield this process's part of each planned batch."""
    index, count = rank_and_world_size()
    for step in steps:
        chosen = [examples[row] for row in plan[step]]
        batch = (
            collate_packed(chosen, config.packed_length, pad_id)
            if config.packing
            else collate(chosen, pad_id)
        )
        batch = {name: _moved(tensor[index::count], device) for name, tensor in batch.items()}
        # The step number decides the dropout, so a resumed run uses the same masks. Each
        # process uses its own because it has other examples.
        own = f":{index}" if index else ""
        reseed(Random(f"{config.seed}:{step}{own}").getrandbits(63))
        gate.close()
        yield batch


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to the device.

    On CUDA, a copy from pinned memory does not block the next step.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def precision_of(precision: str, device: torch.device) -> str:
    """Return the precision to compute with: "auto" is bf16 on a GPU that supports it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


@contextmanager
def _computing(device: torch.device, precision: str, length: int) -> Iterator[None]:
    """Set the precision of a forward pass: bf16 autocast if requested; weights keep their dtype.

    On a CPU, the backward pass of fused attention in bfloat16 runs at half the speed of plain
    attention as long as sequences are short. Both give the same result up to rounding.
    """
    on = precision_of(precision, device) == "bf16"
    plain = on and device.type == "cpu" and length <= SHORT
    attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on), attention:
        yield


def _told(history: History, steps: int, rows: int, checkpoint: Path | None) -> str:
    """Return the line that remains when the progress bar closes."""
    if history.finished:
        first, last = history.losses[0], history.losses[-1]
        return f"{steps} steps on {rows} rows: loss {first:.2f} → {last:.2f}"
    again = "; run again to go on" if checkpoint else ""
    return f"stopped after {len(history.losses)} of {steps} steps{again}"


if __name__ == "__main__":  # python -m sftlab.train RUN.json is the same as python -m sftlab train
    import runpy

    runpy.run_module("sftlab.pipeline", run_name="__main__")
