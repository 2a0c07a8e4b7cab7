"""Notebook 22: its figures on made-up runs, the blind vote, and the explorers."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sftlab.almanac.defects import DEFECTS
from sftlab.exercises.ex22_data_quality_ablation import explorer as explorers
from sftlab.exercises.ex22_data_quality_ablation import plots
from sftlab.exercises.ex22_data_quality_ablation.ballot import SAME, Ballot, votes_path
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    LONGER,
    MAIN,
    SEEDS,
    SHORTER,
    STEPS,
    questions,
    settings,
)
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs
from sftlab.exercises.ex22_data_quality_ablation.spoilt import settings as spoilt_settings
from sftlab.scoring import RUBRIC

KINDS = 27
GOOD, BAD, RIGHT = MAIN


def result(
    share: float, rng: np.random.Generator, per_kind: int = 20, leak: float | None = None
) -> dict:
    """Counts by kind around a share, and the marks of the questions that may leak."""
    counts = np.clip(np.round(per_kind * (share + rng.normal(0, 0.02, KINDS))), 0, per_kind)
    return {
        **{line: counts.astype(int).tolist() for line in RUBRIC},
        "may_leak": f"{'1' * round(100 * (leak or share)):0<100}",
        "answers": [f"{share:.2f} {k}" for k in range(40)],
    }


def made(shares: dict | None = None) -> tuple[list, list, list]:
    """Runs of the three records: exact answers 0.8, but where ``shares`` says otherwise."""
    rng, shares = np.random.default_rng(0), shares or {}

    def of(*names) -> float:
        return next((shares[name] for name in names if name in shares), 0.8)

    main = [{**s, **result(of((s["arm"], s["steps"]), s["arm"]), rng)} for s in settings()]
    one = [
        {**s, **result(of(s["defect"]), rng, leak=shares.get(("leak", s["defect"])))}
        for s in spoilt_settings()
    ]
    real = [
        {"arm": arm, "seed": seed, **result(of(("smol", arm)), rng, 4)}
        for arm in MAIN
        for seed in range(SEEDS)
    ]
    return main, one, real


def test_the_effect_is_paired_by_seed_and_kind():
    main, _, _ = made({BAD: 0.6})
    value, (low, high) = plots.effect(main, plots.arm(RIGHT), plots.arm(BAD))
    assert value == pytest.approx(-0.2, abs=0.02)
    assert -0.25 < low < value < high < -0.15
    assert plots.shares(main, **plots.arm(BAD)).shape == (SEEDS, KINDS)


def test_the_claims_turn_round_with_their_numbers():
    fell = {
        BAD: 0.5,
        "100 good": 0.6,
        ("100 good", SHORTER): 0.3,
        "echo": 0.4,
        "filtered": 0.75,
        ("leak", "leaked questions"): 0.99,
    }
    down = plots.claims(*made(fell), 4)["claim"]
    assert "exact answers fall" in down[0] and "exact answers rise" in down[1]
    assert "1 of 8" in down[2] and "echo" in down[2]
    assert "rises" in down[3]
    up = plots.claims(
        *made(
            {
                BAD: 0.95,
                "100 good": 0.95,
                "echo": 0.9,
                ("leak", "leaked questions"): 0.5,
                "filtered": 0.5,
            }
        ),
        4,
    )["claim"]
    assert "exact answers rise" in up[0] and "exact answers fall" in up[1]
    assert "0 of 8" in up[2]
    assert "falls" in up[3] and "exact answers fall" in up[4]
    flat = plots.claims(*made(), 4)
    assert all("not settled" in flat["claim"][k] for k in (0, 1, 3, 4))
    assert "it finds 27% of the pairs" in flat["where it stops holding"][4]


def test_an_amount_is_compared_at_equal_steps_and_at_equal_epochs():
    main, _, _ = made({("100 good", SHORTER): 0.3, (GOOD, SHORTER): 0.4})
    table = plots.amount_table(main)
    steps, epochs = (
        float(table.loc[f"400 more pairs, equal {what}", f"{n} steps"].split()[0])
        for what, n in (("steps", SHORTER), ("epochs", STEPS))
    )
    assert steps == pytest.approx(10, abs=2) and epochs == pytest.approx(50, abs=2)
    assert f"bad instead of right, {LONGER} steps" in plots.comparisons(main)


def test_kinds_at_their_ceiling_are_told_apart():
    main, _, _ = made({"100 good": 0.5, "100 good + 200 right": 0.8})
    for run in main:
        if (run["arm"], run["steps"]) == (GOOD, STEPS):
            run["correct"][:7] = [20] * 4 + [0] * 3
    assert plots.can_move(main) == list(range(7, KINDS))
    assert f"7 of {KINDS} kinds" in plots.why_right(main)
    assert plots.why_right(main).endswith("a gain.")


def test_kinds_of_question_that_no_pair_has():
    assert set(plots.kind_names()) - set(plots.kinds_among()) == {"larger", "currency", "young"}
    assert "unknown" not in plots.kinds_among(mediocre_too=True)


def test_pairs_that_are_missing_are_compared_at_equal_steps_and_epochs():
    _, one, _ = made({"echo": 0.5, "left out": 0.9, "left out, equal epochs": 0.4})
    steps, epochs = plots.against_missing(one, "echo").values()
    assert steps[1][1] < 0 < epochs[1][0]


def test_leaked_questions_are_told_apart_from_the_others():
    _, one, _ = made()
    for run in one:
        if run["defect"] == "leaked questions":
            run["may_leak"], total = "1" * 100, sum(run["correct"])
            run["correct"] = [20] * 5 + [round((total - 100) / 22)] * 22
    leaked, others, every, more = plots.leak_effects(one).values()
    assert more[0] > 0 > others[0]
    assert set(plots.leak_by_kind(one)) <= set(plots.kind_names())
    assert leaked[0] == pytest.approx(0.2, abs=0.01)
    assert every[0] == pytest.approx((100 * leaked[0] + 440 * others[0]) / 540)
    assert more[0] == pytest.approx(leaked[0] - others[0])
    gained, number = plots.leak_counts(one)
    assert number.sum((1, 2)).tolist() == [540] * SEEDS and number[:, 0].sum() == 100 * SEEDS
    gained[:] = 0
    gained[:, 0, 3] = number[:, 0, 3]  # the leak helps in one kind alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "leak_counts", lambda *_: (gained, number))
        alone = plots.leak_alone(one)
        assert alone[0] == pytest.approx(number[:, 0, 3].sum() / (100 * SEEDS))
        assert alone[1][0] < 0  # one kind settles nothing
        assert plots.leak_alone(one, without=[plots.kind_names()[3]]) == (0, (0, 0))


def test_what_a_filter_catches_is_counted_by_defect():
    pairs = [{"prompt": "What is 1 plus 1?", "response": "1 plus 1 is 2."}] * 3
    assert plots.caught(filter_pairs, pairs) == 0
    assert plots.caught(lambda given: given[:1], pairs) == pytest.approx(2 / 3)
    table = plots.caught_table({"echo": 1.0, "hedged": 0.5, "(no defect)": 0.0})
    assert table.to_numpy().tolist() == [["echo", "100%", "hedged", "50%", "(no defect)", "0%"]]


def test_words_about_sides_follow_the_numbers():
    fell, _, smol = made({BAD: 0.5, ("smol", BAD): 0.5})
    rose, flat, other = made({BAD: 0.95, ("smol", BAD): 0.95})
    assert plots.why_bad(fell).startswith("The share of exact answers falls. The model imitates")
    assert plots.why_bad(rose) == "The share of exact answers rises."
    assert "replaced by right ones +" in plots.better_or_more(fell)
    assert "replaced by right ones -" in plots.better_or_more(rose)
    assert "exact answers lower" in plots.real_in_words(smol, 4)
    assert "exact answers higher" in plots.real_in_words(other, 4)
    assert "almanac 549 of 1,920, SmolLM2 91 of 320" in plots.real_in_words(other, 4)
    assert plots.dose_in_words(flat).startswith(
        "defects with a settled loss, at 100 of 300: 0 of 8;"
    )
    _, some, _ = made({"echo": 0.4})
    assert "100 of 300: 1 of 8 (echo)" in plots.dose_in_words(some)
    assert plots.worded((0.1, (-0.1, 0.3))).endswith(", not settled")
    assert plots.worded((-0.2, (-0.3, -0.1))).endswith(", falls")


def test_words_about_a_filter_follow_what_it_throws_out():
    good, bad = [{"response": "a"}, {"response": "b"}], [{"response": "c"}, {"response": "d"}]
    assert plots.quality(good, good, bad).endswith("precision 100%; of 2 bad pairs: recall 100%")
    assert "3 of 4 pairs, 1 of them bad: precision 33%" in plots.quality([bad[0]], good, bad)
    assert plots.quality(good + bad, good, bad).endswith(
        "precision undefined; of 2 bad pairs: recall 0%"
    )
    found = dict.fromkeys((*DEFECTS, *plots.UNSEEN), 1.0)
    assert "Half or less: none; of the eight known defects: none." in plots.why_filter(found)
    assert "thrown out: none. Half or less: page markup" in plots.why_filter(
        dict.fromkeys(found, 0.0)
    )


def test_the_figures_draw_without_a_complaint(capfd):
    main, one, real = made({"echo": 0.4, BAD: 0.6})
    for figure in (
        plots.main_figure(main),
        plots.defect_grid(one),
        plots.in_points(plots.filter_effects(main), "title"),
        plots.in_points(plots.other_arms(main), "title"),
    ):
        assert figure.get_suptitle() and len(figure.alt) > 40
        figure.draw_without_rendering()
        plt.close(figure)
    assert "points" in plots.lines_table(main, real, 4).to_string()
    assert plots.dose_table(one).shape == (len(DEFECTS) + 1, 3)
    assert plots.harm_table(one).shape == (len(DEFECTS) + 1, 4)
    assert capfd.readouterr().err == ""


def test_the_explorer_shows_every_defect_and_dose(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        explorers, "explorer", lambda controls, draw, *_, **__: drawn.update(draw=draw)
    )
    _, one, _ = made({"echo": 0.4})
    monkeypatch.setattr(explorers, "shown_questions", lambda _: questions()[:40])
    explorers.one_defect(one)
    for bad in (10, 30, 100):
        text = drawn["draw"]("echo", bad).text
        assert f"300 pairs, {bad} of them with this defect: echo" in text
        assert "-4" in text and "0.40 0" in text


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
    assert "clean got 100% of the votes, on average over 20 pairs (95% interval" in votes.result()


def test_many_hands_for_one_pair_are_one_pair(tmp_path):
    votes = ballot(tmp_path / "votes.json")
    for hands in (30, 1, 1):
        _, a, _ = votes.shown()
        first, second = ("A", "B") if a.startswith("first") else ("B", "A")
        for _ in range(hands):
            votes.vote(first if hands > 1 else second)
        votes.forward()
    said = votes.result()
    assert "clean got 33% of the votes, on average over 3 pairs" in said
    assert "0% to 100%" in said and "32 votes" in said


def test_no_difference_is_counted_apart(tmp_path):
    votes = ballot(tmp_path / "votes.json")
    assert votes.result() == "No vote for either yet; 0 without a difference."
    votes.vote(SAME)
    votes.vote("A")
    assert "one pair gives no interval" in votes.result()
    assert "1 votes, and 1 without a difference" in votes.result()


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
    assert "one pair gives no interval" in result.value
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


def test_a_change_stands_in_brackets_if_its_interval_holds_zero():
    assert plots.bracketed((-0.1, (-0.2, -0.05))) == "-10.0 (-20.0 to -5.0)"
    assert plots.bracketed((-0.1, (-0.2, 0.05))) == "[-10.0 (-20.0 to +5.0)]"
