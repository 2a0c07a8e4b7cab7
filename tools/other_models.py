"""The notebooks on another model: ``python -m tools.other_models smollm2-instruct [NOTEBOOK ...]``.

Copies with ``MODEL`` replaced are run one after the other and kept, with their outputs, in
``build/real/``; the notebooks themselves stay as they are. On a model of a hundred million weights
many of them take minutes. Stopped, the same command goes on after the last whole one; a notebook
that was changed since is run again.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools.publish import environment

LIMIT = 1200  # seconds for one cell


def with_model(path: Path, model: str) -> Any:
    """The notebook with another ``MODEL``: a cell after the one tagged parameters says so."""
    return parameterize_notebook(load_notebook_node(str(path)), {"MODEL": model})


def try_notebook(path: Path, model: str, folder: Path) -> tuple[str, str]:
    """Run a copy, stored after every cell; ("runs" or "lacks" or "fails", what it said)."""
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f"{path.stem}.running.ipynb"
    with tempfile.TemporaryDirectory() as own, patch.dict(os.environ, environment(own)):
        state, said = _run(path, running, model)
    running.replace(folder / f"{path.stem}.{state}.ipynb")
    return state, said


def _run(path: Path, running: Path, model: str) -> tuple[str, str]:
    try:
        papermill.execute_notebook(
            path,
            running,
            {"MODEL": model},
            kernel_name="python3",
            cwd=path.resolve().parent,
            execution_timeout=LIMIT,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == WorkbookError.__name__:  # the notebook says what it needs
            return "lacks", error.evalue
        return "fails", f"cell {error.cell_index}: {error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        return "fails", str(error).splitlines()[0]
    return "runs", ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a notebook broke instead of saying what it lacks."""
    parser = argparse.ArgumentParser(prog="python -m tools.other_models", description=__doc__)
    parser.add_argument("model", help='a name for load(): "smollm2-instruct", a hub id, a folder')
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    chosen = parser.parse_args(arguments)
    folder = ROOT / "build" / "real" / re.sub(r"\W+", "-", chosen.model)
    paths = chosen.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    print(
        f"{len(paths)} notebooks on {chosen.model}; some take minutes. Copies are kept in {folder}; "
        "it can be stopped, and the same command goes on.",
        flush=True,
    )
    failed = 0
    for path in paths:
        done = [folder / f"{path.stem}.{state}.ipynb" for state in ("runs", "lacks")]
        if any(f.exists() and f.stat().st_mtime > path.stat().st_mtime for f in done):
            print(f"{path.stem:32s} done before", flush=True)
            continue
        for old in (*done, folder / f"{path.stem}.fails.ipynb"):
            old.unlink(missing_ok=True)
        began = time.monotonic()
        state, said = try_notebook(path, chosen.model, folder)
        failed += state == "fails"
        print(f"{path.stem:32s} {time.monotonic() - began:6.0f} s  {state}  {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on")
        sys.exit(130)
