"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import refused, right
from sftlab.compare import PROMPTS, side_by_side

DISTRIBUTION, PROMPT = "01.next_token_distribution", "01.find_diverging_prompt"


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


@refused(DISTRIBUTION, "has the shape (1, 6)")
def a_row_too_many(logits):
    return logits[-1:].softmax(-1)


@refused(DISTRIBUTION, "changes its own input")
def in_place(logits):
    logits -= logits.max()
    return logits[-1].softmax(-1)


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


@refused(PROMPT, "stands in the notebook")
def one_of_the_notebook(base, chat, tokenizer):
    return PROMPTS[0]


@refused(PROMPT, "empty")
def white_space(base, chat, tokenizer):
    return "  "


@refused(PROMPT, "as a string")
def a_list(base, chat, tokenizer):
    return ["What is the capital of Norway?"]


@refused(PROMPT, "answer")
def the_beginning_of_a_sentence(base, chat, tokenizer):
    return "The capital of Norway is"


@refused(PROMPT, "answer")
def few_shot(base, chat, tokenizer):
    return "Q: What does the dog eat?\nA: The dog eats meat.\nQ: What does the cow eat?\nA:"


@refused(PROMPT, "as a string")
def token_ids(base, chat, tokenizer):
    return tokenizer.encode("What does the owl eat?")


@refused(PROMPT, "as a string")
def nothing(base, chat, tokenizer):
    tokenizer.encode("What does the owl eat?")
