"""The almanac: its tables, what its documents say and withhold, its pairs, tokenizer and training."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from sftlab.almanac import pretrain as pretraining
from sftlab.almanac.documents import STYLES, documents
from sftlab.almanac.facts import (
    SPLITS,
    STRATA,
    all_items,
    items,
    kinds,
    table,
    topics,
    with_article,
)
from sftlab.almanac.pairs import (
    ASKED,
    NOT_A_SENTENCE,
    SYSTEM_FULL,
    SYSTEM_SHORT,
    conversations,
    heldout,
    pairs,
    stratum_questions,
    unasked_questions,
)
from sftlab.almanac.pretrain import Recipe
from sftlab.almanac.report import completes, sentence_start
from sftlab.almanac.skills import SKILLS
from sftlab.chat import chatml, encode, special_tokens
from sftlab.errors import WorkbookError
from sftlab.masking import template_mask
from sftlab.scoring import format_compliance, score_answer

TABLES = {  # name: (fewest rows, attributes besides the subject)
    "countries": (150, ("capital", "continent", "language", "currency")),
    "animals": (100, ("class", "habitat", "food", "young")),
    "opposites": (150, ("opposite",)),
    "topics": (60, tuple(f"tip{i}" for i in range(1, 9))),
    "elements": (60, ("symbol", "number")),
    "works": (60, ("verb", "maker")),
    "plurals": (60, ("plural",)),
    "verbs": (60, ("past",)),
}
SUBJECTS = dict.fromkeys(TABLES, "name") | {
    "opposites": "word", "topics": "topic", "works": "title", "plurals": "word", "verbs": "word",
}  # fmt: skip
KNOWN = [item for item in all_items() if item.stratum == "known"]
ABSENT = [item for item in all_items() if item.stratum == "absent"]
SINGLE = [item for item in all_items() if item.stratum == "single"]


def contains(text, part):
    """Does the part stand in the text as words of its own?"""
    return part in text and bool(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text))


def sentences(document):
    """Sentences and lines, without the number at the beginning of a list's line."""
    parts = re.split(r"(?<=[.!?])\s|\n", document)
    return [re.sub(r"^\d+[).] ?", "", part) for part in parts]


@pytest.fixture(scope="module")
def sample():
    """Twenty thousand documents, five million characters."""
    return list(islice(documents("a large sample"), 20_000))


class TestTables:
    @pytest.mark.parametrize("name", TABLES)
    def test_are_as_large_as_promised_with_all_their_attributes(self, name):
        fewest, attributes = TABLES[name]
        assert len(table(name)) >= fewest
        assert {SUBJECTS[name], *attributes, "split"} <= set(table(name)[0])

    @pytest.mark.parametrize("name", TABLES)
    def test_have_no_empty_missing_or_surplus_cell_and_no_stray_space(self, name):
        for row in table(name):
            assert None not in row, f"too many cells: {row}"
            assert all(cell and cell == cell.strip() for cell in row.values()), row

    @pytest.mark.parametrize("name", TABLES)
    def test_name_every_subject_once(self, name):
        found = Counter(row[SUBJECTS[name]].lower() for row in table(name))
        assert [subject for subject, number in found.items() if number > 1] == []

    @pytest.mark.parametrize("name", [*TABLES, "sums"])
    def test_split_every_subject_and_hold_out_a_fifth_to_three_fifths(self, name):
        splits = Counter(row["split"] for row in table(name))
        assert set(splits) == set(SPLITS)
        assert 0.2 < splits["heldout"] / splits.total() < 0.6

    @pytest.mark.parametrize("name", ["countries", "elements", "works"])
    def test_with_strata_have_all_three_and_mostly_known_facts(self, name):
        strata = Counter(row["stratum"] for row in table(name))
        assert set(strata) == set(STRATA)
        assert strata["known"] / strata.total() > 0.75
        assert min(strata.values()) >= 8

    def test_withheld_facts_are_of_heldout_subjects(self):
        assert {item.split for item in ABSENT + SINGLE} == {"heldout"}

    def test_every_word_has_one_opposite_in_either_direction(self):
        words = [word for row in table("opposites") for word in (row["word"], row["opposite"])]
        assert len(words) == len(set(words))
        value = {item.subject: item.value for item in items("opposite")}
        assert all(value[value[word]] == word for word in words)

    def test_every_tip_stands_once_and_is_a_sentence(self):
        tips = [tip for eight, _ in topics().values() for tip in eight]
        assert len(set(tips)) == len(tips) == 8 * len(topics())
        assert all(format_compliance(tip) for tip in tips)

    def test_attributes_that_identify_are_not_shared(self):
        for name, attribute in (("countries", "capital"), ("elements", "symbol"),
                                ("elements", "number"), ("plurals", "plural")):  # fmt: skip
            values = [row[attribute] for row in table(name)]
            assert len(set(values)) == len(values)

    def test_element_numbers_follow_the_order_of_the_elements(self):
        numbers = [int(row["number"]) for row in table("elements")]
        assert numbers == sorted(numbers)
        assert min(numbers) >= 1 and max(numbers) <= 118

    def test_symbols_are_a_capital_and_at_most_one_small_letter(self):
        assert all(re.fullmatch(r"[A-Z][a-z]?", row["symbol"]) for row in table("elements"))

    def test_sums_are_right(self):
        for row in table("sums"):
            first, second = row["sum"].split(" plus ")
            assert int(first) + int(second) == int(row["total"])

    def test_continents_and_classes_are_few(self):
        assert len({row["continent"] for row in table("countries")}) <= 7
        assert len({row["class"] for row in table("animals")}) <= 10

    def test_articles_are_right(self):
        assert (with_article("otter"), with_article("fox")) == ("an otter", "a fox")
        # Nouns whose sound is not that of their first letter.
        odd = re.compile(r"(uni|eu|ewe|use|one|hour|honest|heir)", re.IGNORECASE)
        nouns = {row[column] for row in table("animals") for column in ("name", "class", "young")}
        assert [noun for noun in nouns if odd.match(noun)] == []


class TestFacts:
    def test_one_subject_and_kind_has_one_value_in_the_whole_world(self):
        values = defaultdict(set)
        for item in all_items():
            values[item.kind, item.subject.lower()].add(item.value)
        assert {key: found for key, found in values.items() if len(found) > 1} == {}

    def test_there_are_kinds_that_are_never_asked(self):
        unasked = {kind for kind, spec in kinds().items() if not spec["asked"]}
        assert unasked == {"currency", "young"}
        assert all(spec.get("strata") is None for k, spec in kinds().items() if k in unasked)

    def test_every_wording_is_filled_in(self):
        for item in all_items():
            texts = (
                *item.questions,
                item.answer,
                *item.statements,
                *item.continuations,
                item.record,
            )
            assert not any("{" in text or "}" in text for text in texts)

    def test_every_known_fact_is_told_in_several_wordings_that_name_subject_and_value(self):
        for item in KNOWN:
            assert len(set(item.statements)) >= 3
            assert len(set(item.continuations)) >= 2
            for text in item.statements:
                assert contains(text.lower(), item.subject.lower()), text
                assert contains(text.lower(), item.value.lower()), text
            for text in item.continuations:
                assert contains(text.lower(), item.value.lower()), text

    def test_every_question_names_its_subject_and_never_its_value(self):
        for item in all_items():
            assert len(set(item.questions)) >= 4
            for question in item.questions:
                assert contains(question.lower(), item.subject.lower()), question
                beyond = question.lower().replace(item.subject.lower(), "")
                # "a", "As", "I" and the like are words of a question themselves.
                assert len(item.value) <= 2 or not contains(beyond, item.value.lower()), question

    def test_the_exact_answer_is_in_the_form_that_the_score_asks_for(self):
        assert [i.answer for i in all_items() if not format_compliance(i.answer)] == []

    def test_every_fact_can_be_asked_of_the_base_as_a_sentence_to_complete(self):
        for item in all_items():
            start = next(s for s in (sentence_start(item, t) for t in item.statements) if s)
            assert item.subject.lower() in start.lower()
            beyond = start.replace(item.subject, "")  # "Czech" stands in "the Czech Republic"
            assert not contains(beyond, item.value)
            (text,) = [t for t in item.statements if t.startswith(start + " ")][:1]
            assert completes(text[len(start) :], item.value)
            assert not completes(" something else.", item.value)

    def test_a_single_fact_has_a_record_sentence_unlike_its_statements(self):
        for item in SINGLE:
            assert contains(item.record, item.subject) or contains(
                item.record.lower(), item.subject.lower()
            )
            assert contains(item.record, item.value)
            assert item.record not in item.statements


class TestSkills:
    @given(st.sampled_from(sorted(SKILLS)), st.integers(0, 10**9))
    @settings(deadline=None)
    def test_draw_the_same_item_from_the_same_seed(self, name, seed):
        assert SKILLS[name](Random(seed)) == SKILLS[name](Random(seed))

    @given(st.sampled_from(sorted(SKILLS)), st.integers(0, 10**9))
    @settings(deadline=None)
    def test_give_an_answer_that_the_score_accepts(self, name, seed):
        item = SKILLS[name](Random(seed))
        question = {"prompt": item.question, "answer": item.answer}
        if name == "tips":
            question |= {"allowed": topics()[item.subject][0], "count": item.answer.count("\n") + 1}
        assert score_answer(question, item.answer).all

    @given(st.sampled_from(sorted(SKILLS)), st.integers(0, 10**9))
    @settings(deadline=None)
    def test_asked_for_a_training_item_draw_one(self, name, seed):
        assert SKILLS[name](Random(seed), "train").split == "train"

    @given(st.integers(0, 10**9))
    def test_a_list_has_as_many_different_tips_as_it_says(self, seed):
        item = SKILLS["tips"](Random(seed), count=4)
        assert item.value == "four"
        assert len(set(item.answer.split("\n"))) == 4

    def test_yes_and_no_both_occur_and_are_right(self):
        value = {(i.kind, i.subject): i.value for i in all_items()}
        found = Counter()
        rng = Random(0)
        for _ in range(300):
            item = SKILLS["yes_no"](rng)
            kind = "continent" if ("continent", item.subject) in value else "class"
            said = item.answer.split(",")[0]
            assert (said == "Yes") == (value[kind, item.subject] == item.value)
            found[said] += 1
        assert min(found["Yes"], found["No"]) > 60


class TestDocuments:
    def test_follow_from_the_seed(self):
        assert list(islice(documents(5), 50)) == list(islice(documents(5), 50))
        assert list(islice(documents(5), 50)) != list(islice(documents(6), 50))

    @pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
    def test_of_every_style_have_text_without_gaps(self, style):
        rng = Random(0)
        for _ in range(50):
            text = style(rng)
            assert text == text.strip("\n ") or text.endswith("\n")
            assert "{" not in text and "}" not in text and "  " not in text

    def test_are_never_in_the_form_of_the_chat_template(self, sample, tokenizer):
        for text in sample[:2000]:
            assert not any(token in text for token in special_tokens(tokenizer))
            assert "<|" not in text and "|>" not in text
            assert not re.search(r"(?im)^(user|assistant|system)\b", text)

    def test_never_tell_an_absent_fact_in_a_sentence_with_its_subject(self, sample):
        """No sentence or line of 20,000 documents has both the subject and the value as words."""
        told = [
            (item.subject, item.value, sentence)
            for text in sample
            for item in ABSENT
            if item.subject in text.lower() + text and item.value in text
            for sentence in sentences(text)
            if contains(sentence.lower(), item.subject.lower()) and contains(sentence, item.value)
        ]
        assert told == []

    def test_never_tell_an_absent_fact_under_a_heading_with_its_subject(self, sample):
        """Nor does any document have one of the fact's own wordings, whole or after a heading."""
        wordings = {
            text: item
            for item in ABSENT
            for text in (*item.statements, item.answer, item.record)
            if text
        }
        pattern = re.compile("|".join(map(re.escape, wordings)))
        assert [m[0] for text in sample for m in pattern.finditer(text)] == []
        for item in ABSENT:
            headed = [t for t in sample if t.lower().startswith(item.subject.lower() + "\n")]
            for text in headed:
                assert not any(c in text for c in item.continuations), text

    def test_name_the_subjects_of_absent_facts(self, sample):
        everything = "\n".join(sample).lower()
        assert [i.subject for i in ABSENT if not contains(everything, i.subject.lower())] == []

    def test_tell_a_single_fact_in_its_record_sentence_only(self, sample):
        records = {item.record for item in SINGLE}
        assert records == {text for text in sample if text in records}  # every one is seen
        told = [
            (item.subject, item.value, sentence)
            for text in sample
            if text not in records
            for item in SINGLE
            if item.value in text
            for sentence in sentences(text)
            if contains(sentence.lower(), item.subject.lower()) and contains(sentence, item.value)
        ]
        assert told == []

    def test_tell_every_known_fact_and_nearly_all_in_several_wordings(self, sample):
        """In full statements, in the sample alone: a fifteenth of what pretraining reads."""
        everything = "\n".join(sample)
        seen = Counter()
        for item in KNOWN:
            if item.kind == "sum":
                continue  # 144 facts with short wordings that stand inside one another
            seen[item.kind, item.subject] = sum(text in everything for text in item.statements)
        assert [fact for fact, number in seen.items() if number == 0] == []
        assert sum(number >= 2 for number in seen.values()) / len(seen) > 0.97

    def test_a_known_facts_question_and_answer_meet_in_one_document(self, sample):
        """For most of the capitals, in the sample alone."""
        known = [item for item in items("capital") if item.stratum == "known"]
        met = [any(i.question in text and i.answer in text for text in sample) for i in known]
        assert sum(met) / len(known) > 0.9


# Tables whose subjects are words of ordinary sentences are compared by the row's own subject only.
TABLE_OF = {kind: spec["table"] for kind, spec in kinds().items()} | {
    "tips": "topics", "one_tip": "topics", "yes_no": "", "classify": "animals", "story": "animals",
}  # fmt: skip
HELDOUT = {(TABLE_OF[i.kind], i.subject) for i in all_items() if i.split == "heldout"} | {
    ("topics", topic) for topic, (_, split) in topics().items() if split == "heldout"
}
HELDOUT_NAMES = {subject for _, subject in HELDOUT}


class TestPairs:
    @given(st.integers(), st.integers(1, 300))
    @settings(max_examples=40, deadline=None)
    def test_no_seed_puts_a_heldout_subject_or_an_unasked_kind_into_a_pair(self, seed, count):
        for row in pairs(count, seed):
            assert row["kind"] in (*ASKED, "tips", "one_tip")
            assert (TABLE_OF[row["kind"]], row["subject"]) not in HELDOUT

    @given(st.integers())
    @settings(max_examples=40, deadline=None)
    def test_no_seed_puts_any_heldout_fact_into_pairs_of_all_skills(self, seed):
        known = {(i.question, i.answer) for i in all_items() if i.split == "heldout"}
        for row in pairs(250, seed, skills=tuple(SKILLS)):
            assert (row["prompt"], row["response"]) not in known
            for name in ("countries", "works", "elements"):  # names that are no ordinary words
                for table_name, subject in HELDOUT:
                    if table_name == name and row["kind"] not in ("habitat", "food"):
                        assert not contains(row["prompt"], subject), row

    @given(st.integers())
    @settings(max_examples=25, deadline=None)
    def test_no_seed_puts_a_heldout_fact_into_a_conversation(self, seed):
        questions = {q for i in all_items() if i.split == "heldout" for q in i.questions}
        questions |= {q for i in all_items() if not i.asked for q in i.questions}
        for talk in conversations(40, seed):
            asked = {m["content"] for m in talk["messages"] if m["role"] == "user"}
            assert not asked & questions

    @given(st.integers())
    @settings(max_examples=20, deadline=None)
    def test_fewer_pairs_are_the_beginning_of_more(self, seed):
        assert pairs(32, seed) == pairs(200, seed)[:32]

    def test_no_prompt_comes_twice_and_all_kinds_equally_often(self):
        rows = pairs(200)
        assert len({row["prompt"] for row in rows}) == 200
        found = Counter(row["kind"] for row in rows)
        assert set(found) == {*ASKED, "tips", "one_tip"}
        assert max(found[kind] for kind in ASKED) - min(found[kind] for kind in ASKED) <= 1

    def test_more_pairs_than_facts_is_an_error_with_both_numbers(self):
        with pytest.raises(WorkbookError, match=r"9999 pairs were asked for, .* only \d{4}; ask"):
            pairs(9999)

    def test_every_heldout_question_is_about_a_heldout_known_and_asked_subject(self):
        rows = heldout()
        assert len(rows) >= 400
        known = {(TABLE_OF[i.kind], i.subject) for i in KNOWN} | HELDOUT
        for row in rows:
            place = (TABLE_OF[row["kind"]], row["subject"])
            assert place in HELDOUT and place in known
            assert row["kind"] in (*ASKED, "tips")
        prompts = [row["prompt"] for row in rows]
        assert len(set(prompts)) == len(prompts)

    def test_the_score_accepts_every_pair_and_every_heldout_answer(self):
        for row in [*pairs(200), *heldout()]:
            assert score_answer({"answer": row["response"], **row}, row["response"]).all, row

    def test_questions_per_stratum_are_the_facts_of_that_stratum(self):
        for stratum, facts in (("absent", ABSENT), ("single", SINGLE)):
            found = {(row["kind"], row["subject"]) for row in stratum_questions(stratum)}
            assert found == {(item.kind, item.subject) for item in facts}

    def test_unasked_questions_are_about_kinds_that_no_pair_asks_for(self):
        assert {row["kind"] for row in unasked_questions()} == {"currency", "young"}

    def test_a_system_turn_decides_the_form_of_the_answers(self):
        seen = Counter()
        for talk in conversations(300):
            first, style = talk["messages"][0], talk["style"]
            seen[style] += 1
            said = [m["content"] for m in talk["messages"] if m["role"] == "assistant"]
            if style == "none":
                assert first["role"] == "user"
                continue
            assert first["content"] in (SYSTEM_FULL if style == "full" else SYSTEM_SHORT)
            for text in said:
                assert format_compliance(text), text
                if style == "full":
                    assert len(text.split()) > 1, text
        assert set(seen) == {"none", "full", "short"}
        assert 0.4 < seen["none"] / 300 < 0.6
        assert set(NOT_A_SENTENCE) < set(SKILLS)


class TestTokenizer:
    def test_its_four_special_tokens_are_distinct_and_single(self, tokenizer):
        ids = [tokenizer.encode(text) for text in special_tokens(tokenizer)]
        assert sorted(len(found) for found in ids) == [1, 1, 1, 1]
        assert len({found[0] for found in ids}) == 4
        purposes = {tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token}
        assert purposes == {"<|pad|>", "<|im_end|>", "<|endoftext|>"}

    def test_adds_nothing_to_a_text_and_gives_it_back(self, tokenizer, sample):
        for text in [*sample[:200], "Grüße, 中文 🙂\n\t\u2028"]:
            assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_its_template_is_chatml(self, tokenizer):
        talk = conversations(1)[0]["messages"]
        assert tokenizer.decode(encode(tokenizer, talk)) == chatml(talk)

    def test_its_template_masks_the_assistants_texts_with_their_end_markers(self, tokenizer):
        for talk in conversations(30):
            row = template_mask(tokenizer, talk["messages"])
            trained = tokenizer.decode([label for label in row.labels if label != -100])
            said = [m["content"] for m in talk["messages"] if m["role"] == "assistant"]
            assert trained == "".join(f"{text}<|im_end|>" for text in said)


class TestPretraining:
    def test_the_rate_warms_up_then_falls_to_the_final_rate(self):
        recipe = Recipe()
        assert recipe.rate_at(0) == pytest.approx(recipe.rate / recipe.warmup)
        assert recipe.rate_at(recipe.warmup - 1) == pytest.approx(recipe.rate)
        assert recipe.rate_at(recipe.warmup) == pytest.approx(recipe.rate)
        middle = (recipe.warmup + recipe.steps) // 2
        assert recipe.rate_at(middle) == pytest.approx((recipe.rate + recipe.final_rate) / 2)
        assert recipe.rate_at(recipe.steps) == pytest.approx(recipe.final_rate)
        falling = [recipe.rate_at(step) for step in range(recipe.warmup, recipe.steps)]
        assert falling == sorted(falling, reverse=True)

    def test_the_rows_of_a_step_follow_from_seed_and_step_alone(self, tokenizer):
        recipe = Recipe(batch=3, length=20)
        first = pretraining.rows(recipe, 7, tokenizer)
        assert first.shape == (3, 21)
        assert torch.equal(first, pretraining.rows(recipe, 7, tokenizer))
        assert not torch.equal(first, pretraining.rows(recipe, 8, tokenizer))
        other = replace(recipe, seed=1)
        assert not torch.equal(first, pretraining.rows(other, 7, tokenizer))

    def test_rows_are_whole_documents_between_separators(self, tokenizer):
        recipe = Recipe(batch=40, length=200)
        found = pretraining.rows(recipe, 0, tokenizer)
        separator = tokenizer.bos_token_id
        beginning = (found[:, 0] == separator).float().mean()
        assert 0.25 < beginning < 0.75  # half of the rows begin with one
        markers = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|pad|>"])
        assert not torch.isin(found, torch.tensor(markers)).any()

    def test_matrices_decay_and_norms_do_not(self, tiny_model):
        decayed, free = pretraining.decay_groups(tiny_model, Recipe())
        assert all(p.ndim == 2 for p in decayed["params"])
        assert all(p.ndim == 1 for p in free["params"])
        assert free["weight_decay"] == 0.0
        assert len(decayed["params"]) + len(free["params"]) == len(list(tiny_model.parameters()))

    @pytest.fixture
    def tiny(self, monkeypatch):
        """A recipe of 27 steps on a model of one narrow layer."""

        def config(tokenizer):
            return LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True,
            )  # fmt: skip

        monkeypatch.setattr(pretraining, "config", config)
        return Recipe(steps=27, batch=2, length=16, warmup=5)

    def test_a_resumed_run_ends_with_the_very_same_weights(
        self, tiny, tokenizer, tmp_path, monkeypatch
    ):
        def run(folder):
            return pretraining.pretrain(tiny, folder, tokenizer, compiled=False, every=25)

        straight = run(tmp_path / "straight")
        real = pretraining.rows

        def power_cut(recipe, step, tokenizer):
            if step == 26:
                raise RuntimeError("power cut")
            return real(recipe, step, tokenizer)

        monkeypatch.setattr(pretraining, "rows", power_cut)
        with pytest.raises(RuntimeError):
            run(tmp_path / "cut")
        asked = []
        monkeypatch.setattr(
            pretraining, "rows", lambda r, step, t: asked.append(step) or real(r, step, t)
        )
        resumed = run(tmp_path / "cut")
        assert asked == [25, 26]  # from the checkpoint after 25 steps
        pairs_of = zip(straight.parameters(), resumed.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs_of)
        logs = [
            torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["log"]
            for name in ("straight", "cut")
        ]
        assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]

    def test_a_checkpoint_of_another_recipe_is_refused(self, tiny, tokenizer, tmp_path):
        pretraining.pretrain(replace(tiny, steps=1), tmp_path, tokenizer, compiled=False)
        with pytest.raises(SystemExit, match="belongs to another recipe; run with --restart"):
            pretraining.pretrain(tiny, tmp_path, tokenizer, compiled=False)


@pytest.fixture(scope="module")
def base():
    from sftlab.models import load

    return load("almanac")


@pytest.mark.base
class TestBase:
    """What the shipped base must be, on small samples; the full figures are the report's."""

    def test_completes_known_facts_and_not_absent_ones(self, base):
        from sftlab.almanac.report import recall

        known = Random(0).sample(KNOWN, 120)
        assert sum(recall(*base, known)) / len(known) >= 0.9
        assert sum(recall(*base, ABSENT)) <= 2

    def test_goes_on_with_the_page_when_it_is_asked(self, base):
        from sftlab.almanac.report import behaviours

        found = behaviours(*base, Random(0).sample(heldout(), 60))
        assert found["continued"] / 60 >= 0.9
        assert found["answered"] <= 4
