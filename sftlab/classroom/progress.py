"""The progress file: predictions and solved checks as JSON in the working folder, for handing in.

``SFTLAB_PROGRESS`` sets another path. Several notebooks may write at once: every change locks the
file, reads it, changes one entry and replaces the file atomically.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock

VERSION = 2  # version 1 was the first edition
WAIT = 10  # seconds; a change by another notebook takes milliseconds


def progress_path() -> Path:
    """Return the progress file: ``SFTLAB_PROGRESS``, or progress.json in the working folder."""
    return Path(os.environ.get("SFTLAB_PROGRESS") or "progress.json")


def now() -> str:
    """Return the local time with its UTC offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def load() -> dict:
    """Return the progress: ``{"version", "predictions": {id: …}, "checks": {id: …}}``.

    A damaged file counts as empty here; the next change sets it aside (see ``update``).
    """
    return _read(progress_path()) or _empty()


def update(change: Callable[[dict], None]) -> str:
    """Apply ``change`` to the progress and store it; return a notice, empty if there is no problem.

    A damaged file is moved unchanged to progress.damaged.json, and the notice says so. A file of
    the first edition is converted once; a copy of the original is kept.
    """
    path = progress_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        progress, notice = _read(path), ""
        if progress is None:
            aside = set_aside(path)
            notice = (
                f"The progress file {path.name} could not be read. It was kept as {aside.name}, "
                "nothing in it was lost, and a new progress file was begun."
            )
            progress = _empty()
        elif progress["version"] < VERSION:
            kept = path.with_name(f"{path.stem}.first-edition{path.suffix}")
            shutil.copyfile(path, kept)
            progress["version"] = VERSION
            notice = (
                f"The progress of the workbook's first edition was taken over; the file as it was is "
                f"kept as {kept.name}."
            )
        change(progress)
        replace(path, json.dumps(progress, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return notice


def forget(prefix: str) -> str:
    """Delete the entries that begin with ``prefix`` ("12" or "12.a"), to start them again."""

    def drop(progress: dict) -> None:
        for kind in ("predictions", "checks"):
            progress[kind] = {
                id_: entry for id_, entry in progress[kind].items() if not id_.startswith(prefix)
            }

    return update(drop)


def _empty() -> dict:
    return {"version": VERSION, "predictions": {}, "checks": {}}


def _read(path: Path) -> dict | None:
    """Return the stored progress, an empty one if there is no file, or None if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _empty()
    except (OSError, UnicodeDecodeError):
        return None
    try:
        progress = json.loads(text)
    except ValueError:
        return None
    if not isinstance(progress, dict) or progress.get("version") not in (1, VERSION):
        return None
    for kind in ("predictions", "checks"):
        entries = progress.get(kind)
        if not isinstance(entries, dict):
            return None
        if not all(isinstance(entry, dict) for entry in entries.values()):
            return None
    return progress


def set_aside(path: Path) -> Path:
    """Rename a damaged file, which may still contain useful data, and return the new path."""
    aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
    number = 2
    while aside.exists():  # do not overwrite an earlier damaged file
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        number += 1
    os.replace(path, aside)
    return aside


def replace(path: Path, text: str) -> None:
    """Replace the file atomically: a reader sees the old content or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp creates private files, but this one is handed in
        _swap(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _swap(new: str, path: Path) -> None:
    """Rename ``new`` to ``path``; retry because Windows refuses while another process reads it."""
    for pause in (0.01, 0.1, 0.5):
        try:
            return os.replace(new, path)
        except PermissionError:
            time.sleep(pause)
    os.replace(new, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside ``path``; the system releases the lock of a process that died.

    Waits at most ten seconds. If the file system does not support locks, continues without one.
    """
    # No soft lock: its file would remain after a process was killed.
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=WAIT, fallback_to_soft=False)
    with suppress(OSError):  # some network folders have no locks
        lock.acquire(poll_interval=0.02)
    try:
        yield
    finally:
        lock.release()
