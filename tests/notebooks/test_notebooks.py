"""Every notebook keeps to the anatomy that students and instructors rely on."""

from __future__ import annotations

import importlib
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator

from sftlab._internal.paths import ROOT
from sftlab.classroom import catalogue
from tools.notebook_metadata import CHECK, REVEAL, START, defined_names, derive
from tools.publish import WIDGET

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WELCOME = "00_start_here"  # it shows the way round: no predictions, no stubs
LESSON = (
    "Why it matters",
    "Predict",
    "Build",
    "Measure",
    "Over seeds",
    "Explore",
    "In the libraries",
    "What was found",
    "Go further",
)
PREDICT = re.compile(r"""(?<!\w)predict\(\s*["'](\d\d\.\w+)["']""")
OUTCOME = re.compile(r"""(?<!\w)outcome\(\s*["'](\d\d\.\w+)["']""")
MACHINE_PATH = re.compile(
    r"(?<![\w/])/(?:home|root|Users|tmp|work|mnt|opt|usr|var)/\w|[A-Z]:\\\\?(?:Users|Windows)|ipykernel_\d"
)

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
exercises_only = pytest.mark.parametrize(
    "path", [p for p in PATHS if p.stem != WELCOME], ids=lambda path: path.stem
)


def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def code_cells(path: Path) -> list:
    return [cell for cell in cells(path) if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def outputs(path: Path) -> list:
    return [output for cell in code_cells(path) for output in cell.outputs]


def found(pattern: re.Pattern, path: Path) -> dict[str, int]:
    """id -> number of the first cell that names it."""
    places: dict[str, int] = {}
    for number, cell in enumerate(cells(path)):
        for id in pattern.findall(cell.source) if cell.cell_type == "code" else ():
            places.setdefault(id, number)
    return places


@every
def test_the_first_code_cell_holds_the_parameters(path):
    first = code_cells(path)[0]
    assert "parameters" in tags(first)
    for name in ("MODEL", "SEED", "FULL"):
        assert re.search(rf"\b{name} = ", first.source), f"{name} is missing"


@every
def test_no_star_import_replaces_a_parameter(path):
    others = "\n".join(cell.source for cell in code_cells(path)[1:])
    used = {name for name in ("MODEL", "SEED", "FULL") if re.search(rf"(?<![.\w]){name}\b", others)}
    for cell in code_cells(path):
        for module in re.findall(r"(?m)^from ([\w.]+) import \*", cell.source):
            names = vars(importlib.import_module(module))
            public = names.get("__all__", [name for name in names if name[0] != "_"])
            assert not used & set(public), module


@every
def test_it_has_a_known_number_and_starts_with_it(path):
    number = path.stem[:2]
    assert number in catalogue.numbers()
    begun = [START.search(cell.source) for cell in code_cells(path)]
    (call,) = filter(None, begun)
    assert number in call[0]
    assert any(begun[:3]), "start() stands among the first three code cells"


@every
def test_it_begins_with_one_title(path):
    titles = [c for c in cells(path) if c.cell_type == "markdown" and re.match("# ", c.source)]
    assert titles == [cells(path)[0]]


@exercises_only
def test_the_sections_come_in_order(path):
    headings = [
        re.sub(r"[`*]", "", line).lstrip("# ").strip()
        for cell in cells(path)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    places = [
        next((i for i, heading in enumerate(headings) if heading.startswith(section)), None)
        for section in LESSON
    ]
    missing = [section for section, at in zip(LESSON, places, strict=True) if at is None]
    assert not missing
    assert places == sorted(places), headings


@every
def test_a_lesson_asks_in_its_title_and_shows_its_concept(path):
    listed = cells(path)
    assert listed[0].source.partition("\n")[0].endswith("?")
    (drawn,) = [c for c in listed if c.get("attachments")]
    assert re.search(r"!\[[^\]]{30,}\]\(attachment:diagram\.png\)", drawn.source), "with alt text"
    first = min(found(PREDICT, path).values())
    assert listed.index(drawn) < first


@every
def test_a_heading_below_a_section_is_a_task_or_a_question(path):
    """It is the title of a slide, too."""
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    for heading in re.findall(r"(?m)^### (.+)", text):
        assert re.match(r"\d+[a-z] · ", heading) or heading.endswith("?"), heading


@every
def test_no_conclusion_of_a_lesson_is_typed_into_a_cell(path):
    """An outcome takes the measured value; a ladder of conditions would hide what decides."""
    for cell in code_cells(path):
        assert not re.search(r"^measured = .* if ", cell.source, re.M), cell.source
        assert len(cell.source.splitlines()) <= 20


@exercises_only
def test_predictions_come_before_any_result_and_outcomes_after_them(path):
    asked, told = found(PREDICT, path), found(OUTCOME, path)
    assert asked, "there is no prediction"
    assert set(told) == set(asked), "every prediction has its outcome"
    for id, at in asked.items():
        assert id.startswith(path.stem[:2])
        assert at < told[id]
    for number, cell in enumerate(cells(path)[: min(asked.values())]):
        if cell.cell_type == "code" and not START.search(cell.source):
            assert not cell.outputs, f"cell {number + 1} shows something before the first predict"


@exercises_only
def test_each_stub_is_followed_by_its_check_and_its_reveal(path):
    number = path.stem[:2]
    checked, revealed = found(CHECK, path), found(REVEAL, path)
    assert set(checked) == set(catalogue.exercises(number)), "every exercise has its check cell"
    assert set(revealed) == set(checked), "every check has its reveal"
    listed = cells(path)
    for id, at in checked.items():
        name = id.partition(".")[2]
        stubs = [
            k
            for k, cell in enumerate(listed)
            if cell.cell_type == "code"
            and "stub" in tags(cell)
            and name in defined_names(cell.source)
        ]
        assert len(stubs) == 1, f"{name}: one cell tagged stub defines it"
        assert stubs[0] < at < revealed[id]
        assert "raise NotImplementedError" in listed[stubs[0]].source
        assert ".or_reference()" in listed[at].source


@every
def test_code_cells_fit_on_a_slide(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 8


@every
def test_every_picture_is_told_in_words(path):
    for output in outputs(path):
        if "image/png" in output.get("data", {}):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            assert len(alt) > 15, "show it with show(figure, alt=…)"
        html = "".join(output.get("data", {}).get("text/html", ""))
        for image in re.findall(r"<img\b[^>]*>", html):
            assert re.search(r"\balt=\"[^\"]", image), image[:80]


@every
def test_no_path_of_a_machine_is_stored(path):
    for cell in cells(path):
        assert not MACHINE_PATH.search(cell.source), cell.source
        for output in cell.get("outputs", []):
            data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
            text = json.dumps(data) + output.get("text", "")
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)


@every
def test_it_was_run_from_top_to_bottom_without_an_error(path):
    run = [cell for cell in code_cells(path) if cell.source.strip()]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))
    assert outputs(path), "no outputs are stored: run `make notebooks`"
    for output in outputs(path):
        assert output.output_type != "error", output.get("evalue")
        assert output.get("name") != "stderr", output.get("text")


@every
def test_a_stored_page_needs_no_live_widget(path):
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    assert not any(WIDGET in output.get("data", {}) for output in outputs(path))


@every
def test_it_is_small(path):
    assert path.stat().st_size < 1_500_000


@every
def test_its_metadata_follow_from_its_cells(path):
    notebook = nbformat.read(path, as_version=4)
    before = json.dumps(notebook, sort_keys=True)
    derive(notebook)
    assert json.dumps(notebook, sort_keys=True) == before, "run `make notebooks`"
    MetadataValidator().validate_nb(notebook)


def test_numbers_are_used_once():
    numbers = [path.stem[:2] for path in PATHS]
    assert len(set(numbers)) == len(numbers)
