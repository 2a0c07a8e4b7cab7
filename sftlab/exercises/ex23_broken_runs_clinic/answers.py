"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import dropwhile

import torch

from sftlab.chat import encode, user
from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND, diagnose
from sftlab.exercises.ex23_broken_runs_clinic.repairs import repair_row, serving_prompt

DIAGNOSE, ROW, WEIGHTS = "23.diagnose", "23.repair_row", "23.micro_batch_weights"
MERGE, NAMES, DROP, PROMPT = "23.repair_merge", "23.fit_names", "23.drop", "23.serving_prompt"

# --- the diagnosis -----------------------------------------------------------------------------------
TOLD = (
    ("labels shifted twice", "labels in place"),
    ("prompts trained too", "prompt trained"),
    ("answers cut off", "answer trained"),
    ("end marker masked as padding", "end trained"),
    ("begin token doubled", "begin tokens"),
    ("another family's template", "prompt fits rows"),
    ("mean of means", "split moves gradient"),
    ("dropout in evaluation", "passes differ"),
)


def asked_in_order(figures, exchanged=(), tolerance=1e-3):
    """Asks for the figures one after the other, two of them exchanged, then for the strength."""
    order = [figure for _, figure in TOLD]
    if exchanged:
        a, b = map(order.index, exchanged)
        order[a], order[b] = order[b], order[a]
    for name in order:
        if abs(figures[name] - SOUND[name]) > tolerance:
            return next(told for told in TOLD if told[1] == name)
    strength = figures["strength"]
    if abs(strength - 1) <= tolerance:
        return "healthy", ""
    not_there = abs(strength) < tolerance
    return "adapter not loaded" if not_there else "wrong factor in the merge", "strength"


@right(DIAGNOSE)
def in_the_right_order(figures):
    return asked_in_order(figures)


@right(DIAGNOSE)
def by_a_list_of_what_is_off(figures):
    off = [name for _, name in TOLD if not math.isclose(figures[name], SOUND[name], abs_tol=1e-3)]
    if off:
        return next((fault, name) for fault, name in TOLD if name == off[0])
    times = round(figures["strength"], 2)
    return {1.0: ("healthy", None), 0.0: ("adapter not loaded", "strength")}.get(
        times, ["wrong factor in the merge", "strength"]
    )


@right(DIAGNOSE)
def with_one_if_for_each(figures):
    if figures["labels in place"] < 0.99:
        return "labels shifted twice", "labels in place"
    if figures["begin tokens"] > 1.01:
        return "begin token doubled", "begin tokens"
    if figures["prompt fits rows"] < 0.99:
        return "another family's template", "prompt fits rows"
    if figures["prompt trained"] > 0.01:
        return "prompts trained too", "prompt trained"
    if figures["answer trained"] < 0.99:
        return "answers cut off", "answer trained"
    if figures["end trained"] < 0.99:
        return "end marker masked as padding", "end trained"
    if figures["split moves gradient"] > 0.001:
        return "mean of means", "split moves gradient"
    if figures["passes differ"] > 0.001:
        return "dropout in evaluation", "passes differ"
    if abs(figures["strength"]) < 0.01:
        return "adapter not loaded", "strength"
    if not 0.99 < figures["strength"] < 1.01:
        return "wrong factor in the merge", "strength"
    return "healthy", ""


@right(DIAGNOSE)
def by_signatures(figures):
    """The set of figures that are off, and which fault moves those and no others."""
    off = frozenset(name for name, sound in SOUND.items() if abs(figures[name] - sound) > 5e-4)
    causes = {
        frozenset({"end trained", "answer trained"}): 2,
        frozenset({"begin tokens", "prompt fits rows"}): 4,
    }
    if "labels in place" in off:
        return TOLD[0]
    if off in causes:
        return TOLD[causes[off]]
    if off == {"strength"}:
        return ("wrong factor in the merge", "adapter not loaded")[
            abs(figures["strength"]) < 0.001
        ], *off
    return next((told for told in TOLD if off == {told[1]}), ("healthy", "nothing"))


@refused(DIAGNOSE, "Look at: strength 0.4")
def only_larger_factors(figures):
    fault, figure = diagnose(figures)
    return (
        ("healthy", "")
        if 0.1 < figures["strength"] < 1 and figure == "strength"
        else (fault, figure)
    )


@refused(DIAGNOSE, "the fault comes first")
def swapped(figures):
    return diagnose(figures)[::-1]


@refused(DIAGNOSE, "A cut removes the end-of-turn token as well")
def end_markers_before_answers(figures):
    return asked_in_order(figures, ("answer trained", "end trained"))


@refused(DIAGNOSE, "A doubled begin token keeps prompts")
def prompts_before_begin_tokens(figures):
    return asked_in_order(figures, ("begin tokens", "prompt fits rows"))


@refused(DIAGNOSE, "Labels that are shifted twice move one answer token")
def prompts_before_labels(figures):
    return asked_in_order(figures, ("labels in place", "prompt trained"))


@refused(DIAGNOSE, "If the adapter were not loaded")
def not_loaded_at_any_strange_strength(figures):
    fault, figure = diagnose(figures)
    return ("adapter not loaded" if figure == "strength" else fault), figure


@refused(DIAGNOSE, "A wrong factor would leave some of it")
def a_factor_at_any_strange_strength(figures):
    fault, figure = diagnose(figures)
    return ("wrong factor in the merge" if figure == "strength" else fault), figure


@refused(DIAGNOSE, "Nothing is cut")
def end_markers_are_cut(figures):
    fault, figure = diagnose(figures)
    return ("answers cut off" if figure == "end trained" else fault), figure


@refused(DIAGNOSE, "Still the served prompts do not fit them")
def prompts_that_do_not_fit_begin_twice(figures):
    fault, figure = diagnose(figures)
    return ("begin token doubled" if figure == "prompt fits rows" else fault), figure


@refused(DIAGNOSE, "A false alarm")
def no_tolerance(figures):
    return asked_in_order(figures, tolerance=0.0)


@refused(DIAGNOSE, "only 72% of their tokens")
def coarse_tolerance(figures):
    return asked_in_order(figures, tolerance=0.5)


@refused(DIAGNOSE, "Look at: prompt trained")
def always_healthy(figures):
    return "healthy", ""


@refused(DIAGNOSE, "and not two values")
def the_fault_alone(figures):
    return diagnose(figures)[0]


@refused(DIAGNOSE, "no such fault")
def fault_of_their_own(figures):
    return "mask all ones", "prompt trained"


@refused(DIAGNOSE, "is not a name in `SOUND`")
def figure_of_their_own(figures):
    fault, figure = diagnose(figures)
    return fault, "loss" if fault == "prompts trained too" else figure


@refused(DIAGNOSE, "does not show it")
def figure_that_is_fine(figures):
    fault, figure = diagnose(figures)
    return fault, "end trained" if fault == "prompts trained too" else figure


@refused(DIAGNOSE, "another fault changes")
def figure_that_two_faults_move(figures):
    fault, figure = diagnose(figures)
    return fault, "end trained" if fault == "answers cut off" else figure


@refused(DIAGNOSE, "would change “passes differ”")
def dropout_or_nothing(figures):
    healthy = diagnose(figures)[0] == "healthy"
    return ("healthy", "") if healthy else ("dropout in evaluation", "passes differ")


@refused(DIAGNOSE, "changes its own input")
def figures_used_up(figures):
    found = diagnose(figures)
    figures.pop("strength")
    return found


equivalent(
    DIAGNOSE,
    "No figure lies exactly on this border, which the rules leave open.",
    "`seen['labels in place'] < 0.9` becomes `seen['labels in place'] <= 0.9`",
    "`seen['prompt trained'] > 0.1` becomes `seen['prompt trained'] >= 0.1`",
    "`seen['answer trained'] < 0.9` becomes `seen['answer trained'] <= 0.9`",
    "`seen['end trained'] < 0.9` becomes `seen['end trained'] <= 0.9`",
    "`seen['prompt fits rows'] < 0.9` becomes `seen['prompt fits rows'] <= 0.9`",
    "`seen['split moves gradient'] > 0.01` becomes `seen['split moves gradient'] >= 0.01`",
    "`abs(seen['strength']) < 0.1` becomes `abs(seen['strength']) <= 0.1`",
    "`abs(seen['strength'] - 1) > 0.1` becomes `abs(seen['strength'] - 1) >= 0.1`",
    "`seen['passes differ'] > 0.0001` becomes `seen['passes differ'] >= 0.0001`",
)


# --- rows ----------------------------------------------------------------------------------------------
@right(ROW)
def with_slices(prompt, answer, begin, end, max_length):
    prompt = list(prompt)
    while len(prompt) > 1 and prompt[0] == prompt[1] == begin:
        prompt = prompt[1:]
    ids = [*prompt, *answer, end]
    return None if len(ids) > max_length else (ids, [-100] * len(prompt) + ids[len(prompt) :])


@right(ROW)
def token_by_token(prompt, answer, begin, end, max_length):
    ids, labels = [], []
    for token in prompt:
        if token == begin and ids == [begin]:
            continue
        ids.append(token)
        labels.append(-100)
    for token in (*answer, end):
        ids.append(token)
        labels.append(token)
    if len(ids) <= max_length:
        return [ids, labels]


@right(ROW)
def as_pairs(prompt, answer, begin, end, max_length):
    rest = list(dropwhile(begin.__eq__, prompt))
    row = [(token, -100) for token in (prompt[:1] if prompt[0] == begin else []) + rest]
    row += [(token, token) for token in [*answer, end]]
    return tuple(map(list, zip(*row, strict=True))) if len(row) <= max_length else None


@right(ROW)
def by_tensors(prompt, answer, begin, end, max_length):
    tokens = torch.tensor(prompt)
    double = torch.cat([(tokens[:-1] == begin) & (tokens[1:] == begin), torch.tensor([False])])
    in_front = (tokens == begin).long().cumprod(0).bool()
    ids = torch.cat([tokens[~(double & in_front)], torch.tensor([*answer, end])])
    if ids.numel() > max_length:
        return None
    labels = ids.clone()
    labels[: -len(answer) - 1] = -100
    return ids.tolist(), labels.tolist()


@refused(ROW, "The end token has the label -100")
def every_marker_masked(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and (row[0], [-100 if x == end else y for x, y in zip(*row, strict=True)])


@refused(ROW, "has 9 entries, but 8 are expected")
def three_tokens_in_front(prompt, answer, begin, end, max_length):
    many = prompt[:3] == [begin] * 3
    return repair_row(prompt, answer, begin if many else None, end, max_length)


@refused(ROW, "changes its own input")
def in_place(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    answer.append(end)
    return row


@refused(ROW, "of type `dict`")
def as_a_batch_has_them(prompt, answer, begin, end, max_length):
    row = repair_row(prompt, answer, begin, end, max_length)
    return row and dict(zip(("input_ids", "labels"), row, strict=True))


equivalent(ROW, "The order of two numbers does not change the larger one.",
           "`max(front - 1, 0)` becomes `max(0, front - 1)`")  # fmt: skip


# --- the weights of micro-batches ------------------------------------------------------------------------
@right(WEIGHTS)
def shares(counts):
    return [n / sum(counts) for n in counts]


@right(WEIGHTS)
def by_torch(counts):
    return (torch.tensor(counts).double() / sum(counts)).tolist()


@right(WEIGHTS)
def by_fractions(counts):
    total = Fraction(sum(counts))
    return [float(n / total) for n in counts]


@right(WEIGHTS)
def token_after_token(counts):
    weights = [0.0] * len(counts)
    tokens = [place for place, n in enumerate(counts) for _ in range(n)]
    for place in tokens:
        weights[place] += 1 / len(tokens)
    return weights


@refused(WEIGHTS, "It prints, but it returns nothing")
def printed(counts):
    print(shares(counts))


@refused(WEIGHTS, "changes its own input")
def divided_in_place(counts):
    total = sum(counts)
    for place in range(len(counts)):
        counts[place] /= total
    return counts


# --- the merge -------------------------------------------------------------------------------------------
@right(MERGE)
def in_one_step(W, A, B, alpha, r):
    return (W - (alpha - alpha / r) * (B @ A)).to(W.dtype)


@right(MERGE)
def to_the_base_and_back(W, A, B, alpha, r):
    update = (B @ A).double()
    return (W.double() - alpha * update + alpha / r * update).to(W.dtype)


@right(MERGE)
def by_the_rank(W, A, B, alpha, r):
    surplus = alpha * (r - 1) / r
    return torch.addmm(W.float(), B, A, alpha=-surplus).type_as(W)


@right(MERGE)
def rank_by_rank(W, A, B, alpha, r):
    repaired = W.to(A.dtype, copy=True)
    for a, b in zip(A, B.T, strict=True):
        repaired -= (alpha - alpha / r) * torch.outer(b, a)
    return repaired.to(W.dtype)


@refused(MERGE, "changes its own input")
def repaired_in_place(W, A, B, alpha, r):
    return W.copy_(in_one_step(W, A, B, alpha, r))


@refused(MERGE, "RuntimeError")
def the_other_order(W, A, B, alpha, r):
    return (W - (alpha - alpha / r) * (A @ B)).to(W.dtype)


# --- names ---------------------------------------------------------------------------------------------
@right(NAMES)
def by_length(saved, wanted):
    found = {}
    for name in saved:
        for w in wanted:
            rest = name[: len(name) - len(w)]
            if name[len(rest) :] == w and (not rest or rest[-1] == "."):
                found[name] = w
    absent = [w for w in wanted if w not in set(found.values())]
    return found, absent, [s for s in saved if s not in found]


@right(NAMES)
def with_dots(saved, wanted):
    found = {s: w for s in saved for w in wanted if ("." + s).endswith("." + w)}
    missing, left = list(wanted), list(saved)
    for s, w in found.items():
        missing.remove(w)
        left.remove(s)
    return found, missing, left


@right(NAMES)
def by_their_parts(saved, wanted):
    paths = {tuple(name.split(".")): name for name in wanted}
    found, left = {}, []
    for name in saved:
        path = tuple(name.split("."))
        ends = (path[start:] for start in range(len(path)))
        fitting = next((end for end in ends if end in paths), None)
        if fitting is None:
            left.append(name)
        else:
            found[name] = paths[fitting]
    return found, [name for name in wanted if name not in found.values()], left


@right(NAMES)
def cutting_the_front(saved, wanted):
    """Takes one part after the other off the front until the name is wanted."""

    def cut(name):
        while name and name not in wanted:
            name = name.partition(".")[2]
        return name

    cuts = {name: cut(name) for name in saved}
    found = {name: end for name, end in cuts.items() if end}
    missing = sorted(set(wanted) - set(cuts.values()), key=wanted.index)
    return [found, missing, sorted(cuts.keys() - found.keys(), key=saved.index)]


@refused(NAMES, "must be its end")
def before_a_suffix(saved, wanted):
    found = {a: b for b in wanted for a in saved if f".{b}." in f".{a}."}
    return (
        found,
        [w for w in wanted if w not in found.values()],
        [s for s in saved if s not in found],
    )


@refused(NAMES, "changes its own input")
def taken_off_the_list(saved, wanted):
    found, missing, left = with_dots(saved, wanted)
    for name in found.values():
        wanted.remove(name)
    return found, missing, left


# --- dropout -------------------------------------------------------------------------------------------
@right(DROP)
def by_the_function(x, p, training):
    return torch.nn.functional.dropout(x, p, training)


@right(DROP)
def by_bernoulli(x, p, training):
    if training:
        x = torch.where(torch.bernoulli(torch.full_like(x, p)).bool(), 0.0, x / (1 - p))
    return x


@right(DROP)
def by_a_module(x, p, training):
    return torch.nn.Dropout(p).train(training)(x)


@right(DROP)
def by_indices(x, p, training):
    if not training:
        return x.clone()
    out = (x / (1 - p)).flatten()
    chance = torch.distributions.Bernoulli(probs=p).sample(out.shape)
    out[chance.nonzero().squeeze(1)] = 0
    return out.view_as(x)


@refused(DROP, "this is the fault of the run")
def for_ever(x, p, training):
    return torch.nn.functional.dropout(x, p)


@refused(DROP, "this is the fault of the run")
def the_other_way_round(x, p, training):
    return x if training else x * (torch.rand_like(x) >= p) / (1 - p)


@refused(DROP, "No number becomes 0")
def never(x, p, training):
    return x


@refused(DROP, "are not scaled")
def not_scaled(x, p, training):
    return x * (torch.rand_like(x) >= p) if training else x


@refused(DROP, "the scaling happens in training")
def old_convention(x, p, training):
    return x * (torch.rand_like(x) >= p) if training else x * (1 - p)


@refused(DROP, "With training=False the numbers change")
def scaled_at_rest(x, p, training):
    return x * (torch.rand_like(x) >= p) / (1 - p) if training else x / (1 - p)


@refused(DROP, "75% of the numbers become 0")
def p_kept(x, p, training):
    return x * (torch.rand_like(x) < p) / p if training and p else x


@refused(DROP, "dropped together")
def whole_rows(x, p, training):
    return x * (torch.rand(len(x), 1) >= p) / (1 - p) if training else x


@refused(DROP, "For the mean to stay")
def scaled_by_p(x, p, training):
    return x * (torch.rand_like(x) >= p) / p if training and p else x


@refused(DROP, "keep their places")
def shortened(x, p, training):
    return x[torch.rand_like(x) >= p] if training else x


@refused(DROP, "(torch.manual_seed)")
def seeded(x, p, training):
    torch.manual_seed(0)
    return torch.nn.functional.dropout(x, p, training)


@refused(DROP, "changes its own input")
def dropped_in_place(x, p, training):
    return torch.nn.functional.dropout(x, p, training, inplace=True)


@refused(DROP, "depends on its value or its place")
def the_smallest(x, p, training):
    if not training or not p:
        return x
    border = x.abs().float().flatten().kthvalue(int(p * x.numel())).values
    return torch.where(x.abs() <= border, 0, x / (1 - p))


@refused(DROP, "pattern that repeats")
def half_of_the_draws_repeated(x, p, training):
    if not training or not x.dim():
        return x
    zeros = torch.rand(len(x) // 2, *x.shape[1:]).repeat(2, *[1] * (x.dim() - 1)) < p
    return torch.where(zeros, 0, x / (1 - p))


@refused(DROP, "one draw decide for all")
def one_draw(x, p, training):
    return x * (torch.rand(()) >= p).to(x.dtype) / (1 - p) if training else x


@refused(DROP, "share one draw")
def equal_numbers_together(x, p, training):
    values, place = x.unique(return_inverse=True)
    return (x * (torch.rand(len(values)) >= p)[place] / (1 - p)).to(x.dtype) if training else x


@refused(DROP, "the share that happened to stay")
def scaled_by_the_share(x, p, training):
    kept = torch.rand(x.shape) >= p
    return (x * kept / kept.double().mean()).to(x.dtype) if training else x


@refused(DROP, "too many values to unpack")
def of_matrices_alone(x, p, training):
    if not training:
        return x
    rows, columns = x.shape
    return x * (torch.rand(rows, columns) >= p).to(x.dtype) / (1 - p)


@refused(DROP, "dtype changes")
def in_float32(x, p, training):
    return x * (torch.rand(x.shape) >= p).float() / (1 - p) if training else x


@refused(DROP, "is a `list` and no tensor")
def a_list(x, p, training):
    return x.tolist()


equivalent(DROP, "A uniform number is almost never equal to p.",
           "`torch.rand_like(x) >= p` becomes `torch.rand_like(x) > p`")  # fmt: skip


# --- the prompt ------------------------------------------------------------------------------------------
@right(PROMPT)
def by_the_template(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


@right(PROMPT)
def by_its_text(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


@right(PROMPT)
def from_a_tensor(tokenizer, question):
    batch = [[{"role": "user", "content": question}]]
    ids = tokenizer.apply_chat_template(
        batch, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).input_ids
    return ids[0].tolist()


@right(PROMPT)
def cut_before_the_answer(tokenizer, question):
    """Renders a whole talk and keeps what stands before the answer."""
    talk = [*user(question), {"role": "assistant", "content": "ANSWER"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    return list(tokenizer(text.partition("ANSWER")[0], add_special_tokens=False).input_ids)


@refused(PROMPT, "writes ChatML by hand")
def chatml_by_hand(tokenizer, question):
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@right(PROMPT)
def a_tensor(tokenizer, question):
    return torch.tensor(serving_prompt(tokenizer, question))


@refused(PROMPT, "`chat_template`")
def template_replaced(tokenizer, question):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return serving_prompt(tokenizer, question)


@refused(PROMPT, "AttributeError")
def messages_encoded(tokenizer, question):
    return tokenizer.render(user(question), add_generation_prompt=True)
