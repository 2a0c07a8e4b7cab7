"""Files and programs are read and written as UTF-8, which is not what Windows would choose."""

import subprocess
import sys

from sftlab._internal.paths import ROOT


def test_whatever_opens_a_file_names_its_encoding():
    rule = ["--preview", "--isolated", "--select", "PLW1514", "sftlab"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rule], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()


def test_whatever_reads_a_program_names_its_encoding():
    """``text=True`` alone decodes as the system likes."""
    leaves_it_open = ("text=True", "universal_newlines=True")
    for path in (ROOT / "sftlab").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not any(words in source for words in leaves_it_open), path
