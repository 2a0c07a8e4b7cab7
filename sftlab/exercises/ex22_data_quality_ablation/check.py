"""Checks of notebook 22: spoilt pairs for an experiment, and a filter scored by precision and recall."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from sftlab.almanac.curated import curated
from sftlab.almanac.defects import DEFECTS, low_quality
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken, is_plain_sequence, plain
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints, filter_pairs
from sftlab.exercises.ex22_data_quality_ablation.spoilt import spoil

SPOIL, FILTER = "22.spoil", "22.filter_pairs"

# --- spoil ---------------------------------------------------------------------------------


def _spoiler(hit: Callable[[int, list], Any], **change: Any) -> Callable[..., list]:
    """Return an answer that spoils the positions of ``hit(count, order)``; see `_build` for the rest."""

    def answer(pairs, make_bad, share, order):
        return _build(pairs, make_bad, set(hit(round(share * len(pairs)), order)), **change)

    return answer


def _build(pairs, make_bad, hit, new=lambda pair, bad: {**pair, "response": bad}) -> list:
    return [new(pair, make_bad(pair)) if k in hit else pair for k, pair in enumerate(pairs)]


def _first(count: int, order: list) -> list:
    return order[:count]


def _declared(message: str, answer: Callable[..., Any]) -> None:
    mistake(SPOIL, message)(answer)


_declared("The pairs that stand first in the list are spoilt. Spoil those whose positions stand first in `order`.",
          _spoiler(lambda count, order: range(count)))  # fmt: skip
_declared("The pairs whose positions stand last in `order` are spoilt. Begin at its start.",
          _spoiler(lambda count, order: order[len(order) - count :]))  # fmt: skip
_declared("`order[k]` is read as the rank of pair k. It is a position: `order[0]` says which pair is spoilt first.",
          _spoiler(lambda count, order: [k for k, rank in enumerate(order) if rank < count]))  # fmt: skip
_declared("All pairs but the share are spoilt: those to spoil and those to keep are exchanged.",
          _spoiler(lambda count, order: order[count:]))  # fmt: skip
_declared("All pairs are spoilt, whatever the share.", _spoiler(lambda count, order: order))
_declared("One pair too many is spoilt.", _spoiler(lambda count, order: order[: count + 1]))
_declared(
    "No pair is spoilt. A share of 0.25 stands for a quarter of the pairs.",
    _spoiler(lambda count, order: []),
)
_declared("A spoilt pair has `prompt` and `response` alone. Its other keys stay.",
          _spoiler(_first, new=lambda pair, bad: {"prompt": pair["prompt"], "response": bad}))  # fmt: skip
_declared("The bad answer is added to the good one. It takes its place.",
          _spoiler(_first, new=lambda pair, bad: {**pair, "response": f"{pair['response']} {bad}"}))  # fmt: skip
_declared("The bad answer stands under another key. The model is trained on `response`.",
          _spoiler(_first, new=lambda pair, bad: {**pair, "bad": bad}))  # fmt: skip
_declared("The bad answer has replaced the prompt. Replace the response.",
          _spoiler(_first, new=lambda pair, bad: {**pair, "prompt": bad}))  # fmt: skip
_declared("A spoilt pair has keys that it did not have. Only its response changes.",
          _spoiler(_first, new=lambda pair, bad: {**pair, "response": bad, "spoilt": True}))  # fmt: skip


@mistake(SPOIL, "The number of spoilt pairs is rounded down. Round it to the nearest whole number.")
def _rounded_down(pairs, make_bad, share, order):
    return _build(pairs, make_bad, set(order[: int(share * len(pairs))]))


@mistake(SPOIL, "The number of spoilt pairs is rounded up. Round it to the nearest whole number.")
def _rounded_up(pairs, make_bad, share, order):
    return _build(pairs, make_bad, set(order[: math.ceil(share * len(pairs))]))


@mistake(SPOIL, "The share is read as a number of pairs. 0.25 stands for a quarter of the pairs.")
def _number(pairs, make_bad, share, order):
    return _build(pairs, make_bad, set(order[: math.ceil(share)]))


@mistake(SPOIL, "Only the spoilt pairs are returned. The others stay in the list.")
def _spoilt_alone(pairs, make_bad, share, order):
    spoilt = spoil(pairs, make_bad, share, order)
    return [new for new, old in zip(spoilt, pairs, strict=True) if new is not old]


@mistake(SPOIL, "Only the good pairs are returned. The spoilt ones stay in the list.")
def _good_alone(pairs, make_bad, share, order):
    spoilt = spoil(pairs, make_bad, share, order)
    return [new for new, old in zip(spoilt, pairs, strict=True) if new is old]


@mistake(SPOIL, "The spoilt pairs have moved. Every pair keeps its place.")
def _moved(pairs, make_bad, share, order):
    spoilt = spoil(pairs, make_bad, share, order)
    both = list(zip(spoilt, pairs, strict=True))
    return [n for n, old in both if n is old] + [n for n, old in both if n is not old]


@mistake(SPOIL, "The pairs come in the sequence of `order`. Every pair keeps its place.")
def _in_order(pairs, make_bad, share, order):
    spoilt = spoil(pairs, make_bad, share, order)
    return [spoilt[k] for k in order]


@mistake(
    SPOIL, "The spoilt pairs are added to the good ones. Each takes the place of its good pair."
)
def _added(pairs, make_bad, share, order):
    spoilt = spoil(pairs, make_bad, share, order)
    return list(pairs) + [n for n, old in zip(spoilt, pairs, strict=True) if n is not old]


@mistake(SPOIL, "All spoilt pairs have the same bad answer. Call `make_bad` for every pair.")
def _one_answer(pairs, make_bad, share, order):
    bad = make_bad(pairs[order[0]])
    return _build(pairs, lambda pair: bad, set(order[: round(share * len(pairs))]))


def _about_frogs(count: int) -> list[dict]:
    animals = (
        "frog",
        "pike",
        "stork",
        "beetle",
        "otter",
        "hare",
        "gull",
        "newt",
        "crab",
        "wren",
        "vole",
    )
    return [
        {"prompt": f"Where does the {a} live?", "response": f"The {a} lives in place {k}.", "kind": f"habitat {k}"}
        for k, a in enumerate(animals[:count])
    ]  # fmt: skip


def _cut(pair: dict) -> str:
    return pair["response"][:8]


def _echo(pair: dict) -> str:
    return f"{pair['prompt']} {pair['kind']}"


_SPOILED = (  # rule, what is shown, pairs, share, order
    ("places", "7 pairs, a share of 0.6", 7, 0.6, (3, 6, 0, 5, 2, 4, 1)),
    ("share", "4 pairs, a share of 0.25", 4, 0.25, (2, 0, 3, 1)),
    ("share", "11 pairs, a share of 0.25", 11, 0.25, (4, 9, 1, 7, 10, 0, 3, 8, 2, 6, 5)),
    ("share", "7 pairs, a share of 0.35", 7, 0.35, (5, 2, 6, 0, 3, 1, 4)),
    ("share", "5 pairs, none to be spoilt", 5, 0.0, (3, 1, 4, 0, 2)),
    ("share", "3 pairs, all to be spoilt", 3, 1.0, (1, 2, 0)),
    ("spoilt", "9 pairs, a share of 0.6", 9, 0.6, (8, 3, 5, 0, 7, 2, 6, 1, 4)),
)


def _spoil_case(rule: str, told: str, count: int, share: float, order: tuple, bad=_cut) -> Case:
    return Case(
        f"`spoil(pairs, make_bad, {share}, {list(order)})`: {told}",
        lambda: (_about_frogs(count), bad, share, list(order)),
        spoil,
        rule=rule,
    )


def _draw_spoil(rng: random.Random, *_: object) -> tuple:
    count = rng.choice((5, 7, 11))
    return _about_frogs(count), rng.choice((_cut, _echo)), rng.choice((0.2, 0.4, 0.8)), rng.sample(range(count), count)  # fmt: skip


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


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


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
    return f"{figures}Good pairs are left out, most of them {worst}: {_short(example[0], 60)!r} → {_short(example[1], 50)!r}. Which of your rules refuses it?"


def _complete(kept: list[dict], truth: tuple) -> str | None:
    _, hits, figures = _counts(kept, truth)
    bad = [t for t in truth if t[2]]
    if len(hits) / len(bad) >= RECALL:
        return None
    missed = {d: sum(t[2] == d for t in bad) - sum(t[2] == d for t in hits) for d in DEFECTS}
    most = [d for d in DEFECTS if missed[d] > 4 and d != "wrong fact"]
    most = most or sorted((d for d in DEFECTS if missed[d]), key=lambda d: -missed[d])
    example = next(t for t in bad if t[2] == most[0] and t not in hits)
    return f"{figures}Still among the pairs: {', '.join(most)}. One of them: {_short(example[0], 60)!r} → {_short(example[1], 50)!r}."


def _filter_case(rule: str, told: str, seed: int, judge, talks: bool = False) -> Case:
    return Case(
        f"`filter_pairs(pairs)`: {told}",
        lambda: (_pairs(seed, talks),),
        verify=_verify(seed, talks, judge),
        rule=rule,
    )


FILTER_CASES = (
    _filter_case("pairs", "184 pairs, 64 of them bad", 0, _selected),
    _filter_case("precision", "184 pairs, 64 of them bad", 0, _precise),
    _filter_case("recall", "184 pairs, 64 of them bad", 0, _complete),
    _filter_case("precision", "other pairs", 1, _precise),
    _filter_case("recall", "other pairs", 1, _complete),
    _filter_case("conversations", "with a conversation of several turns among them", 1, _with_conversations, talks=True),
)  # fmt: skip


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            SPOIL,
            "Spoil a share of the pairs",
            spoil,
            [_spoil_case(*each) for each in _SPOILED]
            + [_spoil_case("spoilt", "7 pairs, another make_bad", 7, 0.35, (5, 2, 6, 0, 3, 1, 4), _echo)],
            asks="Return a list of the pairs in which a share of the answers is bad.\n\n"
            'pairs: list of {"prompt": ..., "response": ..., ...}. make_bad(pair): returns a bad answer to the pair. '
            "order: the positions of all pairs, in the order in which they are to be spoilt.",
            rules={
                "share": "As many pairs are spoilt as the whole number nearest to share * number of pairs: those that stand first in `order`.",
                "spoilt": "A spoilt pair is a new dictionary: make_bad(pair) as response, all else as it was.",
                "places": "Every pair keeps its place; one that is not spoilt is returned as it is.",
                "unchanged": "The given list and its pairs stay as they are.",
            },
            draw=_draw_spoil,
            hints=(
                "Decide first which positions are spoilt. Then go through the pairs with their positions.",
                ("share", "`order[:n]` are the first n positions; `in` asks whether a position is among them."),
                ("unchanged", "`{**pair, ...}` makes a new dictionary from an old one."),
            ),
            path="How many pairs are spoilt? Which positions are these? Make a set of them, go through the pairs with `enumerate`, and build a new dictionary for each position in the set. "
            "The usual wrong turn is `pair['response'] = …`: it changes the good pairs as well, so the control arm is spoilt too.",
            why="The order comes from outside, and that makes the experiment fair. With one order for all defects, every defect hits the same questions. "
            "And whatever a small share spoils is spoilt by a larger one as well, so two shares differ only in the pairs that are added.",
        ),
        Exercise(
            FILTER,
            "Filter the pairs",
            filter_pairs,
            FILTER_CASES,
            asks="Return the pairs that are worth training on, as a list.\n\n"
            'pairs: list of {"prompt": ..., "response": ...}, some with further keys; good and bad mixed, without labels.',
            rules={
                "pairs": "The pairs are returned as they came, whole, and each one once.",
                "order": "They stay in the order of the list, so that filters can be compared.",
                "precision": "Precision, the share of bad pairs among those left out, is at least 90%.",
                "recall": "Recall, the share of the bad pairs that are left out, is at least 60%.",
                "conversations": "A conversation, with `messages` in place of prompt and response, is kept.",
                "unchanged": "The given list and its pairs stay as they are.",
            },
            hints=(
                "Read the pairs above the task and write down what gives the bad ones away. Each thing is one rule.",
                ("recall", "Rules worth having: the response begins with its own prompt; it apologizes; it repeats itself; it does not end as a sentence does."),
                "`sftlab.scoring.format_compliance(response, count)` knows what a sentence and a list look like; “three tips” in the prompt gives the count.",
            ),
            path="Begin with the loop: keep an entry with messages, and for each of the rest ask whether any rule objects to it. Start with one precise rule, look at what it leaves out, and add the next. "
            "Precision falls with each rule that also meets good pairs: very short answers, lists and honest “I do not know” are good. The usual wrong turn is to judge a list like a single sentence.",
            why="A filter of low precision loses good pairs, one of low recall keeps bad ones. Rules of form are precise and cheap, and blind to a wrong fact that is well said: "
            "for that you need knowledge, from a table, a person or a large model.",
            shows=(complaints,),
        ),
    )
}  # fmt: skip
