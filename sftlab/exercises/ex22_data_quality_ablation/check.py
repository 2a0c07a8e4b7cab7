"""Checks of notebook 22: a rubric line, and a filter scored by precision and recall."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

from sftlab.almanac.curated import curated
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints, filter_pairs
from sftlab.scoring import repeats

REPEATS, FILTER = "22.repeats", "22.filter_pairs"


# --- 22a: does a text go in circles? -----------------------------------------------------------


def _parts(text: str, split: str = r"[.!?\n]+", lower: bool = True, numbers: bool = False) -> list:
    text = text.lower() if lower else text
    text = text if numbers else re.sub(r"(?m)^\d+[.)]", "", text)
    return [part.strip() for part in re.split(split, text)]


def _twice(parts: list, longer: int = 8) -> bool:
    long = [part for part in parts if len(part) > longer]
    return len(set(long)) < len(long)


def _in_a_row(
    text: str, times: int = 3, most: int = 12, least: int = 1, lower: bool = True
) -> bool:
    words = re.findall(r"\d[\d.,]*|\w+", text.lower() if lower else text)
    return any(
        all(words[i : i + n] == words[i + k * n : i + (k + 1) * n] for k in range(1, times))
        for n in range(least, most + 1)
        for i in range(len(words) - times * n + 1)
    )


@mistake(REPEATS, "It is the wrong way round: True stands for a text that does go in circles.")
def _wrong_way_round(text):
    return not repeats(text)


@mistake(REPEATS, "It is True for every text. A text that says each thing once is fine.")
def _always(text):
    return True


@mistake(REPEATS, "It is False for every text, even one that says a sentence twice.")
def _never(text):
    return False


@mistake(REPEATS, "A single word may well come twice: “The plural of sheep is sheep.” Look at sentences, and at phrases three times in a row.")  # fmt: skip
def _any_word_twice(text):
    words = re.findall(r"\w+", text.lower())
    return len(set(words)) < len(words)


@mistake(REPEATS, "Phrases are left out: “and so on and so on and so on” is one sentence, and goes in circles.")  # fmt: skip
def _sentences_alone(text):
    return _twice(_parts(text))


@mistake(REPEATS, "Sentences are left out: one that comes again later, with others between, is a repetition as well.")  # fmt: skip
def _phrases_alone(text):
    return _in_a_row(text)


@mistake(REPEATS, "Only neighbours are compared. A sentence may come again after another one.")
def _neighbours(text):
    long = [part for part in _parts(text) if len(part) > 8]
    return any(a == b for a, b in pairwise(long)) or _in_a_row(text)


@mistake(REPEATS, "Short parts count here. “Yes.” may come twice: only those longer than 8 characters are to be compared.")  # fmt: skip
def _short_parts_too(text):
    return _twice(_parts(text), longer=0) or _in_a_row(text)


@mistake(REPEATS, "Upper and lower case make a difference here. A sentence that begins with a small letter the second time is the same one.")  # fmt: skip
def _case_matters(text):
    return _twice(_parts(text, lower=False)) or _in_a_row(text, lower=False)


@mistake(REPEATS, "Only full stops end a part here. A line ends one as well: the items of a list may have no full stop.")  # fmt: skip
def _full_stops_alone(text):
    return _twice(_parts(text, split=r"[.!?]+")) or _in_a_row(text)


@mistake(REPEATS, "Only lines are compared. A line may hold several sentences.")
def _lines_alone(text):
    return _twice(_parts(text, split=r"\n+")) or _in_a_row(text)


@mistake(REPEATS, "The numbers of a list are compared too, so that its items always differ. Take them off first.")  # fmt: skip
def _numbers_compared(text):
    return _twice(_parts(text, numbers=True)) or _in_a_row(text)


@mistake(REPEATS, "A phrase twice in a row is enough here. That happens in good prose; three times is the rule.")  # fmt: skip
def _two_in_a_row(text):
    return _twice(_parts(text)) or _in_a_row(text, times=2)


@mistake(REPEATS, "Only single words are looked for three times in a row. A phrase may have up to twelve.")  # fmt: skip
def _single_words_alone(text):
    return _twice(_parts(text)) or _in_a_row(text, most=1)


@mistake(REPEATS, "Phrases of one word are left out: “very very very” goes in circles too.")
def _no_single_words(text):
    return _twice(_parts(text)) or _in_a_row(text, least=2)


TEXTS = {
    "each thing said once": "The frog lives in ponds. It eats insects.",
    "a sentence twice": "The frog lives in ponds. The frog lives in ponds.",
    "a sentence again, later": "The frog lives in ponds. It eats insects. The frog lives in ponds.",
    "a word twice": "The plural of sheep is sheep.",
    "a short part twice": "Yes. The frog is an animal. Yes.",
    "another case": "The frog lives in ponds. As ever. the frog lives in ponds.",
    "lines without full stops": "keep calm and go on\ndrink water\nkeep calm and go on",
    "a list": "1. Arrive early.\n2. Dress neatly.\n3. Ask a question.",
    "a list with an item twice": "1) Dress neatly and well\n2) Arrive early\n3) Dress neatly and well",
    "a phrase three times": "It goes on and on and so on and so on and so on",
    "a phrase twice": "They talked about this, about this and other things.",
    "a word three times": "That is a very very very good tip.",
    "a phrase of five words three times": "go to the next page go to the next page go to the next page",
    "nothing": "",
}


# --- 22b: the filter ---------------------------------------------------------------------------

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
    found = [{"prompt": p, "response": r} for p, r, _ in _truth(seed)]
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
    if isinstance(value, (set, tuple)) or not hasattr(value, "__len__"):
        return f"Return a list of pairs; this is a `{type(value).__name__}`."
    items = list(value)
    if any(isinstance(item, bool) for item in items):
        return "These are verdicts, True or False. Return the pairs themselves, those to keep."
    if any(isinstance(item, int) for item in items):
        return "These are places in the list. Return the pairs themselves, those to keep."
    if not all(isinstance(item, dict) for item in items):
        return "Return the pairs as they came, as dictionaries with all their keys."
    return None


def _verify(seed: int, talks: bool):
    def verify(value: Any, _: tuple) -> str | None:
        if told := _not_pairs(value):
            return told
        rows, kept = _pairs(seed, talks), list(value)
        if any(row not in rows for row in kept):
            return "Some of the pairs you return were not handed in: a filter keeps or throws out, it does not rewrite."
        places = [rows.index(row) for row in kept]
        if len(set(places)) < len(places):
            return "Some pairs come twice."
        if places != sorted(places):
            return "The pairs are in another order. Keep theirs: then two filters can be compared row by row."
        if talks and TALK not in kept:
            return "The talk of several turns is thrown out. It has `messages` and no `response`; rules for one response do not fit it, so keep it."
        return _scored([row for row in kept if "messages" not in row], _truth(seed))

    return verify


def _scored(kept: list[dict], truth: tuple) -> str | None:
    """What precision and recall say, with the first thing to look at."""
    stay = {(row["prompt"], row["response"]) for row in kept}
    out = [t for t in truth if t[:2] not in stay]
    bad = [t for t in truth if t[2]]
    hits = [t for t in out if t[2]]
    if not out:
        return "Nothing is thrown out. About a third of these pairs is bad; read ten of them."
    if not kept:
        return "Everything is thrown out: recall is perfect, and nothing is left to train on."
    precision, recall = len(hits) / len(out), len(hits) / len(bad)
    figures = f"Precision {precision:.0%}, recall {recall:.0%}. "
    if precision < len(bad) / len(truth) and len(kept) < len(truth) / 2:
        return f"{figures}You return the pairs that you object to. Return the others."
    if precision < PRECISION:
        lost = [_sort_of_good(*t[:2]) for t in out if not t[2]]
        worst = max(sorted(set(lost)), key=lost.count)
        example = next(t for t in out if not t[2] and _sort_of_good(*t[:2]) == worst)
        return f"{figures}Good pairs are thrown out, most of them {worst}: {example[0][:60]!r} → {example[1][:50]!r}."
    if recall < RECALL:
        missed = {d: sum(t[2] == d for t in bad) - sum(t[2] == d for t in hits) for d in DEFECTS}
        most = [d for d in DEFECTS if missed[d] > 4 and d != "wrong fact"]
        example = next(t for t in bad if t[2] == most[0] and t[:2] in stay)
        return f"{figures}Too few bad pairs are found. Still in: {', '.join(most)}. One of them: {example[0][:60]!r} → {example[1][:50]!r}."
    return None


EXERCISES = {
    REPEATS: Exercise(
        id=REPEATS,
        title="A rubric line: no repetition",
        reference=repeats,
        cases=[
            Case(f"`repeats({text!r})`: {name}", lambda text=text: (text,), repeats)
            for name, text in TEXTS.items()
        ],
        hints=(
            "Two questions, joined by `or`. First: cut the text at full stops, question marks, exclamation marks and line ends, in lower case. Is any part of more than 8 characters there twice?",
            "For the list's numbers: re.sub(r'(?m)^\\d+[.)]', '', text) takes them off.",
            "Second: words = re.findall(r'\\w+', text). For n from 1 to 12 and every place i, compare words[i:i+n] with the next n and the n after them.",
        ),
        why="A rubric line is a promise about every text, so its edges matter more than its middle: “Yes. Yes.” and “sheep is sheep” are fine, "
        "and the numbers of a list make no two items differ. Each rule here was read off answers that a model really wrote.",
    ),
    FILTER: Exercise(
        id=FILTER,
        title="Clean the poisoned set",
        reference=filter_pairs,
        cases=[
            Case("184 pairs, 64 of them bad", lambda: (_pairs(0),), verify=_verify(0, False)),
            Case("other pairs, and a talk of several turns", lambda: (_pairs(1, True),), verify=_verify(1, True)),
        ],
        hints=(
            "Print twenty responses of the poisoned set and write down what gives the bad ones away. Each thing is one rule.",
            "Rules worth having: it begins with its own prompt; it apologises; `repeats(response)`; it does not end as a sentence does. Keep rows that have `messages`.",
            "`sftlab.scoring.format_compliance(response, count)` knows what a sentence and a list look like; “three tips” in the prompt tells the count.",
        ),
        why="Precision counts what good you lose, recall what bad stays. Rules of form are precise and cheap, and blind to a wrong fact that is well said: "
        "for that you need knowledge, from a table, a person or a large model.",
        shows=(complaints,),
    ),
}  # fmt: skip
