"""workbook.py sets the environment up with the standard library alone, or says in a sentence why not."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import yaml

import workbook
from sftlab._internal.paths import ROOT

SOURCE = (ROOT / "workbook.py").read_text(encoding="utf-8")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A checkout without an environment; the commands that would have been run are noted."""
    ran: list[list[str]] = []
    venv = tmp_path / ".venv"
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(workbook, "ROOT", tmp_path)
    monkeypatch.setattr(workbook, "VENV", venv)
    monkeypatch.setattr(workbook, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(workbook, "READY", venv / "ready.json")
    monkeypatch.delenv("PYTHON", raising=False)

    def run(command, **_):
        ran.append([str(part) for part in command])
        if "venv" in command:
            (venv / "bin").mkdir(parents=True)
            (venv / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(workbook, "_run", run)
    return ran


def test_any_python_3_reads_it_and_it_needs_the_standard_library_alone():
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_the_first_call_installs_and_the_second_does_nothing(fresh):
    workbook.set_up()
    assert [command[2] for command in fresh] == ["venv", "pip", "pip", "pip"]
    assert fresh[2][-2:] == ["--editable", "."]
    settings = workbook.VENV / "share/jupyter/lab/settings/overrides.json"
    assert json.loads(settings.read_text(encoding="utf-8")) == workbook.LAB_SETTINGS
    fresh.clear()
    workbook.set_up()
    assert fresh == []


def test_a_group_is_added_to_the_environment_and_stays(fresh):
    workbook.set_up()
    workbook.set_up("test")
    assert [command[-1] for command in fresh if command[-1].startswith(".[")] == [".[test]"]
    fresh.clear()
    workbook.set_up()
    assert fresh == []


def test_changed_dependencies_are_installed_into_the_same_environment(fresh):
    workbook.set_up("test")
    with open(workbook.ROOT / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    fresh.clear()
    workbook.set_up()
    assert [command[-1] for command in fresh if command[-1].startswith(".[")] == [".[test]"]
    assert not any("venv" in command for command in fresh)


@pytest.mark.parametrize("answer", ["3 10", "3 14", "2 7", None])
def test_without_a_suitable_python_nothing_is_installed(fresh, monkeypatch, answer, capsys):
    monkeypatch.setattr(workbook, "_ask", lambda command, code: answer)
    assert workbook.main(["lab"]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "Python 3.11 to 3.13 is needed" in told and "nothing was installed" in told
    assert fresh == [] and not workbook.VENV.exists()


def test_a_python_that_is_named_is_the_only_one_tried(fresh, monkeypatch):
    monkeypatch.setenv("PYTHON", "no-such-python")
    with pytest.raises(workbook.Refused, match=r"Python 3\.11 to 3\.13 is needed, and none"):
        workbook.find_python()


def test_a_python_without_venv_says_which_package_brings_it(fresh, monkeypatch):
    monkeypatch.setattr(
        workbook, "_ask", lambda command, code: None if "ensurepip" in code else "3 11"
    )
    with pytest.raises(
        workbook.Refused, match=r"lacks the venv module.*apt install python3\.11-venv"
    ):
        workbook.find_python()


def test_on_a_full_disk_nothing_is_installed(fresh, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(workbook.shutil, "disk_usage", lambda _: usage(10, 10, 300_000_000))
    assert workbook.main(["test"]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "takes about 4 GB, and 0.3 GB are free" in told and "nothing was installed" in told
    assert fresh == []


def test_a_failing_pip_is_a_sentence_and_the_next_call_goes_on(fresh, monkeypatch, capsys):
    whole, fails = workbook._run, True

    def run(command, **environment):
        if fails and "--editable" in command:
            raise workbook.Refused("failed")
        whole(command, **environment)

    monkeypatch.setattr(workbook, "_run", run)
    assert workbook.main(["lab"]) == 1
    assert "pip could not install" in capsys.readouterr().err
    assert not workbook.READY.exists()
    fails = False
    fresh.clear()
    workbook.set_up()
    assert workbook.READY.exists() and not any("venv" in command for command in fresh)


def test_a_machine_without_a_build_of_bitsandbytes_gets_everything_else(fresh, monkeypatch, capsys):
    whole = workbook._run

    def run(command, **environment):
        if "bitsandbytes" in command:
            raise workbook.Refused("failed")
        whole(command, **environment)

    monkeypatch.setattr(workbook, "_run", run)
    workbook.set_up()
    assert "bitsandbytes has no build for this machine" in capsys.readouterr().out
    assert workbook.READY.exists()


def test_students_see_no_buttons_for_makers_of_courses_and_instructors_do(fresh):
    page = Path("etc/jupyter/labconfig/page_config.json")
    workbook.set_up("test")
    assert "nbgrader" in (workbook.VENV / page).read_text(encoding="utf-8")
    workbook.set_up("course")
    assert "nbgrader" not in (workbook.VENV / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("home", ["there", "read-only", "none"])
def test_jupyter_keeps_its_files_at_home_or_else_in_the_environment(fresh, monkeypatch, home):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    if home == "none":
        monkeypatch.setattr(workbook.Path, "home", no_home)
    monkeypatch.setattr(workbook.os, "access", lambda path, mode: home == "there")
    monkeypatch.delenv("JUPYTER_RUNTIME_DIR", raising=False)
    found = workbook._jupyter_folders()
    assert ("JUPYTER_RUNTIME_DIR" in found) == (home != "there")
    assert all(folder.startswith(str(workbook.VENV)) for folder in found.values())


def test_stopped_by_the_user_it_says_so_and_ends(fresh, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(workbook, "_run", stop)
    assert workbook.main(["lab"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_command_that_is_none_is_refused_and_none_lists_them(capsys):
    with pytest.raises(SystemExit):
        workbook.main(["lap"])
    assert workbook.main([]) == 2
    assert "open the workbook in JupyterLab" in capsys.readouterr().out


def test_every_target_of_the_makefile_is_a_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = re.findall(r"(?m)^([a-z-]+): ; @\$\(call workbook,([a-z-]+)", makefile)
    assert {target for target, _ in called} == {*workbook.COMMANDS, "help"}
    assert all(target == command for target, command in called if target != "help")


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_make_without_a_target_lists_the_commands():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert "python workbook.py" in done.stdout, done.stderr


def test_the_workflow_runs_both_commands_on_three_systems_and_all_pythons():
    text = (ROOT / ".github/workflows/workbook.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["workbook"]
    matrix = job["strategy"]["matrix"]
    assert {system.split("-")[0] for system in matrix["system"]} == {"ubuntu", "windows", "macos"}
    pythons = [f"3.{n}" for n in range(workbook.OLDEST[1], workbook.NEWEST[1] + 1)]
    assert matrix["python"] == pythons
    commands = [step["run"] for step in job["steps"] if "run" in step]
    said = ["lab --trial", "test", "test-all"]  # the last each week
    assert commands == [f"python workbook.py {command}" for command in said]
    assert any(step.get("with", {}).get("path") == ".venv" for step in job["steps"])
