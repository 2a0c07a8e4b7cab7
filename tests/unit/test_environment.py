"""pyproject.toml, constraints.txt and environment.yml describe one environment: this one."""

from __future__ import annotations

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
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
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
