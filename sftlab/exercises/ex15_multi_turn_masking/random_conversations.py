"""Random conversations to try masks on, and what cutting an example does to it."""

from __future__ import annotations

from random import Random

from sftlab.chat import Message
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

# Words that could mislead a mask: names of roles, halves of special tokens, line ends, other scripts.
PIECES = (
    *("user", "assistant", "system", "model", "user\n", "assistant\n", "\n", "\n\n", " ", "  "),
    *("<|im", "_start|>", "im_end", "|>", "<", "[INST", "Hello", " Paris", ".", "?", "1. ", "0"),
    *("é", "ü", "Ωμέγα", "日本", "🙂", "\t", "Yes", " no", "-100", "{{ x }}", "{%", "\\n"),
)


def random_text(rng: Random) -> str:
    """One to eight pieces, with at least one that is not white space."""
    while True:
        text = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))
        if text.strip():
            return text


def random_conversation(rng: Random) -> list[Message]:
    """One to four exchanges, half of them after a system turn."""
    talk: list[Message] = []
    if rng.random() < 0.5:
        talk.append({"role": "system", "content": random_text(rng)})
    for _ in range(rng.randint(1, 4)):
        talk.append({"role": "user", "content": random_text(rng)})
        talk.append({"role": "assistant", "content": random_text(rng)})
    return talk


DAMAGES = (
    "all that is trained is kept",
    "whole answers are lost",
    "an answer breaks off",
    "only an end-of-turn token is lost",
    "nothing is left to train",
)


def cut(example: Example, max_length: int) -> Example:
    """The naive truncation: the first ``max_length`` tokens. Kept to show what it does."""
    return Example(example.input_ids[:max_length], example.labels[:max_length])


def damage(example: Example, max_length: int) -> str:
    """Which of ``DAMAGES`` the naive truncation would do to an example."""
    kept, lost = example.labels[:max_length], example.labels[max_length:]
    if all(label == IGNORE_INDEX for label in lost):
        return DAMAGES[0]
    if all(label == IGNORE_INDEX for label in kept[1:]):
        return DAMAGES[4]
    if kept[-1] == IGNORE_INDEX or lost[0] == IGNORE_INDEX:  # the cut lies between two answers
        return DAMAGES[1]
    ends_here = len(lost) == 1 or lost[1] == IGNORE_INDEX  # the first token lost closes an answer
    return DAMAGES[3] if ends_here else DAMAGES[2]
