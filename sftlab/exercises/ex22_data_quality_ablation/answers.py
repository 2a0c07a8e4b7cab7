"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs as right_filter
from sftlab.scoring import format_compliance, repeats

REPEATS, FILTER = "22.repeats", "22.filter_pairs"


def without_numbers(text):
    return re.sub(r"(?m)^\d+[.)]", "", text.lower())


def parts(text):
    found = [p.strip() for p in re.split(r"[.!?\n]+", without_numbers(text))]
    return [p for p in found if len(p) > 8]


def circles(text):
    words = re.findall(r"\w+", without_numbers(text))
    for n in range(1, 13):
        for i in range(len(words)):
            chunks = [tuple(words[i + k * n : i + (k + 1) * n]) for k in range(3)]
            if len(chunks[-1]) == n and len(set(chunks)) == 1:
                return True
    return False


@right(REPEATS)
def with_counts(text):
    seen = {}
    for part in parts(text):
        seen[part] = seen.get(part, 0) + 1
    return any(n > 1 for n in seen.values()) or circles(text)


@right(REPEATS)
def with_a_pattern(text):
    words = " ".join(re.findall(r"\w+", without_numbers(text))) + " "
    twice = len(parts(text)) != len(set(parts(text)))
    return twice or bool(re.search(r"\b((?:\w+ ){1,12})\1\1", words))


@right(REPEATS)
def with_runs(text):
    """A phrase of n words three times in a row is a run of 2n words that equal the one n before."""
    words = [word.strip(".,:;!?()\"'“”").casefold() for word in without_numbers(text).split()]
    for n in range(1, min(12, len(words) // 3) + 1):
        run = 0
        for i in range(n, len(words)):
            run = run + 1 if words[i] == words[i - n] else 0
            if run == 2 * n:
                return True
    return max(Counter(parts(text)).values(), default=0) > 1


@right(REPEATS)
def line_by_line(text):
    found = []
    for line in text.splitlines():
        digits = line.lstrip("0123456789")
        line = (digits[1:] if digits != line and digits[:1] in (".", ")") else line).lower()
        for mark in "!?":
            line = line.replace(mark, ".")
        found += [part.strip() for part in line.split(".") if len(part.strip()) > 8]
    found.sort()
    return any(a == b for a, b in pairwise(found)) or circles(text)


@refused(REPEATS, "It prints")
def printed(text):
    print(repeats(text))


@refused(REPEATS, "got: 2")
def how_often(text):
    return 2 * circles(text) + len(parts(text)) - len(set(parts(text)))


@refused(REPEATS, "IndexError")
def first_part_of_nothing(text):
    first = parts(text)[0]
    return parts(text).count(first) > 1 or repeats(text)


# --- The filter ---------------------------------------------------------------------------------
def kept(pairs, test):
    """The pairs of which the test says so; talks stay."""
    return [row for row in pairs if "messages" in row or test(row["prompt"], row["response"])]


def sentence_like(prompt, response):
    lines = response.split("\n")
    return all(re.match(r"(\d+\. )?[A-Z0-9].*[.!]$", line) for line in lines)


def echoes(prompt, response):
    return response.lower().startswith(prompt.lower().rstrip("?.:"))


@right(FILTER)
def by_own_rules(pairs):
    def good(prompt, response):
        return (
            sentence_like(prompt, response)
            and not echoes(prompt, response)
            and "sorry" not in response
            and "language model" not in response
            and "rather not" not in response
            and not re.search("(As I said|In other words|once more)", response)
        )

    return kept(pairs, good)


@right(FILTER)
def in_a_loop(pairs):
    found = []
    for row in pairs:
        if "messages" not in row:
            prompt, response = row["prompt"], row["response"]
            one_line = "\n" not in response and not format_compliance(response)
            if one_line or response.startswith("- ") or repeats(response):
                continue
            if echoes(prompt, response) or "cannot" in response or "rather not" in response:
                continue
        found.append(row)
    return found


@right(FILTER)
def by_complaints_on_copies(pairs):
    return [
        dict(row)
        for row in pairs
        if "prompt" not in row or complaints(row["prompt"], row["response"]) == []
    ]


@right(FILTER)
def thrown_out_one_by_one(pairs):
    remaining = list(pairs)
    signs = (
        "i am sorry",
        "i cannot",
        "as a language model",
        "rather not",
        "as i said",
        "once more",
    )
    for place in reversed(range(len(remaining))):
        response = remaining[place].get("response")
        if response is None:
            continue
        points = 2 * any(sign in response.lower() for sign in signs)
        points += 2 * echoes(remaining[place]["prompt"], response)
        points += 2 * (response[-1] not in ".!" or response[0].islower())
        if points > 1 or "in other words" in response.lower():
            del remaining[place]
    return remaining


@refused(FILTER, "Nothing is left out")
def keeps_everything(pairs):
    return list(pairs)


@refused(FILTER, "Everything is left out")
def throws_everything_out(pairs):
    return []


@refused(FILTER, "Most pairs that are returned are bad")
def returns_the_bad_ones(pairs):
    return [row for row in pairs if row not in right_filter(pairs)]


@refused(FILTER, "holds True and False")
def verdicts(pairs):
    return [bool(row) for row in pairs]


@refused(FILTER, "perhaps positions")
def places(pairs):
    return list(range(len(pairs)))


@refused(FILTER, "as they came")
def responses(pairs):
    return [row["response"] for row in pairs]


@refused(FILTER, "Return a list of pairs")
def a_number(pairs):
    return 0.9


@refused(FILTER, "not given, at least not like this")
def rewrites(pairs):
    return [
        {**row, "response": row["response"].capitalize()} if "response" in row else row
        for row in pairs
    ]


@refused(FILTER, "Some pairs are returned twice")
def doubled(pairs):
    return right_filter(pairs) + right_filter(pairs)[:1]


@refused(FILTER, "another order")
def by_prompt(pairs):
    return sorted(right_filter(pairs), key=lambda row: str(row.get("prompt")))


@refused(FILTER, "most of them lists")
def no_lists(pairs):
    return kept(pairs, lambda prompt, response: "\n" not in response)


@refused(FILTER, "most of them very short")
def no_short_ones(pairs):
    return kept(pairs, lambda prompt, response: len(response.split()) > 3)


@refused(FILTER, "most of them long")
def no_long_ones(pairs):
    return kept(pairs, lambda prompt, response: len(response.split()) <= 9 or "\n" in response)


@refused(FILTER, "most of them answers that say that they do not know")
def refusals_and_the_honest(pairs):
    return kept(pairs, lambda prompt, response: not re.search(r"sorry|cannot|not ", response))


@refused(FILTER, "Still among the pairs: echo, ramble, off topic, truncated")
def refusals_alone(pairs):
    return kept(pairs, lambda prompt, response: not re.search(r"sorry|cannot|rather not", response))


@refused(FILTER, "Still among the pairs: echo, ramble, off topic, refusal")
def form_alone(pairs):
    return kept(pairs, sentence_like)


@right(FILTER)
def as_an_iterator(pairs):
    kept = right_filter(pairs)  # once: a call for every pair takes longer than the check waits
    return filter(lambda row: row in kept, pairs)


@right(FILTER)
def as_a_tuple(pairs):
    return tuple(right_filter(pairs))


@refused(FILTER, "changes its own input")
def removed_from_the_list(pairs):
    good = right_filter(pairs)
    pairs[:] = good
    return pairs


@refused(FILTER, "KeyError: 'defect'")
def reads_the_label(pairs):
    return [row for row in pairs if not row["defect"]]


@refused(FILTER, "KeyError: 'prompt'")
def fails_at_a_talk(pairs):
    return [row for row in pairs if not complaints(row["prompt"], row["response"])]


@refused(FILTER, "conversation of several turns")
def throws_talks_out(pairs):
    return [
        row for row in pairs if "response" in row and not complaints(row["prompt"], row["response"])
    ]


equivalent(
    REPEATS,
    "Where three phrases no longer fit, the last slice is shorter than the others.",
    "`1` becomes `2` #2",
    "`3` becomes `2` #2",
)
