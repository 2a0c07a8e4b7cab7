"""Notebook 15: its experiments, the ways to make labels, and words that follow the numbers."""

from __future__ import annotations

import copy
from random import Random

import pytest

from sftlab.chat import encode, end_of_turn_id
from sftlab.classroom.checking import examine
from sftlab.errors import WorkbookError
from sftlab.exercises.ex15_multi_turn_masking import answers_trained, experiment, plots
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import (
    ARMS,
    EVERY,
    LAST,
    WRONG_0,
    WRONG_1,
)
from sftlab.exercises.ex15_multi_turn_masking.check import EXERCISES
from sftlab.exercises.ex15_multi_turn_masking.experiment import FIRST, IN, OUT
from sftlab.exercises.ex15_multi_turn_masking.libraries import (
    agreement,
    count_equal,
    defaults,
    from_trl,
)
from sftlab.exercises.ex15_multi_turn_masking.masks import answer_spans, mask_all_but_assistant
from sftlab.exercises.ex15_multi_turn_masking.random_conversations import random_conversation
from sftlab.exercises.ex15_multi_turn_masking.variants import TEMPLATES
from sftlab.exercises.record import runs
from sftlab.generate import Generation
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.masking import mask_all_but_assistant as ours

ENDS, ANSWERS = runs("end_of_turn"), runs("answers_trained")
TALK = [
    {"role": "user", "content": "Owls eat?"},
    {"role": "assistant", "content": "<think>Night.</think>Mice."},
    {"role": "user", "content": "Cows?"},
    {"role": "assistant", "content": "Grass."},
]


@pytest.fixture
def changed(tokenizer):
    """The tokenizer with one of the templates."""

    def make(name: str):
        found = copy.copy(tokenizer)
        found.chat_template = TEMPLATES[name]
        return found

    return make


# --- labels ----------------------------------------------------------------------------------


def test_the_students_functions_give_the_packages_labels(tokenizer):
    rng = Random(0)
    for _ in range(200):
        talk = random_conversation(rng)
        weighted = [{**m, "weight": rng.choice([0, 1])} for m in talk]
        kept = [bool(m["weight"]) for m in weighted]
        assert mask_all_but_assistant(tokenizer, talk) == ours(tokenizer, talk)
        assert mask_all_but_assistant(tokenizer, weighted) == ours(tokenizer, talk, kept)


def trained_ids(example):
    return [y for y in example.labels if y != IGNORE_INDEX]


def by_transformers(tokenizer, talk):
    """The assistant mask of transformers, which TRL uses."""
    found = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return Example(found["input_ids"], [token if on else IGNORE_INDEX for token, on in pairs])


def test_trl_and_transformers_give_the_same_labels_and_its_completion_one_token_more(
    tiny_model, tokenizer
):
    rng = Random(1)
    talks = [random_conversation(rng) for _ in range(20)]
    mine = [mask_all_but_assistant(tokenizer, talk) for talk in talks]
    rows = [{"messages": talk} for talk in talks]
    split = [{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks]
    assert from_trl(tiny_model, tokenizer, rows, assistant_only_loss=True) == mine
    assert [by_transformers(tokenizer, talk) for talk in talks] == mine
    every = from_trl(tiny_model, tokenizer, rows)
    assert all(example.labels == example.input_ids for example in every)
    completion = from_trl(tiny_model, tokenizer, split)
    table = agreement({"mine": mine, "completion": completion, "every": every})
    assert table.loc["mine", "conversations equal"] == "20 of 20"
    assert list(table["only here"])[:2] == [0, len(talks)]  # the line break after the last answer
    assert table.loc["every", "not here"] == 0
    single = sum(sum(m["role"] == "assistant" for m in talk) == 1 for talk in talks)
    assert 0 < single < len(talks)
    assert count_equal(mine, completion) == (0, single)


def test_trl_leaves_out_cut_examples_in_which_nothing_is_trained(tiny_model, tokenizer):
    rows = [{"messages": TALK[:2]}, {"messages": TALK}]
    start = answer_spans(tokenizer, TALK)[0][0]
    assert from_trl(tiny_model, tokenizer, rows, assistant_only_loss=True, max_length=start) == []
    kept = from_trl(tiny_model, tokenizer, rows, assistant_only_loss=True, max_length=start + 2)
    assert [len(example) for example in kept] == [start + 2] * 2


def test_templates_part_the_ways(changed):
    tokenizer = changed("end of turn outside the block")
    assert end_of_turn_id(tokenizer) not in trained_ids(by_transformers(tokenizer, TALK))
    tokenizer = changed("no generation block")
    assert trained_ids(by_transformers(tokenizer, TALK)) == []
    tokenizer = changed("earlier answers shortened")
    whole = encode(tokenizer, TALK)
    end = answer_spans(tokenizer, TALK)[0][1]
    assert whole[end - 1] != end_of_turn_id(tokenizer)  # the spans are those of a longer rendering
    with pytest.raises(WorkbookError, match="message 2"):
        ours(tokenizer, TALK)
    for name in ("ChatML", "no line break at the end"):
        tokenizer = changed(name)
        text = tokenizer.decode(trained_ids(mask_all_but_assistant(tokenizer, TALK)))
        assert text == "<think>Night.</think>Mice.<|im_end|>Grass.<|im_end|>"


def test_the_table_shows_installed_defaults():
    found = defaults()
    assert "assistant_only_loss=False: every token" in found.iloc[0]["trained by default"]
    assert "max_length=1024, keep_start" in found.iloc[0]["too long"]


def test_a_failed_check_shows_the_rendering_and_both_masks():
    found = examine(
        EXERCISES["15.answer_spans"], lambda t, messages: answer_spans(t, messages[-2:])
    )
    assert "The rendering around token" in found.view
    assert "Chosen by yours, in brackets: " in found.view
    wrong = examine(
        EXERCISES["15.mask_all_but_assistant"],
        lambda t, messages: mask_all_but_assistant(t, [{**m, "weight": 1} for m in messages]),
    )
    assert "The weights are left out" in wrong.message
    assert "Trained if right, in brackets: " in wrong.view


# --- the experiments -------------------------------------------------------------------------


def test_the_arms_differ_in_one_label_of_each_answer(tokenizer):
    made = [mask_all_but_assistant(tokenizer, pair) for pair in experiment.training_pairs()]
    end = end_of_turn_id(tokenizer)
    for arm in (OUT, FIRST):
        for before, after in zip(made, experiment.changed(arm, tokenizer, made), strict=True):
            assert before.input_ids == after.input_ids
            gone = [x for x, y in zip(before.labels, after.labels, strict=True) if x != y]
            assert len(gone) == 1 and (gone == [end]) == (arm == OUT)


def test_a_reply_is_measured_up_to_its_first_ending_token(tokenizer):
    question = {"answer": "Yes."}
    ids = tokenizer.encode("Yes.", add_special_tokens=False)
    more = tokenizer.encode(" No.", add_special_tokens=False)
    document = tokenizer.bos_token_id

    def found(reply, stopped=False):
        text = tokenizer.decode(reply)
        measured = experiment.measure(tokenizer, question, Generation(text, reply, stopped))
        return [int(measured[name]) for name in ("ends_turn", "ends", "begins", "right")]

    assert found(ids, stopped=True) == [1, 1, 1, 1]
    assert found([*ids, document, *more]) == [0, 1, 1, 1]
    assert found([*ids, *more, document]) == [0, 1, 1, 0]
    assert found(ids) == [0, 0, 1, 1]
    assert found(more, stopped=True) == [1, 1, 0, 0]


def test_arms_of_equal_weights_have_equal_labels_and_wrong_ones_other_inputs(tokenizer):
    sets = {arm: answers_trained.training_set(arm, 0) for arm in ARMS}
    made = {
        arm: [mask_all_but_assistant(tokenizer, talk) for talk in talks]
        for arm, talks in sets.items()
    }
    assert sum(e.trained for e in made[LAST]) == sum(e.trained for e in made[WRONG_0])
    assert sum(e.trained for e in made[LAST]) < 0.5 * sum(e.trained for e in made[EVERY])
    assert [t[-1] for t in sets[LAST]] == [t[-1] for t in sets[WRONG_0]]
    texts = {arm: [m["content"] for talk in talks for m in talk] for arm, talks in sets.items()}
    assert texts[LAST] == texts[EVERY] and texts[WRONG_0] == texts[WRONG_1]
    answers = sum(m["role"] == "assistant" for talk in sets[EVERY] for m in talk[:-1])
    differ = sum(a != b for a, b in zip(texts[EVERY], texts[WRONG_1], strict=True))
    assert 0.5 < differ / answers < 0.9


def test_questions_are_held_out_and_asked_in_two_places():
    validation, test = answers_trained.questions()
    assert len(validation) == len(test) == answers_trained.QUESTIONS
    assert not {q["prompt"] for q in validation} & {q["prompt"] for q in test}
    alone, third = (answers_trained.prompts(test, place) for place in answers_trained.PLACES)
    assert all(a == t[-1:] and len(t) == 5 for a, t in zip(alone, third, strict=True))
    assert all(t[0] != t[2] != t[4] != t[0] for t in third)


# --- the records and their words -------------------------------------------------------------


def swapped(found, names, key="arm"):
    swap = dict(zip(names, reversed(names), strict=True))
    return [{**run, key: swap.get(run[key], run[key])} for run in found]


EQUAL = {"sftlab": (200, 200), "TRL": (0, 50)}


def test_claims_turn_round_when_the_arms_do():
    before = plots.claims(ENDS, ANSWERS, EQUAL, 200)
    swap = {"sftlab": (0, 50), "TRL": (200, 200)}
    ends = swapped(runs("end_of_turn", start="base"), [FIRST, OUT]) + runs(
        "end_of_turn", start="chat"
    )
    after = plots.claims(ends, swapped(ANSWERS, [WRONG_0, WRONG_1]), swap, 200)
    assert "those of sftlab" in before["claim"][0] and "those of TRL" in after["claim"][0]
    assert before["control"][0] == "TRL: 200 differ, 150 without the last token"
    for row, words in {
        1: ("lower", "higher"),
        2: ("higher", "lower"),
        4: ("worse", "better"),
    }.items():
        assert (before["claim"][row].split()[-1], after["claim"][row].split()[-1]) == words


@pytest.mark.parametrize(("factor", "word"), [(0.5, "better"), (2.0, "worse")])
def test_the_last_answer_only_is_better_or_worse_by_its_losses(factor, word):
    moved = [
        {**run, **{f"loss {p}": [x * factor for x in plots.loss(plots.best(ANSWERS, EVERY), place=p)[run["seed"]:][:1]] * 2
                   for p in answers_trained.PLACES}} if run["arm"] == LAST else run
        for run in ANSWERS
    ]  # fmt: skip
    assert plots.claims(ENDS, moved, EQUAL, 200)["claim"][3].endswith(word)


def test_claims_are_not_settled_without_a_difference():
    same = [{**run, **{m: {"a": 0.5, "b": 0.7} for m in ("ends_turn", "ends", "begins", "right")}} for run in ENDS]  # fmt: skip
    flat = [
        {**run, **{f"{what} {place}": [0.5, 0.5] for what in ("loss", "right") for place in answers_trained.PLACES}}
        for run in ANSWERS
    ]  # fmt: skip
    found = plots.claims(same, flat, EQUAL, 200)["claim"]
    assert all("not settled" in claim for claim in found[1:])


def test_a_share_of_no_reply_or_of_every_one_is_a_count():
    def made(*shares):
        return [
            {"start": "base", "arm": OUT, "seed": n, "ends": {"a": share}}
            for n, share in enumerate(shares)
        ]

    assert plots.told(made(0.0, 0.0), "ends") == "0 of 400 replies"
    assert plots.told(made(1.0, 1.0), "ends") == "400 of 400 replies"
    assert plots.told(made(0.5, 1.0), "ends").startswith("75.0% (")


def test_the_ratio_by_place_is_one_if_both_places_move_alike_and_turns_with_them():
    value, (low, high) = plots.place_ratio(ANSWERS, EVERY)
    assert value == low == high == pytest.approx(1)
    turned = [{**run, "loss alone": run["loss third"], "loss third": run["loss alone"]} for run in ANSWERS]  # fmt: skip
    assert plots.place_ratio(turned)[0] == pytest.approx(1 / plots.place_ratio(ANSWERS)[0])


def test_the_edge_of_the_learning_rates_is_named_only_where_an_arm_lies_on_it():
    lowest = [{**run, "validation": [run["learning_rate"]] * 2} for run in ANSWERS]
    assert plots.stops_at(lowest).endswith(", ".join(ARMS))
    inside = [{**run, "validation": [abs(run["learning_rate"] - 3e-3)] * 2} for run in ANSWERS]
    assert "edge" not in plots.stops_at(inside)


def test_most_earlier_answers_are_wrong_in_those_arms():
    assert 0.5 < plots.wrong_share() < 0.9


def test_an_arm_has_the_learning_rate_of_its_lowest_validation_loss():
    for arm, at in ((EVERY, 0), (LAST, 0), (LAST, 1)):
        losses = {}
        for run in runs("answers_trained", arm=arm):
            losses.setdefault(run["learning_rate"], []).append(run["validation"][at])
        rate = min(losses, key=lambda rate: sum(losses[rate]))
        assert {run["learning_rate"] for run in plots.best(ANSWERS, arm, at)} == {rate}


@pytest.mark.base
@pytest.mark.parametrize("arm", [IN, pytest.param(OUT, marks=pytest.mark.thorough)])
def test_a_run_measured_again_gives_what_is_recorded(arm):
    (recorded,) = runs("end_of_turn", start="base", arm=arm, seed=0)
    found = experiment.run("base", arm, 0)
    for name in ("ends_turn", "ends"):  # texts differ between processors in a few answers
        mean = sum(found[name].values()) / len(found[name])
        assert mean == pytest.approx(sum(recorded[name].values()) / len(recorded[name]), abs=0.05)
