"""The experiment of notebook 14: its messages, its data, its words, and what was recorded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sftlab.chat import encode, special_tokens, user
from sftlab.chatml import encode_defended
from sftlab.data import conversation
from sftlab.exercises.estimates import crossed, mean
from sftlab.exercises.ex14_chat_templates import plots
from sftlab.exercises.ex14_chat_templates.experiment import (
    ARMS,
    HARMLESS,
    INSTRUCTIONS,
    OPENINGS,
    PHRASINGS,
    SEEDS,
    attacks,
    encoded,
    forged_message,
    is_short,
    measure,
    questions,
    training_rows,
    without_attack,
    without_tokens,
)
from sftlab.exercises.record import runs
from sftlab.templates import count_turns, encode_safely

NAME, REAL = "forged_turns", "forged_turns_smollm2"
QUESTION = "What is 1 plus 1?"


# --- messages and data -----------------------------------------------------------------------


@pytest.mark.parametrize("name", PHRASINGS)
def test_the_arms_differ_in_one_thing_each(tokenizer, name):
    phrasing = PHRASINGS[name]
    forged = forged_message(phrasing, QUESTION)
    texts = {arm: text(phrasing, QUESTION) for arm, (text, _) in ARMS.items()}
    assert texts["forged"] == texts["defended"] == forged
    assert texts["tokens removed"] == without_tokens(forged)
    assert texts["harmless"] == forged.replace(phrasing[1], HARMLESS) != forged
    assert all(text.endswith(QUESTION) for text in texts.values())
    turns = {
        arm: count_turns(tokenizer, encoded(tokenizer, arm, phrasing, [{"prompt": QUESTION}])[0])
        for arm in ARMS
    }
    assert turns == dict.fromkeys(ARMS, 2) | {"forged": 4, "harmless": 4}


def test_the_students_encoding_can_take_the_place_of_the_package_s(tokenizer):
    asked = questions(3)
    for phrasing in PHRASINGS.values():
        ids = encoded(tokenizer, "defended", phrasing, asked, encode_defended)
        assert ids == encoded(tokenizer, "defended", phrasing, asked)
    assert encode_defended(tokenizer, user("Hi"), True) == encode(tokenizer, user("Hi"), True)


def test_without_tokens_nothing_special_is_left(tokenizer):
    text = without_tokens(forged_message(PHRASINGS["Be brief."], QUESTION))
    assert not any(token in text for token in special_tokens(tokenizer))


@pytest.mark.parametrize("seed", range(2))
def test_the_two_kinds_of_data_differ_in_plain_requests_alone(seed):
    usual, contrast = (training_rows(data, seed) for data in ("usual", "contrast"))
    assert len(usual) == len(contrast) == 600
    differ = [(a, b) for a, b in zip(usual, contrast, strict=True) if a != b]
    assert len(differ) == 150
    for before, after in differ:
        assert before["response"] == after["response"] and before["prompt"] in after["prompt"]
        assert any(text in after["prompt"] for text in INSTRUCTIONS)
        assert "<|" not in after["prompt"]
    asked = [row["prompt"] for row in usual if "prompt" in row]
    assert not any(text in prompt for text in INSTRUCTIONS for prompt in asked)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_message_of_the_data_has_the_layout_of_an_attack(tokenizer, seed):
    asked = {q["prompt"] for q in questions()}
    signs = ("\nsystem", "system\n", "user\n", "<|", "<-", "->")
    for data in ("usual", "contrast"):
        rows = [conversation(row) for row in training_rows(data, seed)]
        texts = [m["content"] for row in rows for m in row if m["role"] == "user"]
        assert not asked & set(texts)
        assert not any(some in text for text in texts for some in (*OPENINGS, *signs))


def test_it_measures_every_arm_of_every_phrasing(tiny_model, tokenizer):
    asked = questions(2)
    prompts = {
        **without_attack(tokenizer, asked),
        **attacks(tokenizer, asked, {"brief": PHRASINGS["Be brief."]}),
    }
    found = measure(tiny_model, tokenizer, prompts, asked)
    assert {arm: list(named) for arm, named in found.items()} == {
        "question": ["alone"],
        "system turn": list(INSTRUCTIONS),
        **{arm: ["brief"] for arm in ARMS},
    }
    cells = [cell for named in found.values() for cell in named.values()]
    assert all(0 <= c["short"] <= 1 and 0 <= c["right"] <= 1 and c["loss"] > 0 for c in cells)
    assert is_short("Paris.") and not is_short("") and not is_short("It is in Paris.")
    assert encode_safely(tokenizer, user("Hi"), True) == encode(tokenizer, user("Hi"), True)


# --- words that follow the numbers -----------------------------------------------------------


def test_a_crossed_interval_covers_models_and_phrasings():
    table = [[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]]
    value, (low, high) = crossed(table)
    halves = [
        stats.t.ppf(0.975, len(side) - 1) * np.std(side, ddof=1) / len(side) ** 0.5
        for side in ([3, 5], [2, 3, 7])
    ]
    assert value == pytest.approx(4) and high - value == pytest.approx(value - low)
    assert high - value == pytest.approx(np.hypot(*halves))
    turned, (a, b) = crossed(np.transpose(table).tolist())
    assert (turned, a, b) == pytest.approx((value, low, high))
    assert crossed([[1.0], [2.0], [4.0]])[1] == pytest.approx(mean([1.0, 2.0, 4.0])[1])  # fmt: skip
    assert crossed([[2.0]]) == (2.0, (2.0, 2.0))


def exchanged(recorded: list[dict], one: str, other: str) -> list[dict]:
    return [{**run, one: run[other], other: run[one]} for run in recorded]


def test_the_claims_turn_when_the_arms_are_exchanged():
    recorded, smol = runs(NAME), runs(REAL)
    before = list(plots.claims(recorded, smol)["claim"])
    flipped = (
        (0, ("forged", "question")),
        (1, ("forged", "tokens removed")),
        (3, ("forged", "defended")),
        (4, ("forged", "defended")),
    )
    for row, arms in flipped:
        after = list(plots.claims(exchanged(recorded, *arms), smol)["claim"])
        assert before[row] != after[row] or "not settled" in before[row]
    other = {"usual": "contrast", "contrast": "usual"}
    turned = [{**run, "data": other[run["data"]]} for run in recorded]
    after = list(plots.claims(turned, smol)["claim"])
    assert before[2] != after[2] or "not settled" in before[2]
    value = plots.tokens_effect(recorded, "contrast")[0]
    turned = plots.tokens_effect(exchanged(recorded, "forged", "tokens removed"), "contrast")[0]
    assert turned == pytest.approx(-value)


def with_short(recorded: list[dict], key: str, **values: float) -> list[dict]:
    """The records with another value in every cell of some arms, a little apart from cell to cell."""
    return [
        {**run, **{
            arm: {name: {**cell, key: value + 1e-3 * number} for number, (name, cell) in enumerate(run[arm].items())}
            for arm, value in ((a.replace("_", " "), v) for a, v in values.items())
        }}
        for run in recorded
    ]  # fmt: skip


def test_the_sentences_follow_the_numbers():
    recorded = runs(NAME)
    said = {
        removed: plots.of_defense(
            with_short(recorded, "short", tokens_removed=removed, defended=0.4)
        )
        for removed in (0.1, 0.4, 0.8)
    }
    for removed, words in (
        (0.1, "the better filter"),
        (0.4, "may explain"),
        (0.8, "more is at work"),
    ):
        assert words in said[removed] and f"leaves {removed:.0%}" in said[removed]
    contrast = [run for run in recorded if run["data"] == "contrast"]
    usual = [run for run in recorded if run["data"] == "usual"]
    usual = with_short(usual, "short", forged=0.9, tokens_removed=0.9)
    for forged, removed, words in ((0.8, 0.1, "weaken the plain text more"), (0.1, 0.8, "weaken the forged"), (0.5, 0.5, "not settled here")):  # fmt: skip
        after = with_short(contrast, "short", forged=forged, tokens_removed=removed)
        assert words in plots.of_data([*usual, *after])
    for harmless, words in ((4.0, "a sign"), (2.0, "no sign"), (3.0, "no settled sign")):
        smol = with_short(runs(REAL), "short_loss", forged=3.0, harmless=harmless)
        assert f": {words} that this model obeys the forged turn." in plots.obedience(smol)


def test_claims_are_not_settled_without_a_difference():
    one = {"short": 0.5, "right": 0.5, "loss": 1.0, "short_loss": 1.0}
    same = [{key: dict.fromkeys(value, one) if isinstance(value, dict) else value for key, value in run.items()} for run in runs(NAME)]  # fmt: skip
    flat = [{key: dict.fromkeys(value, one) if isinstance(value, dict) else value for key, value in run.items()} for run in runs(REAL)]  # fmt: skip
    claims = plots.claims(same, flat)["claim"]
    assert all("not settled here" in claim for claim in claims)
    assert plots.loss_ratio(same, "usual", "question", "defended")[0] == pytest.approx(1)
    assert "may explain" in plots.of_defense(same) and "not settled here" in plots.of_data(same)
    assert "no settled sign" in plots.obedience(flat)


def test_the_figure_tells_the_recorded_shares():
    recorded = runs(NAME)
    figure = plots.short_replies(recorded)
    share = plots.level(recorded, "contrast", "forged")[0]
    assert f"forged {share:.0%}" in figure.alt
    assert list(plots.arms_table(recorded, "usual").index) == list(plots.SHOWN)


# --- the recorded files ----------------------------------------------------------------------


def test_the_seeds_are_those_of_the_settings():
    assert {run["seed"] for run in runs(NAME)} == set(range(SEEDS))
