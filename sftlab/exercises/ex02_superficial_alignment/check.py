"""Checks of notebook 02: token ranks under the base, and the form of an answer."""

from __future__ import annotations

import re

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex02_superficial_alignment.rank_shift import token_rank_shift
from sftlab.scoring import format_compliance, list_items

RANK, FORM = "02.token_rank_shift", "02.format_compliance"


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


@mistake(RANK, "You counted the likelier tokens, so the first choice has 0. A rank begins at 1.")
def _from_zero(logits, tokens):
    return (logits > _chosen(logits, tokens)).sum(-1)


@mistake(RANK, "Equally likely tokens are counted as likelier here. They share the better rank: count only those strictly above.")  # fmt: skip
def _ties_counted(logits, tokens):
    return (logits >= _chosen(logits, tokens)).sum(-1)


@mistake(RANK, "You counted from the bottom: the likeliest token has the largest number. Count those above it.")  # fmt: skip
def _from_the_bottom(logits, tokens):
    return (logits < _chosen(logits, tokens)).sum(-1) + 1


@mistake(RANK, "argsort gives the token at each rank; you looked up which token stands at rank `token`. You want the rank at which the token stands.")  # fmt: skip
def _argsort_misread(logits, tokens):
    return _chosen(logits.argsort(-1, descending=True), tokens).squeeze(-1) + 1


@mistake(RANK, "argsort gives the token at each rank, not each token's rank.")
def _argsort_misread_from_zero(logits, tokens):
    return _chosen(logits.argsort(-1, descending=True), tokens).squeeze(-1)


@mistake(RANK, "You shifted once more: row t of base_logits forecasts tokens[t] already. There is a rank for every token.")  # fmt: skip
def _shifted_again(logits, tokens):
    return (logits[:-1] > _chosen(logits[:-1], tokens[1:])).sum(-1) + 1


@mistake(RANK, "You counted over the positions. The rank is among the tokens of the *vocabulary*, at one position: mind the dimension.")  # fmt: skip
def _over_positions(logits, tokens):
    return (logits > _chosen(logits, tokens)).sum(0) + 1


@mistake(RANK, "These say only whether a token is the first choice. The exercise wants its rank: marginal tokens have 2 or 3.")  # fmt: skip
def _first_choice_or_not(logits, tokens):
    return logits.argmax(-1) == tokens


@mistake(RANK, "These are the tokens' logits. How many other tokens have a larger one?")
def _logits_themselves(logits, tokens):
    return _chosen(logits, tokens).squeeze(-1)


@mistake(RANK, "These are the tokens' probabilities. How many other tokens have a larger one?")
def _probabilities(logits, tokens):
    return _chosen(logits.softmax(-1), tokens).squeeze(-1)


@mistake(FORM, "It is the wrong way round: True stands for an answer in the form that was asked for.")  # fmt: skip
def _wrong_way_round(text, count=None):
    return not format_compliance(text, count)


@mistake(FORM, "The number is not looked at. With `count`, the answer has to be a numbered list of that many lines.")  # fmt: skip
def _count_ignored(text, count=None):
    return format_compliance(text)


@mistake(FORM, "A list of any length passes. It has to have exactly `count` lines.")
def _any_length(text, count=None):
    return bool(list_items(text)) if count else format_compliance(text)


@mistake(FORM, "A list that is too long passes. It has to have exactly `count` lines.")
def _too_long_passes(text, count=None):
    return len(list_items(text)) >= count if count else format_compliance(text)


@mistake(FORM, "Only the lines are counted. Each has to begin with its number, a full stop and a space.")  # fmt: skip
def _lines_counted(text, count=None):
    return len(text.strip().split("\n")) == count if count else format_compliance(text)


@mistake(FORM, "The numbers may be any here. They have to be 1, 2, 3, in this order.")
def _any_numbers(text, count=None):
    if not count:
        return format_compliance(text)
    lines = text.strip().split("\n")
    return len(lines) == count and all(re.match(r"\d+\. \S", line) for line in lines)


@mistake(FORM, "The beginning is not looked at. A sentence begins with a capital or a digit.")
def _beginning_ignored(text, count=None):
    return format_compliance(text if count else f"A{text.strip()}", count)


@mistake(FORM, "An answer that begins with a digit is refused: “3 plus 4 is 7.” is a fine one.")  # fmt: skip
def _digit_refused(text, count=None):
    begins = bool(count) or text.strip()[:1].isupper()
    return begins and format_compliance(text, count)


@mistake(FORM, "The end is not looked at. A sentence ends with a full stop or an exclamation mark; one that breaks off does not.")  # fmt: skip
def _end_ignored(text, count=None):
    return format_compliance(text if count else text.strip() + ".", count)


@mistake(FORM, "Several lines pass as a paragraph. Without `count`, the answer is one paragraph.")
def _lines_pass(text, count=None):
    return format_compliance(text if count else text.replace("\n", " "), count)


@mistake(FORM, "A question passes. Whoever asks back, or goes on with more questions, has not answered.")  # fmt: skip
def _question_passes(text, count=None):
    return format_compliance(text.replace("?", "."), count)


@mistake(FORM, "Spaces and line ends around the answer count here. Strip them first.")
def _not_stripped(text, count=None):
    return text == text.strip() and format_compliance(text, count)


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
    RANK: Exercise(
        id=RANK,
        title="The rank of each token under the base",
        reference=token_rank_shift,
        cases=[
            Case("5 tokens of a vocabulary of 7", lambda: _forecast(5, 7), token_rank_shift),
            Case("as many tokens as the vocabulary has", lambda: _forecast(6, 6, seed=1), token_rank_shift),
            Case("one token", lambda: _forecast(1, 9, seed=2), token_rank_shift),
            Case("equally likely tokens", _with_ties, token_rank_shift),
            Case("large logits", lambda: _forecast(4, 50, 300.0, 3), token_rank_shift),
        ],
        hints=[
            "logits.gather(-1, tokens.unsqueeze(-1)) picks the logit of each token: shape (length, 1).",
            "How many logits of the same row are strictly larger? Compare, and sum over the vocabulary. The first choice has rank 1.",
        ],
        why="Ranks need no softmax: it keeps the order. A comparison and a sum are quicker than sorting the vocabulary, and ties are settled by what you count.",
    ),
    FORM: Exercise(
        id=FORM,
        title="Is it in the form that was asked for?",
        reference=format_compliance,
        cases=[
            Case(f"`format_compliance({text!r}, {count})`: {name}", lambda text=text, count=count: (text, count), format_compliance)
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
