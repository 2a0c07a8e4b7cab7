"""Record an experiment: ``sftlab record NAME``. Results that are already recorded are kept.

``--confirm`` repeats one recorded run and, if the result agrees, notes that the record is valid for
the current code. Without a name, it does so for every record that is older than its code.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from types import ModuleType

from sftlab.errors import WorkbookError
from sftlab.exercises.record import confirm, modules, older_than, read, results_path, sweep


def names() -> list[str]:
    """Return the names of the experiments that can be recorded."""
    return sorted(modules())


def _module(name: str) -> ModuleType:
    return importlib.import_module(modules()[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 if every run is recorded."""
    parser = argparse.ArgumentParser(prog="sftlab record", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", choices=names(), metavar="NAME")
    parser.add_argument(
        "--list", action="store_true", help="the experiments, and what they measure"
    )
    parser.add_argument(
        "--confirm", action="store_true", help="measure one recorded run again, and compare"
    )
    chosen = parser.parse_args(arguments)
    if chosen.confirm:
        return max(map(_confirm, [chosen.name] if chosen.name else names()), default=0)
    if chosen.list or not chosen.name:
        for name in names():
            about = _module(name).__doc__ or ""
            print(f"{name:24s} {about.strip().splitlines()[0]}")
        return 0
    module = _module(chosen.name)
    settings = module.settings()
    try:
        found = sweep(chosen.name, settings, module.run)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(found)} of {len(settings)} runs in data/results/{results_path(chosen.name).name}")
    return 0 if len(found) >= len(settings) else 1


def _confirm(name: str) -> int:
    """Confirm a record that is older than its code; return 0 if it is valid."""
    try:
        if not older_than(name):
            print(f"{name:24s} as new as its code")
            return 0
        module = _module(name)
        again = getattr(module, "CONFIRM", None) or read(name)["runs"][0]["settings"]
        print(f"{name:24s} ", end="", flush=True)
        began = time.monotonic()
        apart = confirm(name, [again], module.run)
        print(f"holds: {again} came out {apart:.2g} apart, in {time.monotonic() - began:.0f} s")
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
