"""The experiments of notebook 02: their questions and pairs, and a part of what was recorded."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from sftlab.almanac.instructions import leaks
from sftlab.exercises.ex02_superficial_alignment import experiment, unknown_facts
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    LINES,
    SIZES,
    questions,
    scored,
    training_pairs,
    tuned,
)
from sftlab.exercises.record import MODEL, read, runs
from sftlab.generate import Generation
from sftlab.models import checksums


def test_no_question_s_subject_is_in_any_pair():
    every = training_pairs(500, 0)
    for stratum, asked in questions().items():
        assert not leaks(every, asked), stratum


def test_the_strata_are_told_apart():
    asked = questions()
    assert {q["kind"] for q in asked["unasked"]} == {"currency", "young"}
    trained = {row.get("kind") for row in training_pairs(500, 0)}
    assert {q["kind"] for q in asked["asked"]} <= trained
    assert not {q["kind"] for q in asked["unasked"]} & trained
    assert len({q["prompt"] for some in asked.values() for q in some}) == sum(
        map(len, asked.values())
    )


def test_a_larger_draw_holds_the_smaller_one_and_seeds_differ():
    for small, large in pairwise(SIZES):
        assert training_pairs(large, 1)[:small] == training_pairs(small, 1)
    assert training_pairs(8, 0) != training_pairs(8, 1)


def test_lines_are_scored_question_by_question():
    asked = questions()["absent"][:2]
    said = [Generation(asked[0]["answer"], [], True), Generation("I do not know that.", [], True)]
    assert scored(asked, said) == {
        "correct": "10", "content": "10", "format": "11", "stops": "11", "refuses": "01",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(unknown_facts.SEEDS))
def test_the_two_arms_differ_in_what_the_base_has_read_alone(seed):
    known, absent = (unknown_facts.facts(arm, seed) for arm in ("known", "absent"))
    assert Counter(i.kind for i in known) == Counter(i.kind for i in absent)
    assert {i.stratum for i in known} == {"known"} and {i.stratum for i in absent} == {"absent"}
    for arm in unknown_facts.ARMS:
        exam = unknown_facts.exams(arm, seed)
        pairs = zip(exam["trained"], exam["reworded"], strict=True)
        assert all(a["prompt"] != b["prompt"] and a["answer"] == b["answer"] for a, b in pairs)


# --- the recorded files ----------------------------------------------------------------------


@pytest.mark.parametrize("module", [experiment, unknown_facts], ids=lambda m: m.RECORD)
def test_the_files_are_complete_and_of_this_base(module):
    recorded = read(module.RECORD)
    done = [entry["settings"] for entry in recorded["runs"]]
    assert all(setting in done for setting in module.settings())
    assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])


def test_every_question_has_its_marks():
    asked = questions()
    for run in runs("superficial"):
        for stratum, some in asked.items():
            assert {len(run[stratum][line]) for line in LINES} == {len(some)}
            again = [Generation(text, [], True) for text in run[stratum]["answers"]]
            found = scored(some[::12], again)
            for line in ("content", "refuses"):  # what does not depend on how the answer ended
                assert found[line] == run[stratum][line][::12]


@pytest.mark.base
def test_the_base_alone_answers_as_recorded():
    (recorded,) = runs("superficial", pairs=0, seed=0)
    model, tokenizer = tuned(0, 0)
    for stratum, asked in questions().items():
        found = scored(asked[:12], experiment.ask(model, tokenizer, asked[:12]))
        for line in LINES:
            same = sum(a == b for a, b in zip(found[line], recorded[stratum][line], strict=False))
            assert same >= 11, (stratum, line)


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over 120 steps: so some answers may differ."""
    (recorded,) = runs("superficial", pairs=8, seed=0)
    found = experiment.run(pairs=8, seed=0)
    for line in LINES:
        share = found["asked"][line].count("1") / 130
        assert share == pytest.approx(recorded["asked"][line].count("1") / 130, abs=0.1)
