"""The show of hands: counts that are kept, never below none, and bars."""

from __future__ import annotations

import json

import pytest

from sftlab.classroom import html_cards, predict, predictions, progress, show_of_hands
from sftlab.classroom.show_of_hands import _bar, count, counted, start_anew
from sftlab.errors import WorkbookError

OPTIONS = ["rises", "falls"]


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    predictions._asked.clear()
    monkeypatch.setattr(html_cards, "show", lambda *shown: None)
    predict("12.a", "The loss …", OPTIONS)


def test_hands_are_counted_taken_back_and_kept_in_the_progress_file():
    for change in (1, 1, -1, 1):
        count("12.a", "falls", change)
    count("12.a", "rises", -1)
    assert counted("12.a", OPTIONS) == [0, 2]
    stored = json.loads(progress.progress_path().read_text())
    assert stored["hands"] == {"12.a": {"falls": 2, "rises": 0}}
    start_anew("12.a")
    start_anew("12.a")
    assert counted("12.a", OPTIONS) == [0, 0]


def test_it_shows_a_bar_and_a_number_for_each_choice(monkeypatch):
    shown = []
    monkeypatch.setattr(html_cards, "show", lambda *given: shown.append(given))
    count("12.a", "falls", 1)
    show_of_hands("12.a")
    html, text, widget = shown[0]
    assert "width:10%" in html and "1 falls" in text and "0 rises" in text
    assert widget is None  # nobody could press it outside a notebook


def test_more_than_ten_hands_still_fit():
    assert "width:100%" in _bar(30, [30, 3]) and "width:10%" in _bar(3, [30, 3])


def test_a_prediction_that_was_not_asked_is_named():
    with pytest.raises(WorkbookError, match=r"show_of_hands\('12\.z'\) comes before predict"):
        show_of_hands("12.z")
