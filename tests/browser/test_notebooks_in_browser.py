"""Each notebook in JupyterLab: explorers move, feedback is what it should be, nothing is cut off.

One visit serves all tests of a notebook. Stored outputs are measured as they are; of the cells, only
those are run that the explorer needs, and one check is tried. `make test` visits a few notebooks,
`make test-all` the others; `make browser` runs all cells first, measures the new outputs, tries every
check, moves every explorer and takes pictures of whole notebooks.
"""

from __future__ import annotations

import json
import re

import explorers
import pytest
from answers import answers
from conftest import ALL_CELLS
from lab import Notebook
from needed_cells import needed

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
SOURCES = {name: (ROOT / "notebooks" / name).read_text(encoding="utf-8") for name in NAMES}
MOVING = [name for name in NAMES if "explore(" in SOURCES[name]]
# Their explorers stand on models that are trained first: `make browser` alone waits for them.
TRAINED = ("13", "20", "22")
# Visited by `make test`: of each kind of cell and explorer one.
SOON = ("00", "04", "07", "12", "16", "26")
BY_NUMBER = {name[:2]: name for name in NAMES}


def visits(names):
    """One parameter a notebook, called by its number."""
    later = pytest.mark.thorough
    return [pytest.param(n, id=n[:2], marks=() if n[:2] in SOON else later) for n in names]


def each(names):
    return pytest.mark.parametrize("notebook", visits(names), indirect=True, scope="module")


def run_for(notebook: Notebook, target: int) -> None:
    """Run a cell and the cells that it needs, each once in a visit."""
    sources = notebook.sources()
    first = notebook.find("start(")  # sets how plots look
    asked = {index for index, source in sources.items() if source.startswith("predict(")}
    wanted = {*needed(sources, first), *asked, *needed(sources, target)}
    notebook.run(*sorted(wanted - notebook.ran))


def skip_if_trained(notebook: Notebook) -> None:
    if notebook.name[:2] in TRAINED and not ALL_CELLS:
        pytest.skip("trains for long before its explorer moves: `make browser` tests it")


@each(MOVING)
def test_every_control_of_its_explorer_changes_what_is_drawn(notebook):
    skip_if_trained(notebook)
    moved = {}
    for index in explorers.cells(notebook):
        run_for(notebook, index)
        notebook.show(index)
        moved |= explorers.operate(notebook, notebook.output(index))
        notebook.show(index)  # the keys may have moved the page
        notebook.screenshot(f"explorer_{index}")
    assert moved, "no explorer with a control was found"
    assert not any(moved.values()), moved


@each([BY_NUMBER[n] for n in catalogue.numbers() if n in BY_NUMBER])
def test_a_wrong_answer_is_named_and_a_right_one_accepted(notebook):
    number, tried = notebook.name[:2], 0
    for id in catalogue.exercises(number):
        wrong, right = answers(number, "WRONG", id), answers(number, "RIGHT", id)
        if not (wrong and right) or (tried and not ALL_CELLS):  # one check a notebook will do here
            continue
        name, tried = id.partition(".")[2], tried + 1
        stub, check = notebook.exercise(id)
        run_for(notebook, check)
        notebook.show(check)
        assert f"{name}: not attempted yet" in notebook.output(check).inner_text()
        for (cell, phrase), heading in ((wrong[0], "not yet"), (right[0], "right")):
            notebook.type_and_run(stub, cell)
            notebook.run(check)
            notebook.show(check)
            told = notebook.output(check).inner_text()
            assert f"{name}: {heading}" in told
            assert phrase.replace("`", "").replace("*", "") in told
            notebook.screenshot(f"check_{name}_{heading.replace(' ', '_')}")
    assert tried


@each(NAMES)
@pytest.mark.parametrize("width", ["laptop", "presentation"])
def test_nothing_is_cut_off_or_lies_over_another(notebook, width):
    notebook.look(width)
    if ALL_CELLS:
        notebook.screenshots(width)
    faults = notebook.measure("cut_off") + notebook.measure("overlaps")
    assert not faults, "\n".join(faults)


@each(NAMES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(notebook, theme):
    notebook.look(dark=theme == "dark")
    if ALL_CELLS:
        notebook.screenshots(theme)
    faults = notebook.measure("pale")
    assert not faults, "\n".join(faults)


@each([BY_NUMBER["07"]])
def test_an_endless_loop_ends_with_a_clear_message_and_the_kernel_lives(notebook):
    id, name = "07.lora_parameter_count", "lora_parameter_count"
    stub, check = notebook.exercise(id)
    run_for(notebook, check)
    kernel = notebook.page.evaluate(
        "jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"
    )
    notebook.type_and_run(stub, f"def {name}(d_in, d_out, r):\n    while True:\n        pass")
    notebook.run(check)
    assert "a loop that never ends?" in notebook.output(check).inner_text()
    notebook.type_and_run(stub, answers("07", "RIGHT", id)[0][0])
    notebook.run(check)
    assert f"{name}: right" in notebook.output(check).inner_text()
    assert kernel == notebook.page.evaluate(
        "jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"
    )


@each([BY_NUMBER["00"]])
def test_a_prediction_and_a_solved_check_appear_in_00(notebook, address, page, lab_folder):
    """Done in 07, shown in 00: the same progress file serves all notebooks."""
    other = Notebook(page, address, BY_NUMBER["07"])
    asked = other.find('"07.a"')
    stub, check = other.exercise("07.lora_parameter_count")
    run_for(other, asked)
    other.show(asked).locator("input[type=radio]").nth(2).click()
    other.page.get_by_text("Your prediction: over 40%.").wait_for()
    other.type_and_run(stub, answers("07", "RIGHT", "07.lora_parameter_count")[0][0])
    other.run(check)
    other.close()
    board = Notebook(page, address, notebook.name)
    shown = board.find("show_progress()")
    run_for(board, shown)
    row = board.output(shown).locator("tr", has_text="07 · ").inner_text()
    assert "1 of 3" in row
    stored = json.loads((lab_folder / "progress.json").read_text(encoding="utf-8"))
    assert stored["predictions"]["07.a"]["choice"] == "over 40%"
    assert stored["checks"]["07.lora_parameter_count"]["solved"]


@each([BY_NUMBER["22"]])
def test_a_blind_vote_counts_and_names_the_models_only_when_asked(notebook):
    skip_if_trained(notebook)
    index = notebook.find("22.blind_vote")
    run_for(notebook, index)
    output = notebook.output(index)
    notebook.show(index)

    def press(name: str) -> None:
        output.locator("button").filter(has_text=re.compile(f"^{name}$")).click()

    press("A")
    output.get_by_text("A: 1, B: 0").wait_for()
    assert "on average" not in output.inner_text()
    pair = int(re.search(r"pair (\d+) of", output.inner_text())[1])
    press("next pair")
    output.get_by_text(f"pair {pair + 1} of").wait_for()
    press("B")
    output.get_by_text("A: 0, B: 1").wait_for()
    press("show the result")
    output.get_by_text("on average over 2 pairs").wait_for()
