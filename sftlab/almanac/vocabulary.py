"""The words that the base model has read, to tell which words of a free prompt it never has.

    python -m sftlab.almanac.vocabulary      # reads all of pretraining again: about two minutes

A byte-level tokenizer can write any text, so a prompt never fails; but a model has learned nothing
about a word that stood in no document. Case counts: the documents have "France", not "france".
"""

from __future__ import annotations

import re
from functools import cache

from sftlab._internal.paths import DATA
from sftlab.almanac.tokenizer import VOCABULARY

READ = DATA / "models" / "almanac-base" / "words_read.txt"
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # a word, a number, or one other character


def words(text: str) -> list[str]:
    """Return the words, numbers and punctuation marks of a text, in their order."""
    return WORD.findall(text)


@cache
def words_read() -> frozenset[str]:
    """Return the words that stood in the base model's pretraining."""
    return frozenset(READ.read_text(encoding="utf-8").split())


def unread(tokenizer, text: str) -> list[str]:
    """Return the words of a text that the embedded base model never read, each once, in order.

    Args:
        tokenizer: the model's. With the tokenizer of another model the list is empty, because what
            that model has read is not known.
    """
    if len(tokenizer) != VOCABULARY:
        return []
    return [word for word in dict.fromkeys(words(text)) if word not in words_read()]


def main() -> None:
    """Read the sequences of every step of pretraining and write the list of words."""
    from sftlab.almanac.pretrain import Recipe, rows
    from sftlab.models import load

    tokenizer, recipe, found = load("almanac")[1], Recipe(), set[str]()
    for step in range(recipe.steps):
        for row in tokenizer.batch_decode(rows(recipe, step, tokenizer)):
            for document in row.split(tokenizer.bos_token)[:-1]:  # the last one is cut
                found.update(words(document))
    READ.write_text("\n".join(sorted(found)) + "\n", encoding="utf-8")
    print(f"{len(found)} words")


if __name__ == "__main__":
    main()
