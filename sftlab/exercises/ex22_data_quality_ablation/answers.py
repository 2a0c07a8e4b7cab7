"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import copy
import re

from sftlab.classroom.answers import refused, right
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs as right_filter
from sftlab.exercises.ex22_data_quality_ablation.spoilt import spoil
from sftlab.scoring import format_compliance, repeats

SPOIL, FILTER = "22.spoil", "22.filter_pairs"


@right(SPOIL)
def in_a_loop_over_order(pairs, make_bad, share, order):
    found = list(pairs)
    for place in order[: round(share * len(pairs))]:
        found[place] = dict(pairs[place])
        found[place]["response"] = make_bad(pairs[place])
    return found


@right(SPOIL)
def by_rank(pairs, make_bad, share, order):
    count, rank = round(len(pairs) * share), {place: k for k, place in enumerate(order)}
    found = []
    for place, pair in enumerate(pairs):
        if rank[place] >= count:
            found.append(pair)
        else:
            found.append({key: make_bad(pair) if key == "response" else pair[key] for key in pair})
    return found


@right(SPOIL)
def copies_of_all(pairs, make_bad, share, order):
    found = copy.deepcopy(pairs)
    spoilt = order[: round(share * len(pairs))]
    for place in spoilt:
        found[place].update(response=make_bad(pairs[place]))
    return tuple(found)


@right(SPOIL)
def as_a_generator(pairs, make_bad, share, order):
    hit = list(order)[: round(share * len(order))]
    return (
        pair | {"response": make_bad(pair)} if n in hit else pair for n, pair in enumerate(pairs)
    )


@refused(SPOIL, "changes its own input")
def changes_the_pairs(pairs, make_bad, share, order):
    for place in order[: round(share * len(pairs))]:
        pairs[place]["response"] = make_bad(pairs[place])
    return pairs


@refused(SPOIL, "is not callable")
def calls_the_answer(pairs, make_bad, share, order):
    return [{**pair, "response": make_bad(pair)(pair)} for pair in pairs]


@refused(SPOIL, "spoil(pairs, make_bad, 1.0")
def never_all(pairs, make_bad, share, order):
    return spoil(pairs, make_bad, min(share, 0.7), order)


@refused(SPOIL, "KeyError: 'kind'")
def hands_on_a_part(pairs, make_bad, share, order):
    texts = [{"prompt": pair["prompt"], "response": pair["response"]} for pair in pairs]
    return spoil(pairs, lambda pair: make_bad(texts[pairs.index(pair)]), share, order)


@refused(SPOIL, "None")
def forgets_to_return(pairs, make_bad, share, order):
    spoil(pairs, make_bad, share, order)


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
    kept = right_filter(pairs)
    return [row for row in pairs if row not in kept]


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
