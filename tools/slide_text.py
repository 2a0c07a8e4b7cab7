"""What of a text stands on a slide, and what its presenter says: at most forty words are shown.

The first sentence of a paragraph stays, and its questions; then what fits, in the order of the text.
"""

from __future__ import annotations

import re

from tools.presenter import words

SHOWN = 40  # words of running text on a slide
# An end of a sentence, with the marks that may close after it; the next begins with no small letter.
END = re.compile(
    r"(?<!et al\.)(?<!e\.g\.)(?<!i\.e\.)(?:(?<=[.?!])|(?<=[.?!][*)”_])|(?<=[.?!]\*\*))\s+(?=[^\sa-zα-ω])"
)
ITEM = re.compile(r"\n(?=[-*] |\d+\. )")  # of a list
PLAIN = re.compile(
    r"(?![-*] |\d+\. |[|>#]|<(?!math)|```|!\[)", re.M
)  # no list, table, picture or block of HTML
LIST = re.compile(r"[-*] |\d+\. ")


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph in Markdown; what is emphasised or in brackets stays in one piece."""
    found: list[str] = []
    for piece in END.split(text.strip()):
        whole = not found or all(
            _closed(found[-1], *pair) for pair in ("**", "``", "()", "[]", "“”")
        )
        if whole:
            found.append(piece)
        else:
            found[-1] += f" {piece}"
    return found


def _closed(text: str, opening: str, closing: str) -> bool:
    if opening == closing:
        return text.count(opening) % 2 == 0
    return text.count(opening) == text.count(closing)


def shorten(block: str, room: int = SHOWN) -> tuple[str, str]:
    """Part a block of Markdown into what is shown and what is said.

    Args:
        room: the words that may still be shown; the first sentence always is.

    Returns:
        What is shown, and the rest, "" if there is none. Tables, code and pictures are shown whole.
    """
    if words(block) <= room:
        return block, ""
    if LIST.match(block):
        items = ITEM.split(block)
        parted = [_leading(item, room // len(items)) for item in items]
        return "\n".join(first for first, _ in parted), "\n".join(
            filter(None, (r for _, r in parted))
        )
    if not all(PLAIN.match(line) for line in block.splitlines()):
        return block, ""
    all_of_it = sentences(block)
    first, *others = range(len(all_of_it))
    kept, used = {first}, words(all_of_it[first])
    # A question is what the room thinks about; then the order of the text.
    for place in sorted(others, key=lambda at: not all_of_it[at].rstrip("*_ ").endswith("?")):
        count = words(all_of_it[place])
        if used + count <= room:
            kept.add(place)
            used += count
    told = [
        [all_of_it[i] for i in range(len(all_of_it)) if (i in kept) == shown]
        for shown in (True, False)
    ]
    return " ".join(told[0]), " ".join(told[1])


def _leading(item: str, room: int) -> tuple[str, str]:
    """The first sentences of an item of a list, and what follows as an item of its own.

    One is always shown; two, where the first is a name for the item in bold.
    """
    mark = LIST.match(item)
    found = sentences(item)
    least = 2 if found[0].endswith("**") else 1
    count = next(
        n for n in range(len(found), 0, -1) if n <= least or words(" ".join(found[:n])) <= room
    )
    said = " ".join(found[count:])
    return " ".join(found[:count]), f"{mark[0]}{said}" if said and mark else ""
