"""CONTRIBUTING's example of an exercise, followed step by step in a copy of the workbook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml

import sftlab
from sftlab._internal.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w/.]+)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL))
EXERCISE, NOTEBOOK = "sftlab/exercises/ex90_perplexity", "notebooks/90_perplexity.ipynb"


def as_notebook(text: str) -> nbformat.NotebookNode:
    cells = []
    for part in re.split(r"(?m)^# %%", text)[1:]:
        kind, _, source = part.partition("\n")
        if "markdown" in kind:
            plain = re.sub(r"(?m)^# ?", "", source.strip())
            cells.append(nbformat.v4.new_markdown_cell(plain))
        else:
            tags = {"tags": kind.partition("]")[2].split()} if "tags" in kind else {}
            cells.append(nbformat.v4.new_code_cell(source.strip(), metadata=tags))
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("sftlab", "tools", "tests", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("conftest.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data").symlink_to(ROOT / "data", target_is_directory=True)
    for path, text in FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        if path == NOTEBOOK:
            nbformat.write(as_notebook(text), folder / path)
        else:
            (folder / path).write_text(text, encoding="utf-8")
    return folder


def run(copy, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_example_is_whole():
    parts = ("__init__", "check", "answers")
    assert set(FILES) == {*(f"{EXERCISE}/{part}.py" for part in parts), NOTEBOOK}


@pytest.mark.thorough
@pytest.mark.base
def test_its_notebook_runs_and_its_answers_pass_the_tests_that_every_exercise_passes(copy):
    assert "written" in run(copy, "tools.publish", NOTEBOOK)
    stored = nbformat.read(copy / NOTEBOOK, as_version=4)
    kinds = [o.metadata.get("sftlab", {}) for c in stored.cells for o in c.get("outputs", [])
             if "metadata" in o]  # fmt: skip
    assert {"kind": "check", "id": "90.perplexity", "status": "not attempted"} in kinds
    assert [kind["measured"] for kind in kinds if kind.get("kind") == "outcome"] == ["about 7"]
    row = "| 90 | [How many tokens is a loss worth?](notebooks/90_perplexity.ipynb) | How many equally"
    assert row in (copy / "README.md").read_text(encoding="utf-8")
    said = run(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/exercises/test_checks.py",
               "tests/exercises/test_rules.py", "-k", "90.perplexity")  # fmt: skip
    assert int(re.search(r"(\d+) passed", said)[1]) > 30


def test_the_version_is_one():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == sftlab.__version__
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"(?m)^## \[([\d.]+)\] - ([\d-]+)", log)
    assert newest.groups() == (sftlab.__version__, str(cited["date-released"]))


def test_pre_commit_has_the_ruff_of_the_constraints():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pinned = re.search(r"(?m)^ruff==(.+)$", (ROOT / "constraints.txt").read_text())[1]
    assert hooks["repos"][0]["rev"] == f"v{pinned}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/benchmarks.md"])
def test_what_a_page_points_to_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r"`((?:sftlab|tools|tests|docs)/[\w/.]+)`", text):
        assert "ex90" in path or "NN" in path or (ROOT / path).exists(), path
