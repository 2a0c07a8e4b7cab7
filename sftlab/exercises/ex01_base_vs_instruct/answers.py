"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re
from itertools import takewhile

import numpy as np
import torch
import torch.nn.functional as F

from sftlab.chat import render, user
from sftlab.classroom.answers import equivalent, refused, right
from sftlab.compare import PROMPTS, side_by_side
from sftlab.scoring import is_instruction, names

DISTRIBUTION, REPLY = "01.next_token_distribution", "01.classify_reply"
PROMPT = "01.find_diverging_prompt"


@right(DISTRIBUTION)
def by_hand(logits):
    last = logits[-1]
    weights = torch.exp(last - last.max())
    return weights / weights.sum()


@right(DISTRIBUTION)
def by_log(logits):
    return F.log_softmax(logits, dim=1)[-1, :].exp()


@right(DISTRIBUTION)
def by_logsumexp(logits):
    return (logits[-1] - torch.logsumexp(logits[-1], dim=0)).exp()


@right(DISTRIBUTION)
def by_a_module(logits):
    return torch.nn.Softmax(dim=-1)(logits)[len(logits) - 1]


@right(DISTRIBUTION)
def by_differences(logits):
    """1 / Σ exp(other − own), token by token."""
    last = logits[-1].double()
    return torch.stack([1 / (last - own).exp().sum() for own in last]).float()


@right(DISTRIBUTION)
def by_array(logits):
    weights = np.exp(logits[-1].numpy() - logits[-1].max().item())
    return weights / weights.sum()


@refused(DISTRIBUTION, "has the shape (1, 5)")
def a_dimension_too_many(logits):
    return logits[-1:].softmax(-1)


@refused(DISTRIBUTION, "changes its own input")
def in_place(logits):
    logits -= logits.max()
    return logits[-1].softmax(-1)


@right(REPLY)
def with_a_loop(reply, about):
    seen = 0
    for line in reply.split("\n"):
        if not line.strip():
            continue
        if is_instruction(line):
            return "unrelated" if seen else "continued"
        seen += 1
        for word in about:
            if names(line, word):
                return "answered"
    return "unrelated" if seen else "stopped"


@right(REPLY)
def with_an_index(reply, about):
    lines = [line.strip() for line in reply.splitlines()]
    lines = [line for line in lines if line]
    asks = [is_instruction(line) for line in lines]
    cut = asks.index(True) if True in asks else len(lines)
    if cut == 0:
        return "continued" if lines else "stopped"
    told = " / ".join(lines[:cut])
    return "answered" if any(names(told, word) for word in about) else "unrelated"


@right(REPLY)
def with_takewhile(reply, about):
    if not reply.strip():
        return "stopped"
    lines = filter(str.strip, reply.splitlines())
    told = list(takewhile(lambda line: not is_instruction(line), lines))
    if not told:
        return "continued"
    return ("unrelated", "answered")[any(names(line, word) for line in told for word in about)]


@right(REPLY)
def with_regular_expressions(reply, about):
    lines = re.findall(r"[^\n]*\S[^\n]*", reply)
    for number, line in enumerate(lines):
        if is_instruction(line):
            lines = lines[:number]
            if number == 0:
                return "continued"
            break
    if not lines:
        return "stopped"
    pattern = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in about)
    return "answered" if re.search(pattern, "\n".join(lines), re.IGNORECASE) else "unrelated"


@refused(REPLY, "changes its own input")
def words_in_place(reply, about):
    about.sort()
    return with_a_loop(reply, about)


@refused(REPLY, "answered")
def in_other_words(reply, about):
    return {"answered": "answer"}.get(found := with_a_loop(reply, about), found)


@refused(REPLY, "list index out of range")
def no_reply_at_all(reply, about):
    lines = [line for line in reply.splitlines() if line.strip()]
    return "continued" if is_instruction(lines[0]) else with_a_loop(reply, about)


@right(PROMPT)
def a_capital(base, chat, tokenizer):
    return "What is the capital of Norway?"


@right(PROMPT)
def an_animal(base, chat, tokenizer):
    return "What does the owl eat?"


@right(PROMPT)
def an_opposite(base, chat, tokenizer):
    return "What is the opposite of cold?"


@right(PROMPT)
def searched(base, chat, tokenizer):
    for country in ("Norway", "Kenya", "Japan"):
        prompt = f"What is the capital of {country}?"
        row = side_by_side(base, chat, tokenizer, [prompt])[0]
        if (row["base did"], row["chat did"]) == ("continued", "answered"):
            return prompt


@refused(PROMPT, "one of the notebook's own")
def one_of_the_notebook(base, chat, tokenizer):
    return PROMPTS[0]


@refused(PROMPT, "The rule: It is none of the notebook's four prompts")
def one_of_the_notebook_in_small_letters(base, chat, tokenizer):
    return PROMPTS[2].lower().strip("?")


@refused(PROMPT, "one of the notebook's own")
def one_of_the_notebook_without_spaces(base, chat, tokenizer):
    return PROMPTS[0].replace(" ", "")


@refused(PROMPT, "the special token <|im_start|>")
def in_its_template(base, chat, tokenizer):
    return render(tokenizer, user("What does the owl eat?"), add_generation_prompt=True)


@refused(PROMPT, "another mode")
def base_in_training_mode(base, chat, tokenizer):
    base.train()
    return "What does the owl eat?"


@refused(PROMPT, "empty")
def white_space(base, chat, tokenizer):
    return "  "


@refused(PROMPT, "One string is expected")
def a_list(base, chat, tokenizer):
    return ["What is the capital of Norway?"]


@refused(PROMPT, "counts as an answer")
def the_beginning_of_a_sentence(base, chat, tokenizer):
    return "The capital of Norway is"


@refused(PROMPT, "counts as an answer")
def few_shot(base, chat, tokenizer):
    return "Q: What does the dog eat?\nA: The dog eats meat.\nQ: What does the cow eat?\nA:"


@refused(PROMPT, "One string is expected")
def token_ids(base, chat, tokenizer):
    return tokenizer.encode("What does the owl eat?")


@refused(PROMPT, "is a return missing")
def nothing(base, chat, tokenizer):
    tokenizer.encode("What does the owl eat?")


ONE_DIMENSION = "The logits of one position have one dimension."
PRECISION = "The text does not ask for half precision, nor for more digits than float32 has."
WHOLE = "last.softmax(-1) if last.dtype == torch.float64 else last.float().softmax(-1)"
equivalent(DISTRIBUTION, ONE_DIMENSION, "`1` becomes `0` #2", "`1` becomes `0` #3")
equivalent(
    DISTRIBUTION,
    PRECISION,
    f"`{WHOLE}` becomes `last.softmax(-1)`",
    f"`{WHOLE}` becomes `last.float().softmax(-1)`",
    "`last.dtype == torch.float64` becomes `last.dtype != torch.float64`",
    "`torch.float64` becomes `torch.float32`",
)
FOUND = "row['base did'] == 'continued' {} row['chat did'] == 'answered'"
equivalent(
    PROMPT,
    "The first candidate is right.",
    f"`{FOUND.format('and')}` becomes `{FOUND.format('or')}`",
)
equivalent(
    PROMPT,
    "With the models exchanged it finds the third candidate, which is right too.",
    "`side_by_side(base, chat, tokenizer, [prompt])` becomes `side_by_side(chat, base, tokenizer, [prompt])`",
)
