"""The notebooks on another model: ``python -m tools.other_models smollm2-instruct [NOTEBOOK ...]``.

Copies with ``MODEL`` replaced are run one after the other and kept, with their outputs, in
``build/real/``; the notebooks themselves stay as they are. On a model of a hundred million weights
many of them take minutes. Stopped, the same command goes on after the last whole one; a notebook
that was changed since is run again.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS
from tools.publish import PublishError, execute

LIMIT = 1200  # seconds for one cell
LACKS = "WorkbookError: "  # said on purpose: the notebook tells what it needs


def with_model(path: Path, model: str):
    """The notebook with another ``MODEL`` in the cell tagged parameters."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = re.sub(r"(?m)^MODEL = .*$", lambda _: f"MODEL = {model!r}", cell.source)
    return notebook


def try_notebook(path: Path, model: str, folder: Path) -> tuple[str, str]:
    """Run a copy; ("runs" or "lacks" or "fails", what it said)."""
    import nbformat

    notebook = with_model(path, model)
    try:
        execute(notebook, path, LIMIT)
        state, said = "runs", ""
    except PublishError as error:
        state, said = "fails", str(error)
        if LACKS in said:
            state, said = "lacks", said.partition(LACKS)[2]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{path.stem}.{state}.ipynb")
    return state, said


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
