"""Checks of notebook 02: token ranks under the base, and the format of an answer."""

from __future__ import annotations

import random
import re

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import WORDS, sentence, tensor
from sftlab.exercises.ex02_superficial_alignment.rank_shift import shift_class, token_rank_shift
from sftlab.scoring import format_compliance, list_items

RANK, FORMAT = "02.token_rank_shift", "02.format_compliance"

# --- the rank of each token ------------------------------------------------------------------


def _chosen(logits, tokens):
    return logits.gather(-1, tokens.unsqueeze(-1))


@mistake(RANK, "The number of more probable tokens is counted, so the first choice has 0. Ranks begin at 1.")  # fmt: skip
def _from_zero(logits, tokens):
    return (logits > _chosen(logits, tokens)).sum(-1)


@mistake(RANK, "Tokens that are equally probable are counted as more probable. They share the better rank.")  # fmt: skip
def _ties_counted(logits, tokens):
    return (logits >= _chosen(logits, tokens)).sum(-1)


@mistake(RANK, "The token itself is counted as more probable than itself: every rank is at least one too large.")  # fmt: skip
def _itself_counted(logits, tokens):
    return (logits >= _chosen(logits, tokens)).sum(-1) + 1


@mistake(RANK, "Sorting gives each of several equally probable tokens a rank of its own. They share the better rank: 1, 1, 3.")  # fmt: skip
def _place_in_the_order(logits, tokens):
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return (order == tokens.unsqueeze(-1)).int().argmax(-1) + 1


@mistake(RANK, "Different *values* are counted. Two equally probable tokens are two tokens: the next one has rank 3, not 2.")  # fmt: skip
def _dense(logits, tokens):
    above = [row.unique()[row.unique() > row[t]] for row, t in zip(logits, tokens, strict=True)]
    return torch.tensor([1 + len(values) for values in above])


@mistake(RANK, "Equally probable tokens get the mean of their places. They share the better rank.")
def _mean_rank(logits, tokens):
    return (_from_zero(logits, tokens) + _ties_counted(logits, tokens) + 1) / 2


BOTTOM = "The ranks are counted from the bottom: the most probable token has the largest number. Count the tokens above."  # fmt: skip


@mistake(RANK, BOTTOM)
def _from_the_bottom(logits, tokens):
    return (logits < _chosen(logits, tokens)).sum(-1) + 1


@mistake(RANK, BOTTOM)
def _from_the_bottom_from_zero(logits, tokens):
    return (logits < _chosen(logits, tokens)).sum(-1)


ARGSORT = "argsort gives the token at each rank, not each token's rank: here the token number is used as a rank. Ask how many tokens stand before it."  # fmt: skip


@mistake(RANK, ARGSORT)
def _argsort_misread(logits, tokens):
    return _chosen(logits.argsort(-1, descending=True), tokens).squeeze(-1) + 1


@mistake(RANK, ARGSORT)
def _argsort_misread_from_zero(logits, tokens):
    return _chosen(logits.argsort(-1, descending=True), tokens).squeeze(-1)


@mistake(RANK, "The tokens are shifted once more: row t of base_logits predicts tokens[t] already, and every token has a rank.")  # fmt: skip
def _shifted_again(logits, tokens):
    return (logits[:-1] > _chosen(logits[:-1], tokens[1:])).sum(-1) + 1


@mistake(RANK, "Each token is ranked in another row than its own: row t of base_logits predicts tokens[t].")  # fmt: skip
def _in_the_row_before(logits, tokens):
    return token_rank_shift(logits.roll(1, 0), tokens)


@mistake(RANK, "The count runs over the positions. The rank is among the tokens of the *vocabulary*, at one position: look at the dimension.")  # fmt: skip
def _over_positions(logits, tokens):
    return (logits > _chosen(logits, tokens)).sum(0) + 1


@mistake(RANK, "One number for all positions. Each token has a rank of its own: sum over the vocabulary only.")  # fmt: skip
def _one_number(logits, tokens):
    return (logits > _chosen(logits, tokens)).sum() + 1


@mistake(RANK, "This only says whether each token is the first choice. Which rank does it have otherwise?")  # fmt: skip
def _first_choice_or_not(logits, tokens):
    return logits.argmax(-1) == tokens


@mistake(RANK, "These are the base's first choices. Which rank do the given tokens have?")
def _first_choices(logits, tokens):
    return logits.argmax(-1)


@mistake(RANK, "These are the tokens' logits. How many other tokens have a larger one?")
def _logits_themselves(logits, tokens):
    return _chosen(logits, tokens).squeeze(-1)


@mistake(RANK, "These are the tokens' probabilities. How many other tokens have a larger one?")
def _probabilities(logits, tokens):
    return _chosen(logits.softmax(-1), tokens).squeeze(-1)


@mistake(RANK, "Softmax rounds very small probabilities to 0, and then they seem equal. It keeps the order, so compare the logits themselves.")  # fmt: skip
def _ranks_of_probabilities(logits, tokens):
    return token_rank_shift(logits.softmax(-1), tokens)


@mistake(RANK, "The ranks of all positions are averaged. Each token has a rank of its own.")
def _averaged(logits, tokens):
    return token_rank_shift(logits, tokens).double().mean()


@mistake(RANK, "Ranks beyond 3 are reported as 3. Return the rank itself, however large it is.")
def _capped(logits, tokens):
    return token_rank_shift(logits, tokens).clamp(max=3)


@mistake(RANK, "The logits lose their signs (`abs`), or are squared. A negative logit is below a positive one: compare them as they are.")  # fmt: skip
def _signs_lost(logits, tokens):
    return token_rank_shift(logits.abs(), tokens)


@mistake(RANK, "A token that occurs twice gets the same rank at both positions. Each position has a row of its own: keep one rank per position, not per token.")  # fmt: skip
def _one_per_token(logits, tokens):
    ids = tokens.tolist()
    last = dict(zip(ids, token_rank_shift(logits, tokens).tolist(), strict=True))
    return [last[token] for token in ids]


@mistake(RANK, "The tokens are ranked among the given tokens only. Compare each with the whole *vocabulary*.")  # fmt: skip
def _among_the_given(logits, tokens):
    return (logits[:, tokens.unique()] > _chosen(logits, tokens)).sum(-1) + 1


@mistake(RANK, "Only the 50 largest logits are looked at, so no rank is beyond 51. A vocabulary may be larger: compare with all of it.")  # fmt: skip
def _top_50(logits, tokens):
    top = logits.topk(min(50, logits.shape[-1]), dim=-1).values
    return (top > _chosen(logits, tokens)).sum(-1) + 1


@mistake(RANK, "log_softmax rounds: next to a very large logit, small differences are lost. It keeps the order, so compare the logits themselves.")  # fmt: skip
def _ranks_of_log_probabilities(logits, tokens):
    return token_rank_shift(logits.log_softmax(-1), tokens)


@mistake(RANK, "These are the classes unshifted, marginal and shifted. Return the rank itself.")
def _classes(logits, tokens):
    names = ("", "unshifted", "marginal", "shifted")
    return [names.index(shift_class(r)) for r in token_rank_shift(logits, tokens).tolist()]


def _predictions(length: int, vocabulary: int, scale: float = 1.0, seed: int = 0) -> tuple:
    randomness = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(length, vocabulary, generator=randomness)
    tokens = torch.randint(vocabulary, (length,), generator=randomness)
    tokens[0], tokens[-1] = logits[0].argmax(), logits[-1].argmin()
    return logits, tokens


def _row(rule: str, logits: list[list[float]], tokens: list[int], remark: str) -> Case:
    return Case(
        f"`token_rank_shift(tensor({logits}), tensor({tokens}))`: {remark}",
        lambda: (torch.tensor(logits), torch.tensor(tokens)),
        token_rank_shift,
        rule=rule,
    )


RANK_CASES = (
    _row("rank", [[2.5, 4.0, -1.0, 0.5, 3.0, 1.0]], [0], "one token, with two above it"),
    _row("rank", [[10.002, 10.001, 10.0027, 10.0034]], [0], "logits that are close to each other"),
    Case("5 positions, a vocabulary of 7", lambda: _predictions(5, 7), token_rank_shift, rule="row"),
    Case("6 positions, a vocabulary of 6", lambda: _predictions(6, 6, seed=1), token_rank_shift, rule="row"),
    _row("row", [[3.0, 1.0, 2.0], [1.5, 4.0, 0.5]], [2, 2], "the same token at two positions"),
    _row("ties", [[2.0, 0.5, 2.0, 1.0]], [2], "two tokens share the largest logit"),
    _row("ties", [[5.0, 5.0, 3.0, 5.0, 5.0]], [1], "four tokens share the largest logit"),
    _row("ties", [[3.0, 3.0, 1.0, 3.0, 2.0]], [4], "three tokens share the largest logit, one comes next"),
    _row("large", [[900.0, 500.0, 100.0, 300.0, 700.0]], [2], "the smallest logit of five"),
    _row("large", [[70_000.0, 80_000.0, 300.0]], [0], "logits that half precision cannot hold"),
    _row("large", [[1e6, 0.01, 0.02]], [1], "small logits next to a very large one"),
    Case("4 positions, a vocabulary of 101, logits in the hundreds", lambda: _predictions(4, 101, 300.0, 3), token_rank_shift, rule="large"),
)  # fmt: skip


def _draw_rank(rng: random.Random, *_: object) -> tuple:
    length, vocabulary = rng.randint(2, 7), rng.randint(8, 12)
    tokens = torch.tensor([rng.randrange(vocabulary) for _ in range(length)])
    return tensor(rng, length, vocabulary, scale=3.0), tokens


# --- the format of an answer -----------------------------------------------------------------


@mistake(FORMAT, "True and False are exchanged: True stands for an answer in the format that was asked for.")  # fmt: skip
def _exchanged(text, count=None):
    return not format_compliance(text, count)


@mistake(FORMAT, "count is not used. With a count, the answer has to be a numbered list of that many lines.")  # fmt: skip
def _count_ignored(text, count=None):
    return format_compliance(text)


@mistake(FORMAT, "A list of any length passes. It has to have exactly count lines.")
def _any_length(text, count=None):
    return bool(list_items(text)) if count else format_compliance(text)


@mistake(FORMAT, "A list that is too long passes. It has to have exactly count lines.")
def _too_long_passes(text, count=None):
    return len(list_items(text)) >= count if count else format_compliance(text)


@mistake(FORMAT, "A list that is too short passes. It has to have exactly count lines.")
def _too_short_passes(text, count=None):
    return 0 < len(list_items(text)) <= count if count else format_compliance(text)


@mistake(FORMAT, "Only the number of lines is checked. Each has to begin with its number, a period and a space.")  # fmt: skip
def _lines_counted(text, count=None):
    return len(text.strip().split("\n")) == count if count else format_compliance(text)


def _numbered(pattern, text, count):
    lines = text.strip().split("\n")
    return len(lines) == count and all(
        re.match(pattern.format(k), line) for k, line in enumerate(lines, 1)
    )


@mistake(FORMAT, "Any numbers pass. They have to be 1, 2, 3 and so on, in this order.")
def _any_numbers(text, count=None):
    return _numbered(r"\d+\. \S", text, count) if count else format_compliance(text)


@mistake(FORMAT, "The lines are numbered from 0 here. The first line has to begin with 1.")
def _numbers_from_zero(text, count=None):
    if not count:
        return format_compliance(text)
    lines = text.strip().split("\n")
    return len(lines) == count and all(x.startswith(f"{k}. ") for k, x in enumerate(lines))


@mistake(FORMAT, "A question mark is refused in lists as well. Only a paragraph must not contain one.")  # fmt: skip
def _question_in_a_list_refused(text, count=None):
    return "?" not in text and format_compliance(text, count)


@mistake(FORMAT, "An item that contains a period and a space is refused: is the line split at each “. ”? Only its beginning matters.")  # fmt: skip
def _split_at_each_period(text, count=None):
    return format_compliance(text, count) and all(x.count(". ") < 2 for x in text.split("\n") if count)  # fmt: skip


@mistake(FORMAT, "Only the letters from A to Z are taken for capitals. É is one, too: ask the character itself whether it is a capital.")  # fmt: skip
def _ascii_capitals(text, count=None):
    return format_compliance(text, count) and (bool(count) or text.strip()[0].isascii())


@mistake(FORMAT, "Several closing characters pass at the end. Only one may follow the period or exclamation mark.")  # fmt: skip
def _several_closers(text, count=None):
    return format_compliance(text if count else re.sub(r"[)\"”]+\s*$", ")", text), count)


@mistake(FORMAT, "A line that has only its number passes. Text has to follow it.")
def _empty_items(text, count=None):
    return _numbered(r"{}\. ", text, count) if count else format_compliance(text)


@mistake(FORMAT, "A number without a space after its period passes: the line begins with “1. ”, with the space.")  # fmt: skip
def _space_forgotten(text, count=None):
    return _numbered(r"{}\. ?\S", text, count) if count else format_compliance(text)


@mistake(FORMAT, "Lines that are not items are skipped. The list has to be the whole answer.")
def _other_lines_skipped(text, count=None):
    if not count:
        return format_compliance(text)
    return [int(k) for k in re.findall(r"(?m)^(\d+)\. \S", text.strip())] == [*range(1, count + 1)]


@mistake(FORMAT, "An item has to be a whole sentence here. The text asks for nothing but the number and some text after it.")  # fmt: skip
def _items_are_sentences(text, count=None):
    return format_compliance(text, count) and (
        not count or all(map(format_compliance, list_items(text)))
    )


@mistake(FORMAT, "A list of ten fails: from 10 on, a number has two digits, so one character is not enough.")  # fmt: skip
def _one_digit(text, count=None):
    return format_compliance(text, count) and (count or 0) < 10


@mistake(
    FORMAT, "The beginning is not checked. A paragraph begins with a capital letter or a digit."
)
def _beginning_ignored(text, count=None):
    return format_compliance(text if count else f"A{text.strip()}", count)


@mistake(FORMAT, "An answer that begins with a digit is refused: “3 plus 4 is 7.” has the right format.")  # fmt: skip
def _digit_refused(text, count=None):
    begins = bool(count) or text.strip()[:1].isupper()
    return begins and format_compliance(text, count)


@mistake(FORMAT, "The end is not checked. A paragraph ends with a period or an exclamation mark; one that breaks off does not.")  # fmt: skip
def _end_ignored(text, count=None):
    return format_compliance(text if count else text.strip() + ".", count)


@mistake(FORMAT, "A period at the very end is asked for. An exclamation mark is right too, and a closing bracket or quotation mark may follow.")  # fmt: skip
def _period_alone(text, count=None):
    return format_compliance(text, count) and (bool(count) or text.strip().endswith("."))


@mistake(FORMAT, "The last character has to be a period or an exclamation mark here. A closing bracket or quotation mark may follow it.")  # fmt: skip
def _nothing_may_follow(text, count=None):
    return format_compliance(text, count) and (bool(count) or text.strip().endswith((".", "!")))


@mistake(
    FORMAT, "An answer that ends with an exclamation mark is refused. It has the right format."
)
def _exclamation_refused(text, count=None):
    return format_compliance(text, count) and (bool(count) or "!" not in text.strip()[-2:])


@mistake(FORMAT, "A bracket or quotation mark at the end passes without a period or exclamation mark before it.")  # fmt: skip
def _bracket_is_enough(text, count=None):
    return format_compliance(text if count else re.sub(r"[)\"”]\s*$", ".", text), count)


@mistake(FORMAT, "Several lines pass as a paragraph. Without a count, the answer is a single line.")
def _lines_pass(text, count=None):
    return format_compliance(text if count else text.replace("\n", " "), count)


@mistake(FORMAT, "A question passes. A model that asks back, or goes on with more questions, has not answered.")  # fmt: skip
def _question_passes(text, count=None):
    return format_compliance(text if count else text.replace("?", "."), count)


@mistake(FORMAT, "Only the last character is compared with the question mark. It may not occur inside either.")  # fmt: skip
def _question_inside_passes(text, count=None):
    text = text.strip()
    return format_compliance(text if count else text[:-1].replace("?", ",") + text[-1:], count)


@mistake(FORMAT, "White space around the answer counts here. Remove it first.")
def _not_stripped(text, count=None):
    return text == text.strip() and format_compliance(text, count)


@mistake(FORMAT, "White space around a paragraph is removed, but not around a list.")
def _list_not_stripped(text, count=None):
    return format_compliance(text, count) and (not count or text == text.strip())


def _text(rule: str, remark: str, text: str, *count: int) -> Case:
    return Case(
        f"`format_compliance({', '.join(map(repr, [text, *count]))})`: {remark}",
        lambda: (text, *count),
        format_compliance,
        rule=rule,
    )


TEN = "\n".join(f"{k}. Item" for k in range(1, 11))
FORMAT_CASES = (
    _text("begins", "a sentence", "The frog lives in ponds."),
    _text("begins", "it begins with a digit", "3 plus 4 is 7."),
    _text("begins", "all of its first word is in capitals", "NASA launched it."),
    _text("begins", "a capital letter with an accent", "Été is the French word for summer."),
    _text("begins", "it begins with a quotation mark", "“Ponds” is the answer."),
    _text("begins", "it begins with a small letter", "the frog lives in ponds."),
    _text("begins", "it begins with a dash", "- The frog lives in ponds."),
    _text("ends", "it breaks off", "The frog lives in po"),
    _text("ends", "an exclamation mark at the end", "What a frog!"),
    _text("ends", "a quotation mark after the period", 'It said: "I live in ponds."'),
    _text("ends", "a curly one", "It said: “I live in ponds.”"),
    _text("ends", "a quotation mark after the exclamation mark", 'It cried: "What a pond!"'),
    _text("ends", "a bracket after the period", "It lives in ponds (as I have read.)"),
    _text("ends", "a bracket and no period", "It lives in ponds (or lakes)"),
    _text("ends", "a bracket and a quotation mark", 'It lives in ponds ("or lakes.")'),
    _text("ends", "a square bracket at the end", "It lives in ponds [as I have read.]"),
    _text("ends", "a single quotation mark at the end", "It said: 'I live in ponds.'"),
    _text("ends", "a colon at the end", "It lives in these places:"),
    _text("line", "a single word", "Paris."),
    _text("line", "two sentences", "Hello! The frog lives in ponds."),
    _text("line", "two lines", "The frog lives in ponds.\nThe owl lives in woods."),
    _text("line", "a list where none was asked for", "1. Arrive early.\n2. Dress neatly."),
    _text("question", "a question", "What does the frog eat?"),
    _text("question", "an answer, and a question", "In ponds. Where does the owl live? In woods."),
    _text("items", "a list of two", "1. Arrive early.\n2. Dress neatly.", 2),
    _text("items", "a list of one", "1. Arrive early.", 1),
    _text("list", "two items, but three were asked for", "1. Arrive early.\n2. Dress neatly.", 3),
    _text(
        "list",
        "three items, but two were asked for",
        "1. Arrive early.\n2. Dress neatly.\n3. Ask.",
        2,
    ),
    _text("list", "a sentence before the list", "Two tips.\n1. Arrive early.\n2. Dress neatly.", 2),
    _text("list", "a sentence after the list", "1. Arrive early.\n2. Dress neatly.\nGood luck.", 2),
    _text(
        "list", "an item that goes on in a second line", "1. Arrive\n   early.\n2. Dress neatly.", 2
    ),
    _text("list", "an empty line between the items", "1. Arrive early.\n\n2. Dress neatly.", 2),
    _text("list", "a sentence, but a list was asked for", "Arrive early and dress neatly.", 2),
    _text("items", "dashes", "- Arrive early.\n- Dress neatly.", 2),
    _text("items", "numbers in another order", "2. Arrive early.\n1. Dress neatly.", 2),
    _text("items", "the number 1 twice", "1. Arrive early.\n1. Dress neatly.", 2),
    _text("items", "a number is left out", "1. Arrive early.\n3. Dress neatly.", 2),
    _text("items", "a wrong number between", "1. Arrive early.\n9. Dress neatly.\n3. Ask.", 3),
    _text("items", "a word before the numbers", "Tip 1. Arrive early.\nTip 2. Dress neatly.", 2),
    _text("items", "a zero before the numbers", "01. Arrive early.\n02. Dress neatly.", 2),
    _text("items", "an item of two sentences", "1. Arrive early. Then wait.\n2. Dress neatly.", 2),
    _text("items", "an item with a question", "1. Arrive early.\n2. Ask: why me? Then listen.", 2),
    _text("items", "numbers from 0", "0. Arrive early.\n1. Dress neatly.", 2),
    _text("items", "brackets after the numbers", "1) Arrive early.\n2) Dress neatly.", 2),
    _text("items", "no space after the numbers", "1.Arrive early.\n2.Dress neatly.", 2),
    _text("items", "a number without text", "1. \n2. Dress neatly.", 2),
    _text("items", "small letters, no periods", "1. early\n2. neatly", 2),
    _text("items", "a list of ten", TEN, 10),
    _text("space", "white space around a sentence", " The frog lives in ponds.\n"),
    _text("space", "white space around a list", "\n1. Arrive early.\n2. Dress neatly.\n ", 2),
    _text("space", "nothing", ""),
    _text("space", "nothing but white space", " \n"),
)


def _draw_format(rng: random.Random, *_: object) -> tuple:
    count = rng.randint(2, 5)
    items = "\n".join(f"{k}. {sentence(rng)}" for k in range(1, count + 1))
    text, word = sentence(rng), rng.choice(WORDS)
    kinds = [
        (items, count),
        (items, count + 1),
        (items, count - 1),
        (text, count),
        (text,),
        (text[:-1],),
        (text.lower(),),
        (f"{text[:-1]}?",),
        (f"{text} {text[:-1]}!",),
        (f"{text}\n{text}",),
        (f"{text[:-1]} ({word}.)",),
        (f"{text[:-1]} ({word})",),
        (f"\n{text} ",),
    ]
    return rng.choice(kinds)


EXERCISES = {
    RANK: Exercise(
        RANK,
        "The rank of each token under the base",
        token_rank_shift,
        RANK_CASES,
        asks="Return each token's rank among the base's predictions: whole numbers, shape (length,).\n\n"
        "base_logits: tensor (length, vocabulary). tokens: tensor (length,) of token ids.",
        rules={
            "rank": "The token with the largest logit of its row has rank 1, the next one rank 2, …",
            "row": "Row t of base_logits predicts tokens[t], each occurrence of a token its own: no shift.",
            "ties": "Tokens with equal logits share the better rank: logits 5, 5, 3 have the ranks 1, 1, 3.",
            "large": "Logits of any size are ranked, also where their probabilities round to the same.",
            "unchanged": "base_logits and tokens stay as they are.",
        },
        draw=_draw_rank,
        hints=(
            "For one position: pick the logit of the token. How many logits of the same row are larger?",
            ("ties", "So it matters whether you count the larger ones or also the equal ones."),
            "`gather` along the vocabulary picks one logit per row; it needs an index with as many dimensions as the logits.",
        ),
        path="A rank is a count. Notice first that only one row is involved for each token. Pick the token's own logit in it, "
        "count the larger ones, and think of what the first choice gets. The usual wrong turn is argsort: it lists the tokens by rank, and you need the reverse.",
        why="Ranks need no softmax: it keeps the order. A comparison and a sum are quicker than sorting the vocabulary, and ties are settled by what you count.",
    ),
    FORMAT: Exercise(
        FORMAT,
        "Does it have the format that was asked for?",
        format_compliance,
        FORMAT_CASES,
        asks="Return True if an answer has the format that was asked for, otherwise False.\n\n"
        "text: the answer. count: the number of items if a list was asked for, otherwise None.",
        rules={
            "begins": "Without count, it begins with a digit or a capital letter (also É), not with a quote.",
            "ends": "Without count, it ends with a period or “!”, after which one of ) \" ” may stand, not two.",
            "line": "Without count, it is a single line: one or several sentences, or a single word.",
            "question": "Without count, it contains no question mark, neither at the end nor inside.",
            "list": "With count, it is a numbered list of exactly count lines, an item each, none of them empty.",
            "items": "With count, line k begins with k, a period and a space (“1. ”); any text may follow, but some.",
            "space": "White space around the answer does not matter. An answer without text: False.",
        },
        draw=_draw_format,
        hints=(
            "Remove the white space around the text. Then there are two cases: with a count, look at the lines; without, at the first and last characters and at what may not be inside.",
            ("items", "So go through the lines together with the numbers 1, 2, 3 and compare each beginning."),
            "For a paragraph, four conditions have to hold together: how it begins, how it ends, no line break, no question mark. Ask first whether there is any text.",
        ),
        path="Notice that the two cases share nothing but the white space, so separate them first. For a list, compare the number of lines, then each line with its number. "
        "For a paragraph, write one condition per rule and join them. The usual wrong turns: a list that is only a part of the answer, and the first character of an empty text.",
        why="The format can be checked without knowing anything. That is why it says so little about whether an answer is right.",
    ),
}  # fmt: skip
