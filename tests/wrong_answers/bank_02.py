"""Answers to the checks of notebook 02, as students write them."""

import re

import torch

from sftlab.scoring import format_compliance


def picked(logits, tokens):
    return logits[torch.arange(len(tokens)), tokens][:, None]


def zero_based(base_logits, tokens):
    return (base_logits > picked(base_logits, tokens)).sum(dim=-1)


def ties_count(base_logits, tokens):
    return (base_logits >= picked(base_logits, tokens)).sum(dim=-1)


def from_the_bottom(base_logits, tokens):
    return 1 + (base_logits < picked(base_logits, tokens)).sum(dim=-1)


def argsort_read_wrongly(base_logits, tokens):
    order = base_logits.argsort(dim=-1, descending=True)
    return order[torch.arange(len(tokens)), tokens] + 1


def argsort_read_wrongly_from_zero(base_logits, tokens):
    return argsort_read_wrongly(base_logits, tokens) - 1


def shifted_again(base_logits, tokens):
    return 1 + (base_logits[:-1] > picked(base_logits[:-1], tokens[1:])).sum(dim=-1)


def over_positions(base_logits, tokens):
    return 1 + (base_logits > picked(base_logits, tokens)).sum(dim=0)


def with_a_loop(base_logits, tokens):
    """Right, token by token."""
    found = []
    for row, token in zip(base_logits.tolist(), tokens.tolist(), strict=True):
        found.append(1 + sum(value > row[token] for value in row))
    return torch.tensor(found)


def by_sorting(base_logits, tokens):
    """Right: the place of the token's logit among the sorted ones."""
    ordered = base_logits.sort(dim=-1, descending=True).values
    return (ordered == picked(base_logits, tokens)).int().argmax(dim=-1) + 1


def lines_of(text):
    return text.strip().split("\n")


def is_list(text, count):
    lines = lines_of(text)
    return len(lines) == count and all(re.match(rf"{k}\. \S", x) for k, x in enumerate(lines, 1))


def is_sentence(text):
    text = text.strip()
    return (
        bool(re.match(r"[A-Z0-9]", text))
        and text[-1:] in (".", "!")
        and "\n" not in text
        and "?" not in text
    )


def two_cases(text, count=None):
    return is_list(text, count) if count else is_sentence(text)


def one_pattern(text, count=None):
    """Right, with one pattern for each form."""
    if count:
        pattern = "\n".join(rf"{k}\. \S[^\n]*" for k in range(1, count + 1))
        return re.fullmatch(pattern, text.strip()) is not None
    return re.fullmatch(r"[A-Z0-9][^\n?]*[.!]|[A-Z0-9]?[.!]", text.strip()) is not None


def count_ignored(text, count=None):
    return is_sentence(text)


def any_length(text, count=None):
    return is_list(text, len(lines_of(text))) if count else is_sentence(text)


def too_long_passes(text, count=None):
    if not count:
        return is_sentence(text)
    lines = lines_of(text)
    return len(lines) >= count and is_list(text, len(lines))


def lines_counted(text, count=None):
    return len(lines_of(text)) == count if count else is_sentence(text)


def any_numbers(text, count=None):
    if not count:
        return is_sentence(text)
    lines = lines_of(text)
    return len(lines) == count and all(re.match(r"\d+\. ", line) for line in lines)


def beginning_ignored(text, count=None):
    if count:
        return is_list(text, count)
    text = text.strip()
    return text.endswith((".", "!")) and "\n" not in text and "?" not in text


def no_digits(text, count=None):
    return two_cases(text, count) and (bool(count) or text.strip()[0].isalpha())


def end_ignored(text, count=None):
    if count:
        return is_list(text, count)
    text = text.strip()
    return text[:1].isupper() * 1 + text[:1].isdigit() * 1 > 0 and not set("\n?") & set(text)


def many_lines(text, count=None):
    return is_list(text, count) if count else is_sentence(text.strip().replace("\n", " "))


def questions_pass(text, count=None):
    return is_list(text, count) if count else is_sentence(text.replace("?", "."))


def not_stripped(text, count=None):
    return two_cases(text, count) and text == text.strip()


WRONG = {
    "02.token_rank_shift": {
        "from zero": (zero_based, "A rank begins at 1"),
        "ties": (ties_count, "Equally likely tokens"),
        "from the bottom": (from_the_bottom, "counted from the bottom"),
        "argsort": (argsort_read_wrongly, "the rank at which the token stands"),
        "argsort from zero": (argsort_read_wrongly_from_zero, "not each token's rank"),
        "shifted again": (shifted_again, "You shifted once more"),
        "over the positions": (over_positions, "counted over the positions"),
        "first choice or not": (lambda x, t: x.argmax(-1) == t, "whether a token is the first"),
        "logits": (lambda x, t: picked(x, t)[:, 0], "the tokens' logits"),
        "probabilities": (
            lambda x, t: picked(x.softmax(-1), t)[:, 0],
            "the tokens' probabilities",
        ),
    },
    "02.format_compliance": {
        "the wrong way round": (
            lambda text, count=None: not format_compliance(text, count),
            "wrong way round",
        ),
        "count ignored": (count_ignored, "The number is not looked at"),
        "any length": (any_length, "A list of any length passes"),
        "too long": (too_long_passes, "A list that is too long passes"),
        "lines counted": (lines_counted, "Only the lines are counted"),
        "any numbers": (any_numbers, "The numbers may be any here"),
        "beginning": (beginning_ignored, "The beginning is not looked at"),
        "no digits": (no_digits, "begins with a digit is refused"),
        "end": (end_ignored, "The end is not looked at"),
        "many lines": (many_lines, "Several lines pass"),
        "questions": (questions_pass, "A question passes"),
        "not stripped": (not_stripped, "Strip them first"),
    },
}
RIGHT = {
    "02.token_rank_shift": {"a loop": with_a_loop, "sorting": by_sorting},
    "02.format_compliance": {"two cases": two_cases, "one pattern": one_pattern},
}
