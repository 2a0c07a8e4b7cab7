"""What the README and the notebooks point to is there."""

import json
import re

import pytest

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS, numbers, question
from tools.readme import readme_table

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)#\s]+)")


def test_the_table_is_the_one_that_the_program_writes():
    assert readme_table() in README, "run `make notebooks`: it writes the table anew"


def test_the_table_has_all_22_exercises_and_the_two_beyond():
    assert numbers() == [path.name[:2] for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    assert all(question(number).endswith("?") for number in numbers())


@pytest.mark.parametrize("target", [t for t in LINK.findall(README) if "://" not in t])
def test_a_link_of_the_readme_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", README)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_links_of_a_notebook_lead_somewhere(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    stored = {f"attachment:{name}" for c in cells for name in c.get("attachments", {})}
    for target in LINK.findall(text):
        assert "://" in target or target in stored or (path.parent / target).exists(), target
