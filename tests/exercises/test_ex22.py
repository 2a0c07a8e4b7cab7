"""Notebook 22: its figures on made-up runs, the blind vote, and the explorers."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest

from sftlab.almanac.defects import DEFECTS
from sftlab.exercises.ex22_data_quality_ablation import explorer as explorers
from sftlab.exercises.ex22_data_quality_ablation.ballot import SAME, Ballot, votes_path
from sftlab.exercises.ex22_data_quality_ablation.experiment import DOSES
from sftlab.exercises.ex22_data_quality_ablation.plots import (
    LINES,
    arms,
    caught,
    change,
    changes,
    defect_changes,
    defect_grid,
    doses,
    lowered,
    marks,
    over_seeds,
    recovered,
    went_wrong,
)

KINDS = ["capital"] * 4 + ["plural"] * 4
SHARES = {"500 good": 1.0, "500 good + 200 bad": 0.5, "filtered": 0.75, "300 good": 1.0}


@pytest.fixture
def recorded():
    """Three seeds of every arm; every line holds for the first so many of eight questions."""
    shares = {
        **SHARES,
        **{f"{p}% bad": 1 - p / 100 for p in DOSES},
        **{f"200 good + 100 {d}": k / 8 for k, d in enumerate(DEFECTS)},
    }
    return [
        {"arm": arm, "seed": seed, "answers": [f"{arm} {k}" for k in range(8)],
         **{line: f"{'1' * round(8 * share):0<8}" for line in LINES}}
        for arm, share in shares.items() for seed in range(3)
    ]  # fmt: skip


def test_marks_are_seeds_by_questions(recorded):
    assert marks(recorded, "500 good + 200 bad", "correct").tolist() == [[1] * 4 + [0] * 4] * 3


def test_a_change_is_told_with_an_interval_over_the_kinds(recorded):
    difference, (low, high) = change(recorded, "500 good", "500 good + 200 bad", "correct", KINDS)
    assert difference == -0.5
    assert (low, high) == (-1, 0)  # one kind of two lost all of its four
    assert over_seeds(recorded, "500 good", "500 good + 200 bad", "correct") == (-0.5, (-0.5, -0.5))


def test_arms_are_compared_on_the_seeds_they_share(recorded):
    extra = {**recorded[0], "seed": 7, **dict.fromkeys(LINES, "0" * 8)}
    assert change([*recorded, extra], "500 good", "filtered", "correct", KINDS)[0] == -0.25


def test_half_of_the_damage_comes_back(recorded):
    assert recovered(recorded, "500 good", "500 good + 200 bad", "filtered", "correct") == 0.5


def test_what_went_wrong_is_told_with_the_lines_that_fail(recorded):
    asked = [{"prompt": f"question {k}"} for k in range(8)]
    rows = went_wrong(recorded, asked, range(8), "500 good", "500 good + 200 bad")
    assert [row[0] for row in rows] == [f"question {k}" for k in range(4, 8)]
    assert "on topic" in rows[0][3]


def test_precision_and_recall_are_counted_against_the_known_truth():
    good = [{"prompt": str(k)} for k in range(4)]
    bad = [{"prompt": str(k), "defect": "echo" if k % 2 else "refusal"} for k in range(4)]
    precision, recall, view = caught([*good, *bad], [*good[1:], bad[0], bad[2]])
    assert (precision, recall) == (2 / 3, 0.5)
    assert "refusal" in view.text and "25%" in view.text
    assert caught([*good, *bad], [*good, *bad])[:2] == (0.0, 0.0)


def test_the_figures_draw_without_a_complaint(recorded, capfd):
    grid = defect_changes(recorded, KINDS)
    for figure in (
        arms(recorded, list(SHARES)),
        doses(recorded),
        defect_grid(grid),
        lowered(grid["wrong fact"], "points"),
    ):
        assert figure.get_suptitle() and len(figure.alt) > 40
        figure.draw_without_rendering()
        plt.close(figure)
    assert grid["wrong fact"]["correct"][0] == -1
    assert "-50.0" in changes(recorded, "500 good", ["500 good + 200 bad"], KINDS).text
    assert capfd.readouterr().err == ""


def test_the_poison_slider_shows_every_dose(recorded, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        explorers, "explorer", lambda controls, draw, *_, **__: drawn.update(draw=draw)
    )
    asked = [{"prompt": f"question {k}"} for k in range(8)]
    explorers.poison_slider(recorded, asked, shown=[0, 7])
    for percent in DOSES:
        assert f"{percent}% bad 7" in drawn["draw"](percent).text
    assert "200 good pairs and 200 bad ones" in drawn["draw"](50).text


# --- the blind vote ----------------------------------------------------------------------------

QUESTIONS = [(f"question {k}", f"first {k}", f"second {k}") for k in range(20)]


def ballot(path, **options):
    return Ballot(QUESTIONS, ("clean", "poisoned"), path, **options)


def test_the_sides_are_mixed_and_a_vote_counts_for_the_model_behind_it(tmp_path):
    votes = ballot(tmp_path / "votes.json")
    sides = []
    for _ in QUESTIONS:
        _, a, _ = votes.shown()
        sides.append(a.startswith("first"))
        votes.vote("A" if a.startswith("first") else "B")  # always for the first model
        votes.forward()
    assert 4 < sum(sides) < 16
    assert {vote["choice"] for vote in votes.votes} == {"clean"}
    assert "won 20 of 20 decided votes: 100%" in votes.result()


def test_no_difference_is_counted_apart(tmp_path):
    votes = ballot(tmp_path / "votes.json")
    assert votes.result() == "No vote for either yet; 0 without a difference."
    votes.vote(SAME)
    votes.vote("A")
    assert "of 1 decided votes" in votes.result() and "1 without a difference" in votes.result()


def test_votes_are_kept_beside_the_progress_file(tmp_path):
    path = votes_path("22")
    assert path == tmp_path / "votes_22.json"
    ballot(path).vote("B")
    later = ballot(path, seed=1)
    assert len(later.votes) == 1
    assert {"models", "prompt", "choice", "time"} == set(later.votes[0])
    assert Ballot(QUESTIONS, ("other", "two"), path).votes == []


def test_a_damaged_file_is_set_aside_and_said_so(tmp_path):
    path = tmp_path / "votes.json"
    path.write_text('{"votes": 3')
    votes = ballot(path)
    assert votes.votes == [] and "votes.damaged.json" in votes.notice
    assert (tmp_path / "votes.damaged.json").read_text() == '{"votes": 3'
    votes.vote("A")
    assert len(json.loads(path.read_text())["votes"]) == 1


def test_after_the_last_pair_comes_the_first(tmp_path):
    votes = ballot(tmp_path / "votes.json")
    first = votes.shown()
    for _ in QUESTIONS:
        votes.forward()
    assert votes.shown() == first


def test_the_page_shows_a_pair_and_not_who_wrote_it(tmp_path, capsys):
    votes = ballot(tmp_path / "votes.json")
    explorers.blind_vote(votes)
    text = capsys.readouterr().out
    assert votes.shown()[0] in text
    assert "clean" not in text and "poisoned" not in text


def test_the_buttons_vote_and_the_result_waits(tmp_path, monkeypatch):
    import IPython

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    made = []
    box = explorers.widgets.VBox
    monkeypatch.setattr(explorers.widgets, "VBox", lambda c: made.append(c) or box(c))
    votes = ballot(tmp_path / "votes.json")
    explorers.blind_vote(votes)
    stage, buttons, count, result = made[0]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert "Run the notebook to vote." in shown[0]["text/html"]
    by_name = {button.description: button for button in buttons.children}
    before = stage.value
    by_name["A"].click()
    assert "A: 1" in count.value and result.value == "" and stage.value == before
    by_name["show the result"].click()
    assert "of 1 decided votes" in result.value
    by_name["next pair"].click()
    assert stage.value != before and "A: 0" in count.value and result.value == ""
    assert len(votes.votes) == 1


def test_a_vote_that_cannot_be_kept_is_said_and_not_counted(tmp_path, monkeypatch):
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: None)
    made = []
    box = explorers.widgets.VBox
    monkeypatch.setattr(explorers.widgets, "VBox", lambda c: made.append(c) or box(c))
    votes = ballot(tmp_path / "votes.json")
    explorers.blind_vote(votes)
    _, buttons, count, result = made[0]

    def full(choice):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(votes, "vote", full)
    buttons.children[0].click()
    assert "could not be kept" in result.value and "No space left" in result.value
    assert "A: 0" in count.value
