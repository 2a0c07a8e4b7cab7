"""pyproject.toml, constraints.txt and environment.yml describe one environment: this one.

What is listed is imported, and the notebooks import nothing that only authors or tests have.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN_TIME = [Requirement(line) for line in PROJECT["dependencies"]]
GROUPS = {
    group: [Requirement(line) for line in lines if not line.startswith("sftlab[")]
    for group, lines in PROJECT["optional-dependencies"].items()
}
DEPENDENCIES = [*RUN_TIME, *(one for group in GROUPS.values() for one in group)]
# Listed and not imported by our own code, but needed all the same.
NEEDED = {
    "jupyterlab": "make lab starts it",
    "ipykernel": "it runs the notebooks",
    "sphinx-book-theme": "the book's look",
    "myst-nb": "Sphinx reads the notebooks with it",
    "pytest-xdist": "pytest -n 2",
    "pytest-socket": "pytest --allow-hosts",
    "ruff": "make lint",
    "mypy": "make lint",
}
IMPORT_NAMES = {
    "pyyaml": "yaml",
    "ipython": "IPython",
    "axe-playwright-python": "axe_playwright_python",
}
CONSTRAINTS = {
    canonicalize_name(requirement.name): requirement
    for requirement in (
        Requirement(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"constraints.txt: {requirement} is not an exact version"
    return specifier.version


def test_each_constraint_is_one_exact_released_version():
    for requirement in CONSTRAINTS.values():
        assert re.fullmatch(r"[0-9.]+(?:(?:rc|post)\d+)?", pinned(requirement)), requirement
        assert requirement.url is None, f"{requirement} names a file or an address"


def test_each_dependency_is_pinned_to_a_version_that_it_admits():
    for dependency in DEPENDENCIES:
        name = canonicalize_name(dependency.name)
        assert name in CONSTRAINTS, f"{name} is in pyproject.toml but not in constraints.txt"
        assert dependency.specifier.contains(pinned(CONSTRAINTS[name])), (
            f"constraints.txt has {CONSTRAINTS[name]}, pyproject.toml asks for {dependency}"
        )


def test_conda_installs_this_package_under_the_same_constraints():
    (pip_section,) = [entry["pip"] for entry in CONDA if isinstance(entry, dict)]
    assert pip_section == ["-c constraints.txt", "-e ."]
    assert "pip" in CONDA


def test_conda_names_an_exact_minor_version_of_python_that_the_package_admits():
    (python,) = [entry for entry in CONDA if str(entry).startswith("python")]
    minor = re.fullmatch(r"python=(3\.\d+)", python)
    assert minor, f"environment.yml: {python!r} is not an exact minor version"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(minor[1])


def test_installed_versions_are_those_of_the_constraints():
    """A package that another Python or system does not need may be absent; ours may not."""
    needed = {canonicalize_name(dependency.name) for dependency in DEPENDENCIES}
    differing = []
    for name, requirement in CONSTRAINTS.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            if name in needed:
                differing.append(f"{name}: {pinned(requirement)} wanted, not installed")
            continue
        # "2.13.0+cpu" satisfies "==2.13.0": a local label is the same release.
        if not requirement.specifier.contains(installed, prereleases=True):
            differing.append(f"{name}: {pinned(requirement)} wanted, {installed} installed")
    assert not differing, f"{sys.prefix} differs from constraints.txt:\n" + "\n".join(differing)


def imported(sources) -> set[str]:
    found: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def texts(folder: str):
    return (path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))


def import_name(requirement: Requirement) -> str:
    return IMPORT_NAMES.get(requirement.name, requirement.name.replace("-", "_"))


def test_what_is_listed_is_imported_or_said_to_be_needed():
    package = imported(texts("sftlab"))
    everything = package | imported(texts("tests")) | imported(texts("tools"))
    for requirement in DEPENDENCIES:
        group = package if requirement in RUN_TIME else everything
        name = requirement.name
        assert (import_name(requirement) in group) != (name in NEEDED), name


def test_what_the_notebooks_import_is_there_for_every_student():
    cells = (
        "".join(cell["source"])
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    )
    # Notebook 11 asks whether bitsandbytes is there, and goes on without.
    run_time = {import_name(one) for one in RUN_TIME} | {"sftlab", "bitsandbytes"}
    assert imported(cells) - sys.stdlib_module_names <= run_time


def test_binder_and_colab_take_their_versions_from_the_constraints():
    from tools.colab import PACKAGES, pinned

    for name in PACKAGES:
        assert Requirement(pinned(name)) == CONSTRAINTS[canonicalize_name(name)]
        assert name in {requirement.name for requirement in DEPENDENCIES}
