"""Checks of notebook 02: token ranks under the base, and the form of an answer."""

from __future__ import annotations

import re

import torch

from sftlab.classroom.checking import Case, Exercise
from sftlab.exercises.ex02_superficial_alignment.rank_shift import token_rank_shift
from sftlab.scoring import format_compliance


def _forecast(length: int, vocabulary: int, scale: float = 1.0, seed: int = 0) -> tuple:
    randomness = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(length, vocabulary, generator=randomness)
    tokens = torch.randint(vocabulary, (length,), generator=randomness)
    tokens[0] = logits[0].argmax()  # a first choice is among them
    return logits, tokens


def _with_ties() -> tuple:
    logits = torch.tensor([[2.0, 2.0, 1.0, 0.0], [3.0, 3.0, 3.0, 3.0], [0.0, 5.0, 5.0, 1.0]])
    return logits, torch.tensor([1, 3, 3])


def _chosen(logits, tokens):
    return logits.gather(-1, tokens.unsqueeze(-1))


RANK_MISTAKES = (
    (lambda x, t: (x > _chosen(x, t)).sum(-1), "You counted the likelier tokens, so the first choice has 0. A rank begins at 1."),
    (lambda x, t: (x >= _chosen(x, t)).sum(-1), "Equally likely tokens are counted as likelier here. They share the better rank: count only those strictly above."),
    (lambda x, t: (x < _chosen(x, t)).sum(-1) + 1, "You counted from the bottom: the likeliest token has the largest number. Count those above it."),
    (lambda x, t: x.argsort(-1, descending=True).gather(-1, t.unsqueeze(-1)).squeeze(-1) + 1, "argsort gives the token at each rank; you looked up which token stands at rank `token`. You want the rank at which the token stands."),
    (lambda x, t: x.argsort(-1, descending=True).gather(-1, t.unsqueeze(-1)).squeeze(-1), "argsort gives the token at each rank, not each token's rank."),
    (lambda x, t: (x[:-1] > _chosen(x[:-1], t[1:])).sum(-1) + 1, "You shifted once more: row t of base_logits forecasts tokens[t] already. There is a rank for every token."),
    (lambda x, t: (x > _chosen(x, t)).sum(0) + 1, "You counted over the positions. The rank is among the tokens of the *vocabulary*, at one position: mind the dimension."),
    (lambda x, t: x.argmax(-1) == t, "These say only whether a token is the first choice. The exercise wants its rank: marginal tokens have 2 or 3."),
    (lambda x, t: _chosen(x, t).squeeze(-1), "These are the tokens' logits. How many other tokens have a larger one?"),
    (lambda x, t: _chosen(x.softmax(-1), t).squeeze(-1), "These are the tokens' probabilities. How many other tokens have a larger one?"),
)  # fmt: skip


def _paragraph(text: str) -> bool:
    text = text.strip()
    begins = text[:1].isupper() or text[:1].isdigit()
    return begins and bool(re.fullmatch(r"[^\n?]*[.!][)\"”]?", text))


def _numbered(text: str, first: int = 1) -> int:
    """How many lines a list 1. 2. 3. ... has; 0 if any line is something else."""
    lines = text.strip().split("\n")
    fine = all(re.match(rf"{k}\. \S", line.strip()) for k, line in enumerate(lines, first))
    return len(lines) if fine else 0


def _form(text: str, count: int | None = None, **given) -> bool:
    """The reference with one of its demands left out, by name."""
    text = text.strip() if given.get("strip", True) else text
    if count:
        lines = text.split("\n")
        if given.get("any_number"):
            return bool(_numbered(text))
        if given.get("at_least"):
            return _numbered(text) >= count
        if given.get("lines_only"):
            return len(lines) == count
        if given.get("order", True):
            return _numbered(text) == count
        return len(lines) == count and all(re.match(r"\d+\. \S", line) for line in lines)
    begins = not given.get("begin", True) or text[:1].isupper() or text[:1].isdigit()
    digits = given.get("digits", True) or not text[:1].isdigit()
    ends = text.endswith((".", "!", ".)", '."', ".”", '!"', "!”")) or not given.get("end", True)
    one = "\n" not in text or not given.get("one", True)
    return bool(text) and begins and digits and ends and one and "?" not in text


def _slip(**given):
    return lambda text, count=None: _form(text, count, **given)


FORM_MISTAKES = (
    (lambda t, c=None: not format_compliance(t, c), "It is the wrong way round: True stands for an answer in the form that was asked for."),
    (lambda t, c=None: _paragraph(t), "The number is not looked at. With `count`, the answer has to be a numbered list of that many lines."),
    (_slip(any_number=True), "A list of any length passes. It has to have exactly `count` lines."),
    (_slip(at_least=True), "A list that is too long passes. It has to have exactly `count` lines."),
    (_slip(lines_only=True), "Only the lines are counted. Each has to begin with its number, a full stop and a space."),
    (_slip(order=False), "The numbers may be any here. They have to be 1, 2, 3, in this order."),
    (_slip(begin=False), "The beginning is not looked at. A sentence begins with a capital or a digit."),
    (_slip(digits=False), "An answer that begins with a digit is refused: “3 plus 4 is 7.” is a fine one."),
    (_slip(end=False), "The end is not looked at. A sentence ends with a full stop or an exclamation mark; one that breaks off does not."),
    (_slip(one=False), "Several lines pass as a paragraph. Without `count`, the answer is one paragraph."),
    (lambda t, c=None: format_compliance(t.replace("?", "."), c), "A question passes. Whoever asks back, or goes on with more questions, has not answered."),
    (_slip(strip=False), "Spaces and line ends around the answer count here. Strip them first."),
)  # fmt: skip
TEXTS = (
    ("a sentence", ("The frog lives in ponds.", None)),
    ("a sentence that begins with a digit", ("3 plus 4 is 7.", None)),
    ("two sentences", ("Hello! The frog lives in ponds.", None)),
    ("a small letter first", ("the frog lives in ponds.", None)),
    ("cut off", ("The frog lives in po", None)),
    ("a question", ("What does the frog eat?", None)),
    ("an answer, and a question", ("In ponds. Where does the owl live? In woods.", None)),
    ("two lines", ("The frog lives in ponds.\nThe owl lives in woods.", None)),
    ("space around it", (" The frog lives in ponds.\n", None)),
    ("nothing", ("", None)),
    ("a list of two", ("1. Arrive early.\n2. Dress neatly.", 2)),
    ("a list of two, for three", ("1. Arrive early.\n2. Dress neatly.", 3)),
    ("a list of three, for two", ("1. Arrive early.\n2. Dress neatly.\n3. Ask.", 2)),
    ("dashes", ("- Arrive early.\n- Dress neatly.", 2)),
    ("numbers out of order", ("2. Arrive early.\n1. Dress neatly.", 2)),
    ("a sentence for a list", ("Arrive early and dress neatly.", 2)),
    ("a list where a sentence is wanted", ("1. Arrive early.\n2. Dress neatly.", None)),
)

EXERCISES = {
    "02.token_rank_shift": Exercise(
        id="02.token_rank_shift",
        title="The rank of each token under the base",
        reference=token_rank_shift,
        cases=[
            Case("5 tokens of a vocabulary of 7", lambda: _forecast(5, 7), token_rank_shift, RANK_MISTAKES),
            Case("as many tokens as the vocabulary has", lambda: _forecast(6, 6, seed=1), token_rank_shift, RANK_MISTAKES),
            Case("one token", lambda: _forecast(1, 9, seed=2), token_rank_shift, RANK_MISTAKES),
            Case("equally likely tokens", _with_ties, token_rank_shift, RANK_MISTAKES),
            Case("large logits", lambda: _forecast(4, 50, 300.0, 3), token_rank_shift, RANK_MISTAKES),
        ],
        hints=[
            "logits.gather(-1, tokens.unsqueeze(-1)) picks the logit of each token: shape (length, 1).",
            "How many logits of the same row are strictly larger? Compare, and sum over the vocabulary. The first choice has rank 1.",
        ],
        why="Ranks need no softmax: it keeps the order. A comparison and a sum are quicker than sorting the vocabulary, and ties are settled by what you count.",
    ),
    "02.format_compliance": Exercise(
        id="02.format_compliance",
        title="Is it in the form that was asked for?",
        reference=format_compliance,
        cases=[
            Case(f"`format_compliance({text!r}, {count})`: {name}", lambda text=text, count=count: (text, count), format_compliance, FORM_MISTAKES)
            for name, (text, count) in TEXTS
        ],
        hints=[
            "Strip the text. Two cases: with a count, look at its lines; without, at its first and last character and at what may not be in it.",
            "For a list: lines = text.split('\\n'); there are `count` of them, and line k begins with f'{k}. ' and goes on.",
            "For a paragraph: text[:1].isupper() or .isdigit(); no line end, no question mark; it ends in . or !, perhaps with a bracket or quotation mark after it.",
        ],
        why="Form can be checked without knowing anything. That is why it says so little about whether an answer is right, and why it can be learned from eight examples.",
    ),
}  # fmt: skip
