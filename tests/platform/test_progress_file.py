"""The progress file with several processes, with one that died, and where there are no locks."""

import json
import os
import subprocess
import sys

import pytest

from sftlab._internal.paths import ROOT
from sftlab.classroom import progress

WRITE = """
import sys
from sftlab.classroom import progress
for k in range(20):
    progress.update(lambda p: p["checks"].update({f"{sys.argv[1]}.{k}": {}}))
"""
HOLD = """
import sys, time
from sftlab.classroom import progress
with progress._locked(progress.progress_path()):
    print("held", flush=True)
    time.sleep(60)
"""


def started(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )


def solve(name):
    progress.update(lambda p: p["checks"].update({name: {}}))


def stored():
    return set(json.loads(progress.progress_path().read_text(encoding="utf-8"))["checks"])


def test_processes_that_write_at_once_keep_each_others_entries():
    writers = [started(WRITE, str(number)) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(stored()) == 60


def test_the_lock_of_a_killed_process_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(progress, "WAIT", 0.2)
    holder = started(HOLD)
    assert holder.stdout.readline().strip() == b"held"
    with progress._locked(progress.progress_path()):  # it waits, and then goes on without
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    monkeypatch.setattr(progress, "WAIT", 10)
    lock = progress.FileLock(progress.progress_path().with_name(".progress.json.lock"), timeout=1)
    with lock:
        pass
    solve("12.a")
    assert stored() == {"12.a"}


def test_a_lock_that_the_file_system_refuses_is_done_without(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no locks here")

    monkeypatch.setattr(progress.FileLock, "acquire", refuse)
    solve("12.a")
    assert stored() == {"12.a"}


@pytest.mark.parametrize("refusals, fails", [(2, False), (9, True)])
def test_a_file_that_is_being_read_is_replaced_a_moment_later(monkeypatch, refusals, fails):
    solve("12.a")
    replace, left = os.replace, [True] * refusals

    def busy(new, old):
        if left:
            left.pop()
            raise PermissionError("it is open elsewhere")
        replace(new, old)

    monkeypatch.setattr(progress.os, "replace", busy)
    if fails:
        with pytest.raises(PermissionError):
            solve("12.b")
        assert stored() == {"12.a"}
        left_over = progress.progress_path().parent.glob(".progress.json.*")
        assert [path.name for path in left_over] == [".progress.json.lock"]
    else:
        solve("12.b")
        assert stored() == {"12.a", "12.b"}
