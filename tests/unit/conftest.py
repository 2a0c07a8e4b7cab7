"""What several unit tests train on."""

import pytest


@pytest.fixture
def rows(tokenizer):
    """Eight rows of unequal length."""
    from sftlab.chat import user
    from sftlab.data import tokenize_conversations

    talks = [
        [*user(f"What is {n} plus 1?"), {"role": "assistant", "content": f"It is {n + 1}. " * n}]
        for n in range(1, 9)
    ]
    return tokenize_conversations(tokenizer, talks).examples
