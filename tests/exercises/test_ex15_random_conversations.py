"""Random talks, on which our mask is the template's own; and what a naive cut does to a row."""

from __future__ import annotations

from random import Random

import pytest

from sftlab.chat import validate
from sftlab.data import collate
from sftlab.errors import WorkbookError
from sftlab.exercises.ex15_multi_turn_masking.random_conversations import (
    DAMAGES,
    cut,
    damage,
    random_conversation,
)
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, mask_all_but_assistant, template_mask
from sftlab.templates import FAMILIES, with_template


@pytest.mark.parametrize("family", FAMILIES)
def test_our_mask_is_the_templates_own_on_a_thousand_random_talks(tokenizer, family):
    changed, rng = with_template(tokenizer, family), Random(family)
    for _ in range(1000):
        talk = random_conversation(rng)
        assert mask_all_but_assistant(changed, talk) == template_mask(changed, talk), talk


def test_random_talks_are_valid_and_of_every_length():
    rng = Random(1)
    talks = [random_conversation(rng) for _ in range(300)]
    for talk in talks:
        validate(talk)
    assert {len(talk) for talk in talks} == set(range(2, 10))
    assert random_conversation(Random(5)) == random_conversation(Random(5))


# Two answers, "21 22" and "31", each ended by 9; the first is followed by a line end, 8.
ROW = Example(
    [1, 2, 21, 22, 9, 8, 3, 31, 9, 8],
    [IGNORE_INDEX, IGNORE_INDEX, 21, 22, 9, IGNORE_INDEX, IGNORE_INDEX, 31, 9, IGNORE_INDEX],
)


@pytest.mark.parametrize(
    ("length", "what"),
    [(10, 0), (9, 0), (8, 3), (7, 1), (6, 1), (5, 1), (4, 3), (3, 2), (2, 4), (1, 4)],
)
def test_damage_is_told_by_what_is_lost(length, what):
    assert damage(ROW, length) == DAMAGES[what]
    assert len(cut(ROW, length)) == length


def test_the_first_token_of_a_row_is_never_trained_so_it_does_not_count():
    assert damage(Example([5, 6], [5, 6]), 1) == DAMAGES[4]


def test_a_row_with_nothing_left_is_refused_by_the_batch():
    with pytest.raises(WorkbookError, match="row 1 of the batch has no trained token"):
        collate([cut(ROW, 2)], pad_id=0)
