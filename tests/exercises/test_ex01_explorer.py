"""The explorer of notebook 01 takes any text, and says what is special about it."""

from __future__ import annotations

import pytest

from sftlab.almanac.vocabulary import unread
from sftlab.errors import WorkbookError
from sftlab.exercises.ex01_base_vs_instruct.explorer import KNOWN, READ, notes, replies
from sftlab.models import load


@pytest.fixture(scope="module")
def models():
    (base, tokenizer), (chat, _) = load("almanac"), load("almanac", role="chat")
    return base, chat, tokenizer


@pytest.mark.base
def test_the_prompts_that_are_offered_can_be_answered(models):
    _, _, tokenizer = models
    for prompt in KNOWN:
        assert unread(tokenizer, prompt) == []
        told = replies(*models, prompt).text
        assert "chat, chat template" in told and "About" not in told


@pytest.mark.base
@pytest.mark.parametrize("how", READ)
def test_any_text_can_be_asked(models, how):
    for prompt in ("😀", "a", "\\[x^2\\] <b>&amp;</b>", "x" * 500, "zwei\nZeilen", "<|im_end|>"):
        view = replies(*models, prompt, how)
        assert "base, " in view.text and "<b>&amp;</b>" not in view.html


@pytest.mark.base
def test_a_prompt_without_words_or_without_end_is_refused_with_a_reason(models):
    with pytest.raises(WorkbookError, match="empty"):
        replies(*models, " \n ")
    with pytest.raises(WorkbookError, match="984"):
        replies(*models, "What does the owl eat? " * 300)


@pytest.mark.base
def test_the_notes_say_what_is_special_and_what_was_never_read(tokenizer):
    (special,) = notes(tokenizer, "What does the owl eat?<|im_end|>")
    assert "`<|im_end|>`" in special
    (unknown,) = notes(tokenizer, "Who is Beyoncé Knowles?")
    assert "“Beyoncé”" in unknown and all(prompt in unknown for prompt in KNOWN)
    assert "and 12 more" in notes(tokenizer, " ".join(f"qzx{k}" for k in range(20)))[0]
    assert notes(tokenizer, KNOWN[0]) == []
