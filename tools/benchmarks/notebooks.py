"""How long each notebook took under nbval: ``python -m tools.benchmarks.notebooks report.xml``.

The report is the one that pytest writes with ``--junitxml``; a cell's time has its kernel's start in
it where it is the first. Nothing is judged: the table is there to be looked at.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

from sftlab.errors import WorkbookError


def seconds(report: Path) -> dict[str, float]:
    """Notebook -> seconds of all its cells, the slowest first.

    Raises:
        WorkbookError: there is no report, or it cannot be read.
    """
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise WorkbookError(
            f"{report} cannot be read ({error}): run  make bench-notebooks"
        ) from None
    found: dict[str, float] = defaultdict(float)
    for case in cases:
        name = case.get("classname", "").removesuffix(".ipynb").split(".")[-1]
        found[name] += float(case.get("time", 0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def table(found: dict[str, float]) -> str:
    """The notebooks with their seconds, and the sum and the median of them."""
    lines = [f"{name:<34}{value:7.1f} s" for name, value in found.items()]
    whole = f"{len(found)} notebooks, {sum(found.values()):.0f} s, median {median(found.values()):.1f} s"
    return "\n".join([*lines, whole])


def main() -> int:
    """Print the table of the report that is named; the exit status."""
    try:
        print(table(seconds(Path(sys.argv[1]))))
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
