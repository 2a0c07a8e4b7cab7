"""Measure the memory of a training step: its parts, and the peak of a new process.

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

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no profiler messages on stderr

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
    """Return the peak memory of this process so far, in bytes (resident, including libraries).

    The operating system reports only the highest memory use since the process started, so separate
    measurements need separate processes. On Linux, VmHWM is used because the value of getrusage
    also includes the parent process.
    """
    if peak := _status("VmHWM"):
        return peak
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # imported here because Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def process_bytes() -> int:
    """Return the current memory of this process in bytes (resident)."""
    return psutil.Process().memory_info().rss


def written_bytes() -> int:
    """Return the private writable memory of this process (VmData). Linux only.

    RLIMIT_DATA limits this number.
    """
    found = _status("VmData")
    assert found is not None, "only Linux tells it"
    return found


def _status(name: str) -> int | None:
    """Return a value in bytes from /proc/self/status on Linux; None on other systems."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


# glibc keeps freed blocks below a threshold, which adapts up to 32 MiB. The process then appears
# 12 to 70% larger than what torch holds. With a fixed threshold, every tensor is returned to the
# system when it is freed.
FIXED_THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def saved_bytes(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Return the bytes of activations that one forward pass saves, including the loss.

    With activation checkpointing, what each layer saves internally is not included.
    """
    with saved_for_backward(model) as saved:
        _loss = model_loss(model, batch)  # keeps the graph and the saved tensors alive
    return sum(storage.nbytes() for storage in saved.values())


def allocated_peak(step: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory that torch allocates during `step`, in bytes above the level before.

    On CUDA this is the allocator's own figure; on the CPU, the running sum of allocations and frees
    that the profiler records.
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
    """Run two real training steps on the batch and measure their memory.

    The first step creates the optimizer state, the second is measured. The peak is that of torch's
    allocator, without libraries and other memory of the process. The weights change, so use a model
    that you do not need afterwards.
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
    """Return a batch of random tokens for the run; the last tokens of each sequence are trained."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (run.batch, run.length), generator=generator)
    labels = ids.clone()
    labels[:, : run.length - run.trained_per_row] = IGNORE_INDEX
    mask = torch.ones_like(ids)
    if run.padded:  # one padded position makes the model use a mask
        mask[0, -1], labels[0, -1] = 0, IGNORE_INDEX
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def in_a_fresh_process(run: Run, fixed_threshold: bool = True) -> dict:
    """Train two steps in a new process and return its memory in bytes.

    Args:
        fixed_threshold: False leaves glibc's malloc unchanged, to measure how much memory it keeps.

    Returns:
        ``process``, the peak above the level of a process with all libraries imported and used
        once; ``kept``, the part of it that remains after the model is freed (caches of libraries);
        ``tensors``, the parts and the allocator's peak, measured in the same process afterwards.

    Raises:
        WorkbookError: the system is not Linux, or the process failed; the message contains its last
            line of output.
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
    """Measure one run, given as JSON, in this process, and print the result as one line of JSON."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    run = Run(**json.loads(text))
    _train(run.small())  # so that libraries and threads of the first step do not count
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
    """Train two steps and free the model."""
    model, optimizer, batch = _start(run)
    for _ in range(2):
        train_step(model, batch, optimizer)


if __name__ == "__main__":
    sys.exit(main())
