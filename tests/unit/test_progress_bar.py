"""The progress bar: tqdm's, and the one line that it leaves."""

from __future__ import annotations

import pytest

from sftlab._internal.progress_bar import ProgressBar, in_notebook


def test_it_writes_to_stderr_alone_and_leaves_its_line_without_times(capsys):
    with ProgressBar(2) as bar:
        bar.update(2, note="loss 1.2")
        bar.done = "2 steps: loss 2.0 → 1.2"
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.rpartition("\r")[2] == "2 steps: loss 2.0 → 1.2\n"


def test_without_a_line_of_its_own_the_count_stays_and_an_error_goes_through(capsys):
    with pytest.raises(ZeroDivisionError), ProgressBar(10, "rows", first=4) as bar:
        bar.update()
        raise ZeroDivisionError
    assert capsys.readouterr().err.endswith("\r5 of 10 rows\n")


def test_not_shown_it_writes_nothing(capsys):
    with ProgressBar(2, shown=False) as bar:
        bar.update(2)
        bar.done = "2 steps done"
    assert capsys.readouterr() == ("", "")


def test_a_notebook_keeps_the_line_alone():
    """tqdm's own output is a widget without a twin, which `tools.publish.tidy` leaves out."""
    import nbformat
    from nbclient import NotebookClient

    from tools.publish import tidy

    code = (
        "from sftlab._internal.progress_bar import ProgressBar\n"
        "with ProgressBar(3) as bar:\n    bar.update(3)\n    bar.done = 'all three'"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3").execute()
    (left,) = tidy(notebook.cells[0].outputs)
    assert (left["name"], left["text"]) == ("stdout", "all three\n")


def test_pytest_is_no_notebook():
    assert not in_notebook()
