"""Run the notebooks anew and store their outputs: ``python -m sftlab.classroom.publish``.

What is stored depends on the notebook and the package alone: no times, no ids of widgets, no
addresses. When nothing changed the files come out byte for byte as they were. ``--check`` writes
nothing and fails if a file would change.
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

from sftlab.classroom.catalogue import NOTEBOOKS, update_readme
from sftlab.classroom.notebook_metadata import derive
from sftlab.errors import WorkbookError

WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 300  # seconds for one cell
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class PublishError(Exception):
    """A notebook that did not run to its end; the text says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish the notebooks named, or all. Returns the exit status: 0 when all is well."""
    parser = argparse.ArgumentParser(prog="python -m sftlab.classroom.publish", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    chosen = parser.parse_args(arguments)
    paths = chosen.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    changed, failed = [], []
    for path in paths:
        began = time.monotonic()
        try:
            text = published(path)
        except PublishError as error:
            failed.append(path.name)
            print(error)
            continue
        same = path.read_text(encoding="utf-8") == text
        if not same:
            changed.append(path.name)
            if not chosen.check:
                path.write_text(text, encoding="utf-8")
        state = "unchanged" if same else "would change" if chosen.check else "written"
        print(f"{path.name:<40} {time.monotonic() - began:6.1f} s  {state}", flush=True)
    ours = all(path.resolve().parent == NOTEBOOKS for path in paths)
    if ours and not chosen.check and update_readme():
        print("README.md: the table of notebooks was written anew")
    if failed:
        print(f"Did not run to the end: {', '.join(failed)}")
    if chosen.check and changed:
        print(f"Would change: {', '.join(changed)}. Run `make notebooks` and commit the result.")
    return 1 if failed or (chosen.check and changed) else 0


def published(path: Path) -> str:
    """The text of the notebook file after a fresh run.

    Raises:
        PublishError: it cannot be read, breaks a rule, or one of its cells failed.
    """
    import nbformat
    from nbgrader.nbgraderformat import MetadataValidator

    try:
        notebook = nbformat.read(path, as_version=4)
        derive(notebook)
        MetadataValidator().validate_nb(notebook)
    except (OSError, ValueError, nbformat.ValidationError, WorkbookError) as error:
        raise PublishError(f"{path.name}: {error}") from None
    execute(notebook, path)
    derive(notebook)  # the kernel wrote its own version and times into it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def execute(notebook: Any, path: Path, limit: int = TIMEOUT) -> None:
    """Run every cell in a fresh kernel; ``limit`` is a cell's, in seconds. ``path`` is for its folder.

    Raises:
        PublishError: a cell failed; the outputs up to it are in the notebook.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=limit,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # its remarks on encryption do not belong here
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.reset_execution_trackers()
    with tempfile.TemporaryDirectory() as folder, client.setup_kernel(env=_environment(folder)):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                reason = f"{error.ename}: {ESCAPES.sub('', error.evalue)}"
            except CellTimeoutError:
                reason = f"it ran for more than {limit} seconds"
            except DeadKernelError:
                reason = "the kernel died: is there enough memory?"
            else:
                continue
            first = cell.source.strip().partition("\n")[0]
            raise PublishError(f"{path.name}, cell {index + 1} ({first}): {reason}")


def _environment(folder: str) -> dict[str, str]:
    """A student's first day: no progress, no settings of one's own, no network, fixed hashes."""
    return os.environ | {
        "SFTLAB_PROGRESS": str(Path(folder) / "progress.json"),
        "IPYTHONDIR": folder,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
    }


def tidy(outputs: list) -> list:
    """The outputs as they are stored: still pictures for widgets, streams in one piece."""
    kept: list = []
    for output in outputs:
        if output.output_type == "stream":
            before = kept[-1] if kept else None
            if before is not None and before.get("name") == output.name:
                before.text += output.text
            else:
                kept.append(output)
            continue
        data = output.get("data", {})
        if WIDGET in data:
            # A stored page has no kernel to serve the widget: it shows the twin beside it. One that
            # has no twin (a progress bar) has nothing to say any more.
            if not ("text/html" in data or "image/png" in data):
                continue
            del data[WIDGET]
        if "text/plain" in data:
            data["text/plain"] = ADDRESS.sub("", data["text/plain"])
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = _overwritten(output.text)
    return kept


def _overwritten(text: str) -> str:
    """What a terminal would show in the end: a line that returns to its start is overwritten."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
