"""Notebook 02: its figures, tables, words and explorers on made-up runs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sftlab.exercises.ex02_superficial_alignment import explorer as explorers
from sftlab.exercises.ex02_superficial_alignment import plots, real_model, token_roles
from sftlab.exercises.ex02_superficial_alignment.diagram import ALT, draw
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    ARMS,
    SEEDS,
    SIZES,
    STEPS,
    questions,
    settings,
)
from sftlab.exercises.ex02_superficial_alignment.unknown_facts import MOMENTS

PLACE = dict(zip(SIZES, (0, 0.2, 0.4, 0.6, 0.9), strict=True))


SHOWN = {"answers": (0.9, 1), "shuffled": (0.1, 1), "wrong values": (0.2, 9)}  # right, rank of V


def made(asked, setting: dict, content: float, form: float, refused: float = 0.0) -> dict:
    """A run with shares of content, format and refusals that vary a little with the seed."""
    rng = np.random.default_rng(setting["seed"] + 10)
    marks = rng.random(len(asked))
    letters = ["r" if m < refused else "a" if m < refused + form else "-" for m in marks]
    right = "".join("1" if m < content else "0" for m in rng.random(len(asked)))
    ranks = [[1 + (rng.random() < 0.3), 1, 1, 1, 9] for _ in range(40)]
    texts = [f"{setting['arm']} {setting['pairs']}"] * len(asked[::40])
    return {**setting, "format": "".join(letters), "content": right, "answers": texts, "ranks": ranks}  # fmt: skip


@pytest.fixture
def recorded():
    """Content grows with n and is ruined by shuffling; a refusal among the pairs spreads."""
    found = []
    for setting in settings():
        n, arm = setting["pairs"], setting["arm"]
        early = setting["steps"] < STEPS
        content = 0.05 if arm == "shuffled" else PLACE[n] if not early else 0.15
        refused = 0.3 if arm == "with refusals" else 0.0
        found.append(made(questions(), setting, content, 0.0 if early else 0.65, refused))
    return found


@pytest.fixture
def real():
    return [
        made(real_model.exam(), s, 0.3, 0.9 if s["pairs"] else 0.1) for s in real_model.settings()
    ]


def test_shares_count_the_marks_of_their_groups(recorded):
    first = recorded[1]
    facts = [m for m, q in zip(first["format"], questions(), strict=True) if q["group"] == "facts"]
    assert plots.share(first, "in the format", ("facts",)) == facts.count("a") / 260
    assert plots.share({**first, "format": "d" * len(questions())}, "in the format") == 0
    assert plots.share({**first, "format": "d" * len(questions())}, "in the format, any end") == 1
    assert len(plots.shares(recorded, "right", **plots.at("answers", 8))) == SEEDS


def test_ranks_are_counted_with_and_without_the_end_of_turn_token():
    ranks = [[1, 1, 1, 400], [2, 1, 1, 90]]
    assert plots.unshifted(ranks) == 5 / 8 and plots.unshifted(ranks, end_of_turn=False) == 5 / 6
    value, (low, high) = plots.clustered(ranks * 20, "unshifted", end_of_turn=False)
    assert value == pytest.approx(5 / 6) and low < value < high
    assert plots.clustered(ranks * 20, "shifted", end_of_turn=False)[0] == 0


def test_replies_and_not_tokens_are_resampled():
    """Replies that agree within themselves carry less than their number of tokens suggests."""
    alike = [[1] * 20 if k % 2 else [9] * 20 for k in range(20)]
    mixed = [[1, 9] * 10 for _ in range(20)]
    assert np.diff(plots.clustered(alike, "unshifted")[1])[0] > 0.3
    assert np.diff(plots.clustered(mixed, "unshifted")[1])[0] == 0


@pytest.fixture
def tokens():
    """Right, shuffled and wrong answers: the ranks of values alone tell which values are wrong."""
    found = []
    for setting in token_roles.settings():
        right, rank = SHOWN[setting["arm"]]
        marks = "".join(str(int(k < 100 * right - setting["seed"])) for k in range(100))
        lines = {"right": marks, "true": "0" * 30 + "1" * 70, "answers": []}
        one = {
            "roles": ["oSsoVo"] * 4,
            "ranks": [[4, 60, 1, 1, rank, 1 + (setting["seed"] == 1)]] * 4,
        }
        found.append({**setting, **lines, **one})
    return found


def claims(recorded, real, tokens) -> list[str]:
    return list(plots.found(recorded, real, tokens).index)


def test_the_claims_follow_the_numbers(recorded, real, tokens):
    strata, dose, order, refusal, ranks = claims(recorded, real, tokens)
    assert "not settled" in strata  # in the runs made up here, content is the same for all groups
    assert "content improves" in dose and "right content is ahead" in order
    assert "refusals of known facts rise" in refusal
    assert "right content falls, the share of unshifted tokens changes by less than 5" in ranks
    assert "unshifted values falls" in ranks


def test_numbers_of_both_strata_and_of_the_real_model_are_in_the_table(recorded, real, tokens):
    table = plots.found(recorded, real, tokens)
    assert "SmolLM2, 8 to 128 pairs: format +" in table["where it stops"].iloc[1]
    shown = plots.findings(recorded, real, tokens)
    assert all(text in shown.text for text in table.index) and "…" not in shown.text
    knowing = [{**run, "content": "".join("01"[q["group"] == "facts"] for q in questions())}
               for run in recorded]  # fmt: skip
    assert "answers known facts more often" in claims(knowing, real, tokens)[0]
    assert plots.stratum_gap(knowing, "right", 8) == (1, (1, 1))
    assert (
        plots.strata_table(knowing)["right content"].str[:4].tolist()
        == ["100%", "0% (", "0% ("] * 2
    )


def test_the_number_of_steps_for_few_pairs_is_the_best_recorded_one(recorded):
    assert plots.steps_recorded(8) == [4, 16, 32, STEPS] and plots.best_steps(recorded, 8) == STEPS
    early = [
        {**run, "content": "1" * len(questions())} if run["steps"] == 16 else run
        for run in recorded
    ]
    assert plots.best_steps(early, 8) == 16  # fmt: skip


def test_unshifted_tokens_are_counted_by_role(tokens):
    first = tokens[0]
    assert plots.unshifted_role(first, "S") == 0 and plots.unshifted_role(first, "V") == 1
    assert plots.unshifted_role(first, "SsVvo") == 4 / 6
    assert plots.role_change(tokens, "wrong values", "V") == (-1, (-1, -1))
    assert "The model names a wrong subject" in plots.true_elsewhere(tokens)
    lies = [{**run, "true": "0" * 100} for run in tokens]
    assert "wrong subject" not in plots.true_elsewhere(lies)


def exchanged(recorded, key: str, one, other, fresh: bool) -> list[dict]:
    """The runs of 120 steps with two arms or sizes exchanged; of the fresh seeds, or of the others."""
    swap = {one: other, other: one}
    return [
        {**run, key: swap.get(run[key], run[key])}
        if run["steps"] == STEPS and (run["seed"] >= SEEDS) == fresh
        else run
        for run in recorded
    ]


def test_the_claims_turn_when_the_arms_are_exchanged(recorded, real, tokens):
    turned = exchanged(recorded, "pairs", 8, 500, fresh=False)
    assert "content gets worse" in claims(turned, real, tokens)[1]
    turned = exchanged(recorded, "arm", "answers", "with refusals", fresh=True)
    assert "refusals of known facts fall" in claims(turned, real, tokens)[3]
    for arm, words in (("shuffled", "right content rises"), ("wrong values", "values rises")):
        swap = {"answers": arm, arm: "answers"}
        turned = [{**run, "arm": swap.get(run["arm"], run["arm"])} for run in tokens]
        assert words in claims(recorded, real, turned)[4]


def test_an_interval_that_holds_zero_settles_nothing():
    assert plots.direction((0.1, (-0.1, 0.3)), "up", "down") == "not settled here"
    assert plots.direction((0.2, (0.1, 0.3)), "up", "down") == "up"
    assert plots.direction((-0.2, (-0.3, -0.1)), "up", "down") == "down"


@pytest.fixture
def learned():
    curve = [0.1 * k for k in range(len(MOMENTS))]
    names = ("trained, content", "held out, content", "reworded, content")
    return [
        {"arm": arm, "seed": seed, "marks": "1101", **{name: [x + seed / 99 for x in curve] for name in names}}
        for arm in ("known", "absent") for seed in range(3)
    ]  # fmt: skip


def test_the_figures_draw_without_a_complaint(recorded, learned, tokens, capfd, monkeypatch):
    monkeypatch.setattr(plots, "load", lambda _: ())
    monkeypatch.setattr(plots, "readable", lambda: [True, True, False, True])
    for figure in (
        plots.dose(recorded),
        plots.by_group(recorded),
        plots.over_steps(recorded),
        plots.by_role(tokens),
        plots.by_place([[1, 2, 9], [1, 4, 9, 300]], "title"),
        plots.memorised(learned),
    ):
        figure.draw_without_rendering()
        assert len(figure.alt) > 30
        plt.close(figure)
    assert capfd.readouterr().err == ""


def test_the_tables_have_a_row_for_each_cell(recorded, real, learned):
    refusals = plots.refusal_table(recorded)
    assert list(refusals.index) == [8, 8, 32, 128, 500]
    assert list(refusals["seeds"])[:3] == ["0 to 4", "5 to 14", "0 to 4"]
    assert len(plots.epochs_table(recorded)) == 6 and len(plots.real_table(real)) == 5
    told = plots.absent_table(learned, [True, True, False, True]).iloc[:, 0]
    assert told.iloc[0].startswith("100%") and told.iloc[1].startswith("0%")
    assert told.iloc[2].startswith("+0.0 points")


def test_views_say_what_they_show(recorded):
    view = plots.n_table(recorded, "answers", 32)
    assert "in no document" in view.text and "5 seeds" in view.text
    view = plots.rank_view(["The", " frog"], [1, 9], "an answer", marked=1)
    assert "The(1) ·frog(9)" in view.text and 'title="rank 9 under the base"' in view.html


def test_the_slider_shows_every_cell(recorded, monkeypatch):
    drawn = {}
    monkeypatch.setattr(explorers, "explorer", lambda _, draw, *a, **k: drawn.update(draw=draw))
    explorers.slide_n(recorded)
    for arm in ARMS:
        for pairs in SIZES[1:]:
            assert f"{arm} {pairs}" in drawn["draw"](arm, pairs).text
        assert "answers 0" in drawn["draw"](arm, 0).text


def test_any_token_can_be_chosen(tiny_model, tokenizer, monkeypatch):
    drawn = {}
    monkeypatch.setattr(explorers, "explorer", lambda _, draw, *a, **k: drawn.update(draw=draw))
    answers = {"Hi?": tokenizer.encode("The frog lives in ponds."), "Yes?": [9, 8]}
    explorers.token_ranks(tiny_model, tokenizer, answers)
    for token in (1, 2, 99):
        assert "token 2 of 2" in drawn["draw"]("Yes?", token).text or token == 1
    assert "the tuned model’s" in drawn["draw"]("Hi?", 3).text


def test_the_diagram_holds_no_measurement():
    assert "%" not in draw() and all(name in draw() for name in ARMS) and len(ALT) > 30
