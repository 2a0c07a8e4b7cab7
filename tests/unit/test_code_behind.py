"""A stored result knows the code it came from: what counts as a change, and what does not."""

from __future__ import annotations

import pytest

from sftlab._internal.code_behind import (
    changed,
    code_behind,
    code_digest,
    file_digest,
    module_digest,
    record_digest,
    records_behind,
)
from sftlab.exercises.record import confirm, results_path, sweep

CODE = 'def f(x):\n    """Twice."""\n    return 2 * x\n'


@pytest.mark.parametrize(
    "same",
    [
        CODE.replace("Twice.", "Two times."),
        CODE.replace("return 2 * x", "# why not\n    return (2\n        * x)"),
        CODE.replace('    """Twice."""\n', ""),
        CODE.replace("\n", "\r\n"),
    ],
)
def test_formatting_comments_and_docstrings_do_not_count(same):
    assert code_digest(same) == code_digest(CODE)


@pytest.mark.parametrize(
    "other",
    [CODE.replace("2", "3"), CODE.replace("2", "2.0"), CODE.replace("*", "+"), CODE + "f(1)\n"],
)
def test_what_is_computed_counts(other):
    assert code_digest(other) != code_digest(CODE)


def test_the_parts_of_a_formatted_text_count():
    assert code_digest("f'{a}{b}'") != code_digest("f'{b}{a}'") != code_digest("f'{a}-{b}'")


def test_modules_are_found_through_others_in_functions_too_and_with_their_packages():
    found = code_behind("from sftlab.train import sft_train")
    assert {"sftlab.train", "sftlab.loss", "sftlab.masking"} <= set(found)
    assert found["sftlab.loss"] == module_digest("sftlab.loss")
    assert "sftlab.classroom.plots" in code_behind(
        "import sftlab.exercises.ex03_response_only_loss.plots"
    )
    assert "sftlab.chat" in code_behind("def f():\n    from sftlab import chat")
    assert code_behind("import torch\nfrom pathlib import Path") == {}


def test_what_a_module_does_as_a_program_is_not_behind_what_imports_it():
    code = "import sftlab.loss\nif __name__ == '__main__':\n    import sftlab.pipeline"
    assert "sftlab.loss" in code_behind(code) and "sftlab.pipeline" not in code_behind(code)
    assert "sftlab.pipeline" not in code_behind("import sftlab.train")


def test_what_only_shows_or_words_something_is_left_out():
    assert "sftlab.errors" not in code_behind("import sftlab.errors")


def test_records_are_those_that_are_read_by_name():
    code = 'from sftlab.exercises.record import runs\nruns("superficial")\nprint("clinic")'
    assert list(records_behind(code)) == ["results/superficial.json"]


def test_names_that_differ():
    before = {"a": "1", "b": "2", "gone": "5"}
    assert changed(before, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]


def test_a_record_that_is_confirmed_stays_the_same_to_the_notebooks_that_show_it(tmp_path):
    setting, run = {"seed": 0}, lambda seed: {"score": 1.0}
    sweep("trial", [setting], run, tmp_path, progress=False)
    path = results_path("trial", tmp_path)
    before, whole = record_digest(path), file_digest(path)
    assert before == whole
    confirm("trial", [setting], run, tmp_path)
    assert record_digest(path) == before and file_digest(path) != whole
    sweep("trial", [setting, {"seed": 1}], run, tmp_path, progress=False)
    assert record_digest(path) != before
