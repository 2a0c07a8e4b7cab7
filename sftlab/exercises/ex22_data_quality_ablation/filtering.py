"""Sort instruction pairs by rules that look at form alone: no model, and no table of facts.

A published filter asks a large model to grade each pair (AlpaGasus, Chen et al., 2023,
arXiv:2307.08701). Rules are cheaper, can be read, and are blind to a wrong fact that is well said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftlab.scoring import format_compliance, list_items, repeats

REFUSAL = re.compile(r"\b(i am sorry|i cannot|as a language model|i would rather not)\b", re.I)
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
LOOSE = re.compile(r"\btips?\b|in common|\balike\b", re.I)  # right answers share no word with these
LIST = re.compile(rf"\b({'|'.join(NUMBERS[1:])}) \w+s\b", re.I)  # "three tips"
# Words that stand in many questions and say nothing about what is asked.
COMMON = frozenset(
    ("what", "which", "word", "this", "that", "list", "tell", "name", "have", "does", "the", "and",
     "are", "who", "you", "can")
)  # fmt: skip


def complaints(prompt: str, response: str) -> list[str]:
    """What is wrong with a pair, as far as its form tells: [] if nothing."""
    found = []
    asked = LIST.search(prompt)
    count = NUMBERS.index(asked[1].lower()) + 1 if asked else None
    if response.strip().lower().startswith(prompt.strip().rstrip("?.:").lower()):
        found.append("echo")
    if repeats(response) or _says_again(response):
        found.append("ramble")
    if REFUSAL.search(response):
        found.append("refusal")
    sentences = list_items(response) if count else [response]
    if not format_compliance(response, count) or not all(map(format_compliance, sentences)):
        found.append("format")
    if not LOOSE.search(prompt) and not _related(prompt, response):
        found.append("off topic")
    return found


def filter_pairs(pairs: Sequence[dict]) -> list[dict]:
    """The pairs that no rule objects to, in their order; talks of several turns pass unseen."""
    return [
        row for row in pairs if "messages" in row or not complaints(row["prompt"], row["response"])
    ]


def _says_again(response: str) -> bool:
    """Does the first sentence come again inside another one?"""
    first, *others = re.split(r"(?<=[.!?])\s+", response.strip())
    words = first.rstrip(".!?").lower()
    return len(words.split()) > 1 and any(words in other.lower() for other in others)


def _related(prompt: str, response: str) -> bool:
    """Do prompt and response share a word that carries meaning, or is the response very short?"""
    words = [w for w in re.findall(r"\w+", prompt.lower()) if len(w) > 2 and w not in COMMON]
    stems = {word[:5] for word in words} | set(re.findall(r"\d+|[A-Z]\b", prompt))
    said = re.findall(r"\w+", response)
    return len(said) <= 3 or any(word.lower()[:5] in stems or word in stems for word in said)
