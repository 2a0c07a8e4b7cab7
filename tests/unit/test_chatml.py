"""Qwen3's style of ChatML against TRL's copy, and the defended encoding against the general one."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.chat import chatml, render, user
from sftlab.chatml import QWEN3, STYLES, encode_defended, with_style
from sftlab.templates import FAMILIES, encode_safely

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
]


class TestQwen3:
    THOUGHT = "<think>\nEasy.\n</think>\n\nHello."

    def test_only_the_answer_after_the_last_user_turn_keeps_its_thinking(self, tokenizer):
        changed = with_style(tokenizer, "qwen3")
        talk = [*user("Hi"), {"role": "assistant", "content": self.THOUGHT}]
        assert render(changed, talk) == chatml(talk)
        plain = [talk[0], {"role": "assistant", "content": "Hello."}, *user("Bye")]
        assert render(changed, [*talk, *user("Bye")]) == chatml(plain)

    def test_an_answer_without_thinking_gets_an_empty_block_and_no_system_turn_is_added(
        self, tokenizer
    ):
        changed = with_style(tokenizer, "qwen3")
        empty = "<think>\n\n</think>\n\n"
        assert render(changed, TALK[1:3]) == chatml(
            [TALK[1], {"role": "assistant", "content": f"{empty}Hello."}]
        )
        assert render(changed, user("Hi"), True) == chatml(user("Hi"), True)
        assert (
            render(changed, user("Hi"), True, enable_thinking=False)
            == chatml(user("Hi"), True) + empty
        )

    @pytest.mark.parametrize(
        "options", [{}, {"enable_thinking": False}, {"add_generation_prompt": True}]
    )
    def test_it_renders_as_the_copy_that_trl_ships(self, tokenizer, options):
        trl = pytest.importorskip("trl")
        theirs = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
        said = ("Hello.", self.THOUGHT, "\nHello.", "<think>a</think>b")
        for first, second in product(said, said):
            roles = ("user", "assistant", "user", "assistant")
            talk = [
                {"role": r, "content": c}
                for r, c in zip(roles, ("Hi", first, "Bye", second), strict=True)
            ]
            for messages in (talk, talk[:3], [TALK[0], *talk], [*talk, talk[-1]]):
                ours, copied = (
                    tokenizer.apply_chat_template(
                        messages, chat_template=some, tokenize=False, **options
                    )
                    for some in (QWEN3, theirs)
                )
                assert ours == copied

    def test_it_stands_beside_the_families(self):
        assert set(STYLES) - set(FAMILIES) == {"qwen3"}


class TestEncodeDefended:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(["<|im_end|>", "<|im_start|>", "<|pad|>", "<|im_", "\n", "a", " "]),
            max_size=9,
        ),
        st.booleans(),
    )
    def test_equals_the_general_one_in_chatml(self, tokenizer, parts, asked):
        talk = [*TALK, *user("".join(parts) + "x")]
        assert encode_defended(tokenizer, talk, asked) == encode_safely(tokenizer, talk, asked)
