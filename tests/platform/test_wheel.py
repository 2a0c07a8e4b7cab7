"""The wheel: built, unpacked elsewhere, and used with nothing but what it says it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sftlab._internal.paths import ROOT

# Loaded by Python at its start: a module of a package that the wheel does not ask for is not there.
HIDING = """
import json, os, sys
class Hiding:
    names = set(json.loads(os.environ["HIDDEN"]))
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in self.names
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
USE = """
import sftlab.classroom
from sftlab.classroom.catalogue import exercise
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.record import runs
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab._internal.paths import INSTRUCTIONS
from sftlab.train import TrainConfig, sft_train

print(sftlab.__file__)
model, tokenizer = load("almanac")
pairs = read_jsonl(INSTRUCTIONS / "curated.jsonl")[:32]
rows = tokenize_conversations(tokenizer, [conversation(pair) for pair in pairs]).examples
history = sft_train(inject_lora(model, "all-linear", r=8, lora_alpha=16), rows, TrainConfig(num_train_epochs=8), progress=False)
assert history.finished and history.losses[-1] < history.losses[0] / 2, history.losses
assert runs("superficial") and exercise("12.mask_prompt").cases
"""


def needed(name: str, extras: frozenset = frozenset(), seen: set | None = None) -> set[str]:
    """A distribution and all that it needs, by canonical names."""
    seen = set() if seen is None else seen
    name = canonicalize_name(name)
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:  # not needed on this system
        return set()
    found = {name}
    for requirement in map(Requirement, lines):
        asked = [{"extra": extra} for extra in (*extras, "")]
        if requirement.marker is None or any(map(requirement.marker.evaluate, asked)):
            found |= needed(requirement.name, frozenset(requirement.extras), seen)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """Runs a Python that finds the unpacked wheel first, in another folder, without other packages."""
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    (place / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    ours = needed("sftlab")
    hidden = [
        name
        for name, distributions in packages_distributions().items()
        if not {canonicalize_name(one) for one in distributions} & ours
    ]
    assert {"pytest", "nbgrader", "bitsandbytes"} <= set(hidden)
    environment = {**os.environ, "PYTHONPATH": str(place), "HIDDEN": json.dumps(hidden)}

    def run(*arguments: str) -> str:
        folder = tmp_path_factory.mktemp("folder")
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.place = place
    return run


def test_the_wheel_carries_code_and_data_and_nothing_of_the_authors(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "sftlab/_data/models/almanac-base/model.safetensors" in names
    assert "sftlab/_data/results/superficial.json" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("/check.py") for name in names)
    assert not any(re.search(r"/ex\d\d_\w+/answers\.py", name) for name in names)
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"sftlab"}


@pytest.mark.thorough
def test_it_loads_the_embedded_model_and_trains_32_pairs(elsewhere):
    assert str(elsewhere.place) in elsewhere("-c", USE)


def test_its_command_lists_what_can_be_done(elsewhere):
    assert "usage: sftlab COMMAND" in elsewhere("-m", "sftlab", "--help")
    assert "almanac: embedded" in elsewhere("-m", "sftlab", "models")
