"""A run in a process of its own that saves model and optimizer after every step, so that it can be killed.

    python -m sftlab.exercises.ex16_sft_training_loop.killed FILE MODEL SEED LEARNING_RATE STEPS

It prints the number of each step after that step has been saved.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sftlab._internal.paths import ROOT
from sftlab.errors import WorkbookError
from sftlab.exercises.ex16_sft_training_loop.stopping import FEW, batches, drawn
from sftlab.models import load
from sftlab.train import train_loop


def save(file: Path, step: int, model, optimizer) -> None:
    """Write a checkpoint beside the file, then put it in its place: a kill leaves the old or the new one."""
    state = {"step": step, "weights": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)


def train_and_save(file: Path, name: str, seed: int, learning_rate: float, steps: int) -> None:
    """Train every weight of a base on the seed's few pairs, and save after each step."""
    model, tokenizer = load(name)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    plan = batches(tokenizer, drawn(seed)[:FEW], seed, steps)

    def on_step(step: int, loss: float) -> None:
        save(file, step, model, optimizer)
        print(step, flush=True)

    train_loop(model, plan, optimizer, [learning_rate] * steps, on_step)


def kill_after(step: int, file: Path, *arguments: Any) -> None:
    """Start a run in a new process, and kill the process once this step is saved."""
    command = [sys.executable, "-m", __spec__.name, str(file), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment |= {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", env=environment
    ) as process:
        for line in process.stdout or ():
            if int(line) >= step:
                process.kill()
                break
    if not file.exists():
        raise WorkbookError(
            f"the run ended before it saved a step; try it in a terminal: {' '.join(command)}"
        )


if __name__ == "__main__":
    train_and_save(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))  # fmt: skip
