"""The experiments of notebook 02: their questions and pairs, and a part of what was recorded."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

from sftlab.almanac.curated import NEVER_TRAINED
from sftlab.almanac.facts import all_items
from sftlab.almanac.instructions import leaks
from sftlab.almanac.pairs import ASKED
from sftlab.exercises.ex02_superficial_alignment import (
    experiment,
    real_model,
    token_roles,
    unknown_facts,
)
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    ARMS,
    GROUPS,
    SEEDS,
    SIZES,
    base_ranks,
    marks,
    questions,
    refuses,
    training_pairs,
    tuned,
)
from sftlab.exercises.record import runs
from sftlab.generate import Generation
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import format_compliance


def test_no_question_s_subject_is_in_any_pair():
    for arm in ARMS:
        assert not leaks(training_pairs(arm, 500, 0), questions())


def test_the_questions_are_the_whole_evaluation_set_and_two_strata():
    counts = Counter(q["group"] for q in questions())
    assert counts == dict(zip(GROUPS, (260, 200, 60, 20, 29, 29), strict=True))
    never = {q["kind"] for q in questions() if q["group"] == "never trained"}
    assert never == set(NEVER_TRAINED)
    assert not never & {pair["kind"] for pair in training_pairs("answers", 500, 0)}
    assert len({q["prompt"] for q in questions()}) == len(questions())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_arms_differ_in_what_they_are_named_after_alone(seed):
    for n in SIZES[1:]:
        answers, refusing, shuffled = (training_pairs(arm, n, seed) for arm in ARMS)
        assert not any(refuses(pair["response"]) for pair in answers + shuffled)
        assert sum(refuses(pair["response"]) for pair in refusing) == max(1, round(n * 0.05))
        kept = {pair["prompt"] for pair in refusing if not refuses(pair["response"])}
        assert kept < {pair["prompt"] for pair in answers} and len(refusing) == n
        assert [p["prompt"] for p in shuffled] == [p["prompt"] for p in answers]
    same = sum(a["response"] == b["response"] for a, b in zip(answers, shuffled, strict=True))
    assert same < 0.04 * len(answers)  # another question of the kind may have the same answer


def test_shuffled_responses_keep_the_format_that_is_asked_for():
    for pair in training_pairs("shuffled", 500, 0):
        reply = Generation(pair["response"], [], True)
        assert marks([pair], [reply])["format"] == "a", pair


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_draw_of_eight_pairs_shows_sentences(seed):
    replies = [pair["response"] for pair in training_pairs("answers", 8, seed)]
    assert sum(format_compliance(text) and " " in text for text in replies) >= 3


def test_wrong_values_are_wrong_and_keep_subject_and_format():
    answers, wrong = (token_roles.pairs_of(arm, 0) for arm in ("answers", "wrong values"))
    for right, other in zip(answers, wrong, strict=True):
        if right["kind"] in ASKED:
            said = token_roles.stated(right["kind"], other["response"])
            assert said["subject"].lower() == right["subject"].lower(), other
            assert said["value"] != right["value"]
            assert not token_roles.is_true(right["kind"], said)
        else:
            assert other == right
    assert sum(pair["kind"] in ASKED for pair in answers) == 61  # as the notebook says


def test_what_a_reply_states_is_found_for_every_question_on_a_fact():
    for question in questions():
        if question["group"] == "facts":
            said = token_roles.stated(question["kind"], question["answer"])
            assert said["value"] == question["value"] and token_roles.is_true(
                question["kind"], said
            )
    assert token_roles.stated("capital", "I do not know the capital of Mali.") is None
    assert not token_roles.is_true(
        "capital", token_roles.stated("capital", "The capital of Mali is Santiago.")
    )


def test_tokens_get_the_role_of_the_words_they_begin_or_continue():
    said = token_roles.stated("capital", "The capital of the United Kingdom is London.")
    words = ["The", " capital", " of", " the", " United", " Kingdom", " is", " L", "ond", "on", "."]
    assert token_roles.roles(said, words) == "oooSssoVvvo"
    said = token_roles.stated("maker", "Ludwig van Beethoven composed Fidelio.")
    assert token_roles.roles(said, ["L", "udwig", " van Beethoven", " composed", " Fid", "elio", "."]) == "VvvoSso"  # fmt: skip


def test_a_larger_draw_holds_the_smaller_one_and_seeds_differ():
    for arm in ("answers", "shuffled"):
        for small, large in pairwise(SIZES):
            assert training_pairs(arm, large, 1)[:small] == training_pairs(arm, small, 1)
        assert training_pairs(arm, 8, 0) != training_pairs(arm, 8, 1)


@pytest.mark.parametrize(
    ("text", "stopped", "format", "content"),
    [
        ("The capital of Jordan is Amman.", True, "a", "1"),
        ("The capital of Jordan is Paris.", True, "a", "0"),
        ("I do not know the capital of Jordan.", True, "r", "0"),
        ("The capital of Jordan is Amman.", False, "-", "1"),
        ("The capital of Jordan is Amman.<|endoftext|>A quiz", False, "d", "1"),
        ("The capital of Peru is Lima.<|endoftext|>Amman.", True, "d", "0"),
        ("the capital of Jordan is Amman", True, "-", "1"),
    ],
)
def test_a_reply_gets_one_mark_for_its_format_and_one_for_its_content(
    text, stopped, format, content
):
    (question,) = [q for q in questions() if q["prompt"] == "What is the capital of Jordan?"]
    found = marks([question], [Generation(text, [], stopped)])
    assert found == {"format": format, "content": content}


def test_ranks_are_those_of_the_base_and_not_of_the_tuned_model(tiny_model, tokenizer):
    question, reply = {"prompt": "Hi?"}, Generation("", [9, 8, 7], True)
    inject_lora(tiny_model, target_modules="all-linear", r=2, lora_alpha=2, seed=0)
    before = base_ranks(tiny_model, tokenizer, [question], [reply])
    for name, parameter in tiny_model.named_parameters():
        if "B" in name.split("."):
            torch.nn.init.normal_(parameter)
    assert base_ranks(tiny_model, tokenizer, [question], [reply]) == before
    assert base_ranks(tiny_model, tokenizer, [question], [Generation("", [9], False)]) == []


@pytest.mark.parametrize("seed", range(unknown_facts.SEEDS))
def test_the_two_arms_differ_in_what_the_base_has_read_alone(seed):
    known, absent = (unknown_facts.facts(arm, seed) for arm in ("known", "absent"))
    assert Counter(i.kind for i in known) == Counter(i.kind for i in absent)
    assert {i.stratum for i in known} == {"known"} and {i.stratum for i in absent} == {"absent"}
    for arm in unknown_facts.ARMS:
        exam = unknown_facts.exams(arm, seed)
        pairs = zip(exam["trained"], exam["reworded"], strict=True)
        assert all(a["prompt"] != b["prompt"] and a["answer"] == b["answer"] for a, b in pairs)


@pytest.mark.base
def test_tokens_of_known_facts_have_moved_and_some_of_absent_ones_have_not():
    model, tokenizer = load("almanac")
    norms = model.get_input_embeddings().weight.detach().norm(dim=-1)
    for item in all_items():
        if item.stratum == "known":
            ids = tokenizer.encode(item.answer, add_special_tokens=False)
            assert (norms[ids] < unknown_facts.UNTRAINED).all(), item.answer
    assert unknown_facts.readable(model, tokenizer).count(False) == 5


# --- the recorded files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asked", "every"),
    [("superficial", questions, 40), ("superficial_real", real_model.exam, 6)],
)
def test_every_question_has_its_marks(name, asked, every):
    some = asked()[::every]
    for run in runs(name):
        assert len(run["format"]) == len(run["content"]) == len(asked())
        again = marks(some, [Generation(text, [], True) for text in run["answers"]])
        assert again["content"] == run["content"][::every]


def test_every_ranked_token_has_its_role():
    for run in runs("superficial_tokens"):
        assert len(run["right"]) == len(run["true"]) == 260
        for roles, ranks in zip(run["roles"], run["ranks"], strict=True):
            assert len(roles) == len(ranks) and roles.count("S") == roles.count("V") == 1


@pytest.mark.base
def test_the_base_alone_answers_as_recorded():
    (recorded,) = runs("superficial", pairs=0, seed=0)
    model, tokenizer = tuned([], 0)
    asked = questions()[::20]
    found = marks(asked, experiment.ask(model, tokenizer, asked))
    for line, text in found.items():
        same = sum(a == b for a, b in zip(text, recorded[line][::20], strict=True))
        assert same >= len(asked) - 1, line


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so some answers may differ."""
    (recorded,) = runs("superficial", arm="answers", pairs=8, seed=0, steps=4)
    found = experiment.run(arm="answers", pairs=8, seed=0, steps=4)
    for line in ("format", "content"):
        same = sum(a == b for a, b in zip(found[line], recorded[line], strict=True))
        assert same > 0.9 * len(questions()), line
