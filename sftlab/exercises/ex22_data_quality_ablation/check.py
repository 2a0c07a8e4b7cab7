"""Checks of notebook 22: a rubric line, and a filter scored by precision and recall."""

from __future__ import annotations

import random
import re
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

from sftlab.almanac.curated import curated
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken, is_plain_sequence, plain
from sftlab.exercises.drawing import WORDS, sentence
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints, filter_pairs
from sftlab.scoring import repeats

REPEATS, FILTER = "22.repeats", "22.filter_pairs"

# --- repeats -------------------------------------------------------------------------------

NUMBER = r"(?m)^\d+[.)]"


def _parts(text: str, split: str = r"[.!?\n]+", lower: bool = True, number: str = NUMBER) -> list:
    text = text.lower() if lower else text
    return [part.strip() for part in re.split(split, re.sub(number, "", text) if number else text)]


def _twice(parts: list, longer: int = 8) -> bool:
    long = [part for part in parts if len(part) > longer]
    return len(set(long)) < len(long)


def _in_a_row(
    text: str,
    times: int = 3,
    most: int = 12,
    least: int = 1,
    lower: bool = True,
    number: str = NUMBER,
    word: str = r"\w+",
    last: int = 1,
) -> bool:
    text = re.sub(number, "", text) if number else text
    words = re.findall(word, text.lower() if lower else text)
    return any(
        all(words[i : i + n] == words[i + k * n : i + (k + 1) * n] for k in range(1, times))
        for n in range(least, most + 1)
        for i in range(len(words) - times * n + last)
    )


@mistake(REPEATS, "The answer is the wrong way round: True stands for a text that repeats itself.")
def _wrong_way_round(text):
    return not repeats(text)


@mistake(REPEATS, "The result is True for every text.")
def _always(text):
    return True


@mistake(REPEATS, "The result is False for every text.")
def _never(text):
    return False


@mistake(REPEATS, "A single word that comes twice is enough here. It may: “The plural of sheep is sheep.”")  # fmt: skip
def _any_word_twice(text):
    words = re.findall(r"\w+", text.lower())
    return len(set(words)) < len(words)


@mistake(REPEATS, "A word that comes three times anywhere in the text is enough here. A phrase has to come three times in a row.")  # fmt: skip
def _any_word_three_times(text):
    words = re.findall(r"\w+", text.lower())
    return _twice(_parts(text)) or any(words.count(word) > 2 for word in words)


@mistake(REPEATS, "Only sentences and lines are compared. A phrase that comes three times in a row is a repetition as well.")  # fmt: skip
def _sentences_alone(text):
    return _twice(_parts(text))


@mistake(REPEATS, "Only phrases are compared. A sentence that occurs twice is a repetition as well.")  # fmt: skip
def _phrases_alone(text):
    return _in_a_row(text)


@mistake(REPEATS, "True needs both here, a sentence twice and a phrase three times in a row. Either one is enough.")  # fmt: skip
def _both_needed(text):
    return _twice(_parts(text)) and _in_a_row(text)


@mistake(REPEATS, "Only neighboring sentences are compared. A sentence may come again after another one.")  # fmt: skip
def _neighbors(text):
    long = [part for part in _parts(text) if len(part) > 8]
    return any(a == b for a, b in pairwise(long)) or _in_a_row(text)


@mistake(REPEATS, "A sentence has to come three times here. Twice is enough.")
def _sentence_three_times(text):
    long = [part for part in _parts(text) if len(part) > 8]
    return any(long.count(part) > 2 for part in long) or _in_a_row(text)


@mistake(REPEATS, "Parts of any length count here. “Yes.” may come twice: only parts of more than 8 characters count.")  # fmt: skip
def _short_parts_too(text):
    return _twice(_parts(text), longer=0) or _in_a_row(text)


@mistake(REPEATS, "The length is counted in words here. Parts of more than 8 characters count.")
def _length_in_words(text):
    long = [part for part in _parts(text) if len(part.split()) > 8]
    return len(set(long)) < len(long) or _in_a_row(text)


@mistake(REPEATS, "A part of exactly 8 characters counts here. More than 8 are needed.")
def _eight_is_enough(text):
    return _twice(_parts(text), longer=7) or _in_a_row(text)


@mistake(REPEATS, "A part of 9 characters does not count here. More than 8 are enough.")
def _nine_is_short(text):
    return _twice(_parts(text), longer=9) or _in_a_row(text)


@mistake(REPEATS, "The end mark counts as a part's character here, so that a part of 8 characters is taken for longer.")  # fmt: skip
def _mark_counted(text):
    text = re.sub(NUMBER, "", text.lower())
    return _twice([p.strip() for p in re.split(r"(?<=[.!?])|\n", text)]) or _in_a_row(text)


CASE = "Upper and lower case make a difference here: a sentence that begins with a small letter the second time is not recognized."  # fmt: skip


@mistake(REPEATS, CASE)
def _case_matters(text):
    return _twice(_parts(text, lower=False)) or _in_a_row(text, lower=False)


@mistake(REPEATS, CASE)
def _case_matters_in_sentences(text):
    return _twice(_parts(text, lower=False)) or _in_a_row(text)


@mistake(REPEATS, "Upper and lower case make a difference in phrases here: “No no no” is not recognized.")  # fmt: skip
def _case_matters_in_phrases(text):
    return _twice(_parts(text)) or _in_a_row(text, lower=False)


@mistake(REPEATS, "Line breaks do not end a part here. The lines of a list may have no full stop.")
def _lines_ignored(text):
    return _twice(_parts(text, split=r"[.!?]+")) or _in_a_row(text)


@mistake(REPEATS, "Only full stops and line breaks end a part here. A question mark and an exclamation mark end one too.")  # fmt: skip
def _full_stops_alone(text):
    return _twice(_parts(text, split=r"[.\n]+")) or _in_a_row(text)


@mistake(REPEATS, "Only whole lines are compared. A line may hold several sentences.")
def _lines_alone(text):
    return _twice(_parts(text, split=r"\n+")) or _in_a_row(text)


@mistake(REPEATS, "White space around a part makes a difference here, so that a sentence at the start of the text differs from one after a space.")  # fmt: skip
def _spaces_matter(text):
    found = re.split(r"[.!?\n]+", re.sub(NUMBER, "", text.lower()))
    return _twice(found) or _in_a_row(text)


NUMBERS = "Numbers at the start of a line are compared too, so that the items of a list always differ."  # fmt: skip


@mistake(REPEATS, NUMBERS)
def _numbers_compared(text):
    return _twice(_parts(text, number="")) or _in_a_row(text, number="")


@mistake(REPEATS, NUMBERS)
def _numbers_compared_in_parts(text):
    return _twice(_parts(text, number="")) or _in_a_row(text)


@mistake(REPEATS, "In phrases the numbers at the start of a line count here. They are left out there as well.")  # fmt: skip
def _numbers_compared_in_phrases(text):
    return _twice(_parts(text)) or _in_a_row(text, number="")


@mistake(REPEATS, "Only list numbers with a full stop are left out. “1)” is one too.")
def _dots_alone(text):
    dotted = r"(?m)^\d+\."
    return _twice(_parts(text, number=dotted)) or _in_a_row(text, number=dotted)


@mistake(REPEATS, "Only list numbers of one digit are left out. “10.” is one too.")
def _one_digit(text):
    digit = r"(?m)^\d[.)]"
    return _twice(_parts(text, number=digit)) or _in_a_row(text, number=digit)


@mistake(REPEATS, "All digits are left out, so that “in 1950” and “in 1960” become the same. Only the number that begins a line is left out.")  # fmt: skip
def _no_digits(text):
    return _twice(_parts(text, number=r"\d+")) or _in_a_row(text, number=r"\d+")


@mistake(REPEATS, "A phrase twice in a row is enough here. That happens in good prose; three times are needed.")  # fmt: skip
def _two_in_a_row(text):
    return _twice(_parts(text)) or _in_a_row(text, times=2)


@mistake(REPEATS, "A phrase has to come four times in a row here. Three times are enough.")
def _four_in_a_row(text):
    return _twice(_parts(text)) or _in_a_row(text, times=4)


@mistake(REPEATS, "Only phrases of one word are found. A phrase may have up to twelve words.")
def _single_words_alone(text):
    return _twice(_parts(text)) or _in_a_row(text, most=1)


@mistake(REPEATS, "Phrases of one word are not found: “very very very” is a repetition too.")
def _no_single_words(text):
    return _twice(_parts(text)) or _in_a_row(text, least=2)


@mistake(REPEATS, "A phrase of twelve words is not found: `range` leaves out its end.")
def _eleven_words(text):
    return _twice(_parts(text)) or _in_a_row(text, most=11)


LONGER = "A phrase of more than twelve words counts here."


@mistake(REPEATS, LONGER)
def _thirteen_words(text):
    return _twice(_parts(text)) or _in_a_row(text, most=13)


@mistake(REPEATS, LONGER)
def _any_length(text):
    return _twice(_parts(text)) or _in_a_row(text, most=1000)


@mistake(REPEATS, "A repetition at the very end of the text is not found: the last place where it can begin is left out, as by a forgotten `+ 1` in a range.")  # fmt: skip
def _last_place_forgotten(text):
    return _twice(_parts(text)) or _in_a_row(text, last=0)


@mistake(REPEATS, "Punctuation belongs to the words here, so that “so on, and so on, and so on.” is not recognized.")  # fmt: skip
def _punctuation_in_words(text):
    return _twice(_parts(text)) or _in_a_row(text, word=r"\S+")


ELEVEN = "the heron stands in the shallow water and waits for fish"
TWELVE = "if you are late take the bus to the market and walk"
THIRTEEN = "in spring the small birds come back from the south and build nests"
TEXTS = (
    ("parts", "each thing said once", "The frog lives in ponds. It eats insects."),
    ("parts", "a sentence twice", "The frog lives in ponds. The frog lives in ponds."),
    ("parts", "a sentence again, later", "The frog lives in ponds. It eats insects. The frog lives in ponds."),
    ("parts", "the last of two equal sentences without its mark", "The frog lives in ponds. As ever. The frog lives in ponds"),
    ("parts", "the second part again, but not the first", "Hello there friend. The frog lives in ponds. The frog lives in ponds."),
    ("parts", "a part that is the beginning of another", "The frog lives here. The frog lives here in ponds."),
    ("parts", "what stands before a comma twice", "On the other hand, yes. On the other hand, no."),
    ("parts", "a sentence three times", "The frog lives in ponds. It eats insects. The frog lives in ponds. It is green. The frog lives in ponds."),
    ("parts", "two equal sentences within a text", "As ever. It lives in ponds. It is green. It lives in ponds."),
    ("parts", "a long sentence twice", "Every frog in this old pond eats many insects. Herons do not. Every frog in this old pond eats many insects."),
    ("parts", "an exclamation and a question twice", "What lives in ponds? A frog lives in ponds! What lives in ponds? No."),
    ("parts", "lines without full stops", "keep calm and go on\ndrink water\nkeep calm and go on"),
    ("parts", "years that differ", "He was born in 1950. He was born in 1960."),
    ("length", "a part of 3 characters twice", "Yes. The frog is an animal. Yes."),
    ("length", "a part of 8 characters twice", "It rains. So we read. It rains."),
    ("length", "a part of 8 characters twice, each after a space", "So we read. It rains. Go on now. It rains."),
    ("length", "a line of 8 characters twice", "it rains\nso we read\nit rains"),
    ("length", "a part of 9 characters twice", "It snowed. So we read. It snowed."),
    ("phrases", "a word twice", "The plural of sheep is sheep."),
    ("phrases", "a word three times, not in a row", "The frog is green, the pond is deep, the heron is gray."),
    ("phrases", "a word twice in a row", "That is a very very good tip."),
    ("phrases", "a phrase twice and its beginning once more", "Then go to the next page go to the next page go to the next stop."),
    ("phrases", "a word three times in a row", "That is a very very very good tip."),
    ("phrases", "a word three times in a row, each a sentence", "No. No. No."),
    ("phrases", "a word three times in a row, each on a line", "no\nno\nno"),
    ("phrases", "a word three times, with numbers between", "See page 1 page 2 page 3 for more."),
    ("phrases", "a word four times in a row", "That is a very very very very good tip."),
    ("phrases", "a phrase twice in a row", "They talked about this, about this and other things."),
    ("phrases", "a phrase three times in a row", "It goes on and on, and so on, and so on, and so on."),
    ("phrases", "a phrase of five words three times, at the end", " ".join(["Then", *["go to the next page"] * 3])),
    ("phrases", "a phrase of eleven words three times", " ".join([ELEVEN] * 3)),
    ("phrases", "a phrase of twelve words three times", " ".join([TWELVE] * 3)),
    ("phrases", "a phrase of thirteen words three times", " ".join([THIRTEEN] * 3)),
    ("case", "a sentence in another case", "The frog lives in ponds. As ever. the frog lives in ponds."),
    ("case", "a word in another case", "Ha ha HA, that is funny."),
    ("numbers", "a list", "1. Arrive early.\n2. Dress neatly.\n3. Ask a question."),
    ("numbers", "numbers within sentences", "He has about 10.5 euros. He has about 20.5 euros."),
    ("numbers", "numbers without a mark at the start of lines", "3 frogs live here\n4 frogs live here"),
    ("numbers", "a list with an item twice", "1. Dress neatly and well\n2. Arrive early\n3. Dress neatly and well"),
    ("numbers", "list numbers of two digits", "9) Dress neatly and well\n10) Arrive early\n11) Dress neatly and well"),
    ("numbers", "list numbers of one digit", "1) Dress neatly and well\n2) Arrive early\n3) Dress neatly and well"),
    ("numbers", "a list with a word three times in a row", "1. Run.\n2. Run.\n3. Run."),
    ("numbers", "other list numbers, a word three times", "1) Run\n2) Run\n3) Run"),
    ("phrases", "a sentence twice, and a word three times in a row", "It is a nice frog. No, no, no. It is a nice frog."),
    ("parts", "nothing", ""),
)  # fmt: skip


def _draw_text(rng: random.Random, *_: object) -> tuple:
    a, b, c = (sentence(rng, 6) for _ in range(3))
    phrase = " ".join(rng.sample(WORDS, rng.randint(2, 5)))
    kinds = [f"{a} {b} {c}", f"{a} {b} {a}", f"{a}\n{a}", f"It {phrase} {phrase} {phrase}.", a]
    return (rng.choice(kinds),)


# --- filter_pairs --------------------------------------------------------------------------

PRECISION, RECALL = 0.9, 0.6


@cache
def _truth(seed: int) -> tuple[tuple[str, str, str], ...]:
    """(prompt, response, defect or "") of 120 good pairs and 64 bad ones, in random order."""
    rng = Random(f"22.filter_pairs:{seed}")
    good = rng.sample([r for r in curated() if "response" in r], 120)
    bad = [
        row
        for d in DEFECTS
        for row in rng.sample([r for r in low_quality() if r["defect"] == d], 8)
    ]
    rows = [(r["prompt"], r["response"], r.get("defect", "")) for r in [*good, *bad]]
    rng.shuffle(rows)
    return tuple(rows)


TALK = {
    "messages": [
        {"role": "user", "content": "Where do frogs live?"},
        {"role": "assistant", "content": "Frogs live in ponds."},
    ]
}


def _pairs(seed: int, talks: bool = False) -> list[dict]:
    """The pairs without their labels: nobody hands them to a filter."""
    found: list[dict] = [{"prompt": p, "response": r} for p, r, _ in _truth(seed)]
    for row in found[::3]:  # pairs may have further keys
        row["kind"] = "instruction"
    return [*found[:30], TALK, *found[30:]] if talks else found


def _sort_of_good(prompt: str, response: str) -> str:
    if "\n" in response:
        return "lists"
    if "know" in response:
        return "answers that say that they do not know"
    if len(response.split()) <= 3:
        return "very short answers"
    return "long answers" if len(response.split()) > 9 else "plain sentences"


def _not_pairs(value: Any) -> str | None:
    if not is_plain_sequence(value):
        return f"The result is of type `{type(value).__name__}`. Return a list of pairs."
    if any(isinstance(item, bool) for item in value):
        return "The result holds True and False. Return the pairs themselves, those to keep."
    if any(isinstance(item, int) for item in value):
        return "The result holds numbers, perhaps positions. Return the pairs themselves, those to keep."
    if not all(isinstance(item, dict) for item in value):
        return "Not all entries of the result are dictionaries. Return the pairs as they came."
    return None


def _kept(rows: list[dict], value: Any) -> list[dict]:
    """Return the result as a list of pairs, or raise `_Odd` with what is wrong with it."""
    value = plain(value)
    if told := _not_pairs(value):
        raise _Odd(Broken("pairs", told))
    kept = list(value)
    if other := next((row for row in kept if row not in rows), None):
        raise _Odd(
            Broken(
                "pairs",
                f"A pair is returned that was not given, at least not like this: {str(other)[:90]!r} …",
            )
        )
    places = [rows.index(row) for row in kept]
    if len(set(places)) < len(places):
        raise _Odd(Broken("pairs", "Some pairs are returned twice."))
    if places != sorted(places):
        raise _Odd(Broken("order", "The pairs are in another order."))
    return kept


class _Odd(Exception):
    """The result is no selection of the pairs in their order."""


def _verify(seed: int, talks: bool, judge):
    def verify(value: Any, _: tuple) -> str | None:
        rows = _pairs(seed, talks)
        try:
            kept = _kept(rows, value)
        except _Odd as odd:
            return odd.args[0]
        return judge(kept, _truth(seed))

    return verify


def _selected(kept: list[dict], truth: tuple) -> str | None:
    return None


def _with_conversations(kept: list[dict], truth: tuple) -> str | None:
    return (
        None
        if TALK in kept
        else "The conversation of several turns, which has `messages` and no `response`, is left out."
    )


def _counts(kept: list[dict], truth: tuple) -> tuple[list, list, str]:
    """Return what is left out, the bad pairs of it, and precision and recall as a sentence."""
    stay = {(row["prompt"], row["response"]) for row in kept if "prompt" in row}
    out = [t for t in truth if t[:2] not in stay]
    hits = [t for t in out if t[2]]
    bad = sum(bool(t[2]) for t in truth)
    precision = f"{len(hits) / len(out):.0%}" if out else "undefined"
    return out, hits, f"Precision {precision}, recall {len(hits) / bad:.0%}. "


def _precise(kept: list[dict], truth: tuple) -> str | None:
    out, hits, figures = _counts(kept, truth)
    if not out:
        return Broken(
            "recall", "Nothing is left out. About a third of these pairs is bad: read ten of them."
        )
    if not kept:
        return "Everything is left out: nothing is left to train on."
    precision = len(hits) / len(out)
    if sum(bool(t[2]) for t in truth) - len(hits) > len(kept) / 2:
        return f"{figures}Most pairs that are returned are bad: are these the ones that the rules object to?"
    if precision >= PRECISION:
        return None
    lost = [_sort_of_good(*t[:2]) for t in out if not t[2]]
    worst = max(sorted(set(lost)), key=lost.count)
    example = next(t for t in out if not t[2] and _sort_of_good(*t[:2]) == worst)
    return f"{figures}Good pairs are left out, most of them {worst}: {example[0][:60]!r} → {example[1][:50]!r}."


def _complete(kept: list[dict], truth: tuple) -> str | None:
    _, hits, figures = _counts(kept, truth)
    bad = [t for t in truth if t[2]]
    if len(hits) / len(bad) >= RECALL:
        return None
    missed = {d: sum(t[2] == d for t in bad) - sum(t[2] == d for t in hits) for d in DEFECTS}
    most = [d for d in DEFECTS if missed[d] > 4 and d != "wrong fact"]
    example = next(t for t in bad if t[2] == most[0] and t not in hits)
    return f"{figures}Still among the pairs: {', '.join(most)}. One of them: {example[0][:60]!r} → {example[1][:50]!r}."


def _filter_case(rule: str, told: str, seed: int, judge, talks: bool = False) -> Case:
    return Case(
        f"`filter_pairs(pairs)`: {told}",
        lambda: (_pairs(seed, talks),),
        verify=_verify(seed, talks, judge),
        rule=rule,
    )


FILTER_CASES = (
    _filter_case("pairs", "184 pairs, 64 of them bad", 0, _selected),
    _filter_case("precision", "the same pairs", 0, _precise),
    _filter_case("recall", "the same pairs", 0, _complete),
    _filter_case("precision", "other pairs", 1, _precise),
    _filter_case("recall", "other pairs", 1, _complete),
    _filter_case("conversations", "with a conversation of several turns among them", 1, _with_conversations, talks=True),
)  # fmt: skip


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            REPEATS,
            "A rubric line: no repetition",
            repeats,
            [
                Case(f"`repeats({text!r})`: {told}", lambda text=text: (text,), repeats, rule=rule)
                for rule, told, text in TEXTS
            ],
            asks="Return True if the text repeats itself, else False. It does if a part occurs twice, or a phrase three times in a row.",
            rules={
                "parts": "Parts are what lies between full stops, question marks, exclamation marks and line breaks, without white space at both ends. A part may come again anywhere.",
                "length": "Only parts of more than 8 characters count.",
                "phrases": "A phrase is 1 to 12 words. Words are runs of letters or digits; white space, line breaks and punctuation between them do not matter.",
                "case": "Upper and lower case are the same, in parts and in phrases.",
                "numbers": "The number of a list item, digits with “.” or “)” at the start of a line, is left out first, for parts and for phrases.",
            },
            draw=_draw_text,
            hints=(
                "There are two separate questions, joined by “or”: does a part occur twice, and does a phrase come three times in a row? Answer each with a list of its own.",
                ("numbers", "`re.sub` with the flag re.MULTILINE can remove them before anything else; `re.split` cuts the parts, `re.findall` gives the words."),
                "For phrases, go over every length and every place where three of them still fit; count that last place by hand for a text of exactly three words.",
            ),
            path="Clean the text first: lower case, list numbers removed. For the parts, cut at the four kinds of marks, strip, keep those of more than 8 characters, and compare the number of parts with the number of different ones. "
            "For the phrases, make a list of words and compare three neighboring slices for each length and place. The usual wrong turn is an end that is one too small: the length 12, and the last place.",
            why="A rubric line is a promise about every text, so its edges matter more than its middle: “Yes. Yes.” and “sheep is sheep” are fine, "
            "and the numbers of a list must not make two items differ. Each rule here was taken from answers that a model really wrote.",
        ),
        Exercise(
            FILTER,
            "Clean the poisoned set",
            filter_pairs,
            FILTER_CASES,
            asks="Return the pairs that are worth training on, as a list.\n\n"
            'pairs: list of {"prompt": ..., "response": ...}, some with further keys; good and bad mixed, without labels.',
            rules={
                "pairs": "The pairs are returned as they came: whole dictionaries with all their keys, nothing rewritten or added, each one once.",
                "order": "They stay in the order of the given list, so that two filters can be compared pair by pair.",
                "precision": "Precision, the share of bad pairs among those that you leave out, is at least 90%.",
                "recall": "Recall, the share of the bad pairs that you leave out, is at least 60%.",
                "conversations": "An entry with `messages` in place of prompt and response is a conversation; it is kept.",
                "unchanged": "The given list and its pairs stay as they are.",
            },
            hints=(
                "Print twenty responses of the poisoned set and write down what gives the bad ones away. Each thing is one rule.",
                ("recall", "Rules worth having: the response begins with its own prompt; it apologizes; it repeats itself; it does not end as a sentence does."),
                "`sftlab.scoring.format_compliance(response, count)` knows what a sentence and a list look like; “three tips” in the prompt gives the count.",
            ),
            path="Begin with the loop: keep an entry with messages, and ask of every other one whether any rule objects to it. Start with one precise rule, look at what it leaves out, and add the next. "
            "Precision falls with each rule that also meets good pairs: very short answers, lists and honest “I do not know” are good. The usual wrong turn is to judge a list like a single sentence.",
            why="Precision counts what good you lose, recall what bad stays. Rules of form are precise and cheap, and blind to a wrong fact that is well said: "
            "for that you need knowledge, from a table, a person or a large model.",
            shows=(complaints,),
        ),
    )
}  # fmt: skip
