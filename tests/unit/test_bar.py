"""The progress bar: what it shows while it moves and the one line that it leaves."""

from __future__ import annotations

import pytest

from sftlab._internal import progress_bar
from sftlab._internal.progress_bar import Bar, in_notebook


class Display:
    """Stands in for a notebook's output area; keeps what was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, data, **options):
        assert options == {"raw": True, "display_id": True}
        self.shown.append(data)
        return self

    def update(self, data, raw):
        assert raw
        self.shown.append(data)


@pytest.fixture
def notebook(monkeypatch):
    """A notebook whose clock stands still until a test moves it."""
    display = Display()
    display.clock = 100.0
    monkeypatch.setattr(progress_bar, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: display.clock)
    return display


def test_pytest_is_no_notebook():
    assert not in_notebook()


class TestNotebook:
    def test_one_line_stays_without_any_time(self, notebook):
        with Bar(3, "steps") as shown:
            for _ in range(3):
                shown.update(note="loss 1.2")
            shown.done = "3 steps: loss 2.0 → 1.2"
        assert notebook.shown[-1] == {
            "text/plain": "3 steps: loss 2.0 → 1.2",
            "text/html": "<p>3 steps: loss 2.0 → 1.2</p>",
        }

    def test_without_a_line_of_its_own_the_count_stays(self, notebook):
        with Bar(3, "rows") as shown:
            shown.update(2)
        assert notebook.shown[-1]["text/plain"] == "2 of 3 rows"

    def test_shows_count_time_left_and_note_while_it_moves(self, notebook):
        with Bar(10, "steps", first=4) as shown:
            notebook.clock += 6.0
            shown.update(2, note="loss <1")
        moving = notebook.shown[1]
        assert moving["text/plain"] == "6 of 10 steps · 12 s left · loss <1"
        assert 'max="10" value="6"' in moving["text/html"]
        assert "loss &lt;1" in moving["text/html"]

    def test_is_drawn_at_most_ten_times_a_second(self, notebook):
        with Bar(100) as shown:
            for _ in range(100):
                notebook.clock += 0.01
                shown.update()
        assert 2 < len(notebook.shown) < 14

    def test_not_shown_it_writes_nothing(self, notebook):
        with Bar(3, shown=False) as shown:
            shown.update()
            shown.done = "done"
        assert notebook.shown == []

    def test_an_error_goes_through_and_the_count_stays(self, notebook):
        with pytest.raises(ZeroDivisionError), Bar(3) as shown:
            shown.update()
            raise ZeroDivisionError
        assert notebook.shown[-1]["text/plain"] == "1 of 3 steps"


class TestTerminal:
    def test_writes_to_stderr_alone_and_leaves_its_line(self, capsys):
        with Bar(2) as shown:
            shown.update(2)
            shown.done = "2 steps done"
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.endswith("2 steps done\n")

    def test_not_shown_it_writes_nothing(self, capsys):
        with Bar(2, shown=False) as shown:
            shown.update(2)
            shown.done = "2 steps done"
        assert capsys.readouterr() == ("", "")
