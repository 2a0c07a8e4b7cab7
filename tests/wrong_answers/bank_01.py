"""Answers to the checks of notebook 01, as students write them."""

import torch
import torch.nn.functional as F

from sftlab.compare import PROMPTS


def by_hand(logits):
    last = logits[-1]
    weights = torch.exp(last - last.max())
    return weights / weights.sum()


def by_log(logits):
    return F.log_softmax(logits, dim=1)[-1, :].exp()


def by_logsumexp(logits):
    return (logits[-1] - torch.logsumexp(logits[-1], dim=0)).exp()


def overflowing(logits):
    weights = torch.exp(logits[-1])
    return weights / weights.sum()


def constant(prompt):
    return lambda base, chat, tokenizer: prompt


def searched(base, chat, tokenizer):
    from sftlab.compare import side_by_side

    for country in ("Norway", "Kenya", "Japan"):
        prompt = f"What is the capital of {country}?"
        row = side_by_side(base, chat, tokenizer, [prompt])[0]
        if (row["base did"], row["chat did"]) == ("continued", "answered"):
            return prompt


RIGHT = {
    "01.next_token_distribution": {"by hand": by_hand, "from log-probabilities": by_log, "logsumexp": by_logsumexp},
    "01.find_diverging_prompt": {
        "a capital": constant("What is the capital of Norway?"),
        "an animal": constant("What does the owl eat?"),
        "a search": searched,
    },
}  # fmt: skip

WRONG = {
    "01.next_token_distribution": {
        "logits": (lambda x: x[-1], "still logits"),
        "every position": (lambda x: F.softmax(x, dim=-1), "*every* position"),
        "first position": (lambda x: F.softmax(x[0], dim=-1), "first position"),
        "last but one": (lambda x: F.softmax(x[len(x) - 2], dim=-1), "before the last"),
        "over positions": (lambda x: F.softmax(x, dim=0)[-1], "over the positions"),
        "last column": (lambda x: F.softmax(x[:, -1], dim=0), "last *token of the vocabulary*"),
        "log-probabilities": (lambda x: F.log_softmax(x[-1], dim=-1), "log-probabilities"),
        "mean of distributions": (lambda x: F.softmax(x, dim=-1).mean(dim=0), "averaged over the positions"),
        "distribution of the mean": (lambda x: F.softmax(x.mean(dim=0), dim=-1), "averaged the logits"),
        "overflow": (overflowing, "overflows"),
        "divided by the sum": (lambda x: x[-1] / x[-1].sum(), "Dividing by the sum"),
        "sigmoid": (lambda x: torch.sigmoid(x[-1]), "sigmoid"),
        "argmax": (lambda x: torch.argmax(x[-1]), "likeliest token"),
    },
    "01.find_diverging_prompt": {
        "one of the notebook's": (constant(PROMPTS[0]), "stands in the notebook"),
        "empty": (constant("  "), "empty"),
        "a list": (constant(["What is the capital of Norway?"]), "as a string"),
        "the beginning of a sentence": (constant("The capital of Norway is"), "answer"),
        "few-shot": (constant("Q: What does the dog eat?\nA: The dog eats meat.\nQ: What does the cow eat?\nA:"), "answer"),
        "token ids": (lambda base, chat, tokenizer: tokenizer.encode("What does the owl eat?"), "as a string"),
        "nothing": (lambda base, chat, tokenizer: None, "as a string"),
    },
}  # fmt: skip
