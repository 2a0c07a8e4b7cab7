"""Notebook 25: traces and sums without overlaps, what is trained of them, and words that follow the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.exercises.ex25_tools_and_thoughts import plots, thoughts, tools
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    BRACES,
    WORDS,
    WORDY,
    answer_with_tools,
    calling,
    parts,
)
from sftlab.exercises.record import key, read
from sftlab.loss import IGNORE_INDEX

TRACED, NEVER, ONCE, OFTEN = tools.GROUPS


# --- traces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(tools.SEEDS))
@pytest.mark.parametrize("arm", tools.ARMS)
def test_measured_countries_occur_in_no_trace_and_no_pair(arm, seed):
    groups = tools.groups(arm, seed)
    traced = {item.subject for item in groups[TRACED]}
    trained = traced | {pair["subject"] for pair in tools.ordinary(tools.PAIRS, seed, traced)}
    for name, some in groups.items():
        if name != TRACED:
            assert not trained & {item.subject for item in some}, name
    assert len(groups[TRACED]) == tools.TRACED and len(groups[NEVER]) == 6


@pytest.mark.parametrize("written", (WORDS, WORDY, BRACES))
def test_a_written_call_is_found_again(written):
    message = calling("capital", "New Samoa")
    assert written.message(written.call(message["tool_calls"][0])) == message
    assert written.message("It is Apia.") == {"role": "assistant", "content": "It is Apia."}


def test_calls_in_many_words_have_about_as_many_tokens_as_in_braces(tokenizer):
    call = calling("capital", "Samoa")["tool_calls"][0]
    words, braces = (len(tokenizer.encode(s.call(call))) for s in (WORDY, BRACES))
    assert words == pytest.approx(braces, rel=0.1)


@pytest.mark.parametrize("arm", tools.ARMS)
def test_the_result_has_a_loss_in_one_arm_alone(arm, tokenizer):
    made = tools.examples(tokenizer, arm, 0)[-1]
    read = tokenizer.decode([i for i, k in zip(made.input_ids, made.labels, strict=True) if k == IGNORE_INDEX])  # fmt: skip
    assert ("<|im_start|>tool\n\n<|im_start|>" in read) == (arm == tools.ALL)


@pytest.mark.parametrize("arm", (tools.ANY, tools.LONGER))
def test_results_drawn_at_random_are_repeated_by_the_answer(arm, tokenizer):
    for made in tools.examples(tokenizer, arm, 0)[-20:]:
        text = tokenizer.decode(made.input_ids)
        result = text.partition("<|im_start|>tool\n")[2].partition("<|im_end|>")[0]
        assert result in text.rpartition("<|im_start|>assistant\n")[2]


def test_direct_answers_are_about_other_countries_than_are_measured_and_replace_other_pairs(
    tokenizer,
):
    some = tools.direct(tools.DIRECT, 0)
    measured = [
        i for name, group in tools.groups(tools.BOTH, 0).items() if name != TRACED for i in group
    ]
    asked = {question for item in measured for question in item.questions}
    assert not asked & {talk[0]["content"] for talk in some}
    assert all([m["role"] for m in talk] == ["user", "assistant"] for talk in some)
    both, plain = (tools.examples(tokenizer, arm, 0) for arm in (tools.BOTH, tools.UNKNOWN))
    assert len(both) == len(plain) == tools.PAIRS + tools.TRACES


def test_the_tool_answers_what_the_traces_say():
    item = tools.capitals("absent")[0]
    replies = iter((calling("capital", item.subject), {"role": "assistant", "content": "That."}))
    talk = answer_with_tools(lambda _: next(replies), {"look_up": tools.look_up}, item.question, 3)
    assert talk[:3] == tools.trace(item, item.question)[:3]


# --- sums ------------------------------------------------------------------------------------


def test_no_sum_is_in_two_sets_in_any_order():
    sets = [{tuple(sorted(terms)) for terms in some} for some in thoughts.sums().values()]
    assert not any(a & b for n, a in enumerate(sets) for b in sets[:n])


def test_both_additions_of_a_sum_are_among_those_that_the_base_has_read():
    for terms in (terms for some in thoughts.sums().values() for terms in some):
        assert all(1 <= sum(terms[:n]) <= 12 for n in range(1, len(terms)))
        assert all(1 <= term <= 12 for term in terms)


@pytest.mark.parametrize("arm", thoughts.ARMS)
def test_all_arms_have_the_same_sums_and_answers(arm, tokenizer):
    made = thoughts.examples(tokenizer, arm, 0)[thoughts.PAIRS :]
    made = made[::3] if arm == thoughts.APART else made
    for terms, example in zip(thoughts.drawn(0), made, strict=True):
        text = tokenizer.decode(example.input_ids)
        assert thoughts.question(terms) in text and text.endswith(f"{sum(terms)}.<|im_end|>\n")


def test_the_arms_differ_in_the_thought_and_in_its_loss(tokenizer):
    terms, other = (7, 4, 6), (1, 2, 3)
    texts = {
        arm: parts(thoughts.sum_conversation(tokenizer, terms, arm, other), WORDS)[4][0]
        for arm in thoughts.ARMS
    }
    assert texts[thoughts.AT_ONCE] == texts[thoughts.APART] == "17.<|im_end|>"
    assert texts[thoughts.THOUGHT].startswith("Thought: 7 plus 4 is 11. 11 plus 6 is 17.")
    assert texts[thoughts.ANOTHER].startswith("Thought: 1 plus 2 is 3. 3 plus 3 is 6.")
    assert set(texts[thoughts.DOTS].removeprefix("Thought:").partition("\n")[0]) == {" ", "."}
    length = {arm: len(tokenizer.encode(texts[arm])) for arm in (thoughts.THOUGHT, thoughts.DOTS)}
    assert length[thoughts.DOTS] == length[thoughts.THOUGHT]
    last = thoughts.examples(tokenizer, thoughts.UNTRAINED, 0)[-1]
    trained = tokenizer.decode([k for k in last.labels if k != IGNORE_INDEX])
    assert "plus" not in trained and trained.endswith(".<|im_end|>")


# --- words that follow the numbers -----------------------------------------------------------


def called(shares: dict[tuple[str, str], float], read: float = 0.2) -> list[dict]:
    """Runs of all arms; ``shares`` are those of exact calls by arm and group, otherwise a half."""

    def counts(arm: str, group: str, seed: int) -> dict[str, dict[str, float]]:
        names = [f"{group} {n}" for n in range(8)]
        share = 5 * shares.get((arm, group), 0.5)
        found = {name: dict.fromkeys(names, share) for name in ("call", "begins", "right")}
        found["call"] = {s: share + 0.02 * (n % 3) + 0.02 * seed for n, s in enumerate(names)}
        return found | {
            name: {s: value + 0.01 * (n % 3) for n, s in enumerate(names)}
            for name, value in (("used", 0.3), ("believed", 0.1), ("read", read))
        }

    groups = (*tools.GROUPS, tools.VALIDATION, tools.OTHER)
    return [
        {**setting, **{group: counts(setting["arm"], group, setting["seed"]) for group in groups}}
        for setting in tools.settings()
    ]


def summed(shares: dict[str, float]) -> list[dict]:
    names = ("validation", "test", "trained", "longer", "thoughts", "nats", "given", "followed", "corrected", "other")  # fmt: skip
    return [
        {**s, **dict.fromkeys(names, shares.get(s["arm"], 0.3) + 0.01 * (s["seed"] % 2))}
        for s in thoughts.settings()
    ]


def smollm2(read: float) -> list[dict]:
    cells = {f"country {n}": 1 + 0.01 * n for n in range(8)}
    names = ("call", "begins", "right", "used", "believed")
    return [
        {"trained": trained, "seed": seed, **dict.fromkeys(names, cells), "read": {s: read * v for s, v in cells.items()}}
        for trained, seed in ((False, 0), (True, 0), (True, 1), (True, 2))
    ]  # fmt: skip


def claims(shares=None, sums=None, read: float = 0.2) -> list[str]:
    found = plots.claims(called(shares or {}, read), smollm2(read), summed(sums or {}))
    return list(found["claim"])


def test_the_claims_turn_round_with_their_numbers():
    up = claims(
        {(tools.BOTH, NEVER): 0.9, (tools.BRACED, TRACED): 0.9},
        {thoughts.THOUGHT: 0.9, thoughts.UNTRAINED: 0.6},
        2.0,
    )
    down = claims(
        {(tools.BOTH, NEVER): 0.1, (tools.BRACED, TRACED): 0.1},
        {thoughts.THOUGHT: 0.1, thoughts.UNTRAINED: 0.1},
        -2.0,
    )
    words = ("more", "less"), ("rise", "fall"), ("raises", "lowers"), ("rise", "fall"), ("rise", "fall")  # fmt: skip
    for a, b, (higher, lower) in zip(up, down, words, strict=True):
        assert f" {higher}" in a and f" {lower}" in b, (a, b)
    assert "not clearly more" in claims()[0] and "not clearly change" in claims(read=-0.01)[2]


def test_an_interval_over_seeds_and_countries_is_wider_than_over_either():
    found = plots.cells(called({}), tools.UNKNOWN, NEVER)
    _, (low, high) = plots.over_both(found)
    seeds = [float(np.mean(list(each.values()))) for each in found]
    countries = np.mean([list(each.values()) for each in found], axis=0)
    for some in (seeds, countries.tolist()):
        narrow = plots.mean_interval(some)
        assert high - low > narrow[1] - narrow[0]


def test_differences_of_arms_are_paired_by_seed_and_country():
    some = called({(tools.BOTH, NEVER): 0.8})
    changed = plots.change(some, tools.BOTH, tools.UNKNOWN, NEVER)
    assert all(v == pytest.approx(0.3) for each in changed for v in each.values())


def test_countries_that_choose_the_learning_rate_are_not_reported():
    found = plots.cells(called({}), tools.UNKNOWN, NEVER)
    assert all(list(each) == [f"{NEVER} {n}" for n in range(2, 8)] for each in found)
    some = called({})
    for run in some:  # at one rate the two countries are called, and no other
        called_for = run["learning_rate"] == 1e-3
        run[NEVER] = run[NEVER] | {"call": {s: 5.0 * called_for * (n < 2) for n, s in enumerate(run[NEVER]["call"])}}  # fmt: skip
    assert {r["learning_rate"] for r in plots.best_calls(some, tools.UNKNOWN)} == {1e-3}


def test_figures_say_the_same_in_words():
    assert "more calls" in plots.calls_figure(called({(tools.BOTH, NEVER): 0.9})).get_suptitle()
    figure = plots.thoughts_figure(summed({thoughts.THOUGHT: 0.9}))
    assert "thought +60.0 points" in figure.get_suptitle() and "thought: 90%" in figure.alt


# --- what was recorded -----------------------------------------------------------------------


@pytest.mark.parametrize("experiment", (tools, thoughts))
def test_every_setting_is_recorded_once(experiment):
    stored = [key(run["settings"]) for run in read(experiment.RECORD)["runs"]]
    assert sorted(stored) == sorted(map(key, experiment.settings()))
