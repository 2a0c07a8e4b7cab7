"""The memory of a training step, measured: part by part in this process, and the peak of a fresh one.

python -m sftlab.memory.measure '{"shape": "smollm2-135m", "batch": 4, "length": 64, "r": 8}'
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler remarks on itself on stderr

import psutil
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from sftlab.errors import WorkbookError
from sftlab.loss import IGNORE_INDEX, model_loss
from sftlab.memory.count import (
    TrainingBytes,
    measured_optimizer_state_bytes,
    parameter_bytes,
    saved_for_backward,
    stored_bytes,
)
from sftlab.memory.plan import Run, build
from sftlab.train import train_step


def process_peak_bytes() -> int:
    """The most memory that this process has held so far (resident, libraries included).

    It never falls: measure two things in two fresh processes. Linux's VmHWM is read where there is
    one, since getrusage's figure also counts the process that started this one.
    """
    if peak := _status("VmHWM"):
        return peak
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # here: Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def process_bytes() -> int:
    """The memory that this process holds now (resident)."""
    return psutil.Process().memory_info().rss


def written_bytes() -> int:
    """What this process has to itself and may write (VmData): what RLIMIT_DATA limits. Linux only."""
    found = _status("VmData")
    assert found is not None, "only Linux tells it"
    return found


def _status(name: str) -> int | None:
    """A figure in bytes from Linux's account of this process; None on other systems."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


# glibc keeps freed blocks below a threshold, which rises to 32 MiB by itself: the process then
# looks 12 to 70% larger than what torch holds. A fixed one sends every tensor back when it is freed.
FIXED_THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def saved_bytes(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes of activations that one forward pass saves, the loss included.

    With recomputation (checkpointing), what a layer keeps for itself is not seen.
    """
    with saved_for_backward(model) as saved:
        _loss = model_loss(model, batch)  # it holds the graph, and with it what was saved
    return sum(storage.nbytes() for storage in saved.values())


def allocated_peak(step: Callable[[], object], device: torch.device) -> int:
    """The most that torch holds during `step` beyond what it held before.

    On CUDA the allocator's own figure; on the CPU the running sum of what it reports to have
    allocated and freed.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(accumulate(changes, initial=0))


def measure_training_bytes(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]
) -> TrainingBytes:
    """Train two real steps on the batch, one to fill the optimiser and one to watch, and count.

    The peak is the allocator's: it leaves out libraries and whatever else the process holds. The
    weights move, so measure on a model that you do not need afterwards.
    """
    model.train()
    train_step(model, batch, optimizer)
    gradients = sum(stored_bytes(p.grad) for p in model.parameters() if p.grad is not None)
    optimizer.zero_grad()
    activations = saved_bytes(model, batch)
    rise = allocated_peak(lambda: train_step(model, batch, optimizer), model.device)
    frozen, trained = parameter_bytes(model, False), parameter_bytes(model, True)
    state = measured_optimizer_state_bytes(optimizer)
    return TrainingBytes(
        weights=frozen or trained,
        adapters=trained if frozen else 0,
        gradients=gradients,
        optimizer=state,
        activations=activations,
        peak=frozen + trained + state + rise,
    )


def a_batch(run: Run, vocabulary: int) -> dict[str, Tensor]:
    """Random tokens in the shape of the run: the last ones of each row are trained."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (run.batch, run.length), generator=generator)
    labels = ids.clone()
    labels[:, : run.length - run.trained_per_row] = IGNORE_INDEX
    mask = torch.ones_like(ids)
    if run.padded:  # one position is enough to make the model keep a mask
        mask[0, -1], labels[0, -1] = 0, IGNORE_INDEX
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def in_a_fresh_process(run: Run, fixed_threshold: bool = True) -> dict:
    """Train two steps in a process of their own; returns what it held, in bytes.

    ``process``: how far the process rose over its level with everything imported and used once.
    ``kept``: the part of that which stays when the model is gone, the caches of libraries.
    ``tensors``: the parts and the allocator's peak, measured in the same process afterwards.
    ``fixed_threshold=False`` leaves glibc's malloc as it is, to see what it keeps for itself.

    Raises:
        WorkbookError: not on Linux; or the process failed, with the last line it said.
    """
    if sys.platform != "linux":
        raise WorkbookError(
            "only Linux's allocator can be told to give back what is freed, so that the peak of a "
            "process shows what torch held"
        )
    command = [sys.executable, "-m", "sftlab.memory.measure", json.dumps(run.settings())]
    environment = {**os.environ, **(FIXED_THRESHOLD if fixed_threshold else {})}
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        said = (done.stderr.strip() or "it was killed, probably for want of memory").split("\n")
        raise WorkbookError(f"measuring {run} in a fresh process failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> int:
    """Measure one run, given as JSON, in this process; print the result as one line of JSON."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    run = Run(**json.loads(text))
    _train(run.small())  # libraries and threads that the first step starts are not the model's
    level = process_bytes()
    _train(run)
    gc.collect()
    found = {"process": process_peak_bytes() - level, "kept": max(0, process_bytes() - level)}
    print(json.dumps({**found, "tensors": vars(measure_training_bytes(*_start(run)))}))
    return 0


def _start(run: Run):
    model = build(run)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    return model, optimizer, a_batch(run, model.config.vocab_size)


def _train(run: Run) -> None:
    """Two steps; the model is gone afterwards."""
    model, optimizer, batch = _start(run)
    for _ in range(2):
        train_step(model, batch, optimizer)


if __name__ == "__main__":
    sys.exit(main())
