"""The command ``sftlab``: every program under one name, each with a sentence for what is not there."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys

import pytest

import workbook
from sftlab import cli
from sftlab._internal.paths import ROOT


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == cli.main([]) == 0
    listed = re.findall(r"(?m)^  ([a-z]+) ", capsys.readouterr().out)
    assert set(listed) == {*cli.PROGRAMS, *cli.IN_A_CHECKOUT}


@pytest.mark.parametrize("name", cli.PROGRAMS)
def test_every_program_has_a_main_and_a_help(name, capsys):
    assert callable(pkgutil.resolve_name(cli.PROGRAMS[name][0]))
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_what_needs_a_checkout_is_a_command_of_the_workbook():
    assert set(cli.IN_A_CHECKOUT) <= set(workbook.COMMANDS)


def test_an_unknown_command_is_named_and_the_known_ones_listed(capsys):
    assert cli.main(["trian"]) == 2
    told = capsys.readouterr().err
    assert "no command 'trian'" in told and "  train " in told


def test_without_a_checkout_one_sentence_says_where_the_notebooks_are(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert cli.main(["lab"]) == 1
    assert capsys.readouterr().err.startswith("sftlab lab needs the notebooks")


def test_it_is_also_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "sftlab", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "preflight" in done.stdout
