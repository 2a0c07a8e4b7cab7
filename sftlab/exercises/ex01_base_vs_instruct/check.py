"""Checks of notebook 01: the next-token distribution, and a prompt on which base and chat part."""

from __future__ import annotations

from functools import cache

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.compare import PROMPTS, find_diverging_prompt, side_by_side
from sftlab.generate import next_token_distribution

DISTRIBUTION, PROMPT = "01.next_token_distribution", "01.find_diverging_prompt"


def _logits(length: int, vocabulary: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(length, vocabulary, generator=torch.Generator().manual_seed(seed))


@mistake(DISTRIBUTION, "These are still logits: they may be negative and do not sum to 1. Which function makes probabilities of them?")  # fmt: skip
def _logits_themselves(logits):
    return logits[-1]


@mistake(DISTRIBUTION, "That is a distribution for *every* position. The next token after the whole text is forecast at one of them.")  # fmt: skip
def _every_position(logits):
    return logits.softmax(-1)


@mistake(DISTRIBUTION, "You took the first position: that forecasts the second token of the text. The next one is forecast at the end.")  # fmt: skip
def _first_position(logits):
    return logits[0].softmax(-1)


@mistake(DISTRIBUTION, "You took the position before the last: it forecasts the text's own last token.")  # fmt: skip
def _last_but_one(logits):
    return logits[len(logits) - 2].softmax(-1)


@mistake(DISTRIBUTION, "You normalised over the positions. The probabilities of all *tokens* at one position sum to 1: mind the dimension.")  # fmt: skip
def _over_positions(logits):
    return logits.softmax(0)[-1]


@mistake(DISTRIBUTION, "You took the last *token of the vocabulary* at all positions. Positions are the first dimension.")  # fmt: skip
def _last_column(logits):
    return logits[:, -1].softmax(-1)


@mistake(DISTRIBUTION, "These are log-probabilities: never above 0. You want the probabilities themselves.")  # fmt: skip
def _log_probabilities(logits):
    return logits[-1].log_softmax(-1)


@mistake(DISTRIBUTION, "You averaged over the positions. Each position forecasts another token; only one forecasts the next.")  # fmt: skip
def _mean_of_distributions(logits):
    return logits.softmax(-1).mean(0)


@mistake(DISTRIBUTION, "You averaged the logits of all positions. Only one of them forecasts the next token.")  # fmt: skip
def _distribution_of_the_mean(logits):
    return logits.mean(0).softmax(-1)


@mistake(DISTRIBUTION, "exp of a large logit overflows. Subtract the largest logit first, or let softmax do it.")  # fmt: skip
def _overflowing(logits):
    weights = logits[-1].exp()
    return weights / weights.sum()


@mistake(DISTRIBUTION, "Dividing by the sum is not enough: logits can be negative. Take exp first, as softmax does.")  # fmt: skip
def _exp_forgotten(logits):
    return logits[-1] / logits[-1].sum()


@mistake(DISTRIBUTION, "The sigmoid looks at each token alone, so these do not sum to 1. The tokens compete: use softmax.")  # fmt: skip
def _sigmoid(logits):
    return logits[-1].sigmoid()


@mistake(DISTRIBUTION, "That is the likeliest token. You want the probabilities of all tokens.")
def _likeliest_token(logits):
    return logits[-1].argmax()


@cache
def _models():
    from sftlab.models import load

    base, tokenizer = load("almanac")
    return base, load("almanac", "chat")[0], tokenizer


def _verify_prompt(prompt, arguments) -> str | None:
    if not isinstance(prompt, str):
        return f"Return one prompt as a string; this is a `{type(prompt).__name__}`."
    if not prompt.strip():
        return "The prompt is empty: there is nothing to continue and nothing to answer."
    if prompt.strip() in PROMPTS:
        return "That one stands in the notebook already. Find one of your own: another country, animal or topic."
    (row,) = side_by_side(*arguments, [prompt])
    base, chat = row["base did"], row["chat did"]
    if base == chat == "answered":
        return f"Both count as answering here: the base writes {row['base'][:60]!r}. Give an instruction, not the beginning of a sentence."
    if base == chat == "continued":
        return f"Both continue: the chat model writes {row['chat'][:60]!r}. Ask for something it was tuned to do."
    if base != "continued":
        return f"The base {base} ({row['base'][:60]!r}); look for an instruction that it takes for a line of a page."
    if chat != "answered":
        return f"The chat model {chat} ({row['chat'][:60]!r}); look for an instruction that it answers."
    return None


EXERCISES = {
    DISTRIBUTION: Exercise(
        id=DISTRIBUTION,
        title="The distribution of the next token",
        reference=next_token_distribution,
        cases=[
            Case("logits of 4 positions over 6 tokens", lambda: (_logits(4, 6),), next_token_distribution, 1e-5),
            Case("a text of one token", lambda: (_logits(1, 5, seed=1),), next_token_distribution, 1e-5),
            Case("as many positions as tokens", lambda: (_logits(4, 4, 3.0, 2),), next_token_distribution, 1e-5),
            Case("logits around 1000", lambda: (_logits(3, 5, 1.0, 3) + 1000.0,), next_token_distribution, 1e-5),
        ],
        hints=[
            "Each position forecasts the token that follows it. Which position forecasts the token after the text?",
            "The last one. Softmax turns its scores into probabilities that sum to 1.",
        ],
        why="A causal model forecasts at every position; only the last forecast is news. Softmax subtracts the largest logit "
        "before exp, which changes nothing in the result and keeps it from overflowing.",
    ),
    PROMPT: Exercise(
        id=PROMPT,
        title="A prompt on which they part",
        reference=find_diverging_prompt,
        cases=[Case("your prompt, put to both models", _models, verify=_verify_prompt)],
        hints=[
            "On which pages of an almanac would your line stand? A page of questions goes on with questions.",
            "Ask for a fact as a quiz would: a capital, what an animal eats, an opposite.",
        ],
        why="A bare instruction is the first line of a page in the base's world and a request in the chat model's. The beginning of a "
        "sentence is the same thing in both.",
    ),
}  # fmt: skip
