"""The experiment of notebook 05: each corruption is the one it says, and a recorded part is redone."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from sftlab.chat import encode, end_of_turn_id, user
from sftlab.errors import WorkbookError
from sftlab.exercises.ex05_chat_template_mismatch.experiment import (
    CORRUPTIONS,
    FORMS,
    LIMIT,
    bootstrap_mean,
    measure,
    questions,
    reference_nll,
    row,
    settings,
    tuned,
    wrong_prompt,
)
from sftlab.exercises.record import MODEL, read, runs
from sftlab.loss import IGNORE_INDEX
from sftlab.models import checksums, load
from sftlab.templates import LLAMA3

NAME = "template_mismatch"
QUESTION = "Where do frogs live?"
WRITTEN = {
    "begin markers doubled": "<|im_start|><|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|><|im_start|>assistant\n",
    "no end marker": "<|im_start|>user\nWhere do frogs live?\n<|im_start|>assistant\n",
    "no newline after user": "<|im_start|>userWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n",
    "no newline after assistant": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant",
    "roles renamed": "<|im_start|>human\nWhere do frogs live?<|im_end|>\n<|im_start|>bot\n",
    "roles swapped": "<|im_start|>assistant\nWhere do frogs live?<|im_end|>\n<|im_start|>user\n",
    "no generation prompt": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n",
    "a space after the header": "<|im_start|>user\nWhere do frogs live?<|im_end|>\n<|im_start|>assistant\n ",
    "[INST] style": "<s>[INST] Where do frogs live? [/INST]",
    "no template": "Where do frogs live?",
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_corruption_is_what_its_name_says(how, tokenizer):
    ids = wrong_prompt(tokenizer, QUESTION, how)
    assert tokenizer.decode(ids) == WRITTEN[how]
    assert ids == tokenizer.encode(WRITTEN[how], add_special_tokens=False)


def test_the_exact_template_is_the_tokenizer_s(tokenizer):
    right = encode(tokenizer, user(QUESTION), add_generation_prompt=True)
    assert wrong_prompt(tokenizer, QUESTION, "exact template") == right


def test_typed_markers_read_the_same_and_are_other_tokens(tokenizer):
    right, typed = (
        wrong_prompt(tokenizer, QUESTION, how)
        for how in ("exact template", "markers typed as text")
    )
    assert tokenizer.decode(typed) == tokenizer.decode(right)
    special = set(tokenizer.all_special_ids)
    assert special & set(right)
    assert not special & set(typed)


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_every_corruption_contains_the_question_and_is_its_own(how, tokenizer):
    ids = wrong_prompt(tokenizer, QUESTION, how)
    assert QUESTION in tokenizer.decode(ids)
    others = [wrong_prompt(tokenizer, QUESTION, other) for other in CORRUPTIONS if other != how]
    assert ids not in others


def test_an_unknown_corruption_and_another_family_are_refused(tokenizer):
    with pytest.raises(WorkbookError, match="no corruption"):
        wrong_prompt(tokenizer, QUESTION, "upside down")
    other = copy.deepcopy(tokenizer)
    other.chat_template = LLAMA3
    with pytest.raises(WorkbookError, match="not ChatML"):
        wrong_prompt(other, QUESTION, "exact template")


def test_the_reference_is_trained_with_its_end_marker_and_fits_the_limit(tokenizer):
    for question in questions(1000):
        example = row(tokenizer, question, "no template")
        response = [label for label in example.labels if label != IGNORE_INDEX]
        assert tokenizer.decode(response) == question["response"] + "<|im_end|>"
        assert response[-1] == end_of_turn_id(tokenizer)
        assert len(response) < LIMIT


def test_the_nll_of_a_row_is_the_mean_over_its_own_tokens(tiny_model, tokenizer):
    rows = [row(tokenizer, question, "exact template") for question in questions(5)]
    together = reference_nll(tiny_model, rows, tokenizer.pad_token_id, batch_size=5)
    alone = [reference_nll(tiny_model, [one], tokenizer.pad_token_id)[0] for one in rows]
    assert together == pytest.approx(alone, rel=1e-4)
    assert all(abs(value - math.log(len(tokenizer))) < 0.5 for value in together)


def test_a_bootstrap_interval_holds_its_mean_and_can_be_repeated():
    values = np.random.default_rng(1).exponential(size=200)
    mean, (low, high) = bootstrap_mean(values)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.15)
    assert bootstrap_mean(values) == (mean, (low, high))
    assert bootstrap_mean([0.5, 0.5]) == (0.5, (0.5, 0.5))


@pytest.mark.base
def test_typed_markers_cost_answers_and_missing_end_markers_do_not():
    model, tokenizer = load("almanac", role="chat")
    asked = questions(40)
    exact = {
        how: sum(measure(model, tokenizer, asked, how)["exact"])
        for how in ("exact template", "no end marker", "no newline after assistant")
    }
    assert exact["exact template"] >= 36
    assert exact["no end marker"] >= exact["exact template"] - 2
    assert exact["no newline after assistant"] <= 6


# --- the recorded file -----------------------------------------------------------------------


def test_it_is_complete_and_of_this_base():
    recorded = read(NAME)
    done = [entry["settings"] for entry in recorded["runs"]]
    assert all(setting in done for setting in settings())
    assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so a few answers may differ."""
    (recorded,) = runs(NAME, trained="Llama 3 style", seed=0)
    model, tokenizer = tuned("Llama 3 style", seed=0)
    asked = questions()
    for how in FORMS[::2]:
        found = measure(model, tokenizer, asked, how)
        share = sum(found["exact"]) / len(asked)
        assert share == pytest.approx(recorded["exact"][how], abs=0.08)


def test_the_view_sets_special_tokens_apart_and_underlines_what_differs(tokenizer):
    from sftlab.exercises.ex05_chat_template_mismatch.explorer import (
        compared_with_right,
        prompt_view,
    )

    right = prompt_view(tokenizer, wrong_prompt(tokenizer, QUESTION, "exact template"), "right")
    assert right.text.startswith("right: ")
    assert right.text.count("⟦<|im_start|>⟧") == 2
    assert "3 of them special" in right.text
    typed = compared_with_right(tokenizer, QUESTION, "markers typed as text")
    assert "⟦" not in typed.text.split("from token")[0]
    doubled = compared_with_right(tokenizer, QUESTION, "begin markers doubled")
    assert "*⟦<|im_start|>⟧*" in doubled.text
    assert "the right prompt has here" not in compared_with_right(
        tokenizer, QUESTION, "exact template"
    ).text  # fmt: skip
