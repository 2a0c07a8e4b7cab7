"""nbval compares what a notebook shows with what is stored: what is flipped goes red, and nothing else."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needed_cells import shortened

from sftlab._internal.paths import ROOT
from sftlab.classroom.html_cards import stored_data
from tools.compare_outputs import (
    NUMBER,
    Tolerance,
    agree,
    compare,
    difference,
    tolerance_of,
    updated,
)

EXACT, WITHIN, VARY = Tolerance(), Tolerance(0.05), Tolerance(any_number=True)


# --- The rules -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stored", "now", "tolerance"),
    [
        ("loss 0.123", "loss 0.124", EXACT),  # the last digit may be rounded otherwise
        ("loss  0.123", "loss 0.123", EXACT),  # columns are as wide as their numbers
        ("apart by 2.5e-07", "apart by 2.6e-07", EXACT),
        ("it took 3.1 s", "it took 9.7 s", EXACT),
        ("2,400 tokens/s", "900 tokens/s", EXACT),
        ("1,000 pairs", "1,040 pairs", WITHIN),
        ("81% right", "86% right", WITHIN),
        ("a change of -0.0", "a change of +0.0", EXACT),
        ("peak 812 MB", "peak 4 MB", VARY),
    ],
)
def test_what_may_differ(stored, now, tolerance):
    assert difference(stored, now, tolerance) is None
    assert difference(now, stored, tolerance) is None


@pytest.mark.parametrize(
    ("stored", "now", "tolerance"),
    [
        ("loss 0.123", "loss 0.125", EXACT),
        ("89 of 100", "90 of 100", EXACT),  # a whole number is no rounded one
        ("apart by 0.0", "apart by 0.05", EXACT),  # the finer of the two is the last digit
        ("llama-3-8b", "llama-4-8b", WITHIN),
        ("-0.03 to +0.02", "+0.03 to +0.02", WITHIN),
        ("a change of −3", "a change of 3", WITHIN),
        ("1,000 pairs", "1,060 pairs", WITHIN),
        ("81% right", "87% right", WITHIN),
        ("Measured: less", "Measured: more", WITHIN),
        ("it took 3.1 s", "it took long", EXACT),
        ("it took 3.1 s", "it took 3.1 MB", EXACT),
        ("peak 812 MB", "peak MB", VARY),
        ("a, b", "a, b, 3", EXACT),
        ("nan", "0.5", EXACT),
    ],
)
def test_what_may_not_differ(stored, now, tolerance):
    assert difference(stored, now, tolerance)
    assert difference(now, stored, tolerance)


@given(st.text(alphabet="ab12.,-+%e \n", max_size=40))
def test_a_text_agrees_with_itself_under_every_tolerance(text):
    for tolerance in (EXACT, WITHIN, VARY):
        assert difference(text, text, tolerance) is None


@given(st.floats(0.001, 1e6), st.floats(0.06, 2), st.sampled_from(["{:.4f}", "{:.3e}", "{:,.2f}"]))
def test_a_number_moved_beyond_its_tolerance_is_seen_in_every_notation(value, share, notation):
    stored, now = notation.format(value), notation.format(value * (1 + share))
    assert NUMBER.fullmatch(stored)
    unit = 10.0 ** -len(stored.partition(".")[2].partition("e")[0])
    if (
        abs(float(stored.replace(",", "")) - float(now.replace(",", "")))
        > max(unit, 0.05 * value) * 1.01
    ):
        assert not agree(stored, now, 0.05)


@given(st.floats(0.01, 1e6), st.floats(0, 1))
def test_a_sign_is_never_within_a_tolerance(value, share):
    assert not agree(f"{value:.3f}", f"{-value:.3f}", share)


def test_a_cell_states_one_tolerance_that_is_a_share():
    assert tolerance_of(["stub", "within-2.5%"]).share == 0.025
    assert tolerance_of(["numbers-vary"]).any_number
    assert tolerance_of([]) == EXACT
    for wrong in (["within-5"], ["within-0%"], ["within-100%"], ["within-1%", "within-2%"]):
        with pytest.raises(ValueError, match="tolerance"):
            tolerance_of(wrong)


def test_what_the_web_shows_is_compared_as_well_as_the_plain_text():
    output = {
        "output_type": "display_data",
        "data": {"text/plain": "a 1", "text/html": "<b>a</b> 1"},
    }
    assert compare([output], [copy.deepcopy(output)], EXACT) is None
    for section, changed in (("text/plain", "a 2"), ("text/html", "<b>b</b> 1")):
        other = copy.deepcopy(output)
        other["data"][section] = changed
        assert section in compare([output], [other], EXACT)
    assert compare([output], [], EXACT) and compare([], [output], EXACT)


def test_a_picture_is_there_or_not_and_its_bytes_do_not_count():
    picture = {
        "output_type": "display_data",
        "data": {"image/png": "abc", "text/plain": "Bars: 3 of 4."},
    }
    other = copy.deepcopy(picture) | {"data": {"image/png": "xyz", "text/plain": "Bars: 3 of 4."}}
    assert compare([picture], [other], EXACT) is None
    assert compare(
        [picture], [{"output_type": "display_data", "data": {"text/plain": "Bars: 3 of 4."}}], EXACT
    )


def test_a_display_is_compared_as_it_stands_in_the_end():
    def message(kind, id, text, cell="this"):
        content = {"data": {"text/plain": text}, "transient": {"display_id": id}}
        return {"msg_type": kind, "parent_header": {"msg_id": cell}, "content": content}

    said = [
        message("display_data", "bar", "", cell="before"),
        message("display_data", "bar", "0 of 8"),
        message("display_data", "other", "a"),
        message("update_display_data", "bar", "4 of 8"),
        message("update_display_data", "bar", "8 of 8"),
        message("update_display_data", "other", "b", cell="before"),
        {"msg_type": "status", "parent_header": {"msg_id": "this"}, "content": {}},
    ]
    shown = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    shown += [{"output_type": "display_data", "data": {"text/plain": t}} for t in ("0 of 8", "a")]
    found = updated(shown, said)
    assert [one["data"]["text/plain"] for one in found[1:]] == ["8 of 8", "a"]


# --- Flipped in a stored notebook ----------------------------------------------------------------
def texts_of(cell):
    """(holder, key) of every text in a cell's outputs, to be read and replaced."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output, "text"
        for key in output.get("data", {}):
            if key.startswith("text/"):
                yield output.data, key


def replace(cell, old: str, new: str) -> bool:
    found = False
    for holder, key in texts_of(cell):
        found = found or old in holder[key]
        holder[key] = holder[key].replace(old, new, 1)
    return found


def flip_outcome(cell) -> bool:
    for output in cell.outputs:
        said = stored_data(output)
        if said.get("kind") == "outcome":
            replace(cell, said["measured"], "something else")
            said["measured"] = "something else"
            return True
    return False


def flip_state(cell) -> bool:
    for output in cell.outputs:
        said = stored_data(output)
        if said.get("kind") == "check":
            said["status"] = "right"
            return replace(cell, ": not attempted yet", ": right")
    return False


def flip_sign(cell) -> bool:
    """Of an interval's end: "-0.03 to +0.01" becomes "-0.03 to -0.01", where numbers are compared."""
    if tolerance_of(cell.metadata.get("tags", [])).any_number:
        return False
    for holder, key in texts_of(cell):
        found = re.search(r"[-+]\d[\d.]*%? to ([-+])(?=[\d.]*[1-9])", holder[key])
        if found:
            at = found.start(1)
            other = "-" if holder[key][at] == "+" else "+"
            holder[key] = holder[key][:at] + other + holder[key][at + 1 :]
            return True
    return False


def flip_table_cell(cell) -> bool:
    for output in cell.outputs:
        page = output.get("data", {}).get("text/html", "")
        words = re.search(r"<td[^>]*>([^<\d]{3,})</td>", page)
        if "<table" in page and words:
            return replace(cell, words[1], "another cell")
    return False


def flip_number(cell) -> bool:
    """The first printed number that is compared becomes three times as large and one more."""
    if tolerance_of(cell.metadata.get("tags", [])).any_number:
        return False
    for output in cell.outputs:
        found = NUMBER.search(output.text) if output.output_type == "stream" else None
        if found and not re.match(r"\s?(s|ms)\b", output.text[found.end() :]):
            value = float(found[0].replace(",", ""))
            output.text = (
                f"{output.text[: found.start()]}{3 * value + 1:g}{output.text[found.end() :]}"
            )
            return True
    return False


FLIPS = {
    "outcome": flip_outcome,
    "state": flip_state,
    "table cell": flip_table_cell,
    "sign": flip_sign,
    "number": flip_number,
}


def flipped(notebook) -> dict[str, int]:
    """Flip one thing of each kind, each in a cell of its own: kind -> number of the code cell."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    done: dict[str, int] = {}
    for kind, flip in FLIPS.items():
        for number, cell in enumerate(code):
            if number not in done.values() and flip(cell):
                done[kind] = number
                break
    return done


def red_cells(path: Path) -> set[int]:
    """Run a notebook under nbval as CI does; the numbers of the code cells that failed."""
    report = path.with_suffix(".xml")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "--nbval-cell-timeout=120",
    ]
    plugins = ["-p", "tools.compare_outputs", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [*plugins, f"--rootdir={ROOT}", f"--junitxml={report}", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert cases, done.stdout
    red = {int(c.get("name").removeprefix("Cell ")) for c in cases if c.find("failure") is not None}
    assert done.returncode == (1 if red else 0), done.stdout
    return red


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_each_flip_differs_from_what_is_stored_and_nothing_else_does(path):
    """As CI compares: a stored notebook that is flipped, with outputs that are not."""
    stored = nbformat.read(path, as_version=4)
    notebook = copy.deepcopy(stored)
    done = flipped(notebook)
    assert {"outcome", "state"} <= set(done) or path.stem.startswith("00"), done
    code = [(c, s) for c, s in zip(notebook.cells, stored.cells, strict=True) if c.cell_type == "code"]  # fmt: skip
    red = {
        number
        for number, (cell, now) in enumerate(code)
        if compare(cell.outputs, now.outputs, tolerance_of(cell.metadata.get("tags", [])))
    }
    assert red == set(done.values()), done


@pytest.mark.slow
def test_nbval_makes_each_flipped_cell_red_and_no_other(tmp_path):
    """What was compared above is what nbval compares after a run, of cells that need no training."""
    (path,) = (ROOT / "notebooks").glob("16_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    shortened(notebook, "start(", "predict(", "check(", "outcome(", "print(kinds", "rules_table(")
    done = flipped(notebook)
    assert set(done) == set(FLIPS)
    nbformat.write(notebook, tmp_path / path.name)
    assert red_cells(tmp_path / path.name) == set(done.values()), done


def test_every_kind_is_flipped_in_several_notebooks():
    kinds = [flipped(nbformat.read(path, as_version=4)) for path in NOTEBOOKS]
    for kind in FLIPS:
        assert sum(kind in done for done in kinds) >= 6, kind
