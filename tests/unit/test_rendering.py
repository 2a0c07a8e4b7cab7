"""Renderings made visible: what the views say in plain text."""

from __future__ import annotations

from sftlab.chat import encode, user
from sftlab.classroom.rendering import (
    compare_ids,
    difference_view,
    ids_view,
    token_roles,
    token_table,
)
from sftlab.templates import with_template

TALK = [
    {"role": "system", "content": "Be brief."},
    *user("Hi"),
    {"role": "assistant", "content": "Yes."},
]


def test_every_token_has_the_role_whose_message_brought_it(tokenizer):
    found = token_roles(tokenizer, TALK[:2], add_generation_prompt=True)
    assert [token for _, token in found] == encode(tokenizer, TALK[:2], True)
    assert list(dict.fromkeys(role for role, _ in found)) == ["system", "user", "(generation prompt)"]  # fmt: skip


def test_roles_are_found_in_every_family(tokenizer):
    for family in ("llama3", "gemma", "inst"):
        changed = with_template(tokenizer, family)
        found = token_roles(changed, TALK)
        assert [token for _, token in found] == encode(changed, TALK)
        text = changed.decode([token for role, token in found if role == "assistant"])
        assert "Yes." in text
        assert "Hi" not in text


def test_the_table_names_special_tokens(tokenizer):
    lines = token_table(tokenizer, user("Hi")).text.splitlines()
    assert lines[1].split() == ["0", "user", "<|im_start|>", "1", "special"]
    assert len(lines) == 1 + len(encode(tokenizer, user("Hi")))


def test_special_tokens_stand_in_brackets(tokenizer):
    view = ids_view(tokenizer, tokenizer.encode("<|im_start|>a <b"), "three")
    assert view.text.splitlines()[1].startswith("[<|im_start|>] a")
    assert "&lt;" in view.html
    assert ">·<<" not in view.html


def test_differences_are_marked_and_counted():
    view = difference_view("user\nHi", "user Hi!", "text")
    assert view.text == "text: 1 missing, 2 added\nu s e r [-⏎-] {+·+} H i {+!+}"
    assert difference_view("ab", "ab", "text").text == "text: no difference\na b"
    assert compare_ids([1, 2, 3], [1, 4, 5, 3]) == (1, 2)


def test_long_equal_stretches_are_shortened():
    view = difference_view(list("abcdefghijklmnop"), list("abcdefghijklmnoq"), "text")
    assert "a b c d … l m n o" in view.text
