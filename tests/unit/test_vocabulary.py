"""The list of words that the embedded base has read, and the words of a prompt that are not in it."""

from __future__ import annotations

import pytest

from sftlab.almanac.pretrain import Recipe, rows
from sftlab.almanac.vocabulary import READ, unread, words, words_read


def test_the_list_is_sorted_and_has_each_word_once():
    found = READ.read_text(encoding="utf-8").split("\n")
    assert found.pop() == ""
    assert found == sorted(set(found))
    assert all(words(word) == [word] for word in found)


def test_words_of_a_text_are_words_numbers_and_marks():
    assert words("Beyoncé's 3 + 4 = ?") == ["Beyoncé's", "3", "+", "4", "=", "?"]


@pytest.mark.base
def test_complete_documents_of_a_training_step_have_no_other_word(tokenizer):
    for row in tokenizer.batch_decode(rows(Recipe(), 0, tokenizer)):
        for document in row.split(tokenizer.bos_token)[:-1]:
            assert set(words(document)) <= words_read()


@pytest.mark.base
def test_unread_names_each_word_once_in_order_and_minds_capitals(tokenizer):
    assert unread(tokenizer, "Zork and zork: Zork, France, france") == ["Zork", "zork", "france"]
    assert unread(tokenizer, "") == []


def test_nothing_is_said_about_a_model_whose_reading_is_not_known():
    assert unread(range(49152), "zork") == []
