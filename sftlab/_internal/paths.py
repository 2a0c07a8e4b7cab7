"""The locations of the workbook's files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # the checkout, if there is one
# An installed wheel contains the data inside the package.
DATA = PACKAGE / "_data" if (PACKAGE / "_data").is_dir() else ROOT / "data"
MODELS = DATA / "models"
INSTRUCTIONS = DATA / "instructions"


def cache_folder() -> Path:
    """Return the user's cache folder for checkpoints and models; ``SFTLAB_CACHE`` overrides it."""
    if named := os.environ.get("SFTLAB_CACHE"):
        return Path(named)
    try:
        return platformdirs.user_cache_path("sftlab", appauthor=False)
    except RuntimeError:  # the user has no home directory
        return Path(tempfile.gettempdir()) / "sftlab"
