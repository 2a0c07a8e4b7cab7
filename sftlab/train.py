"""The SFT loop: batches, one optimiser step at a time, checkpoints, resume, several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

import torch
from pydantic import ConfigDict
from torch.nn.attention import SDPBackend, sdpa_kernel

from sftlab._internal.interrupts import DeferredInterrupt
from sftlab._internal.progress_bar import ProgressBar
from sftlab._internal.random_state import own_random_state
from sftlab._internal.ranges import check_clipping, check_number, check_seed, check_whole
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
from sftlab.preflight import BROKEN, format_findings, preflight
from sftlab.run_identity import describe, starts_of

PRECISIONS = ("auto", "fp32", "bf16")
MOST_EPOCHS = 100_000  # a slip of the finger more would plan batches for hours
SHORT = 128  # tokens of a row; plain and fused attention take equally long at about 256
# Of a configuration file, for pydantic: no unknown setting, and "8" is no number.
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class TrainConfig:
    """What decides a run.

    The defaults suit LoRA on the embedded model; full fine-tuning wants a tenth of the rate.
    """

    learning_rate: float = 2e-3
    num_train_epochs: int = 8  # passes over the data
    max_steps: int | None = None  # stop earlier; the schedule is planned for the steps that are run
    batch_size: int = 16  # rows per optimiser step
    micro_batch_size: int | None = (
        None  # rows per forward pass, if the batch does not fit; same result
    )
    warmup_ratio: float = 0.1  # share of the steps
    lr_scheduler_type: str = "cosine"  # or "constant"
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0  # longer gradients are cut to this length; 0 or None: none is
    precision: str = "auto"  # of the forward pass: "fp32", "bf16" autocast, or bf16 on CUDA alone
    seed: int = 0
    save_steps: int = 50  # steps between two checkpoints, if there is a folder for them
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_whole("num_train_epochs", self.num_train_epochs, 1, MOST_EPOCHS)
        for name in ("max_steps", "batch_size", "micro_batch_size", "save_steps"):
            value = getattr(self, name)
            if value is not None or name in ("batch_size", "save_steps"):
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
        """The rate of a step (the first is 0): linear warm-up, then constant or a cosine to 0."""
        warm = max(1, round(self.warmup_ratio * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.lr_scheduler_type == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, steps - warm)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass
class History:
    """What happened: one entry per optimiser step."""

    losses: list[float] = field(default_factory=list)  # nats per trained token
    tokens: int = 0  # trained tokens seen
    seconds: float = 0.0  # spent in the steps themselves, without checkpoints and ``on_step``
    finished: bool = False  # False after an interrupt: call again with the same folder to go on


def train_step(
    model,
    batch: dict[str, torch.Tensor],
    optimizer,
    max_grad_norm: float | None = 1.0,
    micro_batch_size: int | None = None,
    precision: str = "fp32",
) -> float:
    """One optimiser step on one batch, as ``data.collate`` makes it.

    The batch may be cut into micro-batches of rows, and its rows may be shared out over processes:
    summed losses are divided by the trained tokens of the *whole* batch, so neither cut changes the
    gradient. A gradient longer than `max_grad_norm` is cut to that length; with 0 or None none is.

    Returns:
        The loss of the whole batch before the step, in nats per trained token.
    """
    check_clipping(max_grad_norm)
    if micro_batch_size is not None:
        check_whole("micro_batch_size", micro_batch_size, 1)
    optimizer.zero_grad()
    trained = sum_over_processes(trained_tokens(batch["labels"]))  # of all processes together
    rows = len(batch["labels"])  # of this one
    loss = 0.0
    size = micro_batch_size or max(rows, 1)
    for start in range(0, rows, size):
        part = {name: tensor[start : start + size] for name, tensor in batch.items()}
        with _computing(trained.device, precision, part["input_ids"].shape[1]):
            share = model_loss(model, part)[0] / trained
        share.backward()
        loss += share.item()
    trainable = [p for p in model.parameters() if p.requires_grad]
    add_gradients(trainable)  # over all processes
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
    """The loop itself: one optimiser step on every batch, in the order given.

    Args:
        batches: any iterable; a generator makes each batch when its turn comes.
        rates: the learning rate of each step, as many as there are batches.
        on_step: called as ``on_step(steps_done, loss)`` after each step. It may do anything with
            the model, ask it something, say.

    Returns:
        The losses, one per step. The model is in eval mode afterwards, even if ``on_step`` raises.
    """
    losses = []
    try:
        for batch, rate in zip(batches, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()  # for every step: asking the model something may have turned it off
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
    name: str | None = None,
) -> History:
    """Train the parameters of ``model`` that require gradients; everything else stays as it is.

    Args:
        pad_id: any id; padding is neither attended to nor trained.
        on_step: called as ``on_step(steps_done, loss)`` after each step, and before the first with
            a loss of NaN.
        folder: where checkpoints go. Called again with the same folder, a run that was stopped goes
            on where it was and ends with the very same weights.
        progress: show a bar with the loss, trained tokens per second and the time left.
        stop_after_steps: pause when so many steps are done, counted from the first of the run; 0 does none.
        check: before the first step, look at rows and adapters, and print what is broken (see
            ``sftlab.preflight``, which shows more).
        name: the model's, to tell two runs apart in words.

    An interrupt (the stop button) lets the step in progress end, saves a checkpoint if there is a
    folder, and returns with ``finished`` False. The model is in eval mode afterwards. Of several
    processes (``sftlab.distributed``) each takes its rows of every batch; the first one shows the bar
    and writes the checkpoints, and all of them read them.

    Raises:
        WorkbookError: nothing to train, a loss that is not finite, a checkpoint that is damaged,
            belongs to another run or cannot be written.
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
    plan = planned_batches(examples, config)
    optimizer = torch.optim.AdamW(  # fused: one pass over memory for each tensor
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
    ):  # they would wait for each other
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
            if check and main and not first:
                broken = [f for f in preflight(model, examples=examples) if f.state == BROKEN]
                if broken:
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
    """The rows of every batch of a run: each epoch has an order of its own, made from the seed."""
    lengths = [len(example) for example in examples]
    planned = (
        rows
        for epoch in range(config.num_train_epochs)
        for rows in batch_order(lengths, config.batch_size, config.seed, epoch)
    )
    return list(islice(planned, config.max_steps))


def _batches(examples, plan, steps, config, pad_id, device, gate, reseed) -> Iterator[dict]:
    """This process's rows of the planned batches, one batch at a time."""
    index, count = rank_and_world_size()
    for step in steps:
        batch = collate([examples[row] for row in plan[step]], pad_id)
        batch = {name: _moved(tensor[index::count], device) for name, tensor in batch.items()}
        # The dropout of a step follows from its number: a resumed run draws the same. Processes
        # draw differently: they have other rows.
        own = f":{index}" if index else ""
        reseed(Random(f"{config.seed}:{step}{own}").getrandbits(63))
        gate.close()
        yield batch


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device. To a GPU through pinned memory, whose copy does not hold up the next step."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def precision_of(precision: str, device: torch.device) -> str:
    """What is computed with: "auto" is bf16 on a GPU that has it, fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


@contextmanager
def _computing(device: torch.device, precision: str, length: int) -> Iterator[None]:
    """How a forward pass is computed: products in bf16, if asked for; weights stay as they are.

    On a CPU the fused attention goes backward in bfloat16 at half the speed of the plain one, as
    long as rows are short. Both compute the same, up to rounding.
    """
    on = precision_of(precision, device) == "bf16"
    plain = on and device.type == "cpu" and length <= SHORT
    attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on), attention:
        yield


def _told(history: History, steps: int, rows: int, checkpoint: Path | None) -> str:
    """The line that the bar leaves."""
    if history.finished:
        first, last = history.losses[0], history.losses[-1]
        return f"{steps} steps on {rows} rows: loss {first:.2f} → {last:.2f}"
    again = "; run again to go on" if checkpoint else ""
    return f"stopped after {len(history.losses)} of {steps} steps{again}"
