"""Where the workbook keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
MODELS = DATA / "models"
INSTRUCTIONS = DATA / "instructions"


def cache_folder() -> Path:
    """The user's own folder for snapshots and converted models; ``SFTLAB_CACHE`` overrides it."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sftlab"
    return Path(os.environ.get("SFTLAB_CACHE", default))
