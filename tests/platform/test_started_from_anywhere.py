"""Training works wherever it is started: in the background, without a home, a terminal, or UTF-8."""

import json
import os
import signal
import subprocess
import sys

import pytest

from sftlab._internal.paths import ROOT, cache_folder

LIMIT = 120  # seconds
RUN = {
    "model": "almanac",
    "adapter": {"target_modules": "all-linear", "r": 2, "lora_alpha": 4},
    "train": {"learning_rate": 0.002, "max_steps": 2, "batch_size": 4, "seed": 0},
}


def environment(**changes):
    """This process's environment with some variables changed; None takes one away."""
    found = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes
    return {name: value for name, value in found.items() if value is not None}


def ran(code, folder, **changes):
    """What a program says that is started in a folder, with no terminal; its errors as well."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout, done.stderr


@pytest.fixture
def no_home(tmp_path):
    """A home in which nothing can be made, whoever asks: it lies in a file."""
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    nowhere = dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "SFTLAB_CACHE"))
    return nowhere | {"HOME": home, "USERPROFILE": home}


@pytest.fixture
def run_file(tmp_path):
    data = ROOT / "data" / "instructions" / "handful.jsonl"
    path = tmp_path / "run.json"
    run = RUN | {"data": str(data), "output": str(tmp_path / "out")}
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


@pytest.mark.base
@pytest.mark.parametrize("case", ["read-only home", "no home", "a console in ASCII"])
def test_a_run_trains(case, tmp_path, run_file, no_home):
    changes = {
        "read-only home": no_home,
        "no home": no_home | {"HOME": None, "USERPROFILE": None},
        "a console in ASCII": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    }[case]
    code = f"from sftlab.pipeline import main; raise SystemExit(main([{str(run_file)!r}]))"
    out, errors = ran(code, tmp_path, **changes)
    assert (tmp_path / "out" / "adapter").is_dir()
    if case == "a console in ASCII":
        assert (out + errors).isascii()


@pytest.mark.base
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_preflight_report_is_printed_on_a_console_without_arrows(encoding, tmp_path):
    data = tmp_path / "wörk.jsonl"
    data.write_text('{"prompt": "α?", "response": "→"}\n' * 2, encoding="utf-8")
    code = (
        "from sftlab.preflight import format_findings, main\n"
        "from sftlab.preflight import LOOK, Finding\n"
        "print(format_findings([Finding(LOOK, 'α', 'β', 'γ')]))\n"
        f"main([{str(data)!r}])"
    )
    out, _ = ran(code, tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert len(out.decode(encoding).splitlines()) > 5


@pytest.mark.thorough
@pytest.mark.base
@pytest.mark.parametrize("ignored", [True, False])
def test_a_job_in_the_background_goes_on_ignoring_interrupts(ignored, tmp_path, run_file):
    """A shell ignores SIGINT for a job that it starts with "&", so that Ctrl-C leaves it alone."""
    handler = "SIG_IGN" if ignored else "default_int_handler"
    code = (
        "import signal\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "from sftlab.classroom.sandbox import run\n"
        "from sftlab.exercises.record import sweep\n"
        "from sftlab.pipeline import main\n"
        "from pathlib import Path\n"
        "press = lambda **_: signal.raise_signal(signal.SIGINT) or {'value': 1.0}\n"
        f"found = sweep('trial', [dict(seed=0)], press, Path({str(tmp_path)!r}), progress=False)\n"
        "try:\n"
        "    run(lambda: signal.raise_signal(signal.SIGINT), limit=20)\n"
        "    print('went on', len(found))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', len(found))\n"
        f"assert signal.getsignal(signal.SIGINT) is signal.{handler}\n"
        f"main([{str(run_file)!r}])"
    )
    out, _ = ran(code, tmp_path)
    assert (b"went on 1" if ignored else b"interrupted 0") in out
    assert (tmp_path / "out" / "adapter").is_dir()


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such shell")
@pytest.mark.base
def test_the_tests_of_interrupts_pass_in_a_background_job():
    tests = ["tests/exercises/test_record.py", "tests/unit/test_train.py"]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command = f"trap '' INT; exec {' '.join(map(repr, pytest_))} -k interrupt"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment(), capture_output=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout.decode()


def test_who_has_no_home_has_a_cache_folder_all_the_same(monkeypatch, tmp_path):
    import platformdirs

    def lost(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("SFTLAB_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lost)
    assert cache_folder().is_absolute()
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_in_a_home_that_cannot_be_written_to_a_notebook_starts_without_a_remark(tmp_path, no_home):
    code = (
        "from sftlab.classroom import start; start('12'); import matplotlib.pyplot as p; p.figure()"
    )
    out, errors = ran(code, tmp_path, SFTLAB_PROGRESS=None, PYTHONIOENCODING="utf-8", **no_home)
    assert b"Checks" in out and errors == b""
