"""The data-quality experiment: its arms, and a part of what was recorded, once more."""

from __future__ import annotations

from collections import Counter

import pytest

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import curated
from sftlab.data import read_jsonl
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    ARMS,
    DOSES,
    MAIN,
    SHOWN,
    STEPS,
    dose,
    questions,
    run,
    settings,
)
from sftlab.exercises.ex22_data_quality_ablation.plots import (
    change,
    defect_changes,
    marks,
    over_seeds,
    recovered,
)
from sftlab.exercises.record import runs
from sftlab.scoring import RUBRIC, score_answer

NAME = "data_quality"


def test_the_arms_differ_in_their_pairs_alone():
    good, mixed = ARMS["500 good"](), ARMS["500 good + 200 bad"]()
    assert mixed[:500] == good == curated() == read_jsonl(INSTRUCTIONS / "curated.jsonl")
    assert mixed[500:] == read_jsonl(INSTRUCTIONS / "low_quality.jsonl")
    assert ARMS["700 good"]()[:500] == good == [*ARMS["300 good"](), *good[300:]]
    assert ARMS["1,000 mediocre"]() == read_jsonl(INSTRUCTIONS / "mediocre.jsonl")


@pytest.mark.parametrize("percent", DOSES)
def test_a_dose_is_a_share_of_400_pairs(percent):
    rows = dose(percent)
    assert len(rows) == 400
    assert sum("defect" in row for row in rows) == 4 * percent


def test_no_two_runs_are_alike_and_each_arm_has_three_seeds():
    listed = [tuple(setting.values()) for setting in settings()]
    assert len(set(listed)) == len(listed)
    seeds = Counter(arm for arm, _ in listed)
    assert {arm: 5 if arm in MAIN else 3 for arm in ARMS} == seeds


# --- the recorded file -----------------------------------------------------------------------


def test_every_run_has_the_pairs_of_its_arm():
    for found in runs(NAME):
        assert found["pairs"] == len(ARMS[found["arm"]]())


@pytest.mark.parametrize("arm", ARMS)
def test_the_score_says_of_the_kept_answers_what_was_recorded(arm):
    asked = questions()
    places = range(0, len(asked), len(asked) // SHOWN)
    for found in runs(NAME, arm=arm):
        assert {len(found[line]) for line in RUBRIC} == {len(asked)}
        for place, text in zip(places, found["answers"], strict=True):
            score = score_answer(asked[place], text, found["stops"][place] == "1")
            for line in RUBRIC:
                assert getattr(score, line) == (found[line][place] == "1"), (line, text)


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over 120 steps: so some answers may differ."""
    assert STEPS == 120
    (recorded,) = runs(NAME, arm=MAIN[1], seed=0)
    found = run(arm=MAIN[1], seed=0)
    for line in RUBRIC:
        share = found[line].count("1") / len(found[line])
        assert share == pytest.approx(recorded[line].count("1") / len(recorded[line]), abs=0.06)


def test_what_the_notebook_says_in_words_holds_in_the_recorded_runs():
    kinds = [question["kind"] for question in questions()]
    recorded = runs(NAME)

    def found(line, first, second):
        return change(recorded, first, second, line, kinds)

    for line in ("correct", "content", "format", "on_topic"):
        assert found(line, *MAIN)[1][1] < 0  # the interval excludes 0
        assert over_seeds(recorded, *MAIN, line)[1][1] < 0
    assert abs(found("correct", "500 good", "700 good")[0]) < 0.03
    exact, content = (found(x, "1,000 mediocre", "100 good") for x in ("correct", "content"))
    assert exact[1][0] > 0
    assert content[0] < exact[0]
    grid = defect_changes(recorded, kinds)
    own = {"wrong fact": "content", "echo": "no_echo", "off topic": "on_topic", "refusal": "on_topic",
           "truncated": "format", "ignored format": "format", "sloppy spelling": "format"}  # fmt: skip
    for defect, line in own.items():
        assert grid[defect][line][1][1] < 0, defect
    assert abs(grid["ramble"]["no_repetition"][0]) < 0.02
    assert grid["ignored format"]["content"][0] > -0.05 > grid["ignored format"]["correct"][0]
    back = recovered(recorded, *MAIN, "500 good + 200 bad, filtered", "correct")
    assert 0.3 < back < 0.95
    shares = [marks(recorded, f"{percent}% bad", "correct").mean() for percent in DOSES]
    assert shares == sorted(shares, reverse=True)
