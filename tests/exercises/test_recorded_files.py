"""Every recorded file: complete, and of the base that is committed."""

from __future__ import annotations

import importlib

import pytest

from sftlab.exercises.record import MODEL, key, modules, read
from sftlab.models import checksums


@pytest.mark.parametrize("name", sorted(modules()))
def test_it_is_complete_and_of_this_base(name):
    recorded = read(name)
    done = [key(entry["settings"]) for entry in recorded["runs"]]
    wanted = [key(settings) for settings in importlib.import_module(modules()[name]).settings()]
    assert set(wanted) <= set(done) and len(done) == len(set(done))
    assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])
