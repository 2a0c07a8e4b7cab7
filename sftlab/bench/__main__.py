"""`make bench`: measure, or go on where an interrupt left it; write JSON, picture and README table."""

from __future__ import annotations

import sys

from sftlab.bench import picture
from sftlab.bench.measure import run, settings
from sftlab.experiments.record import read, results_path, sweep
from sftlab.paths import ROOT

NAME = "speed"
PICTURE = ROOT / "docs" / "speed.png"
START, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def main() -> int:
    """Returns the exit status: 0 when everything was measured."""
    path, wanted = results_path(NAME), settings()
    if path.exists() and len(read(NAME)["runs"]) >= len(wanted):
        path.unlink()  # complete: measure anew
    found = sweep(NAME, wanted, run, module="sftlab.bench")
    if len(found) < len(wanted):
        return 1
    table = picture.readme_table(found, read(NAME)["provenance"][0])
    print(table)
    picture.draw(found).savefig(PICTURE, dpi=110)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
