"""The desk: a student's own copies of the notebooks, without results, and a page that says what is next.

    lay_out   put a copy of every notebook into the folder ``work``, and renew its page ``start.md``
    reset     give a notebook back as it was; the old one is kept in ``work/kept``

A copy that somebody has changed or run is never overwritten, also not by a newer workbook. A copy as
it was laid out is replaced when the workbook has a newer notebook.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue, progress
from sftlab.classroom.progress_overview import Tally, tally
from sftlab.errors import WorkbookError

DESK = ROOT / "work"
PAGE = "start.md"
LAID_OUT = ".laid_out.json"  # name -> digest of the copy as it was laid out
KEPT = "kept"


def without_outputs(notebook: Path) -> str:
    """Return a notebook as JSON without outputs and execution counts.

    Raises:
        WorkbookError: the file cannot be read as a notebook.
    """
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkbookError(
            f"{notebook} cannot be read as a notebook ({type(error).__name__}: {error}): get it anew, "
            "for example by  git checkout notebooks"
        ) from None
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def lay_out(desk: Path | None = None) -> list[str]:
    """Put a copy of each notebook that is not there yet on the desk; return what was done, in sentences.

    Results of a workbook that had no desk (progress, votes of a class) are copied once.
    """
    desk = desk or DESK
    desk.mkdir(parents=True, exist_ok=True)
    texts = {source.name: without_outputs(source) for source in _notebooks()}
    record, made, renewed, older = _record(desk), [], [], []
    told = [*_brought(desk), *_gone(desk, record, texts)]
    for name, text in texts.items():
        copy, newest = desk / name, _digest(text)
        if copy.exists():
            found, laid_out = _digest(_read(copy)), record.setdefault(name, newest)
            if found == newest:
                record[name] = newest
                continue
            if found != laid_out:  # somebody worked in it
                older += [name[:2]] if laid_out != newest else []
                continue
        (renewed if copy.exists() else made).append(name)
        progress.replace(copy, text)
        record[name] = newest
        _store(desk, record)
    _store(desk, record)
    if made:
        told.append(f"{len(made)} notebooks without results were laid out in {_shown(desk)}.")
    if renewed:
        told.append(f"{len(renewed)} notebooks that you had not used yet were renewed.")
    if older:
        told.append(
            f"There are newer versions of {', '.join(older)}; yours were kept. To work on a new one:  "
            f"python workbook.py reset {older[0]}  (yours is then kept in {_shown(desk / KEPT)})."
        )
    return told


def reset(numbers: Sequence[str], desk: Path | None = None, forget: bool = False) -> Iterator[str]:
    """Give notebooks back as the workbook has them; yield what was done, in sentences.

    Parameters:
        numbers: two digits each, or "all".
        forget: also forget the predictions and solved checks of these notebooks.

    Raises:
        WorkbookError: there is no notebook with one of these numbers, or the workbook's own cannot be
            read; nothing was changed.
    """
    desk = desk or DESK
    known = {source.name[:2]: source for source in _notebooks()}
    asked = [number.lower() for number in numbers]
    wanted = list(known) if "all" in asked else [n.zfill(2) if n.isdigit() else n for n in asked]
    if unknown := [number for number in wanted if number not in known]:
        raise WorkbookError(
            f"there is no notebook {', '.join(map(repr, unknown))}; the numbers are {min(known)} to "
            f"{max(known)}, or all. Nothing was changed"
        )
    texts = {number: without_outputs(known[number]) for number in wanted}
    desk.mkdir(parents=True, exist_ok=True)
    record = _record(desk)
    for number, text in texts.items():
        copy = desk / known[number].name
        if copy.exists() and _digest(_read(copy)) != _digest(text):
            yield f"Yours of {number} is kept as {_shown(_keep(copy))}."
        progress.replace(copy, text)
        record[copy.name] = _digest(text)
        _store(desk, record)
        if forget and (notice := progress.forget(f"{number}.")):
            yield notice
        yield f"{number} is as it was."
    if forget:
        yield "Their predictions and solved checks are forgotten."
    yield "Close a notebook that is open in JupyterLab and open it again."


def write_page(desk: Path | None = None) -> list[str]:
    """Write the page of the desk; one that somebody wrote into is kept."""
    desk = desk or DESK
    place, record, told = desk / PAGE, _record(desk), []
    if place.exists() and PAGE in record and _digest(_read(place)) != record[PAGE]:
        told.append(f"What you wrote into {PAGE} is kept as {_shown(_keep(place))}.")
    text = page()
    progress.replace(place, text)
    _store(desk, record | {PAGE: _digest(text)})
    return told


def page() -> str:
    """Return the page of the desk as Markdown: the next notebook, what is done, and the minutes left."""
    stored, rows, left, whole, next_one = _sound(progress.load()), [], 0, 0, None
    for number in order():
        done = tally(number, stored)
        minutes = minutes_left(number, done)
        left += minutes
        link = f"[{number} · {catalogue.title(number)}]({_file(number)})"
        if minutes and next_one is None:
            next_one = f"{link}, about {minutes} minutes"
        shown = f"{minutes} min" if minutes else "**done ✓**"
        whole += not minutes
        counts = _of(done.predicted, done.predictions), _of(done.checks_solved, done.checks)
        rows.append(f"| {link} | {counts[0]} | {counts[1]} | {shown} |")
    head = "**All is done.** Every notebook ends with open tasks: *Go further*."
    return "\n".join([
        "# Where you stand", "", f"**Next**: {next_one}." if next_one else head, "",
        f"{whole} of {len(rows)} notebooks are done; about {_hours(left)} are left.",
        "", "| notebook, in the order of the course | predictions | checks | left |", "|---|---|---|---|", *rows, "",
        "These notebooks are your copies: change what you like. To get one back as it was, close it and type",
        "`python workbook.py reset 07` in the workbook's folder; yours is kept in `kept`. `make lab` renews this page; in",
        "between, the last table of notebook 00 shows what is done.", "",
    ])  # fmt: skip


def order() -> list[str]:
    """Return the numbers in the order that notebook 00 gives for a course; others follow."""
    text = catalogue.text("00", "markdown")
    row = next((line for line in text.splitlines() if line.startswith("| **a course**")), "")
    numbers = catalogue.numbers()
    told = [number for number in re.findall(r"\b\d\d\b", row) if number in numbers]
    return list(dict.fromkeys(["00", *told, *numbers]))


def minutes(number: str) -> int:
    """Return how long a notebook takes to work through, as its first cells say; 0 if they don't."""
    found = re.search(r"\*Time\*: (\d+) minutes", catalogue.text(number, "markdown"))
    return int(found[1]) if found else 0


def minutes_left(number: str, done: Tally) -> int:
    """Return the minutes left in a notebook, by the share of its predictions and checks that is open."""
    whole = done.predictions + done.checks
    share = 1 - (done.predicted + done.checks_solved) / whole if whole else 1
    return -(-round(minutes(number) * share) // 5) * 5  # up to five minutes


def _of(done: int, whole: int) -> str:
    return f"{done} of {whole}" if whole else "–"


def _hours(minutes: int) -> str:
    return f"{minutes} minutes" if minutes < 100 else f"{round(minutes / 60)} hours"


def _notebooks() -> list[Path]:
    found = sorted(catalogue.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise WorkbookError(
            f"there are no notebooks in {catalogue.NOTEBOOKS}: get the workbook anew"
        )
    return found


def _file(number: str) -> str:
    path = catalogue.notebook(number)
    return path.name if path else ""


def _record(desk: Path) -> dict[str, str]:
    """Return name -> digest of the copies as they were laid out; empty if the file is lost."""
    try:
        record = json.loads((desk / LAID_OUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = record.items() if isinstance(record, dict) else ()
    return {name: digest for name, digest in entries if isinstance(digest, str)}


def _store(desk: Path, record: dict[str, str]) -> None:
    progress.replace(desk / LAID_OUT, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _read(copy: Path) -> str:
    """Return a student's file as text; damaged bytes are no reason to stop."""
    return copy.read_text(encoding="utf-8", errors="replace")


def _digest(text: str) -> str:
    """Return a digest of what a person reads or writes: JupyterLab changes the rest by itself on saving."""
    try:
        cells = json.loads(text)["cells"]
        read = [(c["cell_type"], "".join(c["source"]), c.get("outputs", [])) for c in cells]
        text = json.dumps(read, sort_keys=True)
    except (ValueError, KeyError, TypeError):
        pass  # damaged: every character counts
    return hashlib.sha256(text.encode()).hexdigest()


def _brought(desk: Path) -> list[str]:
    """Copy the results of a workbook without a desk; they stay where they were as well."""
    brought = []
    for old in [catalogue.NOTEBOOKS / "progress.json", *catalogue.NOTEBOOKS.glob("votes_*.json")]:
        if old.is_file() and not (desk / old.name).exists():
            shutil.copyfile(old, desk / old.name)
            brought.append(old.name)
    return [f"{', '.join(brought)} was copied from the folder notebooks."] if brought else []


def _keep(path: Path) -> Path:
    """Copy a student's file into the folder of kept ones; return the copy."""
    now = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    kept = path.parent / KEPT / f"{path.stem}.{now}{path.suffix}"
    kept.parent.mkdir(exist_ok=True)
    number = 2
    while kept.exists():  # two within a second
        kept, number = kept.with_name(f"{path.stem}.{now}-{number}{path.suffix}"), number + 1
    shutil.copyfile(path, kept)
    return kept


def _gone(desk: Path, record: dict[str, str], texts: dict[str, str]) -> list[str]:
    """Take copies away that nobody used of notebooks that the workbook no longer has; name the others."""
    told = []
    for name in [name for name in record if name.endswith(".ipynb") and name not in texts]:
        copy, laid_out = desk / name, record.pop(name)
        if copy.exists() and _digest(_read(copy)) == laid_out:
            copy.unlink()
        elif copy.exists():
            told.append(f"{name} is no longer in the workbook, or has another name; yours stays.")
    return told


def _sound(stored: dict) -> dict:
    """Return the progress without values that no notebook writes, of a file that was edited by hand."""
    for entry in stored["predictions"].values():
        if not isinstance(entry.get("right"), bool | None):
            entry["right"] = None
    return stored


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lay the desk out, or reset notebooks; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python workbook.py reset", description=reset.__doc__.splitlines()[0]
    )
    parser.add_argument(
        "numbers", nargs="+", metavar="NUMBER", help='two digits ("07"), several of them, or all'
    )
    parser.add_argument(
        "--forget", action="store_true", help="forget their predictions and checks too"
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        DESK.mkdir(parents=True, exist_ok=True)
        os.chdir(DESK)  # as the kernels of its notebooks: the progress file is found from there
        if arguments == ["--lay-out"]:
            told = iter(lay_out())
        else:
            asked = parser.parse_args(arguments)
            told = reset(asked.numbers, forget=asked.forget)
        for sentence in told:
            print(sentence)
        for sentence in write_page():
            print(sentence)
    except WorkbookError as error:
        print(f"workbook: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"workbook: {_shown(DESK)} cannot be written ({error.strerror}): is it a folder of yours, and is "
            "there room on the disk? No work was lost.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
