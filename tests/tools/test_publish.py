"""Publishing: the same notebook gives the same bytes, and a failing cell is named."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from sftlab.errors import WorkbookError
from tools import publish
from tools.notebook_metadata import derive

CELLS = """
# 12 · Masking the prompt
---
MODEL = "almanac"; SEED = 0; FULL = False
---
from sftlab.classroom import predict
predict("12.a", "It …", ["rises", "falls"])
---
import os, sys
from IPython.display import display
import ipywidgets
print("one"); sys.stdout.flush(); print("two")
print("10%\\r100%")
display(ipywidgets.IntProgress(3))
object()
---
def mask_prompt(input_ids, prompt_length):
    raise NotImplementedError
---
1 + 1  # check("12.mask_prompt", mask_prompt).or_reference() would load PyTorch
""".strip().split("\n---\n")


def write(path: Path, cells: list[str]) -> Path:
    notebook = v4.new_notebook()
    for source in cells:
        make = v4.new_markdown_cell if source.startswith("#") else v4.new_code_cell
        notebook.cells.append(make(source))
    notebook.cells[1].metadata["tags"] = ["parameters"]
    notebook.metadata["widgets"] = {}
    nbformat.write(notebook, path)
    return path


@pytest.mark.slow
def test_a_second_run_changes_no_byte_and_stores_only_what_lasts(tmp_path, capsys):
    path = write(tmp_path / "12_demo.ipynb", CELLS)
    assert publish.main(["--check", str(path)]) == 1
    assert "nothing says what its outputs came from" in capsys.readouterr().out
    assert publish.main([str(path)]) == 0
    first = path.read_bytes()
    assert publish.main(["--check", str(path)]) == 0
    assert publish.main([str(path)]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert path.read_bytes() == first

    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    (asked,) = code[1].outputs
    assert set(asked.data) == {"text/html", "text/plain"}
    assert [o.output_type for o in code[2].outputs] == ["stream", "execute_result"]
    assert code[2].outputs[0].text == "one\ntwo\n100%\n"
    assert code[2].outputs[1].data["text/plain"] == "<object>"
    assert set(notebook.metadata) == {"kernelspec", "language_info", "sftlab"}
    assert "version" not in notebook.metadata.language_info


def test_outputs_are_older_than_a_changed_cell_module_or_record(tmp_path, monkeypatch):
    path = write(
        tmp_path / "03_demo.ipynb",
        ["# Title", "MODEL = 1", "from sftlab.exercises.record import runs\nruns('superficial')"],
    )
    notebook = nbformat.read(path, as_version=4)
    came = publish.came_from(notebook)
    assert {"sftlab.models", "sftlab.exercises.record", "results/superficial.json"} <= set(came)

    def stale(**changes):
        notebook.metadata["sftlab"] = {**came, **changes}
        nbformat.write(notebook, path)
        return list(publish.stale_notebooks([path]))

    assert stale() == []
    (line,) = stale(**{"sftlab.models": "another"})
    assert line == "03_demo.ipynb: sftlab.models changed since it was run: make notebooks"
    assert "results/superficial.json changed" in stale(**{"results/superficial.json": "older"})[0]
    assert "cells changed" in stale(cells="others")[0]


@pytest.mark.slow
def test_a_failing_cell_is_named_with_its_error_and_nothing_is_written(tmp_path, capsys):
    path = write(tmp_path / "12_demo.ipynb", ["# Title", "MODEL = 1", "x = 1\nx / 0"])
    before = path.read_bytes()
    assert publish.main([str(path)]) == 1
    told = capsys.readouterr().out
    assert "12_demo.ipynb, cell 3 (x = 1): ZeroDivisionError: division by zero" in told
    assert path.read_bytes() == before


def test_stub_and_check_get_the_metadata_that_nbgrader_accepts():
    notebook = v4.new_notebook(
        cells=[
            v4.new_code_cell("def mask_prompt(ids, n):\n    raise NotImplementedError"),
            v4.new_code_cell('mask_prompt = check("12.mask_prompt", mask_prompt).or_reference()'),
            v4.new_code_cell('reveal("12.mask_prompt")', metadata={"tags": ["hide"]}),
        ]
    )
    derive(notebook)
    stub, check, reveal = notebook.cells
    assert stub.metadata.tags == ["stub"]
    assert (stub.metadata.nbgrader.solution, stub.metadata.nbgrader.grade) == (True, False)
    assert (check.metadata.nbgrader.locked, check.metadata.nbgrader.points) == (True, 1)
    assert reveal.metadata.jupyter.source_hidden
    assert [cell.metadata.slideshow.slide_type for cell in notebook.cells] == [
        "fragment",
        "fragment",
        "subslide",
    ]
    from nbgrader.nbgraderformat import MetadataValidator

    MetadataValidator().validate_nb(notebook)


def test_a_check_without_its_stub_is_an_error():
    notebook = v4.new_notebook(cells=[v4.new_code_cell('check("12.mask_prompt", None)')])
    with pytest.raises(WorkbookError, match="no cell before it defines mask_prompt"):
        derive(notebook)


def test_cell_ids_are_kept_when_valid_and_made_from_the_position_otherwise():
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("a") for _ in range(3)])
    notebook.cells[0]["id"], notebook.cells[1]["id"], notebook.cells[2]["id"] = "x", "x", "not ok"
    derive(notebook)
    assert [cell.id for cell in notebook.cells] == ["x", "cell-01", "cell-02"]
