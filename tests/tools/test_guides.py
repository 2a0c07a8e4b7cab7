"""What the guides say in numbers, names and commands is what the workbook does."""

from __future__ import annotations

import re

import pytest

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue
from sftlab.classroom.catalogue import NOTEBOOKS
from tools import presenter
from tools.slide_layout import Deck

GUIDES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("instructors", "students")
}
PLAN = re.compile(r"(?m)^\| (\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \| (\d+) \|$")
BREAK = 15  # minutes
TASK = re.compile(r"\b(\d{1,2})([a-g])\b")  # 7b, as the notebooks call it
EXERCISES = [id for number in catalogue.numbers() for id in catalogue.exercises(number)]


@pytest.fixture(scope="module")
def loads():
    """The load of each notebook, by which the presenter's notes tell minutes."""
    return {path.name[:2]: Deck(path.name[:2]).load for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def label(id: str) -> str:
    """ "07.energy_kept" is 7b: the second of its notebook."""
    number = id.partition(".")[0]
    return f"{int(number)}{'abcdefg'[list(catalogue.exercises(number)).index(id)]}"


def source(number: str) -> str:
    """A notebook's file as text."""
    return next(NOTEBOOKS.glob(f"{number}_*.ipynb")).read_text(encoding="utf-8")


def test_tasks_are_named_as_in_the_notebooks():
    for id in EXERCISES:
        if not id.startswith("00"):  # its one task stands in no section of its own
            assert f"### {label(id)} · " in source(id[:2]), id


@pytest.mark.parametrize("row", PLAN.findall(GUIDES["instructors"]), ids="-".join)
def test_a_plan_takes_the_minutes_that_it_says(row, loads):
    minutes, notebooks, tasks, estimated = row
    numbers = re.findall(r"\b\d\d\b", notebooks)
    written = ["".join(task) for task in TASK.findall(tasks)]
    assert written or tasks == "nothing"
    assert set(written) <= {label(id) for id in EXERCISES if id[:2] in numbers}
    to_show = sum(loads[number].to_show for number in numbers)
    takes = to_show + presenter.MINUTES_A_CHECK * len(written) + BREAK * notebooks.count("a break")
    assert abs(takes - int(estimated)) <= 5, f"it takes {takes:.0f} minutes"
    assert takes <= int(minutes)


def test_there_are_two_plans_for_each_length():
    assert [row[0] for row in PLAN.findall(GUIDES["instructors"])] == "45 45 90 90 180 180".split()  # noqa: SIM905


def test_the_measure_is_that_of_the_presenters_notes(loads):
    text = " ".join(GUIDES["instructors"].split())
    assert f"prose at {presenter.WORDS_A_MINUTE} words a minute" in text
    assert presenter.MINUTES_A_PREDICTION == 1 and "one minute for a prediction" in text
    assert presenter.MINUTES_AN_EXPLORER == 3 and "three for an explorer" in text
    assert presenter.MINUTES_A_CHECK == 8 and "eight for a task" in text
    assert f"{BREAK} for a break" in text
    assert f"at {presenter.LINES_A_MINUTE} lines a minute" in text
    for found, pattern in (
        ("to_show", r"takes (\d+) to (\d+) minutes to show\."),
        ("to_work_through", r"every task, it takes (\d+) to (\d+)\."),
    ):
        minutes = {number: getattr(load, found) for number, load in loads.items()}
        del minutes["00"]
        low, high = (int(said) for said in re.search(pattern, text).groups())
        assert abs(min(minutes.values()) - low) < 1.5
        assert abs(max(minutes.values()) - high) < 1.5


def test_notebook_00_takes_no_longer_than_students_are_told(loads):
    minutes = int(re.search(r"less than (\d+) minutes", GUIDES["students"])[1])
    assert minutes - 5 < loads["00"].to_work_through < minutes


def test_the_tasks_without_drawn_cases_are_listed():
    text = " ".join(GUIDES["instructors"].split())
    listed = re.search(r"None are drawn for ([\w, ]+?), most of", text)[1]
    found = ["".join(task) for task in TASK.findall(listed)]
    assert found == [label(id) for id in EXERCISES if not catalogue.exercise(id).draw]


def test_points_are_one_two_or_three():
    assert "one point, larger ones two or three" in GUIDES["instructors"]
    assert {catalogue.exercise(id).points for id in EXERCISES} == {1, 2, 3}


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_and_files_of_a_guide_are_there(guide):
    text = GUIDES[guide]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"(?m)(?:^|`|\s)make ([a-z-]+)", text):
        assert re.search(rf"(?m)^{command}:", makefile), command
    for path in re.findall(r"`(?:git checkout )?((?:notebooks|sftlab)/\w+\.(?:ipynb|py))`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_about_a_page(guide):
    assert len(GUIDES[guide].split()) < 1400
