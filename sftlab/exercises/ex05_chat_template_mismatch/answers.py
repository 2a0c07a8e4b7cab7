"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re
from collections import Counter
from functools import reduce
from itertools import accumulate, takewhile, zip_longest
from operator import and_, eq

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.scoring import names

CORRUPT, SPOT, SCORE = "05.corrupt", "05.spot_the_difference", "05.stop_and_right"


def agreeing(a, b):
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@right(SPOT)
def by_takewhile(right_ids, wrong_ids):
    start = agreeing(right_ids, wrong_ids)
    a, b = right_ids[start:], wrong_ids[start:]
    end = agreeing(a[::-1], b[::-1])
    return start, a[: len(a) - end], b[: len(b) - end]


@right(SPOT)
def by_popping(right_ids, wrong_ids):
    a, b, start = list(right_ids), list(wrong_ids), 0
    while a and b and a[0] == b[0]:
        a.pop(0), b.pop(0)
        start += 1
    while a and b and a[-1] == b[-1]:
        a.pop(), b.pop()
    return [start, a, b]


@right(SPOT)
def by_recursion(right_ids, wrong_ids):
    if right_ids and wrong_ids and right_ids[0] == wrong_ids[0]:
        start, a, b = by_recursion(right_ids[1:], wrong_ids[1:])
        return start + 1, a, b
    if right_ids and wrong_ids and right_ids[-1] == wrong_ids[-1]:
        return by_recursion(right_ids[:-1], wrong_ids[:-1])
    return 0, right_ids, wrong_ids


@right(SPOT)
def by_accumulating(right_ids, wrong_ids):
    """True as long as all before were equal; the sum of these is the common beginning."""
    start = sum(accumulate(map(eq, right_ids, wrong_ids), and_))
    a, b = right_ids[start:][::-1], wrong_ids[start:][::-1]
    end = sum(accumulate(map(eq, a, b), and_))
    return start, a[end:][::-1], b[end:][::-1]


@right(SPOT)
def by_two_positions(right_ids, wrong_ids):
    start, a, b = 0, len(right_ids), len(wrong_ids)
    while start < a and start < b and right_ids[start] == wrong_ids[start]:
        start += 1
    while a > start and b > start and right_ids[a - 1] == wrong_ids[b - 1]:
        a, b = a - 1, b - 1
    return start, tuple(right_ids[start:a]), tuple(wrong_ids[start:b])


@right(SPOT)
def by_first_and_last(right_ids, wrong_ids):
    """The position of the first difference from the front, and from the back of what is left."""

    def first(a, b):
        differ = (k for k, (x, y) in enumerate(zip_longest(a, b)) if x != y)
        return next(differ, len(a))

    start = first(right_ids, wrong_ids)
    end = first(right_ids[start:][::-1], wrong_ids[start:][::-1])
    return start, right_ids[start : len(right_ids) - end], wrong_ids[start : len(wrong_ids) - end]


@refused(SPOT, "is a `return` missing")
def nothing_if_equal(right_ids, wrong_ids):
    return None if right_ids == wrong_ids else by_popping(right_ids, wrong_ids)


@refused(SPOT, "changes its own input")
def in_place(right_ids, wrong_ids):
    start = 0
    while right_ids and wrong_ids and right_ids[0] == wrong_ids[0]:
        right_ids.pop(0), wrong_ids.pop(0)
        start += 1
    while right_ids and wrong_ids and right_ids[-1] == wrong_ids[-1]:
        right_ids.pop(), wrong_ids.pop()
    return start, right_ids, wrong_ids


equivalent(
    SPOT,
    "The smaller of two numbers.",
    "`min(len(right), len(wrong))` becomes `min(len(wrong), len(right))`",
)


def answer_line(text):
    return next(filter(str.strip, text.split("\n")), "")


@right(SCORE)
def by_counting(replies, values):
    found = {"right, stops": 0, "right, goes on": 0, "wrong, stops": 0, "wrong, goes on": 0}
    for i in range(len(replies)):
        text, stopped = replies[i]
        key = "right" if names(answer_line(text), values[i]) else "wrong"
        key += ", stops" if stopped else ", goes on"
        found[key] += 1 / len(replies)
    return found


@right(SCORE)
def by_counter(replies, values):
    marks = Counter(
        (bool(names(answer_line(text), value)), bool(stopped))
        for (text, stopped), value in zip(replies, values, strict=True)
    )
    return {
        f"{a}, {b}": marks[x, y] / len(replies)
        for a, x in (("right", True), ("wrong", False))
        for b, y in (("stops", True), ("goes on", False))
    }


@right(SCORE)
def by_sums(replies, values):
    total = len(replies)
    good = [
        names(answer_line(text), value) for (text, _), value in zip(replies, values, strict=True)
    ]
    stop = [stopped for _, stopped in replies]
    both = sum(a and b for a, b in zip(good, stop, strict=True))
    return {
        "wrong, goes on": (total - sum(good) - sum(stop) + both) / total,
        "wrong, stops": (sum(stop) - both) / total,
        "right, goes on": (sum(good) - both) / total,
        "right, stops": both / total,
    }


@right(SCORE)
def by_searching(replies, values):
    """Stripping the white space in front brings the first line that is not blank to the beginning."""
    shares = dict.fromkeys(
        ("right, stops", "right, goes on", "wrong, stops", "wrong, goes on"), 0.0
    )
    for reply, value in zip(replies, values, strict=True):
        line = (reply[0].strip().splitlines() or [""])[0]
        shares[("wrong, ", "right, ")[names(line, value)] + ("goes on", "stops")[reply[1]]] += 1
    return {outcome: count / len(replies) for outcome, count in shares.items()}


@refused(SCORE, "has no entry")
def one_outcome(replies, values):
    good = [
        names(text.splitlines()[0], value) for (text, _), value in zip(replies, values, strict=True)
    ]
    return dict.fromkeys(("right, stops",), sum(good) / len(good))


@refused(SCORE, "changes its own input")
def taking_out(replies, values):
    count, found = len(replies), by_counting(replies, values)
    while replies:
        replies.pop()
    return {outcome: found[outcome] if count else 0.0 for outcome in found}


equivalent(
    SCORE,
    "There are as many replies as values.",
    "`True` becomes `False`",
    "without `strict=` in `zip(replies, values, strict=True)`",
)


@right(CORRUPT)
def by_sub(text, edits):
    for edit in edits:
        text = re.sub(edit[0], edit[1], text)
    return text


@right(CORRUPT)
def by_reduce(text, edits):
    return reduce(lambda found, edit: re.compile(edit[0]).sub(edit[1], found), edits, text)


@right(CORRUPT)
def by_recursive_edits(text, edits):
    if not edits:
        return text
    (pattern, replacement), *others = edits
    return by_recursive_edits(re.sub(pattern, replacement, text), others)


@right(CORRUPT)
def by_matches(text, edits):
    for pattern, replacement in edits:
        parts, last = [], 0
        for match in re.finditer(pattern, text):
            parts += [text[last : match.start()], match.expand(replacement)]
            last = match.end()
        text = "".join(parts) + text[last:]
    return text


@refused(CORRUPT, "changes its own input")
def edits_used_up(text, edits):
    while edits:
        pattern, replacement = edits.pop(0)
        text = re.sub(pattern, replacement, text)
    return text


@refused(CORRUPT, "is a `return` missing")
def without_edits_nothing(text, edits):
    for pattern, replacement in edits:
        text = re.sub(pattern, replacement, text)
        if (pattern, replacement) == edits[-1]:
            return text
