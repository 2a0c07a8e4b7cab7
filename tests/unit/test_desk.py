"""The desk: copies without results that nobody's work is lost from, and a page that says what is next."""

from __future__ import annotations

import json
import re

import pytest

from sftlab.classroom import catalogue, desk, progress
from sftlab.errors import WorkbookError


def notebook(*sources: str, output: str = "7") -> str:
    shown = {"output_type": "stream", "name": "stdout", "text": output}
    cells = [
        {"cell_type": "code", "source": s, "outputs": [shown], "execution_count": 3, "metadata": {}}
        for s in sources
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """A workbook of two notebooks, and a place for the desk beside them."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("07_count.ipynb", "08_start.ipynb"):
        (folder / name).write_text(notebook(f"# {name}"), encoding="utf-8")
    monkeypatch.setattr(catalogue, "NOTEBOOKS", folder)
    monkeypatch.setattr(desk, "DESK", tmp_path / "work")
    return folder


def source(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]


def test_the_copies_are_the_notebooks_without_results(workbook):
    told = desk.lay_out()
    assert told == [f"2 notebooks without results were laid out in {desk.DESK}."]
    for original in workbook.glob("*.ipynb"):
        copy = json.loads((desk.DESK / original.name).read_text(encoding="utf-8"))
        before = json.loads(original.read_text(encoding="utf-8"))
        assert all(c["outputs"] == [] and c["execution_count"] is None for c in copy["cells"])
        assert [c["source"] for c in copy["cells"]] == [c["source"] for c in before["cells"]]
    assert desk.lay_out() == []


def test_every_notebook_of_the_workbook_can_be_laid_out(tmp_path):
    desk.lay_out(tmp_path)
    assert len(list(tmp_path.glob("*.ipynb"))) == len(catalogue.numbers())
    assert not any('"output_type"' in p.read_text("utf-8") for p in tmp_path.glob("*.ipynb"))


def test_work_is_never_overwritten_and_an_unused_copy_is_renewed(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    mine.write_text(notebook("my work"), encoding="utf-8")
    assert desk.lay_out() == []  # nothing newer, so nothing is said
    for path in workbook.glob("*.ipynb"):
        path.write_text(notebook("a newer version"), encoding="utf-8")
    told = " ".join(desk.lay_out())
    assert source(mine) == "my work"
    assert source(desk.DESK / "08_start.ipynb") == "a newer version"
    assert "1 notebooks that you had not used yet were renewed" in told
    assert "newer versions of 07" in told and "reset 07" in told


def test_other_results_alone_do_not_make_a_newer_version(workbook):
    desk.lay_out()
    (workbook / "07_count.ipynb").write_text(notebook("# 07_count.ipynb", output="8"), "utf-8")
    assert desk.lay_out() == []


def test_a_deleted_copy_comes_back_and_a_lost_record_loses_nothing(workbook):
    desk.lay_out()
    (desk.DESK / "08_start.ipynb").unlink()
    (desk.DESK / "07_count.ipynb").write_text(notebook("my work"), encoding="utf-8")
    (desk.DESK / desk.LAID_OUT).write_text("{damaged", encoding="utf-8")
    desk.lay_out()
    assert (desk.DESK / "08_start.ipynb").exists()
    assert source(desk.DESK / "07_count.ipynb") == "my work"


def test_reset_gives_a_notebook_back_and_keeps_yours(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    for text in ("first", "second"):  # within one second
        mine.write_text(notebook(text), encoding="utf-8")
        assert "yours is kept as" in desk.reset(["7"])[0]
    assert source(mine) == "# 07_count.ipynb"
    kept = (desk.DESK / desk.KEPT).glob("07_count.*.ipynb")
    assert sorted(map(source, kept)) == ["first", "second"]
    assert desk.reset(["07"])[0] == "07 is as it was."  # nothing to keep
    assert len(desk.reset(["all"])) == 3


def test_reset_forgets_predictions_only_when_asked(workbook):
    progress.update(lambda p: p["checks"].update({"07.a": {"solved": True}, "08.a": {"solved": True}}))  # fmt: skip
    desk.reset(["07"])
    assert set(progress.load()["checks"]) == {"07.a", "08.a"}
    desk.reset(["07"], forget=True)
    assert set(progress.load()["checks"]) == {"08.a"}


def test_an_unknown_number_changes_nothing(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    mine.write_text(notebook("my work"), encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"no notebook 99; the numbers are 07 to 08, or all"):
        desk.reset(["07", "99"])
    assert source(mine) == "my work"


def test_a_damaged_notebook_is_named(workbook):
    (workbook / "07_count.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(
        WorkbookError, match=r"07_count.*cannot be read as a notebook.*git checkout"
    ):
        desk.lay_out()


def test_results_from_before_there_was_a_desk_are_copied_once(workbook):
    (workbook / "progress.json").write_text("{}", encoding="utf-8")
    assert "progress.json was copied from the folder notebooks." in desk.lay_out()
    (desk.DESK / "progress.json").write_text("mine", encoding="utf-8")
    desk.lay_out()
    assert (desk.DESK / "progress.json").read_text("utf-8") == "mine"


# --- The page -----------------------------------------------------------------------------------
def solve(number: str) -> None:
    def change(stored):
        for id in catalogue.prediction_ids(number):
            stored["predictions"][id] = {"choice": "x"}
        for id in catalogue.exercises(number):
            stored["checks"][id] = {"solved": True}

    progress.update(change)


def test_the_page_names_the_next_notebook_in_the_order_of_the_course():
    first, second, third = desk.order()[:3]
    assert (first, second) == ("00", "04")
    assert f"**Next**: [{first} ·" in desk.page()
    solve(first)
    assert f"**Next**: [{second} ·" in desk.page()
    solve(second)
    page = desk.page()
    assert f"**Next**: [{third} ·" in page and "2 of 27 notebooks are done" in page
    assert len(re.findall(r"\| \*\*done ✓\*\* \|", page)) == 2


def test_all_done_is_said():
    for number in desk.order():
        solve(number)
    page = desk.page()
    assert "**All is done.**" in page and "27 of 27" in page and "0 minutes are left" in page


def test_every_notebook_is_on_the_page_once_and_says_its_minutes():
    assert sorted(desk.order()) == catalogue.numbers()
    assert all(20 <= desk.minutes(number) <= 90 for number in catalogue.numbers())
    links = re.findall(r"(?m)^\| \[.*\]\((.+?\.ipynb)\)", desk.page())
    assert sorted(links) == sorted(path.name for path in catalogue.NOTEBOOKS.glob("*.ipynb"))


def test_minutes_left_shrink_with_what_is_done():
    number = desk.order()[1]
    whole = desk.minutes_left(number, desk.tally(number))
    progress.update(lambda p: p["predictions"].update({f"{number}.a": {"choice": "x"}}))
    part = desk.minutes_left(number, desk.tally(number))
    assert desk.minutes(number) == whole > part > 0


# --- The command --------------------------------------------------------------------------------
def test_the_command_lays_out_resets_and_renews_the_page(workbook, capsys, monkeypatch):
    monkeypatch.chdir(workbook)
    assert desk.main(["--lay-out"]) == 0
    assert "laid out" in capsys.readouterr().out
    assert (desk.DESK / desk.PAGE).read_text("utf-8").startswith("# Where you stand")
    assert desk.main(["07"]) == 0
    assert desk.main(["12"]) == 1
    assert "no notebook 12" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        desk.main([])


def test_what_jupyterlab_changes_by_itself_is_no_work(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    saved = json.loads(mine.read_text("utf-8"))
    saved["metadata"]["language_info"] = {"name": "python"}
    saved["cells"][0] |= {"id": "abc", "source": saved["cells"][0]["source"].splitlines(True)}
    mine.write_text(json.dumps(saved, indent=2), encoding="utf-8")
    (workbook / "07_count.ipynb").write_text(notebook("a newer version"), encoding="utf-8")
    assert "renewed" in desk.lay_out()[0]
    saved["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "mine"}]
    mine.write_text(json.dumps(saved), encoding="utf-8")
    (workbook / "07_count.ipynb").write_text(notebook("newer still"), encoding="utf-8")
    assert "newer versions of 07" in desk.lay_out()[0]
