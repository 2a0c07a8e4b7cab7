"""Answers to the checks of notebook 23, as students write them."""

import math

import torch

from sftlab.chat import encode, user
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND, diagnose
from sftlab.exercises.ex23_broken_runs_clinic.repairs import fit_names, serving_prompt

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


def in_order(*names, tolerance=1e-3):
    """Asks for these figures one after the other, then for the strength."""
    fault_of = {figure: fault for fault, figure in TOLD}

    def way(figures):
        for name in names or fault_of:
            if abs(figures[name] - SOUND[name]) > tolerance:
                return fault_of[name], name
        strength = figures["strength"]
        if abs(strength - 1) <= tolerance:
            return "healthy", ""
        return ("adapter not loaded" if abs(strength) < tolerance else "wrong factor in the merge"), "strength"  # fmt: skip

    return way


def moved(*pairs):
    """The right order with figures exchanged pairwise."""
    names = [figure for _, figure in TOLD]
    for a, b in pairs:
        i, j = names.index(a), names.index(b)
        names[i], names[j] = names[j], names[i]
    return in_order(*names)


def always_not_loaded(figures):
    fault, figure = diagnose(figures)
    return ("adapter not loaded" if figure == "strength" else fault), figure


def by_another_figure(wanted, figure):
    def way(figures):
        fault, telling = diagnose(figures)
        return fault, figure if fault == wanted else telling

    return way


def by_score(figures):
    """Another way to the same end: the first figure of a list that is off by a tenth of a percent."""
    off = [name for _, name in TOLD if not math.isclose(figures[name], SOUND[name], abs_tol=1e-3)]
    if off:
        return next((fault, name) for fault, name in TOLD if name == off[0])
    times = round(figures["strength"], 2)
    return {1.0: ("healthy", None), 0.0: ("adapter not loaded", "strength")}.get(
        times, ["wrong factor in the merge", "strength"]
    )


# --- rows ----------------------------------------------------------------------------------------------


def one_begin(prompt, begin):
    prompt = list(prompt)
    while len(prompt) > 1 and prompt[0] == prompt[1] == begin:
        prompt = prompt[1:]
    return prompt


def row(front=one_begin, mask=True, end="trained", shift=False, cut=None, equal=True):
    def way(prompt, answer, begin, marker, max_length):
        p = front(prompt, begin)
        ids = p + answer + ([marker] if end != "missing" else [])
        labels = [-100] * len(p) + ids[len(p) :] if mask else list(ids)
        if end == "masked":
            labels = [-100 if x == marker else x for x in labels]
        if shift:
            labels = [*labels[1:], -100]
        if len(ids) > max_length or (len(ids) == max_length and not equal):
            return cut(ids, labels, max_length) if cut else None
        return ids, labels

    return way


def tokens_one_by_one(prompt, answer, begin, end, max_length):
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


# --- dropout -------------------------------------------------------------------------------------------


def inverted(x, p, training):
    return x if training else x * (torch.rand_like(x) >= p) / (1 - p)


def old_convention(x, p, training):
    return x * (torch.rand_like(x) >= p) if training else x * (1 - p)


def whole_rows(x, p, training):
    return x * (torch.rand(len(x), 1) >= p) / (1 - p) if training else x


def with_bernoulli(x, p, training):
    if training:
        x = torch.where(torch.bernoulli(torch.full_like(x, p)).bool(), 0.0, x / (1 - p))
    return x


# --- names ---------------------------------------------------------------------------------------------


def by_length(saved, wanted):
    found = {}
    for name in saved:
        for w in wanted:
            rest = name[: len(name) - len(w)]
            if name[len(rest) :] == w and (not rest or rest[-1] == "."):
                found[name] = w
    absent = [w for w in wanted if w not in set(found.values())]
    return found, absent, [s for s in saved if s not in found]


def told(saved, wanted, found):
    return found, [w for w in wanted if w not in found.values()], [s for s in saved if s not in found]  # fmt: skip


def same(test):
    return lambda s, w: told(s, w, {a: b for b in w for a in s if test(a, b)})


def merged_with(factor):
    return lambda W, A, B, alpha, r: (W - factor(alpha, r) * (B @ A)).to(W.dtype)


def from_the_base(W, A, B, alpha, r):
    update = (B @ A).double()
    return (W.double() - alpha * update + alpha / r * update).to(W.dtype)


def chatml_by_hand(tokenizer, question):
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def asked_by_template(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


def asked_by_text(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


RIGHT = {
    "23.diagnose": {"in the right order": in_order(), "by a list": by_score},
    "23.repair_row": {"slices": row(), "token by token": tokens_one_by_one},
    "23.micro_batch_weights": {
        "shares": lambda counts: [n / sum(counts) for n in counts],
        "by torch": lambda counts: (torch.tensor(counts).double() / sum(counts)).tolist(),
    },
    "23.repair_merge": {
        "in one step": merged_with(lambda a, r: a - a / r),
        "to the base and back": from_the_base,
        "by the rank": merged_with(lambda a, r: a * (r - 1) / r),
    },
    "23.fit_names": {"by length": by_length, "with dots": same(lambda s, w: f".{s}".endswith(f".{w}"))},
    "23.drop": {
        "by F.dropout": lambda x, p, training: torch.nn.functional.dropout(x, p, training),
        "by bernoulli": with_bernoulli,
        "by a module": lambda x, p, training: torch.nn.Dropout(p).train(training)(x),
    },
    "23.serving_prompt": {"by the template": asked_by_template, "by its text": asked_by_text},
}  # fmt: skip

WRONG = {
    "23.diagnose": {
        "end markers before answers": (moved(("answer trained", "end trained")), "A cut takes the end marker as well"),
        "prompts before begin tokens": (moved(("begin tokens", "prompt fits rows")), "A doubled begin token keeps prompts"),
        "prompts before labels": (moved(("labels in place", "prompt trained")), "Shifted labels reach back"),
        "every strange strength": (always_not_loaded, "Were it not loaded"),
        "no tolerance": (in_order(tolerance=0.0), "A false alarm"),
        "a coarse tolerance": (in_order(tolerance=0.5), "only 72% of their tokens"),
        "always healthy": (lambda figures: ("healthy", ""), "Look at: prompt trained"),
        "the fault alone": (lambda figures: diagnose(figures)[0], "Return two things"),
        "a name of their own": (lambda figures: ("mask all ones", "prompt trained"), "no such fault"),
        "a figure of their own": (by_another_figure("prompts trained too", "loss"), "no figure of the bench"),
        "a figure that is fine": (by_another_figure("prompts trained too", "end trained"), "but not the reason"),
        "a figure that two faults move": (by_another_figure("answers cut off", "end trained"), "name the figure that tells this one"),
        "dropout or nothing": (lambda figures: diagnose(figures) if diagnose(figures)[0] == "healthy" else ("dropout in evaluation", "passes differ"), "would show in"),
    },
    "23.repair_row": {
        "prompt trained": (row(mask=False), "The prompt is trained too"),
        "end masked as padding": (row(end="masked"), "The end marker is masked"),
        "end missing": (row(end="missing"), "The end marker is missing"),
        "begin twice": (row(front=lambda p, b: list(p)), "stays twice"),
        "begin gone": (row(front=lambda p, b: [x for x in p if x != b]), "All begin tokens are gone"),
        "begin added": (row(front=lambda p, b: [b, *[x for x in p if x != b]]), "Begin tokens further on"),
        "repeats gone": (row(front=lambda p, b: list(dict.fromkeys(p))), "Tokens that repeat are gone"),
        "shifted": (row(shift=True), "one place too early"),
        "cut": (row(cut=lambda i, y, n: (i[:n], y[:n])), "was cut, and its answer"),
        "cut in front": (row(cut=lambda i, y, n: (i[-n:], y[-n:])), "lost its front"),
        "too long": (row(cut=lambda i, y, n: (i, y)), "longer than max_length came back"),
        "off by one": (row(equal=False), "exactly max_length tokens fits"),
    },
    "23.micro_batch_weights": {
        "equal": (lambda c: [1 / len(c) for _ in c], "Every micro-batch counts the same"),
        "added up": (lambda c: [1.0 for _ in c], "added up as they are"),
        "counts": (lambda c: [float(n) for n in c], "the counts themselves"),
        "by micro-batches": (lambda c: [n / len(c) for n in c], "not of micro-batches"),
        "by the largest": (lambda c: [n / max(c) for n in c], "not by the largest"),
        "one over N": (lambda c: [1 / sum(c) for _ in c], "right for *sums*"),
        "not normalised": (lambda c: [len(c) * n / sum(c) for n in c], "Right up to a factor"),
    },
    "23.repair_merge": {
        "to the base": (merged_with(lambda a, r: a), "this is the base"),
        "the part that should stay": (merged_with(lambda a, r: a / r), "Which part should *stay*"),
        "r times": (merged_with(lambda a, r: r), "r times B·A was taken out"),
        "factor one": (merged_with(lambda a, r: a - 1), "This leaves 1"),
        "rank-stabilised": (merged_with(lambda a, r: a - a / math.sqrt(r)), "This leaves α/√r"),
        "divided": (lambda W, A, B, a, r: (W / r), "The base was divided by r"),
        "nothing": (lambda W, *_: W, "Nothing was changed"),
        "added": (merged_with(lambda a, r: -a / r), "added once more"),
        "float32": (lambda W, A, B, a, r: W.float() - (a - a / r) * (B @ A), "dtype of W"),
    },
    "23.fit_names": {
        "equal names": (same(lambda s, w: s == w), "Only equal names fit"),
        "ends without a dot": (same(lambda s, w: s.endswith(w)), "must end with a dot"),
        "one prefix": (same(lambda s, w: s.removeprefix("base_model.model.") == w), "Only one prefix"),
        "anywhere": (same(lambda s, w: w in s.split(".A") or w in s), "must be its end"),
        "in their order": (lambda s, w: told(s, w, dict(zip(s, w, strict=False))), "Paired by their order"),
        "the other way round": (lambda s, w: ({b: a for a, b in fit_names(s, w)[0].items()}, *fit_names(s, w)[1:]), "wrong way round"),
        "missing not told": (lambda s, w: (fit_names(s, w)[0], [], fit_names(s, w)[2]), "finds no tensor is not told"),
        "left over not told": (lambda s, w: (*fit_names(s, w)[:2], []), "that no one wants is not told"),
    },
    "23.drop": {
        "for ever": (lambda x, p, training: torch.nn.functional.dropout(x, p), "this is the fault of the run"),
        "the other way round": (inverted, "this is the fault of the run"),
        "never": (lambda x, p, training: x, "nothing is dropped"),
        "not scaled": (lambda x, p, training: x * (torch.rand_like(x) >= p) if training else x, "are not scaled"),
        "the old convention": (old_convention, "the other convention"),
        "p kept": (lambda x, p, training: x * (torch.rand_like(x) < p) / p if training and p else x, "not to be kept"),
        "whole rows": (whole_rows, "dropped together"),
        "scaled by p": (lambda x, p, training: x * (torch.rand_like(x) >= p) / p if training and p else x, "For the mean to stay"),
        "shortened": (lambda x, p, training: x[torch.rand_like(x) >= p] if training else x, "they do not go"),
    },
    "23.serving_prompt": {
        "ChatML by hand": (chatml_by_hand, "writes ChatML by hand"),
        "no generation prompt": (lambda t, q: encode(t, user(q)), "generation prompt is missing"),
        "bare": (lambda t, q: t.encode(q, add_special_tokens=False), "without a template"),
        "begin added": (lambda t, q: [serving_prompt(t, q)[0], *serving_prompt(t, q)], "comes twice"),
        "text": (lambda t, q: t.apply_chat_template(user(q), add_generation_prompt=True, tokenize=False), "This is text"),
        "the wrong turn": (lambda t, q: encode(t, [{"role": "assistant", "content": q}], add_generation_prompt=True), "It comes from the user"),
        "closed": (lambda t, q: encode(t, [*user(q), {"role": "assistant", "content": ""}]), "Leave the turn open"),
    },
}  # fmt: skip
