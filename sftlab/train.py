"""The SFT loop: batches, one optimiser step at a time, snapshots, resume."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import torch

from sftlab.bar import Bar
from sftlab.data import batch_order, collate
from sftlab.errors import WorkbookError
from sftlab.loss import model_loss, trained_tokens
from sftlab.masking import Example


@dataclass(frozen=True)
class TrainConfig:
    """What decides a run.

    The defaults suit LoRA on the embedded model; full fine-tuning wants a tenth of the rate.
    """

    learning_rate: float = 2e-3
    epochs: int = 8  # passes over the data
    max_steps: int | None = None  # stop earlier; the schedule is planned for the steps that are run
    batch_size: int = 16  # rows per optimiser step
    micro_batch: int | None = None  # rows per forward pass, if the batch does not fit; same result
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"  # or "constant"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int = 50  # steps between two snapshots, if there is a folder for them

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "batch_size", "micro_batch", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise WorkbookError(f"{name} is {value}; it must be at least 1")
        if not self.learning_rate > 0:
            raise WorkbookError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.schedule not in ("cosine", "constant"):
            raise WorkbookError(f'schedule is {self.schedule!r}; use "cosine" or "constant"')
        if not 0 <= self.warmup <= 1:
            raise WorkbookError(f"warmup is {self.warmup}; it is a share of the steps, from 0 to 1")

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a step (the first is 0): linear warm-up, then constant or a cosine to 0."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, steps - warm)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass
class History:
    """What happened: one entry per optimiser step."""

    losses: list[float] = field(default_factory=list)  # nats per trained token
    tokens: int = 0  # trained tokens seen
    seconds: float = 0.0  # spent in the steps themselves, without snapshots and ``on_step``
    finished: bool = False  # False after an interrupt: call again with the same folder to go on


def train_step(
    model,
    batch: dict[str, torch.Tensor],
    optimizer,
    max_grad_norm: float = 1.0,
    micro_batch: int | None = None,
) -> float:
    """One optimiser step on one batch, as ``data.collate`` makes it.

    The batch may be cut into micro-batches of rows: their summed losses are divided by the trained
    tokens of the *whole* batch, so the gradient does not depend on the cut.

    Returns:
        The loss before the step, in nats per trained token.
    """
    optimizer.zero_grad()
    trained = trained_tokens(batch["labels"])
    rows = len(batch["labels"])
    size = micro_batch or rows
    loss = 0.0
    for start in range(0, rows, size):
        part = {name: tensor[start : start + size] for name, tensor in batch.items()}
        share = model_loss(model, part)[0] / trained
        share.backward()
        loss += share.item()
    trainable = [p for p in model.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trainable, max_grad_norm)
    optimizer.step()
    return loss


def sft_train(
    model,
    examples: Sequence[Example],
    config: TrainConfig = TrainConfig(),
    pad_id: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train the parameters of ``model`` that require gradients; everything else stays as it is.

    Args:
        pad_id: any id; padding is neither attended to nor trained.
        on_step: called as ``on_step(steps_done, loss)`` after each step, and before the first with
            a loss of NaN.
        folder: where snapshots go. Called again with the same folder, a run that was stopped goes
            on where it was and ends with the very same weights.
        progress: show a bar with the loss.

    An interrupt (the stop button) lets the step in progress end, saves a snapshot if there is a
    folder, and returns with ``finished`` False. The model is in eval mode afterwards.

    Raises:
        WorkbookError: nothing to train, a loss that is not finite, a snapshot that is damaged,
            belongs to another run or cannot be written.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise WorkbookError(
            "no parameter requires a gradient, so nothing would be trained; inject LoRA, or "
            "unfreeze the model with  model.requires_grad_(True)"
        )
    if not examples:
        raise WorkbookError("there is no row to train on; give at least one example")
    lengths = [len(example) for example in examples]
    plan = [
        rows
        for epoch in range(config.epochs)
        for rows in batch_order(lengths, config.batch_size, config.seed, epoch)
    ][: config.max_steps]
    optimizer = torch.optim.AdamW(
        trainable.values(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    history = History()
    snapshot = Path(folder) / "snapshot.pt" if folder else None
    run = {"config": asdict(config), "rows": _fingerprint(examples)} if snapshot else {}
    if snapshot and snapshot.exists():
        _restore(snapshot, trainable, optimizer, history, run)
    first = len(history.losses)
    try:
        with Bar(len(plan), "steps", first=first, shown=progress) as bar:
            try:
                if on_step and not first:
                    on_step(0, math.nan)
                for step in range(first, len(plan)):
                    for group in optimizer.param_groups:
                        group["lr"] = config.rate_at(step, len(plan))
                    batch = collate([examples[i] for i in plan[step]], pad_id)
                    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
                    # The dropout of a step follows from its number: a resumed run draws the same.
                    torch.manual_seed(Random(f"{config.seed}:{step}").getrandbits(63))
                    model.train()
                    with _uninterrupted():
                        started = time.perf_counter()
                        loss = train_step(
                            model, batch, optimizer, config.max_grad_norm, config.micro_batch
                        )
                        if not math.isfinite(loss):
                            raise WorkbookError(
                                f"step {step + 1}: the loss is {loss}; the learning rate "
                                f"{config.learning_rate} is probably too high: load the model anew "
                                "and train it with a lower one"
                            )
                        history.losses.append(loss)
                        history.tokens += int(trained_tokens(batch["labels"]))
                        history.seconds += time.perf_counter() - started
                    speed = history.tokens / max(history.seconds, 1e-9)
                    bar.update(note=f"loss {loss:.2f} · {speed:,.0f} trained tokens/s")
                    if on_step:
                        on_step(step + 1, loss)
                    if snapshot and (step + 1) % config.save_every == 0:
                        _save(snapshot, trainable, optimizer, history, run)
                history.finished = True
                bar.done = (
                    f"{len(plan)} steps on {len(examples)} rows: "
                    f"loss {history.losses[0]:.2f} → {history.losses[-1]:.2f}"
                )
            except KeyboardInterrupt:
                bar.done = f"stopped after {len(history.losses)} of {len(plan)} steps"
                bar.done += "; run again to go on" if snapshot else ""
            if snapshot:
                _save(snapshot, trainable, optimizer, history, run)
    finally:
        model.eval()
    return history


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold an interrupt back until the block is done: half an optimiser step cannot be resumed."""
    if (
        threading.current_thread() is not threading.main_thread()  # is never interrupted
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # others' business
    ):
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *found: came.append(found))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _fingerprint(examples: Sequence[Example]) -> str:
    """Tells two data sets apart, so that a snapshot is not continued on other rows."""
    rows = [[example.input_ids, example.labels] for example in examples]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _save(path: Path, trainable, optimizer, history: History, run: dict) -> None:
    """Write a snapshot. A full disk, a kill or an interrupt never leaves half of one."""
    state = {
        **run,
        "parameters": {name: p.detach() for name, p in trainable.items()},
        "optimizer": optimizer.state_dict(),
        "history": asdict(history),
    }
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, new)
        os.replace(new, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        try:
            new.unlink(missing_ok=True)
        except OSError:
            pass
        reason = str(error).splitlines()[0]
        kept = "; the snapshot before it is still there" if path.exists() else ""
        raise WorkbookError(
            f"the snapshot after {len(history.losses)} steps cannot be written to {path} ({reason})"
            f"{kept}: free some space or choose another folder, then run again"
        ) from error


def _restore(path: Path, trainable, optimizer, history: History, run: dict) -> None:
    """Take up a run where its snapshot left it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: tuple(p.shape) for name, p in state["parameters"].items()}
        same = all(state[key] == value for key, value in run.items())
    except Exception as error:  # a damaged archive raises anything
        raise WorkbookError(
            f"{path} is damaged and cannot be read; remove it and train from the beginning"
        ) from error
    if not same or found != {name: tuple(p.shape) for name, p in trainable.items()}:
        raise WorkbookError(
            f"{path} belongs to another run (other settings, rows or parameters); remove it or "
            "choose another folder"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state["parameters"][name])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["history"].items():
        setattr(history, name, value)
