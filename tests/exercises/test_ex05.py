"""The experiment of notebook 05: its forms, its words, and a part of what was recorded."""

from __future__ import annotations

import math

import pytest

from sftlab.chat import encode, end_of_turn_id, user
from sftlab.exercises.ex05_chat_template_mismatch import plots, real
from sftlab.exercises.ex05_chat_template_mismatch.experiment import (
    FEW,
    LIMIT,
    SERVED,
    TRAINED,
    answer_nll,
    example,
    prompt_ids,
    questions,
    replies,
    serve,
    tuned,
)
from sftlab.exercises.ex05_chat_template_mismatch.explorer import compared
from sftlab.exercises.ex05_chat_template_mismatch.forms import (
    BARE,
    BOUNDARY,
    FORMS,
    GROUPS,
    LLAMA,
    OUTCOMES,
    RIGHT,
    SWAPPED,
    TYPED,
    corrupt,
)
from sftlab.exercises.record import runs
from sftlab.exercises.views import prompt_view
from sftlab.loss import IGNORE_INDEX
from sftlab.models import load
from sftlab.scoring import names
from sftlab.templates import FAMILIES

NAME, REAL_NAME = "template_mismatch", "template_mismatch_smollm2"
QUESTION = "Where do frogs live?"
WRITTEN = {
    "turn start doubled": "<|im_start|><|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n",
    "question as the assistant's": "<|im_start|>assistant\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n",
    "answer as the user's": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>user\n",
    SWAPPED: "<|im_start|>assistant\nWhere do frogs live?<|im_end|>\n<|im_start|>user\n",
    "roles renamed": "<|im_start|>human\nWhere do frogs live?<|im_end|>\n<|im_start|>bot\n",
    "no end-of-turn token": "<|im_start|>user\nWhere do frogs live?\n<|im_start|>assistant\n",
    "another end-of-turn token": "<|im_start|>user\nWhere do frogs live?</s>\n<|im_start|>assistant\n",
    "no line break after the turn": "<|im_start|>user\nWhere do frogs live?<|im_end|><|im_start|>assistant\n",
    BOUNDARY: "<|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant",
    "a space before the answer": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n ",
    "no generation prompt": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n",
    "no line break after user": "<|im_start|>userWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n",
    "a space before the question": "<|im_start|>user\n Where do frogs live?<|im_end|>\n<|im_start|>assistant\n",
    BARE: QUESTION,
}  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN)
def test_a_form_is_what_its_name_says(form, tokenizer):
    ids = prompt_ids(tokenizer, QUESTION, form)
    assert ids == tokenizer.encode(WRITTEN[form], add_special_tokens=False)


@pytest.mark.parametrize(
    ("family", "form"), [("llama3", LLAMA), ("gemma", "Gemma style"), ("inst", "[INST] style")]
)
def test_other_families_write_what_their_templates_write(family, form, tokenizer):
    theirs = tokenizer.apply_chat_template(
        user(QUESTION), chat_template=FAMILIES[family], add_generation_prompt=True, tokenize=False
    )
    right = tokenizer.apply_chat_template(user(QUESTION), add_generation_prompt=True, tokenize=False)  # fmt: skip
    assert corrupt(right, FORMS[form]) == theirs


def test_the_right_form_is_the_tokenizer_s(tokenizer):
    right = encode(tokenizer, user(QUESTION), add_generation_prompt=True)
    assert prompt_ids(tokenizer, QUESTION, RIGHT) == right


def test_typed_special_tokens_read_the_same_and_are_other_tokens(tokenizer):
    right, typed = (prompt_ids(tokenizer, QUESTION, form) for form in (RIGHT, TYPED))
    assert tokenizer.decode(typed) == tokenizer.decode(right)
    special = set(tokenizer.all_special_ids)
    assert special & set(right)
    assert not special & set(typed)


def test_every_form_holds_the_question_and_is_its_own(tokenizer):
    prompts = [prompt_ids(tokenizer, QUESTION, form) for form in FORMS]
    assert all(QUESTION in tokenizer.decode(ids) for ids in prompts)
    assert len(set(map(tuple, prompts))) == len(FORMS) == sum(map(len, GROUPS.values()))


def test_a_system_turn_stays_where_a_form_does_not_touch_it(tokenizer):
    for form in real.FORMS_ASKED:
        text = tokenizer.decode(prompt_ids(tokenizer, QUESTION, form, real.SYSTEM))
        assert ("named SmolLM" in text) == (form != BARE)


def test_no_question_names_its_answer_and_every_answer_fits_the_limit(tokenizer):
    asked = questions(100)
    assert len({q["prompt"] for q in asked}) == len(asked) > 400
    for question in asked:
        assert not names(question["prompt"], question["value"])
        assert names(question["answer"], question["value"])
        made = example(tokenizer, question, BARE)
        response = [label for label in made.labels if label != IGNORE_INDEX]
        assert response[-1] == end_of_turn_id(tokenizer)
        assert len(response) < LIMIT


def test_the_loss_of_an_answer_is_the_mean_over_its_own_tokens(tiny_model, tokenizer):
    rows = [example(tokenizer, question, RIGHT) for question in questions(1)[:5]]
    together = answer_nll(tiny_model, rows, tokenizer.pad_token_id)
    alone = [answer_nll(tiny_model, [one], tokenizer.pad_token_id) for one in rows]
    for k, losses in enumerate(together):
        assert losses == pytest.approx([one[k][0] for one in alone], rel=1e-4)
        assert all(abs(loss - math.log(len(tokenizer))) < 0.5 for loss in losses)


def test_serving_gives_a_digit_and_two_losses_for_each_question(tiny_model, tokenizer):
    asked = questions(1)[:3]
    found = serve(tiny_model, tokenizer, asked, RIGHT)
    assert {len(found[name]) for name in ("outcomes", "nll", "rest")} == {3}
    assert set(found["outcomes"]) <= set("0123"[: len(OUTCOMES)])


# --- words that follow the numbers -----------------------------------------------------------


def test_the_words_of_the_claims_turn_round_with_the_forms():
    recorded, smol = runs(NAME), [{"breaks": 0.0, **run} for run in runs(REAL_NAME)]
    claims = plots.claims(recorded, smol)["claim"]
    swap = {RIGHT: BOUNDARY, BOUNDARY: RIGHT}
    flipped = [{swap.get(key, key): value for key, value in run.items()} for run in recorded]
    turned = plots.claims(flipped, smol)["claim"]
    assert "fewer right answers" in claims[0]
    assert "more right answers" in turned[0]
    other = [{**run, **({"form": swap.get(run["form"], run["form"])} if "form" in run else {})} for run in smol]  # fmt: skip
    before, after = (plots.published(found, BOUNDARY, "nll") for found in (smol, other))
    assert after[0] == pytest.approx(-before[0])
    words = [plots.claims(recorded, found)["claim"][3] for found in (smol, other)]
    assert words[0] != words[1]


def test_nothing_is_settled_without_a_difference():
    same = [{**run, **dict.fromkeys(FORMS, run[RIGHT])} for run in runs(NAME, trained=RIGHT)]
    same += [
        {**one, "trained": form} for one in same if one["pairs"] == FEW for form in TRAINED[1:]
    ]
    smol = [{"breaks": 0.0, **run} for run in runs(REAL_NAME)]
    own = next(run for run in smol if run.get("form") == RIGHT)
    smol = [{**own, "form": run["form"]} if "form" in run else run for run in smol]
    claims = plots.claims(same, smol)["claim"]
    assert all("within 5 points" in claims[k] for k in (0, 1, 3, 4))
    assert "No form costs" in claims[2] and "not settled" in claims[3]
    assert plots.stop_words(same).startswith("the right form ")
    assert "lose 0 to 0 points" in plots.mismatch_words(same)
    assert not {"fewer", "higher", "lower"} & set(" ".join(claims).split())


def test_a_small_change_is_called_small_and_a_wide_interval_open():
    assert plots.fewer((-0.01, (-0.02, -0.005))) == "within 5 points"
    assert plots.fewer((-0.3, (-0.4, -0.2))) == "fewer right answers"
    assert plots.fewer((0.3, (0.2, 0.4))) == "more right answers"
    assert plots.fewer((-0.1, (-0.3, 0.1))) == plots.estimates.OPEN


def test_a_stop_rate_that_falls_with_the_answers_is_not_called_quiet():
    """Each wrong reply goes on instead of stopping: the stop rate notices every form that costs answers."""
    recorded = runs(NAME)
    costly, unseen = plots.quiet(recorded)
    assert unseen and BOUNDARY in unseen and BARE not in costly
    loud = [
        {
            key: {**value, "outcomes": value["outcomes"].replace("2", "3").replace("1", "0")}
            if key in FORMS
            else value
            for key, value in run.items()
        }
        for run in recorded
    ]
    assert plots.quiet(loud) == (costly, [])
    assert f"0 of {len(costly)} forms" in plots.claims(loud, runs(REAL_NAME))["claim"][2]
    assert plots.stop_words(loud) != plots.stop_words(recorded)
    assert plots.stop_words(recorded).startswith("they stop 98% to 100% of their replies")


def test_the_cost_of_a_form_itself_follows_the_models_trained_in_it():
    recorded = runs(NAME)
    worse = [
        {**run, run["trained"]: {**run[run["trained"]], "outcomes": "2" * len(questions())}}
        if run["trained"] == LLAMA
        else run
        for run in recorded
    ]
    assert "at most 100" in plots.mismatch_words(worse)
    assert "at most 100" not in plots.mismatch_words(recorded)


def test_the_words_about_line_breaks_follow_the_count():
    smol = runs(REAL_NAME)
    none = [{**run, "breaks": 0.0} for run in smol]
    assert f"{plots.line_breaks(smol):.0%} begin" in plots.loss_and_right_words(smol)
    assert "0% begin" in plots.loss_and_right_words(none)


def test_the_left_out_tokens_are_told_in_words():
    figure = plots.left_out(["a", "\n", "c"], [1.0, 0.25, 0.5])
    assert "a 100%, ⏎ 25%, c 50%" in figure.alt


# --- the recorded files ----------------------------------------------------------------------


def test_every_question_has_its_outcome_in_every_form():
    for run in runs(NAME):
        assert all(len(run[form]["outcomes"]) == len(questions()) for form in SERVED)


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so a few answers may differ."""
    (recorded,) = runs(NAME, trained=BOUNDARY, pairs=FEW, seed=0)
    model, tokenizer = tuned(BOUNDARY, FEW, seed=0)
    for form in (BOUNDARY, RIGHT):
        found = serve(model, tokenizer, questions(), form)
        for what in plots.MARKS:
            shares = [sum(plots.marks(one, what)) / len(questions()) for one in (found, recorded[form])]  # fmt: skip
            assert shares[0] == pytest.approx(shares[1], abs=0.08)


@pytest.mark.base
def test_the_place_of_a_missing_line_break_decides():
    model, tokenizer = load("almanac", role="chat")
    asked = questions(2)
    right = {
        form: sum(
            names(text, q["value"])
            for q, (text, _) in zip(
                asked,
                replies(
                    model, tokenizer, [prompt_ids(tokenizer, q["prompt"], form) for q in asked]
                ),
                strict=True,
            )
        )
        for form in (RIGHT, BOUNDARY, plots.SAME_TOKEN[0])
    }
    assert right[RIGHT] >= 24
    assert right[plots.SAME_TOKEN[0]] >= right[RIGHT] - 2
    assert right[BOUNDARY] <= 6


def test_the_view_sets_special_tokens_apart_and_underlines_what_differs(tokenizer):
    right = prompt_view(tokenizer, prompt_ids(tokenizer, QUESTION, RIGHT), "right")
    assert right.text.count("⟦<|im_start|>⟧") == 2
    assert "3 of them special" in right.text
    typed = compared(tokenizer, QUESTION, TYPED)
    assert "⟦" not in typed.text.split("from token")[0]
    doubled = compared(tokenizer, QUESTION, "turn start doubled")
    assert "*⟦<|im_start|>⟧*" in doubled.text
    assert "the right prompt has here" not in compared(tokenizer, QUESTION, RIGHT).text
