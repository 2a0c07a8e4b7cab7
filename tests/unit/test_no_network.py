"""The guard under which the notebooks run refuses what leaves this machine, and only that."""

import os
import socket
import subprocess
import sys

import workbook
from sftlab._internal.paths import ROOT

GUARD = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "no_network")}


def connect(host: str, port: int) -> str:
    code = f"import socket; socket.create_connection(({host!r}, {port}), 2); print('connected')"
    done = subprocess.run([sys.executable, "-c", code], env=GUARD, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_connection_beyond_this_machine_is_refused_before_it_is_made():
    assert "without a network" in connect("192.0.2.1", 80)  # an address set aside for documentation


def test_a_connection_on_this_machine_goes_through():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "connected" in connect("127.0.0.1", server.getsockname()[1])


def test_the_notebook_run_is_under_the_guard(monkeypatch):
    asked = {}
    monkeypatch.setattr(workbook, "set_up", lambda *extras: None)
    monkeypatch.setattr(workbook, "python", lambda *arguments, **environment: None)
    monkeypatch.setattr(
        workbook, "pytest", lambda *arguments, **environment: asked.update(environment)
    )
    workbook.compare([])
    assert asked["PYTHONPATH"] == GUARD["PYTHONPATH"]
