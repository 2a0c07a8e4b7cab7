"""`make bench`: measure, or go on where an interrupt left it; write JSON, picture and tables."""

from __future__ import annotations

import os
import sys

from sftlab._internal.paths import ROOT, cache_folder
from sftlab.errors import WorkbookError
from sftlab.exercises.record import key, read, results_path, sweep, write
from tools.benchmarks import picture
from tools.benchmarks.measure import run, settings

NAME = "speed"
PICTURE = ROOT / "docs" / "speed.png"
PAGE = ROOT / "docs" / "benchmarks.md"
START, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def main() -> int:
    """Returns the exit status: 0 when everything was measured.

    Until then the runs are kept in the cache, and the old record stays as it is.
    """
    unfinished, wanted = cache_folder() / "bench", settings()
    try:
        sweep(NAME, wanted, run, unfinished, module="tools.benchmarks")
        whole = _only(wanted, read(NAME, unfinished))
        if len(whole["runs"]) < len(wanted):
            return 1
        measured = [{**entry["settings"], **entry["result"]} for entry in whole["runs"]]
        table = picture.readme_table(measured, whole["provenance"][0])
        drawn = picture.draw(measured)
        write(results_path(NAME), whole)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    results_path(NAME, unfinished).unlink()
    print(table)
    drawn.savefig(PICTURE, dpi=110)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    new = PAGE.with_suffix(".new")
    new.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
    os.replace(new, PAGE)
    return 0


def _only(wanted: list[dict], found: dict) -> dict:
    """The record without runs that an earlier bench, with other settings, left unfinished."""
    keys = {key(setting) for setting in wanted}
    return {**found, "runs": [entry for entry in found["runs"] if key(entry["settings"]) in keys]}


if __name__ == "__main__":
    sys.exit(main())
