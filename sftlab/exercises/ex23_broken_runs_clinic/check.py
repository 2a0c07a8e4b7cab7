"""Checks of notebook 23: a diagnosis from figures, and one repair for each kind of fault."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sftlab._internal.paths import MODELS
from sftlab.chat import encode, render_prompt, user
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken, is_plain_sequence, is_tensor, plain, shorten
from sftlab.exercises.drawing import adapter, sentence, tensor
from sftlab.exercises.ex23_broken_runs_clinic.clinic import FAULTS, HEALTHY
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND, diagnose
from sftlab.exercises.ex23_broken_runs_clinic.repairs import (
    drop,
    fit_names,
    micro_batch_weights,
    repair_merge,
    repair_row,
    serving_prompt,
)
from sftlab.exercises.record import runs
from sftlab.loss import IGNORE_INDEX
from sftlab.templates import with_template

DIAGNOSE, ROW, WEIGHTS, MERGE = (
    "23.diagnose",
    "23.repair_row",
    "23.micro_batch_weights",
    "23.repair_merge",
)
NAMES, DROP, PROMPT = "23.fit_names", "23.drop", "23.serving_prompt"


# --- 23a: the diagnosis ----------------------------------------------------------------------------
WHICH = {  # fault: the figure that tells it
    "prompts trained too": "prompt trained",
    "end marker masked as padding": "end trained",
    "begin token doubled": "begin tokens",
    "labels shifted twice": "labels in place",
    "answers cut off": "answer trained",
    "mean of means": "split moves gradient",
    "dropout in evaluation": "passes differ",
    "wrong factor in the merge": "strength",
    "adapter not loaded": "strength",
    "another family's template": "prompt fits rows",
}
VARIANTS = {  # other data and settings: what is not named is as in a sound run
    "a sound run, with the rounding of another processor": {
        "strength": 0.99999, "split moves gradient": 3e-7, "passes differ": 2e-6},
    "answers cut at a generous length": {"answer trained": 0.72, "end trained": 0.41},
    "the end marker masked in 4 of 10 rows": {"end trained": 0.6},
    "half of the rows begin twice": {"begin tokens": 1.5, "prompt fits rows": 0.5},
    "merged with α/r, but twice": {"strength": 2.0},
    "not quite half of the update is in the served model": {"strength": 0.4},
    "merged with the sign turned": {"strength": -1.0},
    "dropout of 1% that stays on": {"passes differ": 0.02},
    "dropout that stays on in one small layer": {"passes differ": 0.004},
    "micro-batches of nearly equal length": {"split moves gradient": 0.04},
    "half of the prompt trained": {"prompt trained": 0.5},
}  # fmt: skip
CONFUSED = {  # (what it is, what was said): what tells them apart
    ("answers cut off", "end marker masked as padding"): "A cut removes the end-of-turn token as well, so look at the answers first: only {answer trained:.0%} of their tokens carry loss here.",
    ("end marker masked as padding", "answers cut off"): "Nothing is cut: {answer trained:.0%} of the answers' tokens carry loss here. Only their end-of-turn tokens do not.",
    ("begin token doubled", "another family's template"): "A doubled begin token keeps prompts from fitting their examples as well. Count it first: {begin tokens:g} per example here.",
    ("another family's template", "begin token doubled"): "The examples begin with {begin tokens:g} begin token here, as in a sound run. Still the served prompts do not fit them.",
    ("wrong factor in the merge", "adapter not loaded"): "The update is in the served model, {strength:g} times. If the adapter were not loaded, that would be 0 times.",
    ("adapter not loaded", "wrong factor in the merge"): "The update is {strength:g} times in the served model. A wrong factor would leave some of it.",
    ("labels shifted twice", "prompts trained too"): "Labels that are shifted twice move one answer token into the prompt: {prompt trained:.0%} of the prompts here. Look at whether the labels are in place first.",
}  # fmt: skip


def _odd(seen: dict[str, float]) -> list[str]:
    """Return the figures that differ from a sound run's, in words."""
    return [f"{name} {seen[name]:.3g}" for name in SOUND if abs(seen[name] - SOUND[name]) > 1e-3]


def _verify_diagnosis(make: Callable[[], tuple]):
    def verify(value: Any, _: tuple) -> str | None:
        (seen,) = make()
        fault, telling = diagnose(seen)
        value = plain(value)
        if not is_plain_sequence(value) or len(value) != 2:
            return Broken("two", f"It returns `{value!r}` and not two values.")
        said, figure = value
        if figure in FAULTS and said not in FAULTS:
            return Broken(
                "two", f"It returns `{value!r}`: the fault comes first, the figure second."
            )
        if said not in FAULTS:
            return Broken(
                "two", f"There is no such fault as `{said!r}`. Take a name from `FAULTS`."
            )
        if said != fault:
            return _misjudged(seen, fault, said)
        if fault == HEALTHY or figure == telling:
            return None
        if figure not in SOUND:
            return Broken(
                "two", f"The fault is right, “{fault}”, but `{figure!r}` is not a name in `SOUND`."
            )
        if abs(seen[figure] - SOUND[figure]) <= 1e-3:
            return Broken(
                "figure",
                f"The fault is right, “{fault}”, but “{figure}” does not show it: it is {seen[figure]:.3g} here, as in a sound run.",
            )
        return Broken(
            "figure", f"The fault is right, “{fault}”, but another fault changes “{figure}” too."
        )

    return verify  # fmt: skip


def _misjudged(seen: dict[str, float], fault: str, said: str) -> str:
    if fault == HEALTHY:
        return Broken(
            "sound",
            f"A false alarm, “{said}”: every figure is that of a sound run, up to rounding.",
        )
    if said == HEALTHY:
        return f"It calls this run healthy. Look at: {', '.join(_odd(seen))}."
    if (fault, said) in CONFUSED:
        rule = "strength" if WHICH[fault] == "strength" else "several"
        return Broken(rule, CONFUSED[fault, said].format_map(seen))
    figure = WHICH[said]
    if abs(seen[figure] - SOUND[figure]) > 1e-3:
        return Broken("several", f"“{said}” does not explain all of: {', '.join(_odd(seen))}.")
    return f"“{said}” would change “{figure}”, which is {seen[figure]:.3g} here, as in a sound run. Different are: {', '.join(_odd(seen))}."  # fmt: skip


@functools.cache
def _recorded(fault: str) -> dict[str, float]:
    return runs("clinic", fault=fault, seed=1)[0]["figures"]


def _chart(fault: str) -> tuple:
    return (dict(_recorded(fault)),)


def _variant(name: str) -> tuple:
    return ({**SOUND, **VARIANTS[name]},)


RULES_OF = {"cut off": "several", "doubled": "several", "shifted": "several", "begin twice": "several",
            "cut at": "several", "merge": "strength", "served": "strength", "not loaded": "strength", "α/r": "strength"}  # fmt: skip


def _diagnosis_cases() -> list[Case]:
    recorded = [
        (f"figures of a recorded run, number {number}", functools.partial(_chart, fault), fault)
        for number, fault in enumerate(FAULTS, 1)
    ]
    others = [
        (f"figures of another run: {name}", functools.partial(_variant, name), name)
        for name in VARIANTS
    ]
    # Sound runs first: an answer that sees faults everywhere should hear of that.
    ordered = [recorded[0], others[0], *recorded[1:], *others[1:]]
    rules = [next((RULES_OF[k] for k in RULES_OF if k in name), "one") for _, _, name in ordered]
    rules[:2] = ["sound", "sound"]
    return [
        Case(told, make, verify=_verify_diagnosis(make), rule=rule)
        for (told, make, _), rule in zip(ordered, rules, strict=True)
    ]


# --- 23b: the row ------------------------------------------------------------------------------------
def _joined(prompt, answer, end, max_length):
    """The row of a prompt as it is, whatever begin tokens it has."""
    ids, labels = [*prompt, *answer, end], [IGNORE_INDEX] * len(prompt) + [*answer, end]
    return None if len(ids) > max_length else (ids, labels)


@mistake(ROW, "The prompt is trained too: its labels are its ids.")
def _prompt_trained(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], row[0])


@mistake(ROW, "The end token has the label -100: without it in the loss the model never learns to stop.")  # fmt: skip
def _end_masked(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [*row[1][:-1], IGNORE_INDEX])


END_MISSING = "The end token is missing. The answer comes without it: append it, and train it."


@mistake(ROW, END_MISSING)
def _end_missing(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer[:-1], begin, answer[-1], max_length)


@mistake(ROW, END_MISSING)
def _end_counted_and_missing(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0][:-1], row[1][:-1])


@mistake(ROW, "Begin tokens that come several times in front stay. At inference there is one.")
def _begin_twice(prompt, answer, begin, end, max_length):
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "Of several begin tokens in front only one is removed. One should be left, however many there are.")  # fmt: skip
def _one_begin_removed(prompt, answer, begin, end, max_length):
    return _joined(prompt[prompt[:2] == [begin, begin] :], answer, end, max_length)


@mistake(ROW, "All begin tokens in front are gone. One stays if there were any.")
def _no_begin_in_front(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length + 1)
    first = int(prompt[0] == begin)
    return None if row is None or len(row[0]) - first > max_length else (row[0][first:], row[1][first:])  # fmt: skip


@mistake(ROW, "All begin tokens are gone, in front and further on. In front, one stays; further on, all stay, because some families open every turn with one.")  # fmt: skip
def _every_begin_gone(prompt, answer, begin, end, max_length):
    prompt = [token for token in prompt if token != begin]
    return _joined(prompt, answer, end, max_length)


BEGINS_GONE = "Begin tokens further on in the prompt are gone. Some families open every turn with one: only those in front become one."  # fmt: skip


@mistake(ROW, BEGINS_GONE)
def _begins_further_on_gone(prompt, answer, begin, end, max_length):
    first = prompt[: prompt[0] == begin]
    prompt = [*first, *(token for token in prompt if token != begin)]
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "A begin token is added to a prompt that has none, and those further on are gone. Only begin tokens in front become one; where there is none, none is added.")  # fmt: skip
def _one_begin_in_any_case(prompt, answer, begin, end, max_length):
    prompt = [begin, *(token for token in prompt if token != begin)]
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "A begin token is added to a prompt that has none. Not every family has one.")
def _begin_added(prompt, answer, begin, end, max_length):
    prompt = prompt if prompt[0] == begin else [begin, *prompt]
    return repair_row(prompt, answer, begin, end, max_length)


@mistake(ROW, "Tokens that repeat are gone from the prompt. Only begin tokens in front are one too many.")  # fmt: skip
def _repeats_gone(prompt, answer, begin, end, max_length):
    return _joined(list(dict.fromkeys(prompt)), answer, end, max_length)


@mistake(ROW, "Of equal tokens side by side in the prompt only one stays, whatever they are. Only begin tokens in front are one too many.")  # fmt: skip
def _neighbors_merged(prompt, answer, begin, end, max_length):
    return _joined([key for key, _ in itertools.groupby(prompt)], answer, end, max_length)


@mistake(ROW, "Labels are masked by value: an id of the answer, or the end token, that occurs in the prompt too has the label -100. The place decides, not the id.")  # fmt: skip
def _masked_by_value(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [IGNORE_INDEX if token in prompt else token for token in row[0]])


@mistake(ROW, "The labels are those of the prompt before its repair, so they no longer stand at their tokens. Repair the prompt first.")  # fmt: skip
def _labels_of_the_old_prompt(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (
        row[0],
        ([IGNORE_INDEX] * len(prompt) + row[0][len(prompt) :])[: len(row[0])],
    )


@mistake(ROW, "The first token is taken for a begin token, whatever it is. Compare it with `begin`: other tokens stay as often as they come.")  # fmt: skip
def _any_first_token(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, prompt[0], end, max_length)


@mistake(ROW, "The labels are one position too early. The loss shifts them; here each stands at its own token.")  # fmt: skip
def _labels_shifted(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [*row[1][1:], IGNORE_INDEX])


@mistake(ROW, "An example that is too long is cut at its end, and its answer with it.")
def _cut(prompt, answer, begin, end, max_length):
    ids, labels = repair_row(prompt, answer, begin, end, math.inf)
    return ids[:max_length], labels[:max_length]


@mistake(ROW, "An example that is too long loses its front: the model would not see the whole question.")  # fmt: skip
def _cut_in_front(prompt, answer, begin, end, max_length):
    ids, labels = repair_row(prompt, answer, begin, end, math.inf)
    return ids[-max_length:], labels[-max_length:]


@mistake(ROW, "Examples longer than max_length come back whole.")
def _too_long_kept(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, math.inf)


@mistake(ROW, "An example that is too long becomes an empty one. It has nothing to train, and its loss is undefined.")  # fmt: skip
def _too_long_emptied(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, max_length) or ([], [])


@mistake(ROW, "An example of exactly max_length tokens fits, but is left out.")
def _full_row_left_out(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, max_length - 1)


@mistake(ROW, "The length is counted without the end token: an example of max_length + 1 tokens comes back.")  # fmt: skip
def _end_not_counted(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, max_length + 1)


@mistake(ROW, "The length is counted before the begin tokens become one, so an example that fits is left out.")  # fmt: skip
def _counted_too_early(prompt, answer, begin, end, max_length):
    return _joined(prompt, answer, end, max_length) and repair_row(prompt, answer, begin, end, max_length)  # fmt: skip


@mistake(ROW, "The prompt's labels are 0, a token like any other. The loss ignores only -100.")
def _prompt_labels_zero(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [0 if y == IGNORE_INDEX else y for y in row[1]])


@mistake(ROW, "The wrong side is masked: the prompt is trained and the answer is not.")
def _answer_masked(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    if row is None:
        return None
    ids, labels = row
    return ids, [x if y == IGNORE_INDEX else IGNORE_INDEX for x, y in zip(ids, labels, strict=True)]


ROWS = (
    ("mask", "one begin token, three more tokens of prompt, two of answer", [1, 11, 12, 13], [21, 22], 20),
    ("mask", "a prompt with the end token and a token of the answer", [1, 11, 2, 12, 22], [21, 22], 20),
    ("front", "the begin token twice", [1, 1, 11, 12, 13], [21, 22, 23], 20),
    ("front", "the begin token three times", [1, 1, 1, 11, 12, 12, 13], [21, 22, 23], 20),
    ("further", "no begin token, and the first token twice", [11, 11, 12], [21], 20),
    ("further", "turns that open with the begin token and close with the end token", [1, 1, 11, 2, 1, 12], [21, 22], 20),
    ("further", "two begin tokens side by side, but not in front", [11, 1, 1, 12], [21, 22], 20),
    ("long", "exactly max_length tokens", [1, 11, 12], [21, 22], 6),
    ("long", "one token more than max_length", [1, 11, 12], [21, 22, 23], 6),
    ("long", "four tokens more than max_length", [1, 11, 12], [21, 22, 23, 24, 25, 26], 6),
    ("long", "one token more than max_length, but the begin token is there twice", [1, 1, 11, 12], [21, 22], 6),
)  # fmt: skip


def _row_cases() -> list[Case]:
    return [
        Case(
            f"{name}: prompt {prompt}, answer {answer}, begin 1, end 2, max_length {length}",
            lambda p=prompt, a=answer, n=length: (list(p), list(a), 1, 2, n),
            repair_row,
            rule=rule,
        )
        for rule, name, prompt, answer, length in ROWS
    ]


def _draw_row(rng: random.Random, *_: object) -> tuple:
    begin, end, *ids = rng.sample(range(100), 12)
    prompt = [begin] * rng.randint(0, 3) + ids[: rng.randint(1, 5)]
    answer = ids[5 : 5 + rng.randint(1, 5)]
    return prompt, answer, begin, end, rng.randint(4, 14)


# --- 23c: the weights of micro-batches -----------------------------------------------------------------
@mistake(WEIGHTS, "Every micro-batch has the same weight. That is the mean of means: a token in a short micro-batch counts more.")  # fmt: skip
def _equal(counts):
    return [1 / len(counts)] * len(counts)


@mistake(WEIGHTS, "The micro-batches that hold trained tokens share the weight equally. That is the mean of means: a token in a short micro-batch counts more.")  # fmt: skip
def _equal_where_any(counts):
    return [(n > 0) / sum(m > 0 for m in counts) for n in counts]


@mistake(WEIGHTS, "Every weight is 1: the loss, and the gradient, grow with the number of micro-batches.")  # fmt: skip
def _ones(counts):
    return [1.0] * len(counts)


@mistake(WEIGHTS, "The weights are the counts themselves. The result is a sum over tokens and not their mean.")  # fmt: skip
def _counts(counts):
    return [float(n) for n in counts]


@mistake(WEIGHTS, "Each count is divided by the number of micro-batches. Divide by the number of all trained tokens.")  # fmt: skip
def _by_their_number(counts):
    return [n / len(counts) for n in counts]


@mistake(WEIGHTS, "Each count is divided by the largest. The weights should sum to 1.")
def _by_the_largest(counts):
    return [n / max(counts) for n in counts]


@mistake(WEIGHTS, "Short micro-batches get the large weights. A micro-batch counts by its trained tokens.")  # fmt: skip
def _short_ones_most(counts):
    inverse = [1 / n if n else 0 for n in counts]
    return [x / sum(inverse) for x in inverse]


@mistake(WEIGHTS, "The weights are 1/count, but the losses are means already: that divides by the count twice.")  # fmt: skip
def _inverse(counts):
    return [1 / n if n else 0.0 for n in counts]


@mistake(WEIGHTS, "Every weight is 1/N, with N trained tokens in all. That is right for *sums*; here the means are weighted.")  # fmt: skip
def _one_over_all(counts):
    return [1 / sum(counts)] * len(counts)


@mistake(WEIGHTS, "The weights sum to the number of micro-batches, so the gradient grows with it. They should sum to 1.")  # fmt: skip
def _sum_to_their_number(counts):
    return [n / sum(counts) * len(counts) for n in counts]


@mistake(WEIGHTS, "This is a softmax of the counts: the longest micro-batch takes nearly all. The weights are proportional to the counts.")  # fmt: skip
def _softmax(counts):
    return torch.tensor(counts).float().softmax(0).tolist()


@mistake(WEIGHTS, "The division is upside down: all trained tokens divided by the count. A micro-batch with more trained tokens weighs more.")  # fmt: skip
def _fraction_upside_down(counts):
    return [sum(counts) / n if n else 0.0 for n in counts]


@mistake(WEIGHTS, "The weights are sorted. Each stands at the place of its micro-batch.")
def _sorted(counts):
    return sorted(n / sum(counts) for n in counts)


@mistake(WEIGHTS, "The weights are proportional to the squares of the counts. A token in a long micro-batch would weigh more than one in a short one.")  # fmt: skip
def _squares(counts):
    return [n * n / sum(m * m for m in counts) for n in counts]


@mistake(WEIGHTS, "Each count is divided by the total up to it. Divide by the total of all micro-batches, also of those that follow.")  # fmt: skip
def _running_total(counts):
    totals = itertools.accumulate(counts)
    return [n / total if total else 0.0 for n, total in zip(counts, totals, strict=True)]


@mistake(WEIGHTS, "The weights are rounded to 16 bits. Compute them in Python's numbers, or in float32.")  # fmt: skip
def _half(counts):
    half = torch.tensor(counts, dtype=torch.float16)
    return half / half.sum()


@mistake(WEIGHTS, "The weights are whole numbers: `//` cuts off everything after the point.")
def _whole_numbers(counts):
    return [n // sum(counts) for n in counts]


@mistake(WEIGHTS, "Micro-batches without trained tokens have no weight, so the weights no longer stand beside their micro-batches. Theirs is 0.")  # fmt: skip
def _empty_ones_left_out(counts):
    return [n / sum(counts) for n in counts if n]


COUNTS = (("share", [7, 34]), ("share", [13, 5, 6]), ("share", [1, 2, 3, 97]), ("zero", [0, 5, 17]), ("share", [31]))  # fmt: skip


def _draw_counts(rng: random.Random, *_: object) -> tuple:
    return ([rng.randint(0, 9) * rng.randint(1, 9) for _ in range(rng.randint(1, 6))] + [rng.randint(1, 99)],)  # fmt: skip


# --- 23d: the merge ------------------------------------------------------------------------------------
def _merged(dtype: torch.dtype, r: int, alpha: float, d_in: int) -> tuple:
    """Return W + α·B·A in this dtype, with d_out = 23, and what it was made from."""
    rng = random.Random(r)
    W, A, B = tensor(rng, 23, d_in), tensor(rng, r, d_in), tensor(rng, 23, r)
    return (W + alpha * (B @ A)).to(dtype), A, B, alpha, r


MERGES = (
    ("factor", torch.float32, 3, 5.0, 31, 1e-5),
    ("factor", torch.float32, 5, 2.0, 23, 1e-5),  # square, so a transposed product fits as well
    # Each rounding to bfloat16 moves a number by up to 1 part in 256; two are right as well.
    ("dtype", torch.bfloat16, 2, 7.0, 31, 2e-2),
)


def _draw_merged(rng: random.Random, *_: object) -> tuple:
    A, B, alpha, r = adapter(rng)
    return tensor(rng, len(B), A.shape[1]), A, B, alpha, r


@mistake(MERGE, "The whole update is taken out: this is the base, and what was trained is lost. α/r · B·A should stay.")  # fmt: skip
def _to_the_base(W, A, B, alpha, r):
    return (W - alpha * (B @ A)).to(W.dtype)


@mistake(
    MERGE, "α/r · B·A is taken out, which leaves (α − α/r) · B·A. Look at which part should *stay*."
)
def _wrong_part_stays(W, A, B, alpha, r):
    return (W - alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "r · B·A is taken out. W holds α · B·A, of which α/r · B·A should stay.")
def _r_times(W, A, B, alpha, r):
    return (W - r * (B @ A)).to(W.dtype)


@mistake(MERGE, "This leaves 1 · B·A. The adapter was trained with the factor α/r.")
def _factor_one(W, A, B, alpha, r):
    return (W - (alpha - 1) * (B @ A)).to(W.dtype)


@mistake(MERGE, "This leaves α/√r · B·A, with the factor of rank-stabilized LoRA. This adapter was trained with α/r.")  # fmt: skip
def _rank_stabilised(W, A, B, alpha, r):
    return (W - (alpha - alpha / math.sqrt(r)) * (B @ A)).to(W.dtype)


@mistake(MERGE, "This leaves r/α · B·A. The factor is α/r.")
def _upside_down(W, A, B, alpha, r):
    return (W - (alpha - r / alpha) * (B @ A)).to(W.dtype)


@mistake(MERGE, "α/r · B·A is added once more. W holds too much of the update already.")
def _added_again(W, A, B, alpha, r):
    return (W + alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "The whole weight is divided by r, the base with it. Only the update is too large.")
def _all_divided(W, A, B, alpha, r):
    return W / r


@mistake(MERGE, "W comes back unchanged: the update is still r times too large.")
def _unchanged(W, A, B, alpha, r):
    return W


@mistake(MERGE, "This is the update alone. The base weight is missing.")
def _update_alone(W, A, B, alpha, r):
    return (alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "A sign is turned: (α − α/r) · B·A is added and not taken out.")
def _surplus_added(W, A, B, alpha, r):
    return (W + (alpha - alpha / r) * (B @ A)).to(W.dtype)


@mistake(
    MERGE,
    "(r − 1) · B·A is taken out. The surplus is the difference of the two factors, α and α/r.",
)
def _r_minus_one(W, A, B, alpha, r):
    return (W - (r - 1) * (B @ A)).to(W.dtype)


@mistake(MERGE, "α/r is rounded down to a whole number. It need not be whole: divide with /.")
def _whole_factor(W, A, B, alpha, r):
    return (W - (alpha - alpha // r) * (B @ A)).to(W.dtype)


@mistake(MERGE, "The rank is read off the wrong side of A, which has the shape (r, d_in). r is given as well.")  # fmt: skip
def _width_for_rank(W, A, B, alpha, r):
    return (W - (alpha - alpha / A.shape[1]) * (B @ A)).to(W.dtype)


@mistake(MERGE, "The product is transposed where W is square. B·A has the shape of W as it is.")
def _transposed_if_square(W, A, B, alpha, r):
    update = B @ A
    update = update.T if update.T.shape == W.shape else update
    return (W - (alpha - alpha / r) * update).to(W.dtype)


@mistake(MERGE, "The repaired weight comes back in float32 whatever the dtype of W.")
def _in_float32(W, A, B, alpha, r):
    return W.float() - (alpha - alpha / r) * (B @ A)


# --- 23e: the names ------------------------------------------------------------------------------------
def _told(saved: list, wanted: list, found: dict) -> tuple:
    """The mapping with what is missing and what is left over."""
    missing = [name for name in wanted if name not in found.values()]
    return found, missing, [name for name in saved if name not in found]


def _fitted(saved, wanted, same: Callable) -> tuple:
    return _told(saved, wanted, {s: w for w in wanted for s in saved if same(s, w)})


@mistake(NAMES, "Only equal names fit. A saved name may carry a prefix, such as “base_model.model.”: then nothing is loaded.")  # fmt: skip
def _equal_names(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s == w)


@mistake(NAMES, "“m.11.A” ends with “1.A” too and is another tensor. Look at what stands before the wanted name.")  # fmt: skip
def _ends_without_a_dot(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.endswith(w))


@mistake(NAMES, "Names without a prefix do not fit. A saved name may be equal to the wanted one.")
def _never_equal(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.endswith(f".{w}"))


@mistake(NAMES, "Only the prefix “base_model.model.” is known. Another library writes another one: compare the ends.")  # fmt: skip
def _one_prefix(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.removeprefix("base_model.model.") == w)


@mistake(NAMES, "Exactly one part in front is ignored. A prefix may have several parts, or none.")
def _first_part_cut(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: w in (s, s.partition(".")[2]))


@mistake(NAMES, "Exactly two parts in front are ignored. A prefix may have one part or several, or there is none.")  # fmt: skip
def _two_parts_cut(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: w in (s, ".".join(s.split(".")[2:])))


@mistake(NAMES, "The last two parts alone are compared. “layers.1.q.A” and “layers.2.q.A” end alike and are two tensors.")  # fmt: skip
def _last_two_parts(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.split(".")[-2:] == w.split(".")[-2:])


@mistake(NAMES, "The comparison is the wrong way round: the saved name carries the prefix, so it ends with the wanted one.")  # fmt: skip
def _wanted_ends_with_saved(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: f".{w}".endswith(f".{s}"))


ONE_PREFIX = "The prefix of one name is taken for that of all. A file may mix prefixes, and have names without one: compare each name by itself."


def _with_one_prefix(saved, wanted, choose: Callable) -> tuple:
    found = [s[: -len(w)] for s in saved for w in wanted if f".{s}".endswith(f".{w}")]
    prefix = choose(found) if found else ""
    return _fitted(saved, wanted, lambda s, w: s.startswith(prefix) and s[len(prefix) :] == w)


@mistake(NAMES, ONE_PREFIX)
def _first_prefix(saved, wanted):
    return _with_one_prefix(saved, wanted, lambda found: found[0])


@mistake(NAMES, ONE_PREFIX)
def _commonest_prefix(saved, wanted):
    return _with_one_prefix(saved, wanted, lambda found: max(found, key=found.count))


@mistake(NAMES, "The missing names are looked up among the saved ones, the keys of the mapping. The wanted names are its values.")  # fmt: skip
def _missing_among_the_keys(saved, wanted):
    found, _, left = fit_names(saved, wanted)
    return found, [name for name in wanted if name not in found], left


@mistake(NAMES, "A wanted name anywhere in a saved one is taken for a fit. It must be its end.")
def _anywhere(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: w in s)


@mistake(NAMES, "A wanted name in front or in the middle of a saved one is taken for a fit. It must be its end.")  # fmt: skip
def _anywhere_between_dots(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: f".{w}." in f".{s}.")


@mistake(NAMES, "Names are paired by their order. A file is not in the model's order, so A would land in B's place.")  # fmt: skip
def _in_their_order(saved, wanted):
    return _told(saved, wanted, dict(zip(saved, wanted, strict=False)))


@mistake(NAMES, "The mapping leads from wanted to saved names. It should lead from the saved name to the wanted one.")  # fmt: skip
def _turned_round(saved, wanted):
    found, missing, left = fit_names(saved, wanted)
    return {w: s for s, w in found.items()}, missing, left


@mistake(NAMES, "A wanted name without a tensor is not reported. Its weight would keep its initial value, silently.")  # fmt: skip
def _missing_not_told(saved, wanted):
    found, _, left = fit_names(saved, wanted)
    return found, [], left


@mistake(NAMES, "A saved name that fits nothing is not reported. Its tensor would be dropped, silently.")  # fmt: skip
def _left_over_not_told(saved, wanted):
    found, missing, _ = fit_names(saved, wanted)
    return found, missing, []


@mistake(NAMES, "Neither the missing names nor the left-over ones are reported: that is the fault of this run, `strict=False`.")  # fmt: skip
def _silent(saved, wanted):
    return fit_names(saved, wanted)[0], [], []


@mistake(NAMES, "The missing names and the left-over ones have changed places.")
def _changed_places(saved, wanted):
    found, missing, left = fit_names(saved, wanted)
    return found, left, missing


FILES = (
    ("equal", "no prefix, another order", ["h.1.B", "h.1.A"], ["h.1.A", "h.1.B"]),
    ("prefix", "a prefix on each", ["base_model.model.h.1.A", "base_model.model.h.1.B"], ["h.1.A", "h.1.B"]),
    ("prefix", "another prefix", ["module.h.1.A"], ["h.1.A"]),
    ("prefix", "layers 1 and 11", ["m.1.A", "m.11.A"], ["11.A", "1.A"]),
    ("missing", "a wanted tensor that is not there", ["m.h.1.A"], ["h.1.A", "h.1.B"]),
    ("left", "a tensor that nothing wants", ["m.h.1.A", "m.head.weight"], ["h.1.A"]),
    ("prefix", "two prefixes and none", ["a.h.1.B", "b.c.h.1.A", "h.2.A"], ["h.1.A", "h.1.B", "h.2.A"]),
    ("prefix", "the wanted name has a part more", ["1.A"], ["h.1.A"]),
    ("prefix", "a name within another", ["m.h.1.A.scale", "m.h.1.A", "m.h.1.Ab", "m.hx1.A", "m.H.1.A"], ["h.1.A"]),
    ("missing", "both missing and left over", ["m.h.1.lora_A"], ["h.1.A"]),
    ("missing", "an empty file", [], ["h.1.A"]),
)  # fmt: skip


def _fit_in_any_order(saved, wanted) -> tuple:
    found, missing, left = fit_names(saved, wanted)
    return found, set(missing), set(left)


def _draw_names(rng: random.Random, *_: object) -> tuple:
    wanted = [f"layers.{k}.{m}.A" for k in rng.sample(range(30), 3) for m in ("q", "v")]
    prefixes = ["base_model.model.", "m.", ""]
    saved = [rng.choice(prefixes) + name for name in rng.sample(wanted, rng.randint(2, 6))]
    saved += [f"{rng.choice(prefixes)}layers.{k}.norm" for k in range(rng.randint(0, 2))]
    rng.shuffle(saved)
    return saved, wanted


# --- 23f: dropout ----------------------------------------------------------------------------------------
def _numbers(
    p: float, training: bool, dtype: torch.dtype = torch.float32, shape: tuple = (100, 200)
) -> tuple:
    x = torch.linspace(-3, 5, 20_000, dtype=torch.float64) + 0.0131
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order][: math.prod(shape)].reshape(shape).to(dtype), p, training


def _verify_drop(make: Callable[[], tuple]):
    """Judge one call of ``drop`` by its zeros and by the factor of the numbers that stay."""

    def verify(value: Any, _: tuple) -> str | None:
        x, p, training = make()
        if not is_tensor(value):
            return Broken("dtype", f"The result is a `{type(value).__name__}` and no tensor.")
        if value.shape != x.shape:
            return Broken(
                "dtype",
                f"The shape changes from {tuple(x.shape)} to {tuple(value.shape)}: numbers that are dropped become 0 and keep their places.",
            )
        if value.dtype != x.dtype:
            return Broken("dtype", f"The dtype changes from {x.dtype} to {value.dtype}.")
        zeros = (value == 0).double().mean().item()
        if not training:
            return _at_rest(value, x, p, zeros)
        if zeros == 0 and p:
            return f"No number becomes 0 with p = {p}: is nothing dropped, or does one draw decide for all numbers?"
        if zeros == 1:
            return Broken(
                "alone",
                f"All numbers become 0 together with p = {p}: does one draw decide for all?",
            )
        if x.dim() < 2:
            return _scaled(value, x, p)
        if p and ((value == 0).all(0).any() or (value == 0).all(1).any()):
            return Broken("alone", "Whole rows or columns are dropped together.")
        if abs(zeros - p) > 0.02:
            return f"{zeros:.0%} of the numbers become 0 with p = {p}."
        small = x.abs() < x.abs().float().median()
        if any(
            abs((value[part] == 0).double().mean() - p) > 0.03
            for part in (small, slice(len(x) // 2))
        ):
            return Broken(
                "alone", "How likely a number becomes 0 depends on its value or its place."
            )
        return _scaled(value, x, p)

    return verify  # fmt: skip


def _scaled(value: Tensor, x: Tensor, p: float) -> str | None:
    kept = value != 0
    factors = value[kept].double() / x[kept].double()
    precise = 1e-2 if x.dtype == torch.bfloat16 else 1e-4
    if torch.allclose(factors, torch.full_like(factors, 1 / (1 - p)), rtol=precise):
        return None
    if p and torch.allclose(factors, torch.ones_like(factors), rtol=precise):
        return Broken(
            "scale",
            f"The numbers that stay are not scaled: the mean shrinks to {1 - p:g} of what it was.",
        )
    if (
        torch.allclose(factors, factors.mean(), rtol=precise)
        and abs(factors.mean() * (1 - p) - 1) < 0.05
    ):
        return Broken(
            "scale",
            f"The numbers that stay are multiplied by {factors.mean():.6g} and not by 1 / (1 - p) = {1 / (1 - p):.6g}. Divide by the probability to stay, not by the share that happened to stay.",
        )
    return Broken("scale", f"The numbers that stay are multiplied by {factors.mean():.3g} on average. For the mean to stay it would have to be {1 / (1 - p):.3g} for each.")  # fmt: skip


def _at_rest(value: Tensor, x: Tensor, p: float, zeros: float) -> str | None:
    if torch.equal(value, x):
        return None
    if zeros > 0.01:
        return f"With training=False {zeros:.0%} of the numbers become 0: this is the fault of the run. F.dropout(x, p) does so unless its third argument is False."
    if torch.allclose(value, x * (1 - p)):
        return "With training=False the numbers are multiplied by 1 − p. Here the scaling happens in training, and evaluation changes nothing."
    return "With training=False the numbers change."  # fmt: skip


def _drop_case(
    rule: str,
    p: float,
    training: bool,
    dtype: torch.dtype = torch.float32,
    shape: tuple = (100, 200),
) -> Case:
    make = functools.partial(_numbers, p, training, dtype, shape)
    kind = str(dtype).removeprefix("torch.")
    told = f"a tensor of shape {shape} in {kind}, p = {p:g}, training={training}"
    return Case(told, make, verify=_verify_drop(make), rule=rule)


def _anew(*_: Any) -> tuple:
    return torch.ones(100, 200), 0.5, True


def _verify_anew(value: Any, _: tuple) -> str | None:
    if is_tensor(value) and value.numel() and (value == 0).double().mean() in (0, 1):
        return Broken(
            "alone",
            "The numbers are equal here, and all or none become 0: equal numbers, or all, share one draw.",
        )
    if (
        not is_tensor(value)
        or value.shape != (100, 200)
        or not 0.4 < (value == 0).double().mean() < 0.6
    ):
        return Broken("share", "With p = 0.5 about half of the numbers should become 0.")
    first, second = (value == 0)[:50], (value == 0)[50:]
    if torch.equal(first, second) or torch.equal(first[:, :100], first[:, 100:]):
        return Broken("alone", "The zeros form a pattern that repeats.")
    return None  # fmt: skip


# --- 23g: the prompt ---------------------------------------------------------------------------------------
@functools.cache
def _tokenizer(family: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "almanac-base", local_files_only=True)
    return with_template(tokenizer, family)


BEGIN = "<|begin_of_text|>"


def _asked(family: str, question: str) -> tuple:
    tokenizer = _tokenizer(family)
    if family == "llama3":  # it adds a begin token to plain text by itself; set anew for each call
        from tokenizers.processors import TemplateProcessing

        tokenizer.bos_token = BEGIN
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.bos_token_id)]
        )
    return tokenizer, question


@mistake(PROMPT, "This writes ChatML by hand, whatever the model was trained with. Use the tokenizer's own template.")  # fmt: skip
def _typed(tokenizer, question):
    text = render_prompt(user(question))
    return tokenizer.encode(text, add_special_tokens=False)


@mistake(PROMPT, "The generation prompt is missing: the model would have to open its own turn first.")  # fmt: skip
def _no_generation_prompt(tokenizer, question):
    return encode(tokenizer, user(question))


@mistake(
    PROMPT, "The question stands alone, without a template: the model was never asked like that."
)
def _bare(tokenizer, question):
    return tokenizer.encode(question, add_special_tokens=False)


@mistake(PROMPT, "The first token comes twice. The template writes it already.")
def _first_token_twice(tokenizer, question):
    ids = serving_prompt(tokenizer, question)
    return [ids[0], *ids]


@mistake(PROMPT, "The rendered text is tokenized like any text, and a tokenizer that adds a begin token does so although the template has written one. Let the template give the ids.")  # fmt: skip
def _rendered_then_tokenized(tokenizer, question):
    return tokenizer(_text(tokenizer, question))["input_ids"]


@mistake(PROMPT, "The begin token is taken off. The template writes it, and the training examples begin with it.")  # fmt: skip
def _begin_taken_off(tokenizer, question):
    ids = serving_prompt(tokenizer, question)
    return ids[ids[0] == tokenizer.bos_token_id :]


@mistake(PROMPT, "The tokenizer's begin token is put in front. The template writes it where the family has one.")  # fmt: skip
def _begin_put_in_front(tokenizer, question):
    return [tokenizer.bos_token_id, *serving_prompt(tokenizer, question)]


@mistake(PROMPT, "An empty system message is added. The question is the only message.")
def _empty_system(tokenizer, question):
    messages = [{"role": "system", "content": ""}, *user(question)]
    return encode(tokenizer, messages, add_generation_prompt=True)


SPECIAL_GONE = "Special tokens of the prompt are gone. They tell the model who speaks, and stay as the template writes them."


@mistake(PROMPT, SPECIAL_GONE)
def _special_removed(tokenizer, question):
    ids = serving_prompt(tokenizer, question)
    return [token for token in ids if token not in tokenizer.all_special_ids]


@mistake(PROMPT, SPECIAL_GONE)
def _special_lost_in_text(tokenizer, question):
    text = tokenizer.decode(serving_prompt(tokenizer, question), skip_special_tokens=True)
    return tokenizer.encode(text, add_special_tokens=False)


@mistake(PROMPT, "Ids that come again are gone. A prompt holds a token as often as the template and the question do.")  # fmt: skip
def _each_id_once(tokenizer, question):
    return list(dict.fromkeys(serving_prompt(tokenizer, question)))


@mistake(PROMPT, "Of equal ids side by side only one stays. A prompt holds a token as often as the template and the question do.")  # fmt: skip
def _equal_neighbors_once(tokenizer, question):
    return [token for token, _ in itertools.groupby(serving_prompt(tokenizer, question))]


@mistake(PROMPT, "The question is turned into lower case. It goes into the template as it is.")
def _lower_case(tokenizer, question):
    return serving_prompt(tokenizer, question.lower())


@mistake(PROMPT, "A long question is cut. It goes into the template as it is.")
def _question_cut(tokenizer, question):
    return serving_prompt(tokenizer, question[:100])


@mistake(PROMPT, "A padding token is appended. The answer follows the generation prompt, with nothing between.")  # fmt: skip
def _padded(tokenizer, question):
    return [*serving_prompt(tokenizer, question), tokenizer.pad_token_id]


@mistake(PROMPT, "This is text. The model reads ids.")
def _text(tokenizer, question):
    return tokenizer.apply_chat_template(user(question), add_generation_prompt=True, tokenize=False)


@mistake(PROMPT, "This is a list that holds the list of ids: a batch of one prompt.")
def _batch_of_one(tokenizer, question):
    return [serving_prompt(tokenizer, question)]


@mistake(PROMPT, "This is what the tokenizer returns, ids and attention mask in one object. Return the ids alone.")  # fmt: skip
def _encoding(tokenizer, question):
    return dict(tokenizer.apply_chat_template(user(question), add_generation_prompt=True, return_dict=True))  # fmt: skip


@mistake(PROMPT, "The question stands in an assistant message. It comes from the user.")
def _wrong_turn(tokenizer, question):
    messages = [{"role": "assistant", "content": question}]
    return encode(tokenizer, messages, add_generation_prompt=True)


@mistake(
    PROMPT, "A system message is added that nobody asked for. The question is the only message."
)
def _system_added(tokenizer, question):
    messages = [{"role": "system", "content": "You are a helpful assistant."}, *user(question)]
    return encode(tokenizer, messages, add_generation_prompt=True)


@mistake(PROMPT, "An empty answer is appended and closed with its end-of-turn token: nothing is left to answer. Leave the turn open.")  # fmt: skip
def _closed(tokenizer, question):
    messages = [*user(question), {"role": "assistant", "content": ""}]
    return encode(tokenizer, messages)


@mistake(PROMPT, "The last token of the prompt is missing.")
def _last_token_missing(tokenizer, question):
    return serving_prompt(tokenizer, question)[:-1]


@mistake(PROMPT, "The question mark is gone: the question is changed before it is asked.")
def _question_changed(tokenizer, question):
    return serving_prompt(tokenizer, question.strip(" ?"))


@mistake(PROMPT, "The question is stripped before it is asked. Leave that to the template.")
def _question_stripped(tokenizer, question):
    return serving_prompt(tokenizer, question.strip())


LONG = "What does <| mean between " + "frogs, owls, bees, " * 20 + "hives and woods?"
ASKED = (("template", "gemma", "Name a pond animal?"), ("template", "chatml", "What is the plural of city?"),
         ("begin", "llama3", "Where does the frog live?"), ("question", "chatml", " Which is larger, 2 or 3? "),
         ("question", "chatml", LONG))  # fmt: skip


def _draw_prompt(rng: random.Random, *_: object) -> tuple:
    return _asked(rng.choice(["llama3", "gemma", "chatml"]), sentence(rng)[:-1] + "?")


# --- Exercises -----------------------------------------------------------------------------------------
EXERCISES = {
    DIAGNOSE: Exercise(
        id=DIAGNOSE,
        title="Diagnose a run from its figures",
        reference=diagnose,
        cases=_diagnosis_cases(),
        asks="Return (fault, figure): what is wrong with a run, and the figure that proves it.\n\n"
        "figures: those of one run, by their names in SOUND, which holds what a sound run has. A run has one fault at most.",
        rules={
            "two": "The fault is a name in FAULTS, the figure a name in SOUND.",
            "sound": "If every figure is within 0.001 of SOUND, the fault is “healthy”, and the figure does not matter.",
            "one": "A figure further off is the sign of a fault, also if it is off only a little, as when half of the prompts are trained.",
            "strength": "Strength 0, up to 0.001, means “adapter not loaded”; any other strength than 1, smaller or larger, means “wrong factor in the merge”.",
            "several": "Three faults change two figures, and explain both: “answers cut off” the trained answers and ends, “begin token doubled” the begin "
            "tokens and the prompts that fit, “labels shifted twice” the labels in place and the trained prompts.",
            "figure": "The figure is the one that the fault changes; of the pairs above, the first one named.",
            "unchanged": "figures stays as it is.",
        },
        hints=(
            "Compare each figure with that of a sound run. Which fault does each of them show?",
            ("several", "So the order of the questions matters: ask for the fault that explains both figures before the one that explains one."),
            "Look at your comparisons: 0.99999 is 1 up to rounding, and 0.6 is not.",
        ),
        path="Write one question for each fault first, each about its own figure and with a tolerance. Then look for faults that share a figure, "
        "and move the fault that changes two figures in front of the fault that changes one. The usual wrong turn is to ask whether the prompts fit "
        "before counting the begin tokens.",
        why="The order of the questions is the difficult part: a symptom that two faults share must be asked about last. "
        "The tolerances are easy: for a sound run these figures are exact up to rounding, whatever its data.",
        points=3,
    ),
    ROW: Exercise(
        id=ROW,
        title="Build the training example right",
        reference=repair_row,
        cases=_row_cases(),
        asks="Return (input_ids, labels) of one training example.\n\n"
        "prompt, answer: lists of ids, neither empty; the answer comes without its end-of-turn token. begin, end: ids of the begin token and of the end-of-turn token.",
        rules={
            "mask": "input_ids are prompt, answer and one end token; the labels are -100 on the prompt and the ids themselves on the answer and the end token. Nothing is shifted.",
            "front": "If the prompt begins with several begin tokens, one of them stays.",
            "further": "Begin tokens further on stay, and where there is none, none is added.",
            "long": "If that gives more than max_length tokens, return None: nothing is cut.",
            "unchanged": "The lists stay as they are.",
        },
        draw=_draw_row,
        hints=(
            "Three parts make the example. Which of them may need a repair, and which of them is trained?",
            ("front", "Count how many begin tokens stand before the first other token."),
            "Look at the order of your steps: the length counts after the begin tokens have become one, and with the end token.",
        ),
        path="Repair the prompt first, then join the three parts, then build the labels from the same parts, and compare the length last. "
        "The usual wrong turn is to remove every begin token of the prompt, or to compare the length before the repair.",
        why="Five of the ten faults are this function, written in a hurry. None of them raises an error, and with each the loss falls.",
        points=2,
    ),
    WEIGHTS: Exercise(
        id=WEIGHTS,
        title="Weight the micro-batches",
        reference=micro_batch_weights,
        cases=[
            Case(f"trained tokens per micro-batch: {c}", lambda c=c: (list(c),), micro_batch_weights, 1e-6, rule=rule)
            for rule, c in COUNTS
        ],
        asks="Return one weight for each micro-batch, in order.\n\n"
        "counts: list of the numbers of trained tokens in the micro-batches, at least one of them positive.",
        rules={
            "share": "The sum of weight times mean loss over the micro-batches is the mean loss over all trained tokens.",
            "zero": "A micro-batch without trained tokens has the weight 0.",
            "unchanged": "counts stays as it is.",
        },
        draw=_draw_counts,
        hints=(
            "A mean loss times its count is the summed loss of the micro-batch. What do you divide the sum of all these by?",
            ("share", "Write both sides with the summed losses of the micro-batches, and compare."),
            "Look at the denominator: it is the same for every micro-batch.",
        ),
        path="Write the mean over all trained tokens as a sum of the micro-batches' summed losses, divided by N. Put count times mean in place of each "
        "summed loss, and read off the factor of each mean. The usual wrong turn is to average the means.",
        why="Only the trained tokens count, not the examples and not the padding. Across several processes N is the total of all of them.",
    ),
    MERGE: Exercise(
        id=MERGE,
        title="Repair a merged weight",
        reference=repair_merge,
        cases=[
            Case(f"W + α·B·A in {dtype}: d_in = {d_in}, d_out = 23, r = {r}, α = {alpha:g}".replace("torch.", ""),
                 functools.partial(_merged, dtype, r, alpha, d_in), repair_merge, tolerance, rule=rule)
            for rule, dtype, r, alpha, d_in, tolerance in MERGES
        ],
        asks="Return the weight that was meant, base + (α/r)·B·A, as a tensor.\n\n"
        "W: base + α·B·A, shape (d_out, d_in). A: (r, d_in). B: (d_out, r). alpha: any number, r: the rank.",
        rules={
            "factor": "Nothing but the factor of the update changes. The base is not known, only W.",
            "dtype": "The result has the dtype of W, because the model is saved in it. A and B may have another. Rounding in that dtype is no fault.",
            "unchanged": "W, A and B stay as they are.",
        },
        draw=_draw_merged,
        hints=(
            "W holds the base and too much of the update. How much too much?",
            ("factor", "Write down what W holds and what it should hold; the base is the same in both."),
            "Look at the difference of the two factors, and at the dtype of what you return.",
        ),
        path="Write W and the wanted weight below each other and subtract: the base drops out, and what is left is a factor times B·A. Take it out of W, "
        "then convert. The usual wrong turn is to take out the part that should stay.",
        why="This works because A and B were kept. Without them, or after rounding in 16 bits, only the original base helps: keep it.",
    ),
    NAMES: Exercise(
        id=NAMES,
        title="Fit an adapter's names, and report what does not fit",
        reference=fit_names,
        cases=[
            Case(f"{name}: saved {s}, wanted {w}", lambda s=s, w=w: (list(s), list(w)), _fit_in_any_order, rule=rule)
            for rule, name, s, w in FILES
        ],
        asks="Return (mapping, missing, left over).\n\n"
        "saved, wanted: lists of different names; no name fits two others. mapping: dictionary {saved name: wanted name} of the names that fit. missing, left over: lists or sets.",
        rules={
            "equal": "A saved name fits a wanted name that is equal to it.",
            "prefix": "A saved name also fits if it ends with a dot and the wanted name: “any.prefix.h.1.A” fits “h.1.A”. Each saved name may have another prefix, or none.",
            "missing": "missing holds the wanted names that no saved name fits, in any order.",
            "left": "left over holds the saved names that fit no wanted name, in any order.",
            "unchanged": "The lists stay as they are.",
        },
        draw=_draw_names,
        hints=(
            "Try every saved name with every wanted name. When do the two name the same tensor?",
            ("prefix", "Why is the end of the name alone not enough?"),
            "Look at the character before the wanted name, and at the names that the mapping does not hold on either side.",
        ),
        path="Write the test for one pair of names first, with and without a prefix. Build the mapping with it, and read the two lists off the mapping. "
        "The usual wrong turn is to compare the ends without the dot: layer 11 then fits layer 1.",
        why="A loader that is not strict reports success for any file. The two lists turn silence into a sentence: refuse to go on unless both are empty.",
    ),
    DROP: Exercise(
        id=DROP,
        title="Dropout that ends with the training",
        reference=drop,
        cases=[
            _drop_case("rest", 0.25, False),
            _drop_case("rest", 0.8, False),
            _drop_case("share", 0.25, True),
            _drop_case("share", 0.1, True),
            _drop_case("share", 0.0, True),
            _drop_case("dtype", 0.25, True, torch.bfloat16),
            _drop_case("dtype", 0.25, True, shape=(50, 20, 20)),
            _drop_case("dtype", 0.0, True, shape=()),
            Case("20,000 ones, p = 0.5, training=True", _anew, verify=_verify_anew, rule="seed"),
        ],
        asks="Return x after dropout.\n\nx: tensor of any shape, with any number of dimensions. p: probability, 0 <= p < 1. training: True or False.",
        rules={
            "rest": "If training is False, the numbers of x come back unchanged.",
            "share": "If training is True, each number becomes 0 with probability p.",
            "alone": "Each number is drawn by itself, whatever its value and its place.",
            "scale": "The numbers that stay are divided by 1 - p, so that the mean stays what it was.",
            "dtype": "The result is a tensor of the shape and dtype of x, because the next layer computes with it.",
            "seed": "Do not seed the random generator: every step of a training draws anew.",
            "unchanged": "x stays as it is.",
        },
        hints=(
            "Which of the two modes needs no random number at all?",
            ("share", "A uniform random number between 0 and 1 is below p with probability p."),
            "Look at the shape of your random numbers, at their dtype, and at what happens to the numbers that stay.",
        ),
        path="Treat evaluation first and leave. In training draw one uniform number for each entry, keep an entry if its number is at least p, and divide "
        "by what is kept on average. The usual wrong turn is to take p for the probability to be kept.",
        why="`F.dropout(x, p)` has a third argument, `training`, whose default is True: a layer that omits it drops for ever. `nn.Dropout` passes its own mode on.",
    ),
    PROMPT: Exercise(
        id=PROMPT,
        title="Ask as it was trained",
        reference=serving_prompt,
        cases=[
            Case(f"a tokenizer of the {family} family{', which adds a begin token to plain text' * (rule == 'begin')}, {shorten(question, 90)}", functools.partial(_asked, family, question), serving_prompt, rule=rule)
            for rule, family, question in ASKED
        ],
        asks="Return the ids with which a model is asked a question, as one flat list.\n\n"
        "tokenizer: of any family, with a chat template. question: text.",
        rules={
            "template": "The ids are those of the tokenizer's own template for one user message, with the generation prompt that opens the answer.",
            "begin": "Special tokens are those that the template writes, none more and none less, also with a tokenizer that adds a begin token to plain text by itself.",
            "question": "The question goes into the template as it is, however long.",
            "unchanged": "The tokenizer stays as it is.",
        },
        draw=_draw_prompt,
        hints=(
            "Who knows how this family writes a conversation?",
            ("template", "Look at what the tokenizer's method for chat templates returns by default, and at its argument about the generation prompt."),
            "Look at the first tokens: if you render text first and tokenize it then, who writes the begin token?",
        ),
        path="Put the question into one user message, apply the tokenizer's template with its generation prompt, and take the ids out of what comes back. "
        "The usual wrong turn is to tokenize the rendered text with special tokens: the begin token then comes twice.",
        why="A prompt must begin the training example, token by token. Whoever renders with anything but the tokenizer that was saved with the model has to prove that.",
    ),
}  # fmt: skip
