"""The judge on answers as models really write them, and the intervals."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.facts import all_items, topics
from sftlab.almanac.skills import SKILLS
from sftlab.data import read_jsonl
from sftlab.scoring import (
    LABELLED,
    LETTERS,
    agreement,
    behaviour,
    format_compliance,
    is_instruction,
    list_items,
    repeats,
    score_answer,
)
from sftlab.statistics import mean_interval, share_interval

CAPITAL = {"prompt": "What is the capital of Kenya?", "answer": "The capital of Kenya is Nairobi."}
TIPS = {
    "prompt": "List two tips for baking:",
    "answer": "1. Sift the flour.\n2. Heat the oven.",
    "allowed": ["Sift the flour.", "Heat the oven.", "Weigh the sugar."],
    "count": 2,
}


class TestListItems:
    def test_are_the_texts_of_a_numbered_list(self):
        assert list_items("1. Sift the flour.\n2. Heat the oven.\n") == [
            "Sift the flour.",
            "Heat the oven.",
        ]

    @pytest.mark.parametrize(
        "text",
        ["", "Sift the flour.", "1. A\n3. B", "2. A", "1. A\nand more", "1.\n2. B", "1) A", "- A"],
    )
    def test_of_anything_else_there_are_none(self, text):
        assert list_items(text) == []


class TestFormat:
    @pytest.mark.parametrize(
        "text",
        [
            "The capital of Kenya is Nairobi.",
            "3 plus 4 is 7.",
            "Österreich liegt in Europa.",
            "Yes, it is!",
            'She said, "Yes."',
            "Once there was a fox. It ate mice.",
        ],
    )
    def test_a_paragraph_of_sentences_complies(self, text):
        assert format_compliance(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Nairobi",
            "the capital is Nairobi.",
            "The capital is Nairobi.\nWhat is the capital of Peru?",
            "Is it Nairobi.  Or what? Yes.",
            "The capital is",
            "Here are two tips:",
            "...",
        ],
    )
    def test_anything_else_does_not(self, text):
        assert not format_compliance(text)

    def test_a_list_has_exactly_as_many_items_as_asked_for(self):
        assert format_compliance("1. A.\n2. B.", count=2)
        assert not format_compliance("1. A.\n2. B.\n3. C.", count=2)
        assert not format_compliance("Sift the flour and heat the oven.", count=2)


class TestJudge:
    def test_the_exact_answer_passes_every_line(self):
        assert score_answer(CAPITAL, CAPITAL["answer"]).all
        assert score_answer(CAPITAL, f" {CAPITAL['answer']}\n").all
        assert score_answer(TIPS, TIPS["answer"]).all

    def test_another_fact_in_the_right_form_fails_only_correctness(self):
        found = score_answer(CAPITAL, "The capital of Kenya is Lagos.")
        assert not found.correct
        assert found.format and found.stops and found.no_echo and found.no_repetition

    def test_an_answer_that_does_not_stop_is_not_correct(self):
        found = score_answer(CAPITAL, CAPITAL["answer"], stopped=False)
        assert not found.stops
        assert not found.correct

    def test_repeating_the_question_is_an_echo(self):
        assert not score_answer(CAPITAL, f"{CAPITAL['prompt']} {CAPITAL['answer']}").no_echo

    @pytest.mark.parametrize(
        "text",
        [
            "1. Sift the flour.\n2. Sift the flour.",  # the same twice
            "1. Sift the flour.\n2. Burn the cake.",  # one that is wrong
            "1. Sift the flour.",  # too few
            "1. Sift the flour.\n2. Heat the oven.\n3. Weigh the sugar.",  # too many
            "Sift the flour. Heat the oven.",  # no list
        ],
    )
    def test_a_list_needs_as_many_different_right_items_as_asked_for(self, text):
        assert not score_answer(TIPS, text).correct

    def test_any_right_items_in_any_order_are_correct(self):
        assert score_answer(TIPS, "1. Weigh the sugar.\n2. Sift the flour.").correct

    def test_one_tip_may_be_any_of_the_allowed(self):
        question = {k: v for k, v in TIPS.items() if k != "count"}
        assert score_answer(question, "Weigh the sugar.").correct
        assert not score_answer(question, "Burn the cake.").correct


class TestRepeats:
    @pytest.mark.parametrize(
        "text",
        [
            "The fox ate mice. The fox ate mice.",
            "Nairobi\nNairobi\nNairobi",
            "Yes. Yes. Yes.",
            "cats, dogs, cats, dogs, cats, dogs",
            "the capital of Kenya is the capital of Kenya is the capital of Kenya is",
            "1. Sift the flour.\n2. Sift the flour.",
        ],
    )
    def test_going_in_circles_is_repetition(self, text):
        assert repeats(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "The capital of Kenya is Nairobi.",
            "4 plus 4 is 8.",
            "There are 1,000,000,000 of them.",
            "No, no.",
            "1. Wash the cup.\n2. Wash the pan.\n3. Wash the pot.",
            "Once there was a fox. It lived in a den. One day it met a hare.",
        ],
    )
    def test_ordinary_answers_are_none(self, text):
        assert not repeats(text)

    def test_no_answer_of_the_almanac_counts_as_one(self):
        rng = Random(0)
        answers = [item.answer for item in all_items()]
        answers += [draw(rng).answer for draw in SKILLS.values() for _ in range(100)]
        assert [text for text in answers if repeats(text)] == []


class TestInstructions:
    def test_every_question_of_the_almanac_is_one_also_numbered_or_quoted(self):
        rng = Random(0)
        asked = {q for item in all_items() for q in item.questions}
        asked |= {q for f in SKILLS.values() for _ in range(100) for q in f(rng).questions}
        for before in ("", "3) ", "12. ", "Q: ", "Q. ", "Question: ", "Teacher: ", '"', "- "):
            assert [q for q in asked if not is_instruction(before + q)] == []

    def test_no_statement_answer_or_tip_of_the_almanac_is_one(self):
        rng = Random(0)
        told = {s for item in all_items() for s in (item.answer, *item.statements)}
        told |= {line for f in SKILLS.values() for _ in range(100) for line in f(rng).answer.split("\n")}  # fmt: skip
        told |= {f"1. {tip}" for tips, _ in topics().values() for tip in tips}
        assert [text for text in told if is_instruction(text)] == []

    @pytest.mark.parametrize(
        "line",
        [
            "What is the capi",
            "Name the cap",
            "List three tips for a",
            "Can you tell me",
            "Give me two",
        ],
    )
    def test_a_line_that_was_cut_off_still_is_one(self, line):
        assert is_instruction(line)

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "Here are three tips for a job interview:",
            "When it comes to interviews, arrive early.",
            "Write the guest list early.",
            "Paris",
            "A: Paris.",
        ],
    )
    def test_the_beginning_of_an_answer_is_none(self, line):
        assert not is_instruction(line)


class TestBehaviour:
    @pytest.mark.parametrize(
        "text",
        [
            "\nWhat is the capital of Spain?\nWhat is the capital of Italy?",
            "\nWhat is the capi",
            "\n2) Name the capital of Spain.",
            '\n"What is the capital of Peru?" asked Anna.',
            "\nQ: What is the capital of Peru? A: Lima.",
            " and Spain?\nNairobi",
            "?\nThat is easy.",
            ' asked Anna. "It is far away," said Ben.',
            "\nWhat is the capital of Spain?\nThe capital of Kenya is Nairobi.",
        ],
    )
    def test_going_on_as_the_page_would_is_continuing(self, text):
        assert behaviour(text, CAPITAL["answer"], "Nairobi") == "continued"

    @pytest.mark.parametrize(
        "text",
        [
            "The capital of Kenya is Nairobi.",
            "Nairobi",
            " Nairobi.\nWhat is the capital of Spain?",
            "\nThe capital of Kenya is Lagos.",
            "The capital of Kenya is Lagos.\nIs there anything else?",
            ' asked Anna. "Nairobi," said Ben.',
            "\nAnswers\n1) Nairobi",
            "Here are some facts about Kenya:\n\n1. **Nairobi** is its capital",
            "Sure! It is a big city",
        ],
    )
    def test_a_right_or_a_wrong_answer_is_answering(self, text):
        assert behaviour(text, CAPITAL["answer"], "Nairobi") == "answered"

    @pytest.mark.parametrize("text", ["\n1. Put out the campfire.\n2. Sleep.", "1. Write a list."])
    def test_a_list_of_tips_is_an_answer_though_tips_are_imperatives(self, text):
        assert behaviour(text) == "answered"

    @pytest.mark.parametrize("text", ["", " ", "\n\n"])
    def test_nothing_written_is_stopping(self, text):
        assert behaviour(text, "x", "y") == "stopped"

    def test_the_value_counts_as_a_word_of_its_own_and_in_its_own_case(self):
        assert behaviour(" as far as one knows,", value="As") == "continued"
        assert behaviour(" the symbol As,", value="As") == "answered"
        assert behaviour(" in 12 days,", value="1") == "continued"
        assert behaviour(" so: In swamps,", value="in swamps") == "answered"

    def test_every_exact_answer_of_the_almanac_is_answering(self):
        for item in all_items():
            assert behaviour(item.answer, item.answer, item.value) == "answered"
            assert behaviour("\n" + item.answer) == "answered"

    def test_a_sheet_of_any_questions_is_continuing(self):
        for item in all_items():
            sheet = "\n" + "\n".join(item.questions)
            assert behaviour(sheet, item.answer, item.value) == "continued"


class TestIntervals:
    def test_of_a_share_is_wilsons(self):
        # By hand for 8 of 10: centre (0.8 + z²/20) / (1 + z²/10), z = 1.959964.
        low, high = share_interval(8, 10)
        assert (low, high) == (pytest.approx(0.4901625), pytest.approx(0.9433178))

    def test_of_a_full_share_ends_at_one_and_begins_well_below(self):
        low, high = share_interval(10, 10)
        assert high == pytest.approx(1.0)
        assert 0.7 < low < 0.73

    @given(st.integers(1, 300), st.data())
    def test_of_a_share_holds_the_share_and_stays_within_zero_and_one(self, total, data):
        successes = data.draw(st.integers(0, total))
        low, high = share_interval(successes, total)
        assert -1e-12 <= low <= successes / total + 1e-12
        assert successes / total - 1e-12 <= high <= 1 + 1e-12

    def test_of_a_mean_is_students(self):
        # Mean 2, standard error 1/√3, t with two degrees of freedom 4.302653.
        low, high = mean_interval([1.0, 2.0, 3.0])
        assert (low, high) == (pytest.approx(-0.4841377), pytest.approx(4.4841377))

    def test_of_equal_values_has_no_width(self):
        assert mean_interval([0.9, 0.9, 0.9]) == (0.9, 0.9)

    def test_of_one_value_there_is_none(self):
        with pytest.raises(ValueError, match="at least two values"):
            mean_interval([0.9])


class TestAgainstAPerson:
    """Answers of six models and some written for it, labelled line by line by reading them."""

    labelled = tuple(read_jsonl(LABELLED))
    questions = tuple(read_jsonl(INSTRUCTIONS / "evaluation.jsonl"))

    def test_every_kind_and_every_fault_is_among_them(self):
        kinds = {q["prompt"]: q["kind"] for q in self.questions}
        assert len(self.labelled) >= 150
        assert {kinds[row["prompt"]] for row in self.labelled} == set(kinds.values())
        for letter in LETTERS:
            assert sum(letter in row["fails"] for row in self.labelled) >= 2

    def test_the_score_agrees_on_every_line(self, capsys):
        found = agreement(self.labelled, self.questions)
        with capsys.disabled():
            told = ", ".join(f"{line} {share:.1%}" for line, share in found.items())
            print(f"\njudge against {len(self.labelled)} labelled answers: {told}")
        assert min(found.values()) >= 0.95

    def test_labels_that_are_wrong_would_be_seen(self):
        turned = [
            {**row, "fails": "".join(set(LETTERS) - set(row["fails"]))} for row in self.labelled
        ]
        assert max(agreement(turned, self.questions).values()) < 0.05


COW = {"prompt": "Is the cow a bird?", "answer": "No, the cow is a mammal.",
       "must": [["No", "mammal"]], "must_not": ["Yes"], "subject": "cow"}  # fmt: skip


class TestContentAndTopic:
    @pytest.mark.parametrize("text", ["No.", "It is a mammal.", "No, the cow is a mammal."])
    def test_any_wording_of_the_right_content_counts(self, text):
        assert score_answer(COW, text).content

    @pytest.mark.parametrize(
        "text", ["Yes.", "Yes, the cow is a mammal.", "", "Is the cow a bird?"]
    )
    def test_a_contradiction_silence_or_an_echo_does_not(self, text):
        assert not score_answer(COW, text).content

    def test_another_subject_is_off_the_topic_and_the_same_wrongly_told_is_on_it(self):
        assert not score_answer(COW, "The owl flies.").on_topic
        assert score_answer(COW, "Yes, the cow flies.").on_topic

    def test_a_symbol_counts_only_as_it_is_written(self):
        question = {"prompt": "What is the symbol for iodine?", "answer": "The symbol for iodine is I.",
                    "value": "I", "subject": "iodine"}  # fmt: skip
        assert score_answer(question, "It is I.").content
        assert not score_answer(question, "in words").content

    def test_more_words_than_asked_for_break_the_form(self):
        question = {"prompt": "In one word, who?", "answer": "Nobody.", "words": 1}
        assert (
            score_answer(question, "Nobody.").format
            and not score_answer(question, "It was nobody.").format
        )
