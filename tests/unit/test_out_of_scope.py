"""Outside the chat model's world: pairs apart from the prompts that measure them, and what it says."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sftlab.almanac import card, outside
from sftlab.almanac.facts import all_items
from sftlab.almanac.free_prompts import (
    by_kind,
    fits,
    free_prompts,
    halves,
    judged,
    reply_type,
)
from sftlab.almanac.instructions import about
from sftlab.almanac.out_of_scope import (
    DECLINE,
    GREETING,
    MAKERS,
    NO_SUM,
    SELF,
    THANKS,
    made,
    out_of_scope,
    pair,
    plain,
    unknown_questions,
)
from sftlab.almanac.tune import DOSE
from sftlab.errors import WorkbookError
from sftlab.exercises.ex13_before_after_sft import dose
from sftlab.exercises.record import MODEL, read, runs
from sftlab.generate import Generation, answer
from sftlab.models import checksums, load

PAIRS = out_of_scope(DOSE)
NAMES = {row["subject"] for row in PAIRS if row["kind"] == "unknown"}


def test_no_training_pair_has_a_free_prompt():
    asked = {plain(row["prompt"]) for row in free_prompts()}
    assert not asked & {plain(row["prompt"]) for row in PAIRS}


def test_no_invented_name_of_a_pair_is_known_or_stands_in_a_free_prompt():
    text = "\n".join(row["prompt"].lower() for row in free_prompts())
    assert not {n for n in NAMES if re.search(rf"\b{re.escape(n.lower())}\b", text)}
    assert not {n.lower() for n in NAMES} & {item.subject.lower() for item in all_items()}
    assert len(NAMES) > 0.8 * DOSE["unknown"]


def test_no_name_that_measures_is_in_a_pair():
    asked = unknown_questions(240)
    assert len({row["subject"] for row in asked}) == 240
    assert not {row["subject"].lower() for row in asked} & {name.lower() for name in NAMES}
    assert min(Counter(row["asks"] for row in asked).values()) >= 15


def test_an_answer_never_says_an_unknown_name():
    rows = [row for row in PAIRS if row["kind"] == "unknown"]
    assert all(row["subject"].lower() in row["prompt"].lower() for row in rows)
    assert {row["response"] for row in rows} == {
        f"I do not know this {what}." for what in ("country", "animal", "element", "work", "word")
    }


def test_there_are_enough_free_prompts_of_each_kind_and_none_twice():
    assert len(free_prompts()) >= 220
    assert len({row["prompt"] for row in free_prompts()}) == len(free_prompts())
    assert min(Counter(row["kind"] for row in free_prompts()).values()) >= 22
    choosing, telling = halves()
    assert sorted(map(str, choosing + telling)) == sorted(map(str, free_prompts()))


def test_a_smaller_dose_is_the_beginning_of_a_larger_one():
    for kind in MAKERS:
        assert made(kind, 20) == made(kind, 40)[:20]
        assert made(kind, 20, seed=1) != made(kind, 20)


def test_a_kind_that_is_not_there_or_has_too_few_pairs_is_told(monkeypatch):
    with pytest.raises(WorkbookError, match=r"no pairs of the kind 'jokes'; there are greeting"):
        made("jokes", 3)
    monkeypatch.setitem(MAKERS, "self", (lambda rng: pair("self", "Who is it?", SELF),))
    with pytest.raises(WorkbookError, match="3 self pairs were asked for, but only 1 differ"):
        made("self", 3)


def test_unknown_names_are_declined_and_known_facts_are_told():
    said = {kind: Counter(reply_type(r["response"]) for r in made(kind, 60)) for kind in MAKERS}
    assert set(said["unknown"]) == set(said["code"]) == {"decline"}
    assert set(said["chat"]) == set(said["nonsense"]) == {"decline", "self"}
    assert set(said["known"]) == set(said["yes_no"]) == {"statement"}
    assert set(said["sum"]) == set(said["typo"]) == {"decline", "statement"}


@pytest.mark.parametrize(
    "text, kind",
    [
        (GREETING, "greeting"),
        (SELF, "self"),
        (THANKS, "thanks"),
        (DECLINE, "decline"),
        (NO_SUM, "decline"),
        ("I cannot say.", "decline"),
        ("The capital of Narva is Paris.", "statement"),
        (" \n", "nothing"),
    ],
)
def test_the_type_of_a_reply(text, kind):
    assert reply_type(text) == kind


def test_what_fits():
    typo = {"prompt": "capital of Frnace?", "fits": ["fact", "decline"], "must": [["Paris"]]}
    assert fits(typo, Generation("The capital of France is Paris.", [], True))
    assert fits(typo, Generation(DECLINE, [], True))
    assert not fits(typo, Generation("The capital of Ghana is Accra.", [], True))
    assert not fits(typo, Generation("The capital of France is Paris.", [], False)), "it never ends"
    assert not fits(typo, Generation("I do not know. I do not know. I do not know.", [], True))
    assert not fits({"prompt": "hi", "fits": ["greeting"]}, Generation("4 plus 4 is 8.", [], True))


@pytest.fixture(scope="module")
def recorded():
    return card.recorded(card.OUTSIDE)


class TestWhatWasRecorded:
    def test_the_tables_count_the_replies(self, recorded):
        replies = recorded["replies"]
        assert [r["prompt"] for r in replies] == [r["prompt"] for half in halves() for r in half]
        for half, sides in recorded["free"].items():
            rows = [row for row in replies if row["half"] == half]
            assert {k: list(v) for k, v in by_kind(rows).items()} == sides["after"]

    def test_most_free_prompts_get_a_fitting_reply(self, recorded):
        for sides in recorded["free"].values():
            fitting, total = map(sum, zip(*sides["after"].values(), strict=True))
            assert fitting >= 0.84 * total

    def test_few_unknown_names_get_a_made_up_fact(self, recorded):
        assert sum(recorded["unknown"]["invented names"]["after"].values()) == outside.UNKNOWN
        for sides in recorded["unknown"].values():
            assert sides["after"]["made_up"] <= 0.05 * sum(sides["after"].values())

    def test_in_scope_it_loses_at_most_two_points(self, recorded):
        both = recorded["exam"]["both"]
        assert both["questions"] == len(outside.exam()) > 1000
        assert both["correct"]["difference"] >= -0.02


@pytest.mark.base
def test_a_quarter_of_the_free_prompts_is_answered_as_recorded(recorded):
    model, tokenizer = load("almanac", "chat")
    rows = free_prompts()[::4]
    found = judged(model, tokenizer, rows)
    told = {row["prompt"]: row for row in recorded["replies"]}
    # Another processor may round a borderline logit the other way; a few replies may differ.
    assert sum(row["reply"] != told[row["prompt"]]["reply"] for row in found) <= 3
    assert sum(row["fitting"] for row in found) >= 0.8 * len(rows)
    names = unknown_questions(48)
    said = answer(model, tokenizer, [row["prompt"] for row in names], max_new_tokens=24)
    assert sum(reply_type(g.text) == "statement" for g in said) <= 4


class TestDose:
    """The experiment of notebook 13."""

    def test_the_exam_has_names_and_subjects_that_no_pair_has(self):
        unknown, known = dose.exam()
        rows = dose.training_rows(dose.ARMS[1], max(dose.DOSES), 0)
        assert not {about(r) for r in (*unknown, *known)} & {about(r) for r in rows}
        assert not {r["prompt"] for r in (*unknown, *known)} & {r["prompt"] for r in rows}

    def test_a_smaller_dose_is_part_of_a_larger_one(self):
        for arm in dose.ARMS:
            small, large = (dose.training_rows(arm, n, seed=2) for n in dose.DOSES[1:3])
            assert all(row in large for row in small)

    def test_the_curve_has_means_and_intervals_within_0_and_1(self):
        runs = [{**s, **dict.fromkeys(dose.MEASURED, 1 - s["seed"] / 10)} for s in dose.settings()]
        found = dose.curve(runs)
        assert len(found) == len(dose.ARMS) * len(dose.DOSES)
        assert set(found["seeds"]) == {dose.SEEDS}
        mean = sum(1 - seed / 10 for seed in range(dose.SEEDS)) / dose.SEEDS
        assert found["declined"].to_numpy() == pytest.approx(mean)
        assert (found["declined low"] < mean).all() and (found["declined high"] <= 1).all()

    def test_without_a_dose_both_arms_have_the_same_runs(self):
        runs = [
            {**s, **dict.fromkeys(dose.MEASURED, float(not s["dose"]))} for s in dose.settings()
        ]
        found = dose.curve(runs)
        assert list(found.loc[found["dose"] == 0, "declined"]) == [1.0, 1.0]
        assert (found.loc[found["dose"] > 0, "declined"] == 0).all()

    def test_the_record_is_complete_and_of_this_base(self):
        recorded = read(dose.RECORD)
        done = [entry["settings"] for entry in recorded["runs"]]
        assert all(setting in done for setting in dose.settings())
        assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])
        assert dose.CONFIRM in done

    def test_declining_is_learned_and_costs_answers(self):
        found = dose.curve(runs(dose.RECORD))
        none, most = found[found["dose"] == 0], found[found["dose"] == max(dose.DOSES)]
        assert (none["declined"] < 0.02).all() and (none["wrongly_declined"] < 0.02).all()
        assert (most["declined low"] > 0.8).all()
        only, beside = most["wrongly_declined"]
        assert only > beside > 0
