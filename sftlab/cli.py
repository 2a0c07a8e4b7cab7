"""The command ``sftlab``, with one subcommand for each program of the package."""

from __future__ import annotations

import argparse
import pkgutil
import subprocess
import sys
from collections.abc import Sequence

from sftlab._internal.paths import ROOT

# subcommand -> (module with a `main` function, description)
PROGRAMS = {
    "train": ("sftlab.pipeline:main", "train as a file says: sftlab train configs/sft.json"),
    "preflight": ("sftlab.preflight:main", "look at data and adapters before a run"),
    "template": (
        "sftlab.template_check:main",
        "what a chat template inserts: sftlab template FOLDER",
    ),
    "merge": (
        "sftlab.results:main",
        "make a whole model of an adapter: sftlab merge build/sft OUT",
    ),
    "export": (
        "sftlab.export:main",
        "write a model for llama.cpp and Ollama: sftlab export --gguf build/sft",
    ),
    "certificate": (
        "sftlab.certificate:main",
        "one page on a finished run, to be passed on with its model",
    ),
    "fetch": ("sftlab.fetch:main", "download a real model once: sftlab fetch smollm2-instruct"),
    "models": ("sftlab.cli:list_models", "what models are here, their size, licence and origin"),
    "record": ("sftlab.exercises.recording:main", "record an experiment, or list them"),
}
# Subcommands that need the notebooks are passed to workbook.py in the checkout.
IN_A_CHECKOUT = {
    "lab": "open the workbook in JupyterLab",
    "reset": "give notebooks back as they were: sftlab reset 07",
    "test": "run every check",
    "notebooks": "run all notebooks anew and store their outputs",
    "book": "the notebooks as a website",
    "slides": "the notebooks as slides",
    "course": "the notebooks as a course for nbgrader",
    "bench": "measure speed against TRL's trainer",
}


def usage() -> str:
    lines = ["usage: sftlab COMMAND [ARGUMENTS]   (sftlab COMMAND --help says more)", ""]
    lines += [f"  {name:<12} {about}" for name, (_, about) in PROGRAMS.items()]
    lines += ["", "in a checkout of the workbook:"]
    lines += [f"  {name:<12} {about}" for name, about in IN_A_CHECKOUT.items()]
    return "\n".join(lines)


def list_models(arguments: Sequence[str]) -> int:
    """Print every model name that `sftlab.models.load` accepts, and which models are available."""
    parser = argparse.ArgumentParser(prog="sftlab models", description=PROGRAMS["models"][1])
    parser.parse_args(arguments)
    from sftlab.fetch import overview
    from sftlab.models import FAMILIES

    for name, family in FAMILIES.items():
        where = "embedded" if family.embedded else "from the hub"
        print(f"{name}: {where} · {family.licence} · {family.base}, {family.chat}")
    print(*overview(), sep="\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name in PROGRAMS:
        return pkgutil.resolve_name(PROGRAMS[name][0])(rest)
    if name not in IN_A_CHECKOUT:
        print(f"sftlab: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    if not (ROOT / "workbook.py").is_file():
        print(
            f"sftlab {name} needs the notebooks: run it in a checkout of the workbook, or there "
            f"python workbook.py {name}",
            file=sys.stderr,
        )
        return 1
    return subprocess.call([sys.executable, str(ROOT / "workbook.py"), name, *rest])


if __name__ == "__main__":
    sys.exit(main())
