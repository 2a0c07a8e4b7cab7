"""Files of recorded results: runs are identified by their settings and saved one by one.

A sweep can therefore be interrupted and resumed.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sftlab._internal.code_behind import changed, code_behind
from sftlab._internal.paths import DATA
from sftlab._internal.progress_bar import ProgressBar
from sftlab._internal.provenance import provenance
from sftlab.errors import WorkbookError
from sftlab.models import checksums

RESULTS = DATA / "results"
MODEL = "almanac-base/model.safetensors"  # the model of the runs, identified by its checksum
MODULE = "sftlab"  # the program in the provenance: sftlab record NAME
CLOSE = 0.02  # largest accepted difference of a repeated run, relative to max(1, |recorded|)


@cache
def modules() -> dict[str, str]:
    """Return record -> the module that measures it, found by its line ``RECORD = "name"``."""
    here = Path(__file__).parent
    found = {}
    for path in sorted([*here.glob("*.py"), *here.glob("ex[0-9][0-9]_*/*.py")]):
        named = re.search(r'(?m)^RECORD = "(\w+)"', path.read_text(encoding="utf-8"))
        if named:
            parts = path.relative_to(here).with_suffix("").parts
            found[named[1]] = ".".join([__package__, *parts])
    return found


def results_path(name: str, folder: Path = RESULTS) -> Path:
    """Return the results file of an experiment."""
    return folder / f"{name}.json"


def read(name: str, folder: Path = RESULTS) -> dict:
    """Return a results file: ``provenance`` (one entry per recording session) and ``runs``.

    Every run has ``settings``, ``result`` and ``sitting``, the index of its provenance entry.

    Raises:
        WorkbookError: the file is missing or damaged.
    """
    path = results_path(name, folder)
    again = f"sftlab record {name}"
    if not path.is_file():
        raise WorkbookError(f"{path.name} is not in data/results: record it with  {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sittings = len(found["provenance"])
        whole = all(
            isinstance(run["settings"], dict)
            and isinstance(run["result"], dict)
            and 0 <= run["sitting"] < sittings
            for run in found["runs"]
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise WorkbookError(
            f"{path.name} in data/results is damaged: restore it with  git checkout -- data/results"
            f", or remove it and record it anew with  {again}"
        )
    return found


def runs(name: str, folder: Path = RESULTS, **chosen: Any) -> list[dict]:
    """Return the settings and results of the recorded runs, merged into one dictionary per run.

    Args:
        chosen: keep only runs whose settings have these values: ``runs("…", seed=0)``.

    Raises:
        WorkbookError: as in ``read``, or no run has these settings.
    """
    found = [{**run["settings"], **run["result"]} for run in read(name, folder)["runs"]]
    kept = [run for run in found if all(run.get(k) == v for k, v in chosen.items())]
    if not kept:
        raise WorkbookError(f"{name}.json holds no run with {chosen}; it holds {len(found)} runs")
    return kept


def key(settings: dict) -> str:
    """Return the settings as text that does not depend on their order."""
    return json.dumps(settings, sort_keys=True)


def sweep(
    name: str,
    settings: Sequence[dict],
    run: Callable[..., dict],
    folder: Path = RESULTS,
    progress: bool = True,
    module: str = MODULE,
) -> list[dict]:
    """Measure all settings that the file does not contain yet; save the file after every run.

    An interrupt keeps the finished runs and returns. Called again, the sweep continues.

    Args:
        settings: keyword arguments of ``run``, one dictionary per run; values must be valid in
            JSON.
        run: returns a dictionary of measurements.
        module: the module whose command measures, as stored in the provenance.

    Returns:
        The runs, as ``runs`` returns them.

    Raises:
        WorkbookError: settings repeat, the file is damaged or was recorded with another base model,
            or a result is not a finite number.
    """
    wanted = {key(setting): setting for setting in settings}
    if len(wanted) < len(settings):
        raise WorkbookError(f"{name}: two runs have the same settings; each must be told apart")
    path = results_path(name, folder)
    found = read(name, folder) if path.exists() else {"provenance": [], "runs": []}
    now = {**provenance(module), "base": checksums()[MODEL][:16], "code": _code(name, module)}
    if any(sitting["base"] != now["base"] for sitting in found["provenance"]):
        raise WorkbookError(
            f"{path.name} was recorded with another {MODEL}: its runs cannot stand beside new ones. "
            "Remove the file and record all of it"
        )
    done = {key(entry["settings"]) for entry in found["runs"]}
    open_runs = [setting for text, setting in wanted.items() if text not in done]
    if open_runs and now not in found["provenance"]:
        found["provenance"].append(now)
    shown = ProgressBar(len(wanted), "runs", first=len(wanted) - len(open_runs), shown=progress)
    with shown as bar, _noted_interrupts() as came:
        try:
            for setting in open_runs:
                entry = {"settings": setting, "result": _rounded(run(**setting), name)}
                if came:
                    raise KeyboardInterrupt  # training catches interrupts; the run is incomplete
                entry["sitting"] = found["provenance"].index(now)
                found["runs"].append(entry)
                write(path, found)
                bar.update(note=", ".join(f"{k} {v}" for k, v in setting.items()))
        except KeyboardInterrupt:
            bar.done = f"stopped: {len(found['runs'])} runs are kept, the same command goes on"
    return [{**entry["settings"], **entry["result"]} for entry in found["runs"]]


def confirm(
    name: str,
    settings: Sequence[dict],
    run: Callable[..., dict],
    folder: Path = RESULTS,
    module: str = MODULE,
) -> float:
    """Repeat some recorded runs and, if they agree, note that the file is valid for current code.

    Times in seconds are not compared.

    Returns:
        The largest difference, relative to the recorded number, or to 1 if that is larger.

    Raises:
        WorkbookError: as in `read`; settings are not recorded; or a run differs by more than CLOSE.
            Nothing is written in these cases.
    """
    found = read(name, folder)
    stored = {key(entry["settings"]): entry["result"] for entry in found["runs"]}
    apart = 0.0
    for setting in settings:
        if key(setting) not in stored:
            raise WorkbookError(f"{name}.json holds no run with {setting}: record it first")
        apart = max(apart, _apart(stored[key(setting)], _rounded(run(**setting), name)))
    if apart > CLOSE:
        raise WorkbookError(
            f"{name}: measured again, a run lies {apart:.3g} apart from the recorded one, more than "
            f"{CLOSE}: remove data/results/{name}.json and record all of it"
        )
    now = {**provenance(module), "code": _code(name, module)}
    found["confirmed"] = {**now, "runs": len(settings), "apart": float(f"{apart:.2g}")}
    write(results_path(name, folder), found)
    return apart


def older_than(name: str, folder: Path = RESULTS, module: str = MODULE) -> list[str]:
    """Return the modules that changed after the runs were recorded or confirmed."""
    found, now = read(name, folder), _code(name, module)
    sittings = [found["provenance"][number] for number in {run["sitting"] for run in found["runs"]}]
    since_recorded = {m for sitting in sittings for m in changed(sitting.get("code", {}), now)}
    if "confirmed" not in found:
        return sorted(since_recorded)
    return min(sorted(since_recorded), changed(found["confirmed"]["code"], now), key=len)


def _code(name: str, module: str) -> dict[str, str]:
    """Return the digests of the code that measures: the experiment's module or another program."""
    measuring = modules().get(name) if module == MODULE else module
    return code_behind(f"import {measuring}") if measuring else {}


def _apart(stored: Any, now: Any) -> float:
    """Return the largest relative difference of two results; infinite for different structures."""
    if isinstance(stored, dict) and isinstance(now, dict) and stored.keys() == now.keys():
        return max(
            (_apart(v, now[k]) for k, v in stored.items() if "seconds" not in k), default=0.0
        )
    if isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        return max(map(_apart, stored, now), default=0.0)
    if isinstance(stored, str) and isinstance(now, str) and len(stored) == len(now):
        return sum(a != b for a, b in zip(stored, now, strict=True)) / max(1, len(stored))
    if isinstance(stored, int | float) and isinstance(now, int | float):
        return abs(stored - now) / max(1.0, abs(stored))
    return 0.0 if stored == now else math.inf


@contextmanager
def _noted_interrupts() -> Iterator[list]:
    """Note interrupts and raise KeyboardInterrupt as usual; a run may catch it and continue."""
    came: list = []

    def note(*_) -> None:
        came.append(True)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    # Only the main thread receives interrupts. Custom handlers stay unchanged.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and before is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def write(path: Path, found: dict) -> None:
    """Write the file atomically, with one run per line.

    Raises:
        WorkbookError: the file cannot be written.
    """
    head = json.dumps(found["provenance"], indent=1, ensure_ascii=False)
    confirmed = ""
    if "confirmed" in found:
        confirmed = (
            f'"confirmed": {json.dumps(found["confirmed"], indent=1, ensure_ascii=False)},\n'
        )
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in found["runs"])
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f'{{"provenance": {head},\n{confirmed}"runs": [\n{lines}\n]}}\n'
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise WorkbookError(
            f"{path.name} cannot be written ({error.strerror}): free some space, then run again; "
            "the runs that were kept stay"
        ) from error


def _rounded(value: Any, name: str) -> Any:
    """Round to six significant digits; further digits differ between processors."""
    if isinstance(value, dict):
        return {k: _rounded(v, name) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v, name) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WorkbookError(f"{name}: a run measured {value}; nothing was written for it")
        return float(f"{value:.6g}")
    return value
