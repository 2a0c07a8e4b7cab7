"""Run the notebooks anew and store their outputs: ``python -m tools.publish``.

What is stored depends on the notebook and the package alone: no times, no ids of widgets, no
addresses. When nothing changed the files come out byte for byte as they were. A notebook carries
digests of the code and data that its outputs came from. ``--check`` runs nothing: it names the
notebooks, and the recorded results, that are older than what they came from, and fails if there are
any. (Whether a fresh run still shows the same is nbval's question.)
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sftlab._internal.code_behind import (
    changed,
    code_behind,
    code_digest,
    data_behind,
    records_behind,
)
from sftlab.classroom.catalogue import NOTEBOOKS, package
from sftlab.errors import WorkbookError
from sftlab.exercises.record import RESULTS, modules, older_than
from tools.findings import update_findings
from tools.notebook_metadata import EXPLORE, derive
from tools.readme import update_readme

WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 300  # seconds for one cell
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class PublishError(Exception):
    """A notebook that did not run to its end; the text says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish the notebooks named, or all. Returns the exit status: 0 when all is well."""
    parser = argparse.ArgumentParser(prog="python -m tools.publish", description=__doc__)
    parser.add_argument("--check", action="store_true", help="run nothing, name what is older")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    chosen = parser.parse_args(arguments)
    paths = chosen.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    if chosen.check:
        old = [*stale_notebooks(paths), *([] if chosen.notebooks else stale_records())]
        print("".join(f"{line}\n" for line in old), end="")
        print(
            f"{len(paths)} notebooks looked at: {len(old) or 'nothing'} older than what it came from"
        )
        return 1 if old else 0
    failed = []
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
            path.write_text(text, encoding="utf-8")
        state = "unchanged" if same else "written"
        print(f"{path.name:<40} {time.monotonic() - began:6.1f} s  {state}", flush=True)
    if all(path.resolve().parent == NOTEBOOKS for path in paths) and update_readme():
        print("README.md: the table of notebooks was written anew")
    if all(path.resolve().parent == NOTEBOOKS for path in paths):
        try:
            if update_findings():
                print("docs/findings.md was written anew")
        except ValueError as error:  # a notebook without its table of claims
            print(f"docs/findings.md: {error}")
    if failed:
        print(f"Did not run to the end: {', '.join(failed)}")
    return 1 if failed else 0


def stale_notebooks(paths: Sequence[Path]) -> Iterator[str]:
    """A line for each notebook whose outputs are older than its cells, its code or its data."""
    for path in paths:
        notebook = _read(path)
        stored = notebook.metadata.get("sftlab", {})
        if not stored:
            yield f"{path.name}: nothing says what its outputs came from: make notebooks"
        elif names := changed(stored, came_from(notebook)):
            yield f"{path.name}: {_some(names)} changed since it was run: make notebooks"


def stale_records() -> Iterator[str]:
    """A line for each recorded experiment whose code has changed since."""
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem in modules() and (names := older_than(path.stem)):
            yield f"{path.name}: {_some(names)} changed since it was recorded: sftlab record --confirm {path.stem}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def came_from(notebook: Any) -> dict[str, str]:
    """Digests of all that a notebook's outputs come from, by name; "cells" is its own code."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    shown = {package(id[:2], "explorer").__name__ for id in EXPLORE.findall(code)}
    code += "".join(f"\nimport {module}" for module in sorted(shown))
    return {
        "cells": code_digest(code),
        **code_behind(code),
        **data_behind(),
        **records_behind(code),
    }


def published(path: Path) -> str:
    """The text of the notebook file after a fresh run.

    Raises:
        PublishError: it cannot be read, breaks a rule, or one of its cells failed.
    """
    import nbformat

    notebook = _read(path)
    try:
        derive(notebook)
    except WorkbookError as error:
        raise PublishError(f"{path.name}: {error}") from None
    execute(notebook, path)
    derive(notebook)  # the kernel wrote its own version and times into it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    notebook.metadata["sftlab"] = came_from(notebook)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise PublishError(f"{path.name}: {error}") from None


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
    with tempfile.TemporaryDirectory() as folder, client.setup_kernel(env=environment(folder)):
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


def environment(folder: str) -> dict[str, str]:
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
