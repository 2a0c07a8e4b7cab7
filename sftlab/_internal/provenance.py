"""Where a recorded figure comes from: command, commit, versions, machine, date."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from sftlab._internal.paths import ROOT

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "scipy")


def processor() -> str:
    """The processor's name, where the system tells it."""
    if sys.platform == "linux":  # where platform.processor() is empty or the architecture alone
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The checked-out commit, with "+" if files under version control were changed since."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        dirty = subprocess.run(
            ["git", "status", "--short", "-uno", "sftlab"],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def provenance(module: str) -> dict:
    """To be stored beside every recorded figure. ``module`` is run with ``python -m`` and the given arguments."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "machine": {"processor": processor(), "threads": torch.get_num_threads(), "gpu": device},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
