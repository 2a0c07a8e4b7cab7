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
        assert "Yours of 07 is kept as" in " ".join(desk.reset(["7"]))
    assert source(mine) == "# 07_count.ipynb"
    kept = (desk.DESK / desk.KEPT).glob("07_count.*.ipynb")
    assert sorted(map(source, kept)) == ["first", "second"]
    assert next(desk.reset(["07"])) == "07 is as it was."  # nothing to keep
    assert len(list(desk.reset(["07", "ALL"]))) == 3


def test_reset_forgets_predictions_only_when_asked(workbook):
    progress.update(lambda p: p["checks"].update({"07.a": {"solved": True}, "08.a": {"solved": True}}))  # fmt: skip
    list(desk.reset(["07"]))
    assert set(progress.load()["checks"]) == {"07.a", "08.a"}
    list(desk.reset(["07"], forget=True))
    assert set(progress.load()["checks"]) == {"08.a"}


def test_an_unknown_number_changes_nothing(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    mine.write_text(notebook("my work"), encoding="utf-8")
    for wrong in ("99", "", "07_count.ipynb"):
        with pytest.raises(
            WorkbookError, match=r"no notebook '.*'; the numbers are 07 to 08, or all"
        ):
            list(desk.reset(["07", wrong]))
    assert source(mine) == "my work"


def test_a_damaged_notebook_of_the_workbook_stops_a_reset_before_it_begins(workbook):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    mine.write_text(notebook("my work"), encoding="utf-8")
    (workbook / "08_start.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"08_start.*cannot be read"):
        list(desk.reset(["all"]))
    assert source(mine) == "my work" and not (desk.DESK / desk.KEPT).exists()


def test_on_a_full_disk_yours_stays_where_it_was(workbook, monkeypatch, capsys):
    desk.lay_out()
    mine = desk.DESK / "07_count.ipynb"
    mine.write_text(notebook("my work"), encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress, "replace", full)
    monkeypatch.chdir(workbook)
    assert desk.main(["07"]) == 1
    told = capsys.readouterr()
    assert "is kept as" in told.out
    assert (
        "cannot be written (No space left on device)" in told.err and "No work was lost" in told.err
    )
    assert source(mine) == "my work"


@pytest.mark.parametrize("record", ["[1]", '{"07_count.ipynb": 7}', "null"])
def test_a_damaged_record_calls_nothing_newer_and_renews_later(workbook, record):
    desk.lay_out()
    (desk.DESK / desk.LAID_OUT).write_text(record, encoding="utf-8")
    assert desk.lay_out() == []
    (workbook / "07_count.ipynb").write_text(notebook("a newer version"), encoding="utf-8")
    assert "renewed" in desk.lay_out()[0]


def test_a_notebook_that_left_the_workbook_is_named_if_it_was_used(workbook):
    desk.lay_out()
    for number in ("07_count", "08_start"):
        (workbook / f"{number}.ipynb").rename(workbook / f"{number}_anew.ipynb")
    (desk.DESK / "07_count.ipynb").write_text(notebook("my work"), encoding="utf-8")
    told = desk.lay_out()
    assert (
        told[0] == "07_count.ipynb is no longer in the workbook, or has another name; yours stays."
    )
    assert source(desk.DESK / "07_count.ipynb") == "my work"
    assert not (desk.DESK / "08_start.ipynb").exists()
    assert len(desk.lay_out()) == 0


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
    assert "no notebook '12'" in capsys.readouterr().err
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


def test_what_was_written_into_the_page_is_kept(workbook):
    desk.lay_out()
    desk.write_page()
    assert desk.write_page() == []
    place = desk.DESK / desk.PAGE
    place.write_text(place.read_text("utf-8") + "MY NOTE", encoding="utf-8")
    assert "What you wrote into start.md is kept as" in desk.write_page()[0]
    (kept,) = (desk.DESK / desk.KEPT).glob("start.*.md")
    assert kept.read_text("utf-8").endswith("MY NOTE") and "MY NOTE" not in place.read_text("utf-8")


def test_a_progress_file_that_was_edited_by_hand_is_no_traceback():
    progress.update(lambda p: p["predictions"].update({"07.a": {"choice": "x", "right": "yes"}}))
    assert "1 of 3" in desk.page()
