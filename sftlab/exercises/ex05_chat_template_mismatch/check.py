"""Checks of notebook 05: a prompt edited and compared with another; replies scored twice."""

from __future__ import annotations

import random
import re
from difflib import SequenceMatcher
from operator import eq, is_

from sftlab.chat import spot_the_difference
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import WORDS
from sftlab.exercises.ex05_chat_template_mismatch.forms import (
    OUTCOMES,
    corrupt,
    first_line,
    stop_and_right,
)
from sftlab.scoring import names

CORRUPT, SPOT, SCORE = "05.corrupt", "05.spot_the_difference", "05.stop_and_right"

# --- where two prompts differ ----------------------------------------------------------------


def _beginning(right, wrong, same=eq):
    start = 0
    while start < min(len(right), len(wrong)) and same(right[start], wrong[start]):
        start += 1
    return start


def _end(right, wrong, same=eq):
    return _beginning(right[::-1], wrong[::-1], same)


@mistake(SPOT, "This is the position of the first difference alone. Return three things: start, what the right one has there, what the wrong one has there.")  # fmt: skip
def _start_alone(right, wrong):
    return _beginning(right, wrong)


@mistake(SPOT, "The start is missing. Return three things: start, what the right one has there, what the wrong one has there.")  # fmt: skip
def _parts_alone(right, wrong):
    return spot_the_difference(right, wrong)[1:]


@mistake(SPOT, "These are lengths. Return the ids that differ, as two lists.")
def _lengths(right, wrong):
    start, *parts = spot_the_difference(right, wrong)
    return start, *map(len, parts)


@mistake(SPOT, "The common end is still in both parts. Cut it off too, so that only what differs is left.")  # fmt: skip
def _end_kept(right, wrong):
    start = _beginning(right, wrong)
    return start, right[start:], wrong[start:]


@mistake(SPOT, "One token too many is left at the end of both parts: the common end is cut off one token short.")  # fmt: skip
def _end_one_short(right, wrong):
    start = _beginning(right, wrong)
    end = max(_end(right[start:], wrong[start:]) - 1, 0)
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


@mistake(SPOT, "The common end overlaps the common beginning: a token was cut off twice. Look for the common end in what is left after the beginning.")  # fmt: skip
def _overlapping(right, wrong):
    start, end = _beginning(right, wrong), _end(right, wrong)
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


@mistake(SPOT, "With no common end, `x[start:-0]` is empty: in Python, -0 is 0. Count the end from the front, with the length.")  # fmt: skip
def _minus_zero(right, wrong):
    start = _beginning(right, wrong)
    end = _end(right[start:], wrong[start:])
    return start, right[start:-end], wrong[start:-end]


@mistake(SPOT, "The start is one too large: positions count from 0.")
def _from_one(right, wrong):
    start, *parts = spot_the_difference(right, wrong)
    return start + 1, *parts


@mistake(SPOT, "The two parts are exchanged: first what the right one has, then what the wrong one has.")  # fmt: skip
def _exchanged(right, wrong):
    return spot_the_difference(wrong, right)


@mistake(SPOT, "Only the first differing token is returned. The difference goes on up to the common end.")  # fmt: skip
def _one_token(right, wrong):
    start = _beginning(right, wrong)
    return start, right[start : start + 1], wrong[start : start + 1]


@mistake(SPOT, "The lists are compared position by position. After a missing or added token all later positions are shifted: cut off the common end instead.")  # fmt: skip
def _position_by_position(right, wrong):
    at = [i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b]
    start = _beginning(right, wrong)
    return start, [right[i] for i in at], [wrong[i] for i in at]


@mistake(SPOT, "The ids that occur in only one of the lists are returned. Special tokens occur several times: go by position, not by value.")  # fmt: skip
def _by_value(right, wrong):
    start = _beginning(right, wrong)
    return start, [x for x in right if x not in wrong], [x for x in wrong if x not in right]


@mistake(SPOT, "The longer list is cut to the length of the shorter one before its end is compared. Compare the ends as they are.")  # fmt: skip
def _cut_to_the_shorter(right, wrong):
    shorter = min(len(right), len(wrong))
    return spot_the_difference(right[:shorter], wrong[:shorter])


@mistake(SPOT, "For equal lists the common beginning is all of them: start is their length, not 0.")
def _zero_if_equal(right, wrong):
    return (0, [], []) if right == wrong else spot_the_difference(right, wrong)


@mistake(SPOT, "The common end is cut off first. Where a token repeats, that places the difference elsewhere: the beginning comes first.")  # fmt: skip
def _end_first(right, wrong):
    end = _end(right, wrong)
    right, wrong = right[: len(right) - end], wrong[: len(wrong) - end]
    start = _beginning(right, wrong)
    return start, right[start:], wrong[start:]


@mistake(SPOT, "Ids are compared with `is`: it asks whether two are one and the same object, which equal numbers above 256 often are not. Compare with `==`.")  # fmt: skip
def _identical(right, wrong):
    start = _beginning(right, wrong, is_)
    end = _end(right[start:], wrong[start:], is_)
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


@mistake(SPOT, "An empty part is returned as None. Nothing stands there, so it is an empty list.")
def _none_if_empty(right, wrong):
    start, a, b = spot_the_difference(right, wrong)
    return start, a or None, b or None


@mistake(SPOT, "A part of one id is returned as a bare number. Both parts are always lists.")
def _bare_id(right, wrong):
    start, *parts = spot_the_difference(right, wrong)
    return start, *(part[0] if len(part) == 1 else part for part in parts)


@mistake(SPOT, "The parts are the right way round for the walk from the back only: turn them back before you return them.")  # fmt: skip
def _reversed_parts(right, wrong):
    start, *parts = spot_the_difference(right, wrong)
    return start, *(part[::-1] for part in parts)


@mistake(SPOT, "The walk from the back stops one token early where a part is empty: the common end may take all that is left of the shorter list.")  # fmt: skip
def _part_never_empty(right, wrong):
    start = _beginning(right, wrong)
    left = min(len(right), len(wrong)) - start
    end = min(_end(right[start:], wrong[start:]), max(left - 1, 0))
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


@mistake(SPOT, "The walk from the front stops one token early: the common beginning may be all of the shorter list.")  # fmt: skip
def _beginning_never_all(right, wrong):
    start = min(_beginning(right, wrong), max(min(len(right), len(wrong)) - 1, 0))
    a, b = right[start:], wrong[start:]
    end = _end(a, b)
    return start, a[: len(a) - end], b[: len(b) - end]


@mistake(SPOT, "Both parts end at the same position, counted from the front. The lists can have different lengths, so each part has an end of its own.")  # fmt: skip
def _same_stop(right, wrong):
    start, part, _ = spot_the_difference(right, wrong)
    return start, part, wrong[start : start + len(part)]


@mistake(SPOT, "The loop runs past the end of a list: it has to stop when the shorter one ends, even if all agrees up to there.")  # fmt: skip
def _runs_over(right, wrong):
    start = 0
    while right[start] == wrong[start]:
        start += 1
    return spot_the_difference(right, wrong)


@mistake(SPOT, "Only the first of several differences is returned. The parts go on to the last one, equal ids between them too.")  # fmt: skip
def _first_block(right, wrong):
    blocks = SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes()
    for kind, start, stop, wrong_start, wrong_stop in blocks:
        if kind != "equal":
            return start, right[start:stop], wrong[wrong_start:wrong_stop]
    return len(right), [], []


@mistake(SPOT, "The last difference is looked for position by position from the front. After a missing or added token all later positions are shifted: walk from the back instead.")  # fmt: skip
def _last_by_position(right, wrong):
    at = [i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b]
    if not at:
        start = _beginning(right, wrong)
        return start, right[start:], wrong[start:]
    return at[0], right[at[0] : at[-1] + 1], wrong[at[0] : at[-1] + 1]


def _spot(rule: str, remark: str, right: list[int], wrong: list[int]) -> Case:
    return Case(
        f"`spot_the_difference({right}, {wrong})`: {remark}",
        lambda: ([int(str(x)) for x in right], [int(str(x)) for x in wrong]),  # new objects
        spot_the_difference,
        rule=rule,
    )


SPOT_CASES = (
    _spot("parts", "one token is another one", [1, 7, 3, 9, 5], [1, 7, 4, 9, 5]),
    _spot("parts", "ids of several digits", [1000, 345, 2000], [1000, 347, 2000]),
    _spot("between", "two differences", [1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 8, 6]),
    _spot("between", "an id of the difference occurs elsewhere too", [1, 2, 3, 2, 5], [1, 3, 3, 2, 5]),
    _spot("empty", "one token is missing", [1, 5, 202, 6, 2], [1, 5, 6, 2]),
    _spot("empty", "the last token differs", [4, 5, 6], [4, 5, 7]),
    _spot("empty", "the wrong one breaks off", [4, 5, 6, 7], [4, 5]),
    _spot("empty", "nothing in common", [1, 2], [3, 4, 5]),
    _spot("empty", "the right one is empty", [], [4, 5]),
    _spot("order", "the first token is doubled", [1, 8, 9], [1, 1, 8, 9]),
    _spot("order", "a repeated token is missing", [3, 6, 6, 6, 4], [3, 6, 6, 4]),
    _spot("equal", "the same", [3, 1, 2], [3, 1, 2]),
)  # fmt: skip


def _draw_spot(rng: random.Random, *_: object) -> tuple:
    def ids(shortest: int) -> list[int]:
        return [rng.randint(1, 5) for _ in range(rng.randint(shortest, 4))]

    before, after = ids(1), ids(0)
    return before + ids(0) + after, before + ids(1) + after


# --- a prompt after edits --------------------------------------------------------------------


@mistake(CORRUPT, "Each edit is applied to the text as it was at first, so only the last one counts. Apply it to what the edit before left.")  # fmt: skip
def _edits_from_the_first_text(text, edits):
    found = text
    for pattern, replacement in edits:
        found = re.sub(pattern, replacement, text)
    return found


@mistake(CORRUPT, "Only the first edit is applied: does the function return inside the loop?")
def _first_edit(text, edits):
    return corrupt(text, edits[:1])


@mistake(CORRUPT, "The edits are applied in the wrong order: begin with the first of the list.")
def _last_edit_first(text, edits):
    return corrupt(text, edits[::-1])


@mistake(CORRUPT, "The pattern is looked for as plain text. It is a regular expression: use `re.sub`.")  # fmt: skip
def _plain_text(text, edits):
    for pattern, replacement in edits:
        text = text.replace(pattern, replacement)
    return text


@mistake(CORRUPT, "Only the first place that matches is replaced. An edit replaces all of them.")
def _one_place(text, edits):
    for pattern, replacement in edits:
        text = re.sub(pattern, replacement, text, count=1)
    return text


@mistake(CORRUPT, "The replacement is inserted letter by letter. In it, `\\1` stands for the first group of the match: `re.sub` inserts that by itself.")  # fmt: skip
def _literal_replacement(text, edits):
    for pattern, replacement in edits:
        text = re.sub(pattern, replacement.replace("\\", r"\\"), text)
    return text


@mistake(CORRUPT, "This is a pair of the text and a number, as `re.subn` returns it. Return the text alone.")  # fmt: skip
def _with_count(text, edits):
    return corrupt(text, edits), len(edits)


@mistake(CORRUPT, "What matches is deleted, and nothing is put in its place.")
def _deleted(text, edits):
    return corrupt(text, [(pattern, "") for pattern, _ in edits])


def _with_flags(flags: re.RegexFlag) -> None:
    """Declare an answer that passes flags to `re.sub`."""

    def wrong(text, edits):
        for pattern, replacement in edits:
            text = re.sub(pattern, replacement, text, flags=flags)
        return text

    mistake(CORRUPT, f"The flag {flags!r} changes what a pattern matches. Pass none.")(wrong)


for _flags in (re.IGNORECASE, re.MULTILINE, re.DOTALL):
    _with_flags(_flags)


def _corrupt(rule: str, remark: str, text: str, edits: list[tuple[str, str]]) -> Case:
    return Case(
        f"`corrupt({text!r}, {edits})`: {remark}",
        lambda: (text, list(edits)),
        corrupt,
        rule=rule,
    )


CORRUPT_CASES = (
    _corrupt("all", "a role is renamed", "<user>Hi<bot>", [("user", "human")]),
    _corrupt("all", "a pattern for the end of the text", "user: Hi\n", [(r"\n\Z", "")]),
    _corrupt("all", "no place matches", "Lima", [("[0-9]", "x")]),
    _corrupt("all", "three places", "a-b-c-d", [("-", "+")]),
    _corrupt("all", "small and capital letters differ", "User: a user", [("user", "human")]),
    _corrupt("all", "`$` is the end of the text", "user:\nbot:", [(":$", "!")]),
    _corrupt("all", "`.` is any sign but a line break", "bot\nbots", [("bot.", "ai")]),
    _corrupt("order", "the second edit changes what the first one wrote", "<a>", [("a", "b"), ("b", "c")]),
    _corrupt("order", "two edits at two places", "user: Hi. bot:", [("user", "human"), ("bot", "ai")]),
    _corrupt("order", "no edit", "user: Hi", []),
    _corrupt("group", "a group is kept", "<user>\nHi", [(r"<(\w+)>\n", r"[\1] ")]),
)  # fmt: skip


def _draw_corrupt(rng: random.Random, *_: object) -> tuple:
    text = "".join(rng.choice("abc") for _ in range(rng.randint(4, 9)))
    edits = [
        (rng.choice("abc"), rng.choice(["b", "c", "", "ac"])) for _ in range(rng.randint(1, 3))
    ]
    return text, edits


# --- stopping and answering, scored apart ----------------------------------------------------


def _tally(replies, values, right, kept=lambda text, stopped: True):
    counts = dict.fromkeys(OUTCOMES, 0)
    for (text, stopped), value in zip(replies, values, strict=True):
        if kept(text, stopped):
            mark = "right" if right(text, stopped, value) else "wrong"
            counts[f"{mark}, {'stops' if stopped else 'goes on'}"] += 1
    return counts


def _shares(counts, total):
    return {outcome: count / total for outcome, count in counts.items()}


def _named(text, stopped, value):
    return names(first_line(text), value)


@mistake(SCORE, "These are counts. A share is a count divided by the number of replies.")
def _counts(replies, values):
    return _tally(replies, values, _named)


@mistake(SCORE, "A reply that goes on is never right here. Stopping and answering are scored apart: a right answer with more text after it is right, and goes on.")  # fmt: skip
def _right_only_if_it_stops(replies, values):
    found = _tally(replies, values, lambda text, stopped, v: stopped and _named(text, stopped, v))
    return _shares(found, len(replies))


@mistake(SCORE, "Replies that go on are left out. They are replies too: they count in two of the four outcomes.")  # fmt: skip
def _those_that_stop(replies, values):
    return _shares(_tally(replies, values, _named, lambda text, stopped: stopped), len(replies))


@mistake(SCORE, "The whole text is searched for the value. A model that goes on may name it by chance: look at the first line that is not blank.")  # fmt: skip
def _whole_text(replies, values):
    return _shares(_tally(replies, values, lambda text, _, value: names(text, value)), len(replies))


@mistake(SCORE, "Only the line at the very beginning is read. Some replies begin with a blank line: take the first line that is not blank.")  # fmt: skip
def _very_first_line(replies, values):
    found = _tally(replies, values, lambda text, _, value: names(text.split("\n")[0], value))
    return _shares(found, len(replies))


@mistake(SCORE, "The last line is read. The answer is the first line that is not blank; a model that goes on writes other things later.")  # fmt: skip
def _last_line(replies, values):
    def right(text, _, value):
        return names(([line for line in text.splitlines() if line.strip()] or [""])[-1], value)

    return _shares(_tally(replies, values, right), len(replies))


@mistake(SCORE, "The value is looked for as a string of characters: “cat” is in “caterpillar”. `names` looks for whole words.")  # fmt: skip
def _substring(replies, values):
    found = _tally(replies, values, lambda text, _, value: value in first_line(text))
    return _shares(found, len(replies))


@mistake(SCORE, "The reply has to equal the value here. A sentence that names it is right as well.")
def _equal(replies, values):
    found = _tally(replies, values, lambda text, _, value: first_line(text).strip() == value)
    return _shares(found, len(replies))


@mistake(SCORE, "Outcomes that no reply has are missing. All four are keys, with 0 where nothing was counted.")  # fmt: skip
def _no_zeros(replies, values):
    return {outcome: share for outcome, share in stop_and_right(replies, values).items() if share}


@mistake(
    SCORE, "“stops” and “goes on” are exchanged: stopped is True if the model ended its reply."
)
def _exchanged_stops(replies, values):
    return stop_and_right([(text, not stopped) for text, stopped in replies], values)


@mistake(SCORE, "“right” and “wrong” are exchanged.")
def _exchanged_marks(replies, values):
    found = stop_and_right(replies, values)
    return dict(zip(OUTCOMES, (found[o] for o in (*OUTCOMES[2:], *OUTCOMES[:2])), strict=True))


@mistake(SCORE, "The shares are taken among the replies that stop, and among those that go on. Divide each count by the number of all replies.")  # fmt: skip
def _within_stops(replies, values):
    counts = _tally(replies, values, _named)
    totals = [counts[OUTCOMES[k]] + counts[OUTCOMES[k + 2]] for k in range(2)]
    return {o: counts[o] / (totals[k % 2] or 1) for k, o in enumerate(OUTCOMES)}


@mistake(SCORE, "Only the first reply is counted: does the function return inside the loop?")
def _first_reply(replies, values):
    return _shares(_tally(replies[:1], values[:1], _named), len(replies))


def _score(rule: str, remark: str, replies: list[tuple[str, bool]], values: list[str]) -> Case:
    return Case(
        f"`stop_and_right({replies}, {values})`: {remark}",
        lambda: (list(replies), list(values)),
        stop_and_right,
        tolerance=1e-9,
        rule=rule,
    )


SANTIAGO = "The capital of Chile is Santiago."
SCORE_CASES = (
    _score("apart", "one of each outcome",
           [(SANTIAGO, True), (SANTIAGO + "\nWhat", False), (".", True), ("I like", False), ("No", False)],
           ["Santiago", "Santiago", "Lima", "Lima", "Lima"]),
    _score("keys", "all are right and stop", [("Lima", True), ("Rome", True)], ["Lima", "Rome"]),
    _score("keys", "three replies that go on, two of them right", [("Lima", False), ("Rome is", False), ("No", False)], ["Lima", "Rome", "Oslo"]),
    _score("right", "a value alone, and in a sentence", [("Lima", True), (SANTIAGO, True), ("Rome", True)], ["Lima", "Santiago", "Lima"]),
    _score("right", "the value inside another word", [("It is a caterpillar.", True), ("It is a cat.", True)], ["cat", "cat"]),
    _score("line", "the answer after a blank line", [("\n \n" + SANTIAGO, True), ("\n.", True), ("\nLima", False)], ["Santiago", "Lima", "Lima"]),
    _score("line", "the value in a later line", [("Hello.\nLima", False), ("Lima.\nRome", False), ("A\nB", True)], ["Lima", "Lima", "A"]),
    _score("line", "a reply without text", [("", True), ("\n", False), ("Lima", True)], ["Lima", "Lima", "Lima"]),
)  # fmt: skip


def _draw_score(rng: random.Random, *_: object) -> tuple:
    values = [rng.choice(WORDS) for _ in range(rng.randint(3, 7))]

    def text(value: str) -> str:
        lines = [rng.choice(["", f"It is {value}.", "No.", f"{value}{value}"]) for _ in range(2)]
        return "\n".join(lines)

    return [(text(value), rng.random() < 0.5) for value in values], values


# --------------------------------------------------------------------------------------------

EXERCISES = {
    SCORE: Exercise(
        SCORE,
        "Stopping and answering, scored apart",
        stop_and_right,
        SCORE_CASES,
        asks='Return the share of replies with each of four outcomes, as a dictionary: "right, stops",\n"right, goes on", "wrong, stops" and "wrong, goes on" -> share.\n\n'
        "replies: a list of (text, stopped). values: what each right answer names.",
        rules={
            "right": "A reply is right if its line names the value: names(line, value), imported above.",
            "line": "Its line is the first that is not blank. A reply without such a line is wrong.",
            "apart": "Whether a reply is right does not depend on stopped.",
            "keys": "All four outcomes are keys, 0.0 if no reply has them; the shares add up to 1.",
            "unchanged": "replies and values stay as they are.",
        },
        draw=_draw_score,
        hints=(
            "Begin with a dictionary of four zeros. For each reply find two words, and join them to the key.",
            ("line", "`text.splitlines()` gives the lines, and `line.strip()` is empty for a blank one."),
            "Divide at the end, by the number of all replies.",
        ),
        path="Look at one reply first and name its two properties: right or wrong, and stops or goes on. They are independent, so there are four outcomes. Then count, and divide last. "
        "The usual wrong turns: a reply must stop to be right, which hides the answers of a model that goes on; or the whole text is searched, which rewards a model that goes on for long.",
        why="`dict.fromkeys` makes the four zeros, so that every outcome is there. The two properties are read off separately and only joined in the key. "
        "The stop rate is the sum of two of the shares, the share of right answers the sum of two others.",
        points=2,
        shows=(first_line,),
    ),
    CORRUPT: Exercise(
        CORRUPT,
        "A prompt after edits",
        corrupt,
        CORRUPT_CASES,
        asks="Return the text after edits.\n\n"
        "text: a prompt. edits: a list of (pattern, replacement), two strings each.",
        rules={
            "order": "Apply the edits in order, each to the text that the one before left.",
            "all": "An edit replaces every match of its pattern, a regular expression without flags.",
            "group": "A replacement may insert groups of the match, as in re.sub.",
            "unchanged": "edits stays as it is.",
        },
        draw=_draw_corrupt,
        hints=(
            "Which function of `re` replaces what a pattern matches? Read what it takes, and in which order.",
            ("order", "So the result of one edit is the input of the next: keep it under the same name."),
            "Without edits the loop never runs, and the text comes back.",
        ),
        path="Try one edit first. Then put it into a loop that keeps its result. The usual wrong turns: `str.replace`, which knows no patterns, and a loop that begins with "
        "the first text each time.",
        why="All wrong forms of this notebook, except one, are such lists of edits. So one short function makes them, and what each form changes can be read in the list.",
    ),
    SPOT: Exercise(
        SPOT,
        "Where two prompts differ",
        spot_the_difference,
        SPOT_CASES,
        asks="Return where two prompts differ: (start, part of the right one, part of the wrong one).\n\n"
        "right_ids, wrong_ids: two lists of token ids.",
        rules={
            "parts": "start is where the lists first differ; the parts go from there to their common end.",
            "between": "With several differences, the parts hold all from the first to the last of them.",
            "empty": "Lists and parts can be empty: [1, 5, 2] and [1, 2] give (1, [5], []).",
            "order": "Cut off the longest common beginning, then the longest common end of the rest.",
            "equal": "For equal lists, start is their length and both parts are empty.",
            "unchanged": "The two lists stay as they are.",
        },
        draw=_draw_spot,
        hints=(
            "Go from the front while both agree: that gives start. Then go from the back while both agree.",
            ("order", "So the way from the back has to stop before it reaches start, in the shorter of the two lists."),
            "For the slices, count the common end from the front, with the length of each list. A negative index goes wrong where the common end is empty.",
        ),
        path="There are two walks, one from each side, and each stops at the first difference. Write the first, then apply the same to what is left, from the back. "
        "Notice that the lists can have different lengths, so the parts have different ends. The usual wrong turns: the two walks overlap, or the slice ends at -0.",
        why="Two prompts that look alike on a page can differ in their ids, so compare ids. Cutting off the common ends shows one difference at a "
        "glance; where there are several, they lie between start and end, and `sftlab.chat.difference` lists them one by one.",
        points=2,
    ),
}  # fmt: skip
