"""Copies for Colab: their first cell, what it installs, and the badges."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import types
from unittest.mock import Mock

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools import colab

ADDRESS = "https://github.com/someone/sftlab"
# On Colab's machines anyway; their list of packages names them.
THERE = {
    "IPython",
    "ipywidgets",
    "jinja2",
    "matplotlib",
    "nbformat",
    "numpy",
    "packaging",
    "pandas",
}
THERE |= {"cycler", "psutil", "pygments", "safetensors", "scipy", "torch", "tqdm"}
# Commands of the workbook's keepers, which no notebook imports.
TOOLS = "bench experiments autograding book colab course deck publish real slides website".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies") / "colab"
    colab.build(ADDRESS, folder)
    return folder


def run_first_cell(made) -> Mock:
    """Run it as IPython would, with a shell that only takes down what it is told."""
    cells = json.loads((made / "12_prompt_masking.ipynb").read_text())["cells"]
    code = TransformerManager().transform_cell("".join(cells[0]["source"]))
    shell = Mock()
    exec(code, {"get_ipython": lambda: shell})
    return shell


def test_there_is_a_copy_of_each_notebook_without_outputs(made):
    assert {p.name for p in made.glob("*.ipynb")} == {p.name for p in NOTEBOOKS.glob("*.ipynb")}
    for path in made.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") for cell in cells)
        given = json.loads((NOTEBOOKS / path.name).read_text())["cells"]
        assert [cell["source"] for cell in cells[1:]] == [cell["source"] for cell in given]


def test_elsewhere_the_first_cell_does_nothing(made):
    before = list(sys.path)
    assert not run_first_cell(made).mock_calls
    assert sys.path == before


def test_on_colab_it_fetches_the_workbook_and_the_pinned_packages(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    shell = run_first_cell(made)
    (fetched,) = shell.system.call_args.args
    assert fetched.endswith(f"git clone --quiet --depth 1 {ADDRESS} /content/sftlab")
    said = {call.args[0]: call.args[1] for call in shell.run_line_magic.mock_calls}
    assert set(said) == {"pip", "cd", "env"}
    for package in colab.PACKAGES:
        assert re.search(rf"\b{package}==\d[\d.]*", said["pip"])
    assert sys.path[0] == "/content/sftlab"


def test_what_notebooks_import_is_on_colab_or_installed_there():
    wanted: dict[str, str] = {}
    for path in (ROOT / "sftlab").rglob("*.py"):
        if set(TOOLS) & {path.stem, path.parent.name}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            wanted |= {name.partition(".")[0]: str(path) for name in names}
    known = THERE | set(colab.PACKAGES) | set(sys.stdlib_module_names) | {"sftlab"}
    assert {name: path for name, path in wanted.items() if name not in known} == {}


def test_the_badges_lead_to_this_copy(made):
    text = (made / "README.md").read_text()
    assert "mybinder.org/v2/gh/someone/sftlab/main?urlpath=lab/tree/notebooks/00" in text
    assert text.count("colab.research.google.com/github/someone/sftlab/blob/main/colab/") == len(
        list(NOTEBOOKS.glob("*.ipynb"))
    )


@pytest.mark.parametrize("address", ["sftlab", "https://example.org/a/b", "https://github.com/a"])
def test_an_address_that_is_none_is_refused(address, tmp_path, capsys):
    assert colab.main([address, "--folder", str(tmp_path / "colab")]) == 1
    assert "https://github.com/OWNER/NAME is" in capsys.readouterr().err
    assert not (tmp_path / "colab").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match="cannot be written"):
        colab.build(ADDRESS, tmp_path / "file" / "colab")


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_addresses_as_people_write_them(ending):
    assert colab.repository(ADDRESS + ending) == ("someone", "sftlab")


ORIGINS = [
    ADDRESS,
    f"{ADDRESS}.git",
    "git@github.com:someone/sftlab.git",
    "ssh://git@github.com/someone/sftlab.git",
    "https://someone:password@github.com/someone/sftlab.git",
]


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """The folder of a workbook inside a repository that is not the workbook's."""
    folder = tmp_path / "course" / "workbook"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "remote", "add", "origin", "https://github.com/somebody/else")
    monkeypatch.setattr(colab, "ROOT", folder)
    return folder


def git(folder, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


@pytest.mark.parametrize("origin", ORIGINS)
def test_without_an_address_it_is_the_origin_that_git_knows(origin, workbook):
    git(workbook, "init", "--quiet")
    git(workbook, "remote", "add", "origin", origin)
    assert colab.repository(colab.origin()) == ("someone", "sftlab")


def test_a_password_in_the_address_is_not_written_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "origin", lambda: ORIGINS[-1])
    folder = tmp_path / "colab"
    assert colab.main(["--folder", str(folder)]) == 0
    for path in folder.iterdir():
        assert "password@" not in path.read_text(encoding="utf-8")
    assert f"colab {ADDRESS}`" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("origin", [None, "", "https://example.org/someone/sftlab", "/srv/sftlab"])
def test_without_an_origin_on_github_it_says_what_to_give(origin, workbook, capsys):
    if origin is not None:
        git(workbook, "init", "--quiet")
    if origin:
        git(workbook, "remote", "add", "origin", origin)
    assert colab.main([]) == 1
    assert "tools.colab https://github.com/OWNER/NAME" in capsys.readouterr().err
    assert not (workbook / "colab").exists()


def test_without_git_it_says_what_to_give(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WorkbookError, match="give the address of your copy"):
        colab.origin()
