"""The provenance of a recorded figure: command, commit, versions, machine, date."""

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
    """Return the processor's name, or the architecture if the name is not available."""
    if sys.platform == "linux":  # platform.processor() is empty or only the architecture there
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the checked-out commit, followed by "+" if tracked files of the package differ."""
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
    """Return the provenance to store with recorded figures.

    Args:
        module: the module run with ``python -m`` and the current arguments.
    """
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
