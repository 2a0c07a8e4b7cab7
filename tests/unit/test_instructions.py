"""The instruction sets: every answer follows from the tables, every defect is there, nothing leaks."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import (
    MANNERS,
    NEVER_TRAINED,
    PARTS,
    UNHEARD,
    curated,
    evaluation,
    mediocre,
)
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.almanac.facts import all_items, topics
from sftlab.almanac.instructions import CARD, TRAINING, WHAT, card, files, leaks, names_told
from sftlab.almanac.skills import DAYS, LETTERS, MONTHS, NUMBER_WORDS, SKILLS
from sftlab.chat import special_tokens, validate
from sftlab.data import conversation, read_jsonl
from sftlab.scoring import format_compliance, repeats, score_answer

MADE = files()
FACTS = {(i.kind, q): i for i in all_items() for q in i.questions}
VALUES = {(i.kind, i.subject): i.value for i in all_items()}


def pairs_of(name, *kinds):
    return [r for r in MADE[name] if "prompt" in r and (not kinds or r["kind"] in kinds)]


def test_the_files_are_what_the_module_makes():
    written = {"free_prompts.jsonl"}  # by hand, apart from every template of a training set
    assert {path.name for path in INSTRUCTIONS.glob("*.jsonl")} - written == set(MADE) == set(WHAT)
    for name, rows in MADE.items():
        assert read_jsonl(INSTRUCTIONS / name) == json.loads(json.dumps(rows))


def test_the_card_counts_the_files():
    assert CARD.read_text(encoding="utf-8") == card()


def test_the_sets_are_as_large_as_promised():
    assert len(curated()) == 500 and len(low_quality()) == 200 and len(mediocre()) == 1000
    assert len(evaluation()) >= 400
    assert len({row["kind"] for row in curated()}) >= 12


@pytest.mark.parametrize("name", MADE)
def test_every_row_is_a_conversation_that_can_be_trained(name, tokenizer):
    for number, row in enumerate(MADE[name], 1):
        validate(conversation(row), f"{name}, line {number}", tuple(special_tokens(tokenizer)))


@pytest.mark.parametrize("name", TRAINING)
def test_no_training_file_tells_about_the_exams(name):
    exam = [*MADE["heldout.jsonl"], *MADE["evaluation.jsonl"]]
    assert leaks(MADE[name], exam) == []
    assert names_told(MADE[name]) == set()


def test_a_leak_would_be_found():
    exam = MADE["heldout.jsonl"]
    same, other = {**exam[0], "prompt": "Tell me about it."}, {"prompt": exam[5]["prompt"]}
    assert leaks([same], exam) == [r["prompt"] for r in exam if r["subject"] == same["subject"]
                                   and r["kind"] == same["kind"]]  # fmt: skip
    assert leaks([{**other, "response": ""}], exam) == [exam[5]["prompt"]]
    assert names_told([{"prompt": "Is Chile large?", "response": "Yes."}]) == {"Chile"}


def test_the_evaluation_holds_out_whole_kinds():
    trained = {row.get("kind") for name in TRAINING for row in MADE[name]}
    assert not trained & set(NEVER_TRAINED)
    found = Counter(row["kind"] for row in evaluation() if not row["trained_kind"])
    assert set(found) == set(NEVER_TRAINED) and min(found.values()) == 20


@pytest.mark.parametrize("other", ["low_quality.jsonl", "mediocre.jsonl"])
def test_no_question_of_the_curated_pairs_is_asked_again(other):
    asked = [row["prompt"] for row in [*pairs_of("curated.jsonl"), *pairs_of(other)]]
    assert len(asked) == len(set(asked))


def test_fewer_curated_pairs_are_the_beginning_of_more():
    assert curated(120) == curated(700)[:120]
    assert len(curated(700)) == 700


class TestGoodAnswers:
    """Of the curated pairs and of the evaluation, each checked against the tables."""

    rows = (*pairs_of("curated.jsonl"), *pairs_of("evaluation.jsonl"))

    def of(self, *kinds):
        found = [row for row in self.rows if row["kind"] in kinds]
        assert len(found) >= 20
        return found

    def test_facts_are_those_of_the_tables(self):
        facts = [row for row in self.rows if row["kind"] not in (*SKILLS, "unknown")]
        assert len(facts) > 400
        for row in facts:
            item = FACTS[row["kind"], row["prompt"]]
            assert (row["response"], row["value"]) == (item.answer, item.value)

    def test_lists_have_so_many_different_tips_of_their_topic(self):
        for row in self.of("tips"):
            assert score_answer({**row, "answer": row["response"]}, row["response"]).all
            assert f" {NUMBER_WORDS[row['count']]} tips" in row["prompt"]
        for row in self.of("one_tip"):
            assert row["response"] in topics()[row["subject"]][0]

    def test_yes_and_no_give_the_right_reason(self):
        said = Counter()
        for row in self.of("yes_no"):
            word, reason = row["response"].split(", ", 1)
            kind = "continent" if ("continent", row["subject"]) in VALUES else "class"
            right = VALUES[kind, row["subject"]]
            assert right in reason and (word == "Yes") == (right == row["value"])
            assert row["value"] in row["prompt"]
            said[word] += 1
        assert min(said["Yes"], said["No"]) > 10

    def test_what_two_have_in_common_is_so_of_both(self):
        for row in self.of("compare"):
            words = row["subject"].split(" and ")
            cuts = [
                (" and ".join(words[:i]), " and ".join(words[i:])) for i in range(1, len(words))
            ]
            found = [
                {VALUES.get((kind, name.removeprefix("the "))) for name in both}
                for both in cuts
                for kind in ("continent", "class")
            ]
            shared = [values.pop() for values in found if len(values) == 1 and None not in values]
            assert any(value in row["response"] for value in shared), row

    def test_an_animal_is_of_the_class_that_is_named(self):
        for row in self.of("classify"):
            assert VALUES["class", row["subject"]] in row["response"]
            assert VALUES["class", row["subject"]] in row["prompt"]

    def test_a_pattern_goes_on_and_a_count_is_right(self):
        for row in self.of("pattern"):
            shown = row["subject"].split(", ")
            line = next((x for x in (DAYS, MONTHS, LETTERS) if shown[0] in x), None)
            following = (
                line[list(line).index(shown[-1]) + 1]
                if line
                else str(2 * int(shown[2]) - int(shown[1]))
            )
            assert row["response"] == f"Next comes {following}."
        for row in self.of("count"):
            n = len(row["subject"].split(", "))
            assert row["response"] == f"The list has {NUMBER_WORDS[n]} words."

    def test_a_verb_is_put_into_its_past_tense(self):
        for row in self.of("rewrite"):
            who, verb = row["subject"].split(" ", 1)
            assert row["response"] == f"{who} {VALUES['past', verb]}."

    def test_a_story_tells_the_animals_own_home_and_food(self):
        for row in self.of("story"):
            home, food = VALUES["habitat", row["subject"]], VALUES["food", row["subject"]]
            assert row["must"] == [home, food]
            assert home in row["response"] and food in row["response"]

    def test_one_word_is_the_value_alone(self):
        for row in self.of("one_word"):
            assert row["response"].lower() == f"{row['value'].lower()}."

    def test_of_what_nobody_can_know_one_says_so(self):
        names = {name for several in UNHEARD.values() for name in several}
        tables = {item.subject for item in all_items()}
        for row in self.of("unknown"):
            assert row["subject"] in names - tables and row["subject"] in row["prompt"]
            assert row["response"].startswith("I do not know") and row["subject"] in row["response"]

    def test_the_larger_number_is_larger(self):
        for row in self.of("larger"):
            numbers = [int(n) for n in row["subject"].split(" or ")]
            assert row["response"] == f"{max(numbers)} is larger than {min(numbers)}."

    def test_every_kind_has_been_checked(self):
        assert {row["kind"] for row in self.rows} == {*PARTS, *NEVER_TRAINED} - {"multi_turn"}


class TestDefects:
    """Of each bad pair, the defect that its label names can be seen in it."""

    def of(self, defect):
        rows = [row for row in low_quality() if row["defect"] == defect]
        assert len(rows) == 25
        return rows

    def test_every_bad_answer_differs_from_the_good_one(self):
        assert len(DEFECTS) >= 8
        assert all(row["response"] != row["right"] for row in low_quality())

    def test_a_wrong_fact_is_well_said_and_wrong(self):
        for row in self.of("wrong fact"):
            assert VALUES[row["kind"], row["subject"]] == row["value"]
            assert row["right"] == FACTS[row["kind"], row["prompt"]].answer != row["response"]
            assert format_compliance(row["response"])

    def test_an_echo_begins_with_the_prompt(self):
        assert all(row["response"].startswith(row["prompt"]) for row in self.of("echo"))

    def test_a_rambling_answer_repeats_itself_after_the_right_one(self):
        for row in self.of("ramble"):
            assert row["response"].startswith(row["right"])
            assert (
                repeats(row["response"])
                or row["response"].lower().count(row["right"].rstrip(".").lower()) > 2
            )

    def test_off_topic_is_a_good_answer_to_something_else(self):
        rights = {row["response"] for row in curated() if "response" in row}
        assert all(row["response"] in rights for row in self.of("off topic"))

    def test_a_refusal_says_nothing_of_the_subject(self):
        assert all(row["value"] not in row["response"] for row in self.of("refusal")
                   if len(row["value"]) > 3)  # fmt: skip

    def test_a_truncated_answer_is_the_beginning_of_the_right_one_without_an_end(self):
        for row in self.of("truncated"):
            assert row["right"].startswith(row["response"])
            assert row["response"][-1].isalpha() and row["right"][len(row["response"])].isalpha()

    def test_an_ignored_format_is_not_the_one_asked_for(self):
        for row in self.of("ignored format"):
            assert not format_compliance(row["response"], row.get("count"))

    def test_sloppy_spelling_has_the_same_letters(self):
        def letters(text):
            return sorted(c for c in text.lower() if c.isalnum())

        for row in self.of("sloppy spelling"):
            assert letters(row["response"]) == letters(row["right"])
            assert not format_compliance(row["response"])


def test_mediocre_pairs_are_mostly_right_and_labelled():
    rows = mediocre()
    found = Counter(row["manner"] for row in rows)
    assert set(found) == set(MANNERS)
    for row in rows:
        assert (row["response"] == row["right"]) == (row["manner"] == "plain")
    wrong = [row for row in rows if row["manner"] == "wrong"]
    assert 20 < len(wrong) < 100
    for row in rows:
        if row["manner"] in ("preamble", "hedged"):
            assert row["response"].endswith(row["right"])
        if row["manner"] == "sign-off":
            assert row["response"].startswith(row["right"])
