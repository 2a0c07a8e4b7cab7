"""The progress file: predictions and solved checks as JSON in the working folder, ready to hand in.

``SFTLAB_PROGRESS`` names another place. Several notebooks may write at once: every change reads the
file again under a lock, changes one entry, and replaces the file in one step.
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

VERSION = 2  # 1 was that of the first edition
WAIT = 10  # seconds for another notebook's change, which takes milliseconds


def progress_path() -> Path:
    """Where progress is kept: ``SFTLAB_PROGRESS``, or progress.json in the working folder."""
    return Path(os.environ.get("SFTLAB_PROGRESS") or "progress.json")


def now() -> str:
    """The time of an entry: local, with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def load() -> dict:
    """The progress so far: ``{"version", "predictions": {id: …}, "checks": {id: …}}``.

    A damaged file is treated as empty here; the next change sets it aside (see ``update``).
    """
    return _read(progress_path()) or _empty()


def update(change: Callable[[dict], None]) -> str:
    """Apply ``change`` to the progress and store it. Returns a notice, empty when all is well.

    A damaged file is moved to progress.damaged.json, unchanged, and the notice says so. One of the
    first edition is taken over once; as it was, it stays beside the new one.
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
    """Drop the entries that begin with ``prefix`` ("12" or "12.a"), to work through them afresh."""

    def drop(progress: dict) -> None:
        for kind in ("predictions", "checks"):
            progress[kind] = {
                id_: entry for id_, entry in progress[kind].items() if not id_.startswith(prefix)
            }

    return update(drop)


def _empty() -> dict:
    return {"version": VERSION, "predictions": {}, "checks": {}}


def _read(path: Path) -> dict | None:
    """The stored progress, an empty one where there is no file yet, None when it is damaged."""
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
    """Give a damaged file another name, which is returned: something in it may be of use."""
    aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
    number = 2
    while aside.exists():  # an earlier damaged file is somebody's work too
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        number += 1
    os.replace(path, aside)
    return aside


def replace(path: Path, text: str) -> None:
    """Write beside the file and swap: a reader sees the old state or the new one, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private; this one is handed in
        _swap(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _swap(new: str, path: Path) -> None:
    """Put a file in another's place, which Windows refuses while somebody reads the old one."""
    for pause in (0.01, 0.1, 0.5):
        try:
            return os.replace(new, path)
        except PermissionError:
            time.sleep(pause)
    os.replace(new, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside ``path``; the system lets go of a dead process's lock.

    Waits ten seconds at most. A lock that the file system refuses is done without.
    """
    # Not a file that stands for a lock: it would outlive a process that was killed.
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=WAIT, fallback_to_soft=False)
    with suppress(OSError):  # some network folders know no locks
        lock.acquire(poll_interval=0.02)
    try:
        yield
    finally:
        lock.release()
