"""On Windows and on macOS the package can be imported, and notebooks run to their end.

The systems are pretended (see hidden/sitecustomize.py), in a copy of the workbook whose path holds a
space and letters beyond ASCII, with a console in ASCII and without bitsandbytes. Not pretended: the
libraries below, and how the real systems keep memory and time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftlab._internal.paths import DATA, ROOT

HIDDEN = Path(__file__).parent / "hidden"
SAID = {  # what a notebook has to say once, each in a sentence
    "11": ["bitsandbytes is not installed; where it was"],
    "21": ["bitsandbytes is not installed (pip"],
}
# Where macOS takes a branch of its own, or one of Windows' beside one of Linux': the limit of memory
# is refused as on Windows, and checks are timed by a signal as on Linux.
NOTEBOOKS = [
    ("win32", "00"),
    *(
        pytest.param(system, number, marks=pytest.mark.thorough)
        for system, number in (*(("win32", n) for n in ("11", "13", "19", "21")), ("darwin", "21"))
    ),
]
ASKS = re.compile(  # for the system, or for bitsandbytes
    r"sys\.platform|os\.(?:name|fork|uname|getuid|sched_getaffinity|killpg|setsid)\b|setitimer"
    r"|import (?:resource|fcntl|termios|pwd|grp|msvcrt|psutil|bitsandbytes)\b|find_spec"
)
ASKED_IN = {
    "_internal/provenance.py",
    "classroom/sandbox.py",
    "memory/limit.py",
    "memory/measure.py",
    "quantized_layers.py",
}
IMPORT_ALL = """
import importlib, pkgutil, sys
import sftlab
names = [m.name for m in pkgutil.walk_packages(sftlab.__path__, "sftlab.")]
for name in names:
    if not name.endswith("__main__"):  # a program: it would begin its work
        importlib.import_module(name)
print(len(names), "modules: → α")
"""
RUN_NOTEBOOK = """
import sys
from pathlib import Path
import nbformat
from tools.publish import execute
path = Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
execute(notebook, path)
nbformat.write(notebook, path.with_suffix(".ran"))
"""


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """A copy of what a student has, under a path that is not plain."""
    folder = tmp_path_factory.mktemp("away") / "wörk böok"
    for name in ("sftlab", "tools", "notebooks", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(DATA, target_is_directory=True)
    return folder


def ran(workbook, platform, code, *arguments):
    environment = os.environ | {
        "SFTLAB_PRETEND": platform,
        "PYTHONPATH": os.pathsep.join(map(str, (HIDDEN, workbook))),
        "PYTHONIOENCODING": "ascii",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=workbook, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("ascii")


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_module_can_be_imported(workbook, platform):
    said = ran(workbook, platform, IMPORT_ALL)
    assert int(said.split()[0]) > 100
    assert said.split("modules")[1].strip() == ": ? ?"


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_system_is_hidden_from_the_package_and_its_memory_is_told(workbook, platform):
    code = """
from sftlab._internal import paths
from sftlab.memory import measure as memory
from sftlab.classroom import sandbox as running
print(memory.sys.platform, hasattr(running.signal, "setitimer"), hasattr(running.os, "fork"))
print(memory.process_peak_bytes() > 50e6, memory.process_bytes() > 50e6, "b\\xf6ok" in str(paths.ROOT))
"""
    here = str(platform == "darwin")
    assert ran(workbook, platform, code).split() == [platform, here, here, *["True"] * 3]


def test_the_system_is_asked_for_in_the_modules_whose_notebooks_run_here():
    """A new place is one for the list of notebooks, too."""
    package, found = ROOT / "sftlab", ROOT / "notebooks"
    modules = (path for path in package.rglob("*.py") if ASKS.search(path.read_text("utf-8")))
    assert {path.relative_to(package).as_posix() for path in modules} == ASKED_IN
    cells = {
        path.name[:2] for path in found.glob("*.ipynb") if ASKS.search(path.read_text("utf-8"))
    }
    assert cells == set(SAID)


def text_of(cell):
    """What a cell prints, and its result as text."""
    return "".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for output in cell["outputs"]
    )


def outcomes(notebook):
    """What predictions came out as, by their names."""
    found = [
        output["metadata"].get("sftlab", {})
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "metadata" in output
    ]
    return {one["id"]: one["measured"] for one in found if one.get("kind") == "outcome"}


@pytest.mark.base
@pytest.mark.slow
@pytest.mark.parametrize("platform, number", NOTEBOOKS)
def test_a_notebook_runs_to_its_end_and_says_what_is_not_there(workbook, platform, number):
    (path,) = (workbook / "notebooks").glob(f"{number}_*.ipynb")
    ran(workbook, platform, RUN_NOTEBOOK, str(path))
    stored, fresh = (
        json.loads(file.read_text(encoding="utf-8")) for file in (path, path.with_suffix(".ran"))
    )
    told = "".join(text_of(cell) for cell in fresh["cells"] if cell["cell_type"] == "code")
    for sentence in SAID.get(number, []):
        assert told.count(sentence) == 1
    if number not in SAID:
        assert "not installed" not in told and "Not measured" not in told
    assert outcomes(fresh).items() >= outcomes(stored).items()
    streams = [o["name"] for c in fresh["cells"] for o in c.get("outputs", []) if "name" in o]
    assert "stderr" not in streams
