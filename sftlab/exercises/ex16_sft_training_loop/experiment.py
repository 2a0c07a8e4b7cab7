"""The run of configs/sft.json on two and three processes compared with one: losses and weights.

Several processes add the same numbers in a different order. This experiment measures the effect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file

from sftlab._internal.paths import ROOT
from sftlab.errors import WorkbookError
from sftlab.settings import read_run

RECORD = "several_processes"  # data/results/several_processes.json

RUN = ROOT / "configs" / "sft.json"
LAUNCH = ("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no",
          "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip
LIMIT = 600  # seconds


def settings() -> list[dict]:
    return [{"processes": 2}, {"processes": 3}]


def trained(processes: int, steps: int | None = None) -> tuple[list[float], dict]:
    """Train in new processes; return the losses and the adapter's tensors."""
    with TemporaryDirectory() as folder:
        run = asdict(read_run(RUN)) | {"output": folder}
        run["train"] = run["train"] | {"max_steps": steps}
        file = Path(folder) / "run.json"
        file.write_text(json.dumps(run), encoding="utf-8")
        launch = (*LAUNCH, "--num_processes", str(processes), "-m") if processes > 1 else ()
        command = [sys.executable, "-m", *launch, "sftlab", "train", str(file)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
        )
        if done.returncode:
            raise WorkbookError(f"the run on {processes} processes failed: {done.stderr[-500:]}")
        record = json.loads((Path(folder) / "history.json").read_text(encoding="utf-8"))
        if record["processes"] != processes:
            raise WorkbookError(f"{record['processes']} processes trained, not {processes}")
        return record["losses"], load_file(Path(folder) / "adapter" / "adapter_model.safetensors")


def run(processes: int, steps: int | None = None) -> dict:
    """Return the losses on several processes and on one, and the largest differences."""
    (alone, weights), (losses, shared) = trained(1, steps), trained(processes, steps)
    return {
        "losses": losses,
        "losses_of_one": alone,
        "largest_relative_difference": max(
            abs(a - b) / b for a, b in zip(losses, alone, strict=True)
        ),
        "largest_weight_difference": max(
            (shared[name] - weight).abs().max().item() for name, weight in weights.items()
        ),
    }
