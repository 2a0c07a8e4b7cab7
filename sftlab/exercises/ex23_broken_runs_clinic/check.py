"""Checks of notebook 23: a diagnosis from figures, and one repair for each kind of fault."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sftlab._internal.paths import MODELS
from sftlab.chat import encode, render_prompt, user
from sftlab.classroom.checking import Case, Exercise, mistake
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
    "dropout of 1% that stays on": {"passes differ": 0.02},
    "micro-batches of nearly equal length": {"split moves gradient": 0.04},
    "half of the prompt trained": {"prompt trained": 0.5},
}  # fmt: skip
CONFUSED = {  # (what it is, what was said): what tells them apart
    ("answers cut off", "end marker masked as padding"): "A cut takes the end marker as well, so look at the answers first: only {answer trained:.0%} of their tokens carry loss here.",
    ("end marker masked as padding", "answers cut off"): "Nothing is cut: all of the answers' tokens carry loss here ({answer trained:.0%}). Only their end markers do not.",
    ("begin token doubled", "another family's template"): "A doubled begin token keeps prompts from fitting their rows as well. So count it first: {begin tokens:g} per row here.",
    ("another family's template", "begin token doubled"): "The rows begin with {begin tokens:g} begin token here, as they should. Yet the served prompts do not fit them.",
    ("wrong factor in the merge", "adapter not loaded"): "The update is in the served model, {strength:g} times. Were it not loaded, that would be 0 times.",
    ("adapter not loaded", "wrong factor in the merge"): "No factor helps here: {strength:g} times the update is in the served model.",
    ("labels shifted twice", "prompts trained too"): "Shifted labels reach back over the border by one token, hence {prompt trained:.0%} of the prompts. Look at where the labels stand first.",
}  # fmt: skip


def _odd(seen: dict[str, float]) -> list[str]:
    """The figures that are not a sound run's, in words."""
    return [f"{name} {seen[name]:.3g}" for name in SOUND if abs(seen[name] - SOUND[name]) > 1e-3]


def _verify_diagnosis(make: Callable[[], tuple]):
    def verify(value: Any, _: tuple) -> str | None:
        (seen,) = make()
        fault, telling = diagnose(seen)
        if not isinstance(value, tuple | list) or len(value) != 2:
            return "Return two things: the fault, and the name of the figure that tells it."
        said, figure = value
        if said not in FAULTS:
            return f"There is no such fault as `{said!r}`. Take a name from `FAULTS`."
        if said != fault:
            return _misjudged(seen, fault, said)
        if fault == HEALTHY or figure == telling:
            return None
        if figure not in SOUND:
            return f"The fault is right, “{fault}”, but `{figure!r}` is no figure of the bench. Take a name from `SOUND`."
        if abs(seen[figure] - SOUND[figure]) <= 1e-3:
            return f"The fault is right, “{fault}”, but not the reason: “{figure}” is {seen[figure]:.3g} here, as in a sound run."
        return f"The fault is right, “{fault}”. But “{figure}” goes wrong with another fault as well: name the figure that tells this one."

    return verify


def _misjudged(seen: dict[str, float], fault: str, said: str) -> str:
    if fault == HEALTHY:
        return f"A false alarm: every figure is a sound run's, up to rounding, and you say “{said}”. Compare with a tolerance."
    if said == HEALTHY:
        return f"Missed: you call a run healthy that is not. Look at: {', '.join(_odd(seen))}."
    if (fault, said) in CONFUSED:
        return CONFUSED[fault, said].format_map(seen)
    figure = WHICH[said]
    return f"“{said}” would show in “{figure}”, which is {seen[figure]:.3g} here, as in a sound run. What is not: {', '.join(_odd(seen))}."


@functools.cache
def _recorded(fault: str) -> dict[str, float]:
    return runs("clinic", fault=fault, seed=1)[0]["figures"]


def _chart(fault: str) -> tuple:
    return (dict(_recorded(fault)),)


def _variant(name: str) -> tuple:
    return ({**SOUND, **VARIANTS[name]},)


def _diagnosis_cases() -> list[Case]:
    recorded = [
        (f"the figures of a recorded run, number {number}", functools.partial(_chart, fault))
        for number, fault in enumerate(FAULTS, 1)
    ]
    others = [
        (f"figures of another run: {name}", functools.partial(_variant, name)) for name in VARIANTS
    ]
    # The two sound ones first: who sees faults everywhere should hear of that.
    ordered = [recorded[0], others[0], *recorded[1:], *others[1:]]
    return [Case(told, make, verify=_verify_diagnosis(make)) for told, make in ordered]


# --- 23b: the row ------------------------------------------------------------------------------------
def _joined(prompt, answer, end, max_length):
    """The row of a prompt as it is, whatever begin tokens it has."""
    ids, labels = [*prompt, *answer, end], [IGNORE_INDEX] * len(prompt) + [*answer, end]
    return None if len(ids) > max_length else (ids, labels)


@mistake(ROW, "The prompt is trained too: its labels are its ids. Mask it with -100.")
def _prompt_trained(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], row[0])


@mistake(ROW, "The end marker is masked. It may serve as padding too, but here it ends the answer: without it in the loss the model never learns to stop.")  # fmt: skip
def _end_masked(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [*row[1][:-1], IGNORE_INDEX])


@mistake(ROW, "The end marker is missing. The answer comes without it; put it behind, and train it.")  # fmt: skip
def _end_missing(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer[:-1], begin, answer[-1], max_length)


@mistake(ROW, "A begin token that comes twice in front stays twice. At inference it comes once.")
def _begin_twice(prompt, answer, begin, end, max_length):
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "All begin tokens are gone, the first one and those further on too. In front, one stays; elsewhere, each stays: some families open every turn with it.")  # fmt: skip
def _every_begin_gone(prompt, answer, begin, end, max_length):
    prompt = [token for token in prompt if token != begin]
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "Begin tokens further on in the prompt are gone. Some families open every turn with it: only those in front become one.")  # fmt: skip
def _begins_further_on_gone(prompt, answer, begin, end, max_length):
    prompt = [begin, *(token for token in prompt if token != begin)]
    return _joined(prompt, answer, end, max_length)


@mistake(ROW, "A begin token was added to a prompt that has none. Not every family has one: make two into one, and leave none alone.")  # fmt: skip
def _begin_added(prompt, answer, begin, end, max_length):
    prompt = prompt if prompt[0] == begin else [begin, *prompt]
    return repair_row(prompt, answer, begin, end, max_length)


@mistake(ROW, "Tokens that repeat are gone from the prompt. Only begin tokens in front are one too many.")  # fmt: skip
def _repeats_gone(prompt, answer, begin, end, max_length):
    return _joined(list(dict.fromkeys(prompt)), answer, end, max_length)


@mistake(ROW, "The labels are one place too early. The loss shifts them; here they stand at their tokens.")  # fmt: skip
def _labels_shifted(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [*row[1][1:], IGNORE_INDEX])


@mistake(ROW, "A row that is too long was cut, and its answer with it. Leave it out: return None.")
def _cut(prompt, answer, begin, end, max_length):
    ids, labels = repair_row(prompt, answer, begin, end, math.inf)
    return ids[:max_length], labels[:max_length]


@mistake(ROW, "A row that is too long lost its front: the model would not see the whole question. Leave it out: return None.")  # fmt: skip
def _cut_in_front(prompt, answer, begin, end, max_length):
    ids, labels = repair_row(prompt, answer, begin, end, math.inf)
    return ids[-max_length:], labels[-max_length:]


@mistake(ROW, "A row longer than max_length came back. Return None for it.")
def _too_long_kept(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, math.inf)


@mistake(ROW, "A row that is too long became an empty one. It has nothing to train, and its loss is undefined: return None.")  # fmt: skip
def _too_long_emptied(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, max_length) or ([], [])


@mistake(ROW, "A row of exactly max_length tokens fits, but was left out.")
def _full_row_left_out(prompt, answer, begin, end, max_length):
    return repair_row(prompt, answer, begin, end, max_length - 1)


@mistake(ROW, "The prompt's labels are 0, a token like any other. The loss leaves out -100 alone.")
def _prompt_labels_zero(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [0 if y == IGNORE_INDEX else y for y in row[1]])


@mistake(ROW, "The wrong side is masked: the answer is what is to be trained.")
def _answer_masked(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    if row is None:
        return None
    ids, labels = row
    return ids, [x if y == IGNORE_INDEX else IGNORE_INDEX for x, y in zip(ids, labels, strict=True)]


ROWS = {
    "a begin token, three tokens of prompt, two of answer": ([1, 11, 12, 13], [21, 22], 1, 2, 20),
    "the begin token twice": ([1, 1, 11, 12, 12, 13], [21, 22, 23], 1, 2, 20),
    "no begin token at all": ([11, 12], [21], 1, 2, 20),
    "turns that open with the begin token and end with the end marker": (
        [1, 1, 11, 2, 1, 12], [21, 22], 1, 2, 20),
    "exactly max_length tokens": ([1, 11, 12], [21, 22], 1, 2, 6),
    "a token more than max_length": ([1, 11, 12], [21, 22, 23], 1, 2, 6),
    "a token more only as long as the begin token comes twice": ([1, 1, 11, 12], [21, 22], 1, 2, 6),
}  # fmt: skip


def _row_cases() -> list[Case]:
    def make(values: tuple) -> tuple:
        return tuple(list(v) if isinstance(v, list) else v for v in values)

    return [
        Case(f"{name}: {values}", functools.partial(make, values), repair_row)
        for name, values in ROWS.items()
    ]


# --- 23c: the weights of micro-batches -----------------------------------------------------------------
@mistake(WEIGHTS, "Every micro-batch counts the same. That is the mean of means: a token in a short one would count for more.")  # fmt: skip
def _equal(counts):
    return [1 / len(counts)] * len(counts)


@mistake(WEIGHTS, "The means are added up as they are: the loss, and the gradient, grow with the number of micro-batches.")  # fmt: skip
def _ones(counts):
    return [1.0] * len(counts)


@mistake(WEIGHTS, "These are the counts themselves. The result would be a sum over tokens: divide by all of them.")  # fmt: skip
def _counts(counts):
    return [float(n) for n in counts]


@mistake(WEIGHTS, "Divide by the number of all trained tokens, not of micro-batches.")
def _by_their_number(counts):
    return [n / len(counts) for n in counts]


@mistake(WEIGHTS, "Divide by all trained tokens together, not by the largest count: the weights are to sum to 1.")  # fmt: skip
def _by_the_largest(counts):
    return [n / max(counts) for n in counts]


@mistake(WEIGHTS, "The wrong way round: short micro-batches weigh most here. Each counts by its tokens.")  # fmt: skip
def _short_ones_most(counts):
    inverse = [1 / n if n else 0 for n in counts]
    return [x / sum(inverse) for x in inverse]


@mistake(WEIGHTS, "Dividing by each count once more: the means are means already.")
def _inverse(counts):
    return [1 / n if n else 0.0 for n in counts]


@mistake(WEIGHTS, "1/N would be right for *sums*. What is weighted here are means.")
def _one_over_all(counts):
    return [1 / sum(counts)] * len(counts)


@mistake(WEIGHTS, "Right up to a factor: the weights sum to the number of micro-batches, and so would the gradient grow. They are to sum to 1.")  # fmt: skip
def _sum_to_their_number(counts):
    return [n / sum(counts) * len(counts) for n in counts]


@mistake(WEIGHTS, "A softmax of the counts lets the longest take all. The weights are in proportion to the counts.")  # fmt: skip
def _softmax(counts):
    return torch.tensor(counts).float().softmax(0).tolist()


COUNTS = ([7, 34], [12, 6, 6], [0, 5, 15], [1, 1, 1, 97], [31])


# --- 23d: the merge ------------------------------------------------------------------------------------
def _merged(dtype: torch.dtype) -> tuple:
    """W + α·B·A with α = 6, r = 3, d_in = 32, d_out = 40.

    All numbers have so few digits that float32 adds and multiplies them exactly, in any order.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int, limit: int, step: float) -> Tensor:
        return torch.randint(-limit, limit, (rows, columns), generator=generator) * step

    W, A, B = draw(40, 32, 255, 2.0**-6), draw(3, 32, 63, 2.0**-8), draw(40, 3, 63, 2.0**-7)
    return (W + 6 * (B @ A)).to(dtype), A, B, 6.0, 3


@mistake(MERGE, "The whole update was taken out: this is the base, and what was trained is lost. α/r of it should stay.")  # fmt: skip
def _to_the_base(W, A, B, alpha, r):
    return (W - alpha * (B @ A)).to(W.dtype)


@mistake(MERGE, "α/r was taken out of α: that leaves α − α/r. Which part should *stay*?")
def _wrong_part_stays(W, A, B, alpha, r):
    return (W - alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "r times B·A was taken out. In W there is α times B·A, and α/r times should stay.")
def _r_times(W, A, B, alpha, r):
    return (W - r * (B @ A)).to(W.dtype)


@mistake(MERGE, "This leaves 1 · B·A. The factor that was trained is α/r.")
def _factor_one(W, A, B, alpha, r):
    return (W - (alpha - 1) * (B @ A)).to(W.dtype)


@mistake(MERGE, "This leaves α/√r, rank-stabilised LoRA's factor. This adapter was trained with α/r.")  # fmt: skip
def _rank_stabilised(W, A, B, alpha, r):
    return (W - (alpha - alpha / math.sqrt(r)) * (B @ A)).to(W.dtype)


@mistake(MERGE, "The factor is upside down: r/α stays in place of α/r.")
def _upside_down(W, A, B, alpha, r):
    return (W - (alpha - r / alpha) * (B @ A)).to(W.dtype)


@mistake(MERGE, "The update was added once more. There is too much of it already.")
def _added_again(W, A, B, alpha, r):
    return (W + alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "The base was divided by r with the update. Only the update is too large.")
def _all_divided(W, A, B, alpha, r):
    return W / r


@mistake(MERGE, "Nothing was changed: the update is still r times too large.")
def _unchanged(W, A, B, alpha, r):
    return W


@mistake(MERGE, "This is the right update alone. The weight of the base is missing.")
def _update_alone(W, A, B, alpha, r):
    return (alpha / r * (B @ A)).to(W.dtype)


@mistake(MERGE, "The weight came back in float32. Return it in the dtype of W.")
def _in_float32(W, A, B, alpha, r):
    return W.float() - (alpha - alpha / r) * (B @ A)


# --- 23e: the names ------------------------------------------------------------------------------------
def _told(saved: list, wanted: list, found: dict) -> tuple:
    """The mapping with what is missing and what is left over."""
    missing = [name for name in wanted if name not in found.values()]
    return found, missing, [name for name in saved if name not in found]


def _fitted(saved, wanted, same: Callable) -> tuple:
    return _told(saved, wanted, {s: w for w in wanted for s in saved if same(s, w)})


@mistake(NAMES, "Only equal names fit. A saved name may carry a prefix, “base_model.model.” for one: then nothing would be loaded.")  # fmt: skip
def _equal_names(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s == w)


@mistake(NAMES, "“layers.11.A” ends with “1.A” too. What stands before the wanted name must end with a dot.")  # fmt: skip
def _ends_without_a_dot(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.endswith(w))


@mistake(NAMES, "Only one prefix is known here. Another library writes another one: compare the ends.")  # fmt: skip
def _one_prefix(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: s.removeprefix("base_model.model.") == w)


@mistake(NAMES, "A wanted name in the middle of a saved one is another tensor. It must be its end.")
def _anywhere(saved, wanted):
    return _fitted(saved, wanted, lambda s, w: w in s)


@mistake(NAMES, "Paired by their order: a file is not in the model's order, so A would land in B's place.")  # fmt: skip
def _in_their_order(saved, wanted):
    return _told(saved, wanted, dict(zip(saved, wanted, strict=False)))


@mistake(NAMES, "The mapping is the wrong way round: from the saved name to the wanted one.")
def _turned_round(saved, wanted):
    found, missing, left = fit_names(saved, wanted)
    return {w: s for s, w in found.items()}, missing, left


@mistake(NAMES, "A wanted name that finds no tensor is not told. It would stay at its start, silently.")  # fmt: skip
def _missing_not_told(saved, wanted):
    found, _, left = fit_names(saved, wanted)
    return found, [], left


@mistake(NAMES, "A saved tensor that no one wants is not told. It would be dropped, silently.")
def _left_over_not_told(saved, wanted):
    found, missing, _ = fit_names(saved, wanted)
    return found, missing, []


@mistake(NAMES, "Neither what is missing nor what is left over is told: this is `strict=False`, the very fault.")  # fmt: skip
def _silent(saved, wanted):
    return fit_names(saved, wanted)[0], [], []


@mistake(NAMES, "What is missing and what is left over have changed places.")
def _changed_places(saved, wanted):
    found, missing, left = fit_names(saved, wanted)
    return found, left, missing


FILES = {
    "a prefix on each": (["base_model.model.h.1.A", "base_model.model.h.1.B"], ["h.1.A", "h.1.B"]),
    "no prefix, another order": (["h.1.B", "h.1.A"], ["h.1.A", "h.1.B"]),
    "another prefix": (["module.h.1.A"], ["h.1.A"]),
    "layers 1 and 11": (["m.1.A", "m.11.A"], ["11.A", "1.A"]),
    "a wanted tensor that is not there": (["m.h.1.A"], ["h.1.A", "h.1.B"]),
    "a tensor that nobody wants": (["m.h.1.A", "m.head.weight"], ["h.1.A"]),
    "a name within another": (["m.h.1.A.scale", "m.h.1.A"], ["h.1.A"]),
    "both missing and left over": (["m.h.1.lora_A"], ["h.1.A"]),
}


# --- 23f: dropout ----------------------------------------------------------------------------------------
def _numbers(p: float, training: bool) -> tuple:
    return torch.linspace(-3, 5, 20_000).reshape(100, 200) + 0.013, p, training


def _verify_drop(p: float, training: bool):
    def verify(value: Any, _: tuple) -> str | None:
        x, *_ = _numbers(p, training)
        if not isinstance(value, Tensor):
            return f"Return a tensor of the shape of x; this is a `{type(value).__name__}`."
        if value.shape != x.shape:
            return f"The shape changed from {tuple(x.shape)} to {tuple(value.shape)}: dropped numbers become 0, they do not go."
        zeros = (value == 0).float().mean().item()
        if not training:
            return _at_rest(value, x, p, zeros)
        if zeros == 0 and p:
            return "In training nothing is dropped. Is `training` the wrong way round?"
        if p > 0 and ((value == 0).all(0).any() or (value == 0).all(1).any()):
            return "Whole rows or columns are dropped together. Every number is drawn by itself."
        if abs(zeros - p) > 0.02:
            return f"{zeros:.0%} of the numbers became 0 with p = {p}. p is the chance to be dropped, not to be kept."
        kept = value != 0
        factor = (value[kept] / x[kept]).mean().item()
        if math.isclose(factor, 1 / (1 - p), rel_tol=1e-4):
            return None
        if math.isclose(factor, 1.0, rel_tol=1e-4):
            return "The numbers that stay are not scaled: the mean shrinks to 1 − p of what it was, and evaluation sees larger numbers than training did."
        return f"The numbers that stay are multiplied by {factor:.3g}. For the mean to stay it must be 1 / (1 − p), {1 / (1 - p):.3g} here."

    return verify


def _at_rest(value: Tensor, x: Tensor, p: float, zeros: float) -> str | None:
    if torch.equal(value, x):
        return None
    if zeros > 0.01 and abs(zeros - p) < 0.02:
        return "Out of training numbers are dropped all the same: this is the fault of the run. F.dropout(x, p) does so too, unless it is told `training=False`."
    if torch.allclose(value, x * (1 - p)):
        return "Out of training the numbers are multiplied by 1 − p. That is the other convention: here the scaling happens in training, and evaluation changes nothing."
    return "Out of training the numbers change. They are to be returned as they are."


# --- 23g: the prompt ---------------------------------------------------------------------------------------
@functools.cache
def _tokenizer(family: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "almanac-base", local_files_only=True)
    return with_template(tokenizer, family)


def _asked(family: str, question: str) -> tuple:
    return _tokenizer(family), question


@mistake(PROMPT, "This writes ChatML by hand, whatever the model was trained with. Ask the tokenizer's own template.")  # fmt: skip
def _typed(tokenizer, question):
    text = render_prompt(user(question))
    return tokenizer.encode(text, add_special_tokens=False)


@mistake(PROMPT, "The generation prompt is missing: the model would have to open its own turn first.")  # fmt: skip
def _no_generation_prompt(tokenizer, question):
    return encode(tokenizer, user(question))


@mistake(PROMPT, "The question alone, without a template: the model was never asked like that.")
def _bare(tokenizer, question):
    return tokenizer.encode(question, add_special_tokens=False)


@mistake(PROMPT, "The first token comes twice: the template writes it already. Tokenise a rendering with add_special_tokens=False.")  # fmt: skip
def _first_token_twice(tokenizer, question):
    ids = serving_prompt(tokenizer, question)
    return [ids[0], *ids]


@mistake(PROMPT, "This is text. The model reads ids.")
def _text(tokenizer, question):
    return tokenizer.apply_chat_template(user(question), add_generation_prompt=True, tokenize=False)


@mistake(PROMPT, "The question stands in the assistant's turn. It comes from the user.")
def _wrong_turn(tokenizer, question):
    messages = [{"role": "assistant", "content": question}]
    return encode(tokenizer, messages, add_generation_prompt=True)


@mistake(PROMPT, "An empty answer was put behind and closed with its end marker: there is nothing left to answer. Leave the turn open.")  # fmt: skip
def _closed(tokenizer, question):
    messages = [*user(question), {"role": "assistant", "content": ""}]
    return encode(tokenizer, messages)


@mistake(PROMPT, "The last token of the prompt is missing.")
def _last_token_missing(tokenizer, question):
    return serving_prompt(tokenizer, question)[:-1]


@mistake(PROMPT, "The question was changed before it was asked. Put it in as it is.")
def _question_changed(tokenizer, question):
    return serving_prompt(tokenizer, question.strip(" ?"))


# --- Exercises -----------------------------------------------------------------------------------------
EXERCISES = {
    DIAGNOSE: Exercise(
        id=DIAGNOSE,
        title="Diagnose a run from its figures",
        reference=diagnose,
        cases=_diagnosis_cases(),
        hints=(
            "Go through the figures one by one: `if figures['labels in place'] < 0.9: return …`. `SOUND` holds what a sound run has.",
            "Some faults move two figures. A cut takes end markers too; a doubled begin token keeps prompts from fitting. Ask for the fault that explains both first.",
            "Compare with a tolerance: 0.99999 is 1 up to rounding.",
        ),
        why="The order of the questions is the art: a symptom that two faults share must be asked about last. "
        "The tolerances are no art: these figures are exact for a sound run, up to rounding, whatever its data.",
        points=3,
    ),
    ROW: Exercise(
        id=ROW,
        title="Build the row right",
        reference=repair_row,
        cases=_row_cases(),
        hints=(
            "Three parts in a list: the prompt with at most one begin token in front, the answer, the end marker.",
            "The labels have as many places: -100 for each token of the prompt, then the answer and the end marker themselves.",
            "Count at the end, after the begin tokens became one: if there are more than max_length, return None.",
        ),
        why="Five of the ten faults are this function, written in a hurry. None of them raises, and each gives a loss that falls.",
        points=2,
    ),
    WEIGHTS: Exercise(
        id=WEIGHTS,
        title="Weigh the micro-batches",
        reference=micro_batch_weights,
        cases=[
            Case(f"trained tokens per micro-batch: {c}", lambda c=c: (list(c),), micro_batch_weights, tolerance=1e-9)
            for c in COUNTS
        ],
        hints=(
            "mean_i · n_i is the sum over micro-batch i. What do you divide all these sums by?",
            "Each weight is its share of the trained tokens.",
        ),
        why="Only the trained tokens count, not the rows and not the padding. Across several processes the total is that of all of them.",
    ),
    MERGE: Exercise(
        id=MERGE,
        title="Repair a merged weight",
        reference=repair_merge,
        cases=[
            Case(f"W + α·B·A in {name}: d_in = 32, d_out = 40, r = 3, α = 6", functools.partial(_merged, dtype), repair_merge, tolerance=tolerance)
            for name, dtype, tolerance in (("float32", torch.float32, 1e-6), ("bfloat16", torch.bfloat16, 0.0))
        ],
        hints=(
            "W holds the base plus α · B @ A. It should hold the base plus α/r · B @ A. What is the difference?",
            "Take (α − α/r) · B @ A away, and return the dtype of W.",
        ),
        why="It works because A and B were kept. Without them, or after rounding in 16 bits, only the original base helps: keep it.",
    ),
    NAMES: Exercise(
        id=NAMES,
        title="Fit an adapter's names, and tell what does not fit",
        reference=fit_names,
        cases=[
            Case(f"{name}: saved {s}, wanted {w}", lambda s=s, w=w: (list(s), list(w)), fit_names)
            for name, (s, w) in FILES.items()
        ],
        hints=(
            "A saved name fits if it equals the wanted one, or ends with a dot and the wanted one.",
            "Three results: the mapping {saved: wanted}; the wanted names that found nothing; the saved names that nobody took, both in their given order.",
        ),
        why="A loader that is not strict reports success for any file. The two lists turn silence into a sentence: refuse to go on unless both are empty.",
    ),
    DROP: Exercise(
        id=DROP,
        title="Dropout that ends with the training",
        reference=drop,
        cases=[
            Case(f"20,000 numbers, p = {p:g}, training={training}", functools.partial(_numbers, p, training), verify=_verify_drop(p, training))
            for p, training in ((0.25, False), (0.25, True), (0.1, True), (0.0, True), (0.8, False))
        ],
        hints=(
            "Out of training, return x itself. In training: `torch.rand_like(x)` is at least p with probability 1 − p.",
            "Divide what stays by 1 − p, so that the mean stays what it was.",
        ),
        why="`F.dropout(x, p)` has a third argument, `training`, that is True unless told: a layer that forgets it drops for ever. `nn.Dropout` passes its own mode on.",
    ),
    PROMPT: Exercise(
        id=PROMPT,
        title="Ask as it was trained",
        reference=serving_prompt,
        cases=[
            Case(f"a tokenizer of the {family} family, {question!r}", functools.partial(_asked, family, question), serving_prompt)
            for family, question in (("llama3", "Where does the frog live?"), ("gemma", "Name a pond animal?"), ("chatml", "What is the plural of city?"))
        ],
        hints=(
            "`tokenizer.apply_chat_template(messages, add_generation_prompt=…)` renders with the model's own template.",
            "`sftlab.chat.encode(tokenizer, user(question), add_generation_prompt=True)` gives plain ids.",
        ),
        why="A prompt must begin the training row, token by token. Whoever renders with anything but the tokenizer that was saved with the model has to prove that.",
    ),
}  # fmt: skip
