"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right

RANK, FORMAT = "02.token_rank_shift", "02.format_compliance"


@right(RANK)
def by_loop(base_logits, tokens):
    found = []
    for row, token in zip(base_logits.tolist(), tokens.tolist(), strict=True):
        found.append(1 + sum(value > row[token] for value in row))
    return torch.tensor(found)


@right(RANK)
def by_sorting(base_logits, tokens):
    """The place of the token's logit among the sorted ones."""
    ordered = base_logits.sort(dim=-1, descending=True).values
    own = base_logits[torch.arange(len(tokens)), tokens][:, None]
    return (ordered == own).int().argmax(dim=-1) + 1


@right(RANK)
def by_searchsorted(base_logits, tokens):
    """The vocabulary less those that are no likelier."""
    ordered = base_logits.sort(dim=-1).values.contiguous()
    own = base_logits.take_along_dim(tokens[:, None], dim=-1)
    no_likelier = torch.searchsorted(ordered, own, right=True).squeeze(-1)
    return base_logits.shape[-1] - no_likelier + 1


@right(RANK)
def by_log_probabilities(base_logits, tokens):
    log_probabilities = base_logits.double().log_softmax(-1)
    rows = zip(log_probabilities, tokens, strict=True)
    return torch.stack([1 + torch.count_nonzero(row > row[token]) for row, token in rows])


@right(RANK)
def by_array(base_logits, tokens):
    values = base_logits.numpy()
    own = values[np.arange(len(tokens)), tokens.numpy()]
    return (values > own[:, None]).sum(axis=1) + 1


@refused(RANK, "The rule: Tokens with equal logits share")
def worst_rank(base_logits, tokens):
    vocabulary = base_logits.shape[-1]
    own = base_logits.gather(-1, tokens[:, None])
    return vocabulary - (base_logits < own).sum(-1) + (base_logits == own).sum(-1) // 2


@refused(RANK, "changes its own input (argument 1")
def in_place(base_logits, tokens):
    base_logits -= base_logits.gather(-1, tokens[:, None])
    return (base_logits > 0).sum(-1) + 1


@refused(RANK, "has the shape (1, 1)")
def a_column(base_logits, tokens):
    return 1 + (base_logits > base_logits.gather(-1, tokens[:, None])).sum(-1, keepdim=True)


@refused(RANK, "RuntimeError")
def not_unsqueezed(base_logits, tokens):
    return 1 + (base_logits > base_logits.gather(-1, tokens)).sum(-1)


def is_list(text, count):
    lines = text.strip().split("\n")
    return len(lines) == count and all(re.match(rf"{k}\. \S", x) for k, x in enumerate(lines, 1))


@right(FORMAT)
def two_cases(text, count=None):
    if count:
        return is_list(text, count)
    text = text.strip()
    begins = text[:1].isupper() or text[:1].isdigit()
    ends = re.search(r"[.!][)\"”]?$", text) is not None
    return begins and ends and "\n" not in text and "?" not in text


@right(FORMAT)
def one_pattern(text, count=None):
    if count:
        pattern = "\n".join(rf"{k}\. \S[^\n]*" for k in range(1, count + 1))
        return re.fullmatch(pattern, text.strip()) is not None
    return re.fullmatch(r"[A-ZÀ-Þ0-9][^\n?]*[.!][)\"”]?", text.strip()) is not None


@right(FORMAT)
def rule_by_rule(text, count=None):
    text = text.strip()
    if count is None:
        if not text or "\n" in text or "?" in text:
            return False
        if not (text[0].isupper() or text[0].isdigit()):
            return False
        if text[-1] in ')"”':
            text = text[:-1]
        return text.endswith((".", "!"))
    lines = text.splitlines()
    if len(lines) != count:
        return False
    for number, line in enumerate(lines, 1):
        head, dot, rest = line.partition(". ")
        if head != str(number) or not dot or not rest.strip():
            return False
    return True


@right(FORMAT)
def by_numbers_found(text, count=None):
    """The numbers at the beginnings of lines, compared with those that should be there."""
    lines = text.strip().split("\n")
    if count:
        found = [re.match(r"(\d+)\. \S", line) for line in lines]
        return [m and m[1] for m in found] == [str(k) for k in range(1, count + 1)]
    (line, *more) = lines
    return not more and bool(re.search(r"^[A-ZÀ-Þ\d](?!.*\?).*[.!][)\"”]?$", line))


@refused(FORMAT, "IndexError")
def first_of_nothing(text, count=None):
    if count:
        return is_list(text, count)
    text = text.strip()
    begins = text[0].isupper() or text[0].isdigit()
    return begins and bool(re.search(r"[.!][)\"”]?$", text)) and not {"\n", "?"} & set(text)


@refused(FORMAT, "It takes (text, count), but it is called with (text)")
def count_without_a_default(text, count):
    return two_cases(text, count)


@refused(FORMAT, "is a return missing?")
def nothing_for_false(text, count=None):
    if two_cases(text, count):
        return True


@refused(FORMAT, "is expected")
def a_match(text, count=None):
    return is_list(text, count) if count else re.match(r"[A-Z0-9].*[.!]", text)


equivalent(
    RANK,
    "The logits have two dimensions.",
    *(f"`-1` becomes `1`{n}" for n in ("", " #2", " #3")),
)
