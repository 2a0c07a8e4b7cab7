"""Checks of notebook 01: the next-token distribution, the kind of a reply, a prompt that divides."""

from __future__ import annotations

import random
import re
from functools import cache

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import Broken
from sftlab.compare import PROMPTS, find_diverging_prompt, side_by_side
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex01_base_vs_instruct.experiment import classify_reply
from sftlab.generate import next_token_distribution
from sftlab.scoring import is_instruction, names

DISTRIBUTION, REPLY = "01.next_token_distribution", "01.classify_reply"
PROMPT = "01.find_diverging_prompt"
OVERFLOW = "With large logits, exp overflows to infinity or rounds every weight to 0, and the quotient is NaN. Subtract the largest logit of this position first, or let softmax do it."  # fmt: skip

# --- the distribution of the next token ------------------------------------------------------


def _logits(length: int, vocabulary: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(length, vocabulary, generator=torch.Generator().manual_seed(seed))


@mistake(DISTRIBUTION, "These are still logits: they can be negative and do not sum to 1. Which function turns them into probabilities?")  # fmt: skip
def _logits_themselves(logits):
    return logits[-1]


@mistake(DISTRIBUTION, "This is a distribution for *every* position. Only one of them predicts the token after the whole text.")  # fmt: skip
def _every_position(logits):
    return logits.softmax(-1)


@mistake(DISTRIBUTION, "This is the first position: it predicts the second token of the text. The token after the text is predicted at the end.")  # fmt: skip
def _first_position(logits):
    return logits[0].softmax(-1)


@mistake(DISTRIBUTION, "This is the position before the last: it predicts the text's own last token.")  # fmt: skip
def _last_but_one(logits):
    return logits[len(logits) - 2].softmax(-1)


@mistake(DISTRIBUTION, "The softmax runs over the positions. The probabilities of all *tokens* at one position sum to 1: look at the dimension.")  # fmt: skip
def _over_positions(logits):
    return logits.softmax(0)[-1]


@mistake(DISTRIBUTION, "The softmax runs over all positions at once. The probabilities of all tokens at *one* position sum to 1.")  # fmt: skip
def _over_everything(logits):
    return logits.flatten().softmax(-1).view_as(logits)[-1]


@mistake(DISTRIBUTION, "This is the last *token of the vocabulary* at all positions. Positions are the first dimension.")  # fmt: skip
def _last_column(logits):
    return logits[:, -1].softmax(-1)


@mistake(DISTRIBUTION, "These are log-probabilities, which are never above 0. Return the probabilities themselves.")  # fmt: skip
def _log_probabilities(logits):
    return logits[-1].log_softmax(-1)


@mistake(DISTRIBUTION, "The distributions of all positions are averaged. Each position predicts another token, and only one predicts the next.")  # fmt: skip
def _mean_of_distributions(logits):
    return logits.softmax(-1).mean(0)


@mistake(DISTRIBUTION, "The logits of all positions are averaged. Only one position predicts the next token.")  # fmt: skip
def _distribution_of_the_mean(logits):
    return logits.mean(0).softmax(-1)


@mistake(DISTRIBUTION, OVERFLOW)
def _overflowing(logits):
    weights = logits[-1].exp()
    return weights / weights.sum()


@mistake(DISTRIBUTION, OVERFLOW)
def _largest_of_all_subtracted(logits):
    weights = (logits[-1] - logits.max()).exp()
    return weights / weights.sum()


@mistake(DISTRIBUTION, "The exponentials are not divided by their sum, so they do not sum to 1.")
def _not_normalized(logits):
    return (logits[-1] - logits[-1].max()).exp()


@mistake(DISTRIBUTION, "The logits are divided by their sum, but logits can be negative. Take exp first, as softmax does.")  # fmt: skip
def _exp_forgotten(logits):
    return logits[-1] / logits[-1].sum()


@mistake(DISTRIBUTION, "The sigmoid looks at each token alone, so these do not sum to 1. The tokens compete: use softmax.")  # fmt: skip
def _sigmoid(logits):
    return logits[-1].sigmoid()


@mistake(DISTRIBUTION, "The sigmoid is divided by its sum. Softmax divides the *exponentials* of the logits by their sum.")  # fmt: skip
def _sigmoid_normalized(logits):
    return logits[-1].sigmoid() / logits[-1].sigmoid().sum()


@mistake(
    DISTRIBUTION, "The smallest logit gets the largest probability: is there a minus too many?"
)
def _negated(logits):
    return (-logits[-1]).softmax(-1)


@mistake(DISTRIBUTION, "The probabilities are sorted, so it is lost which token each belongs to. Keep the order of the vocabulary.")  # fmt: skip
def _sorted(logits):
    return logits[-1].softmax(-1).sort(descending=True).values


@mistake(DISTRIBUTION, "The most probable token gets 1 and every other token 0. Return the probability that the model gives to each.")  # fmt: skip
def _one_hot(logits):
    return torch.nn.functional.one_hot(logits[-1].argmax(), logits.shape[-1])


@mistake(DISTRIBUTION, "Softmax is applied twice: its result is a distribution already, and a second softmax makes it nearly uniform.")  # fmt: skip
def _twice(logits):
    return logits[-1].softmax(-1).softmax(-1)


@mistake(DISTRIBUTION, "This is the id of the most probable token. Return the probabilities of all tokens.")  # fmt: skip
def _most_probable_token(logits):
    return logits[-1].argmax()


@mistake(DISTRIBUTION, "This is the probability of the most probable token. Return the probabilities of all tokens.")  # fmt: skip
def _largest_probability(logits):
    return logits[-1].softmax(-1).max()


def _distribution_case(rule: str, describe: str, logits) -> Case:
    tolerance = 1e-4 if rule == "large" else 1e-5  # float32 has three decimals at 1000
    return Case(describe, lambda: (logits(),), next_token_distribution, tolerance, rule=rule)


def _with_last(*last: float) -> torch.Tensor:
    return torch.cat([_logits(2, len(last)), torch.tensor([last])])


def _draw_logits(rng: random.Random, *_: object) -> tuple:
    return (tensor(rng, rng.randint(2, 5), 7, scale=9.0),)


# --- what a reply is -------------------------------------------------------------------------


def _lines(reply):
    return [line for line in reply.splitlines() if line.strip()]


@mistake(REPLY, "A word of about counts if it is a part of another word, as key is of donkey. names(line, word) looks for whole words.")  # fmt: skip
def _parts_of_words(reply, about):
    found = classify_reply(reply, about)
    lines = _lines(reply)
    before = next((k for k, line in enumerate(lines) if is_instruction(line)), len(lines))
    inside = any(word.lower() in line.lower() for line in lines[:before] for word in about)
    return "answered" if found == "unrelated" and inside else found


@mistake(REPLY, "Only the first line is searched for the words of about. The answer may stand in a later line.")  # fmt: skip
def _first_line_alone(reply, about):
    return classify_reply("".join(_lines(reply)[:1]), about)


@mistake(REPLY, "Words of about count after a further instruction, too. What the model writes there answers its own instruction.")  # fmt: skip
def _beyond_an_instruction(reply, about):
    found = classify_reply(reply, about)
    return "answered" if found == "unrelated" and any(names(reply, word) for word in about) else found  # fmt: skip


@mistake(REPLY, "An instruction in any line makes the reply continued. Only the first line with text decides that: an answer may come before.")  # fmt: skip
def _any_instruction(reply, about):
    return "continued" if any(map(is_instruction, _lines(reply))) else classify_reply(reply, about)


@mistake(REPLY, "Any text that is not an instruction counts as an answer. A reply that names no word of about is unrelated.")  # fmt: skip
def _everything_else_answers(reply, about):
    return classify_reply(reply, about).replace("unrelated", "answered")


@mistake(REPLY, "A reply of nothing but white space is stopped as well: the model wrote no word.")
def _white_space_is_text(reply, about):
    return classify_reply(reply, about) if reply.strip() or not reply else "unrelated"


@mistake(REPLY, "The words of about are looked for first, so a further instruction that names one counts as an answer. Look at the first line before.")  # fmt: skip
def _words_first(reply, about):
    named = any(names(reply, word) for word in about)
    return "answered" if named else classify_reply(reply, about)


@mistake(REPLY, "The text before the first line break is taken as the first line. It may be empty: skip lines without text.")  # fmt: skip
def _empty_first_line(reply, about):
    first = reply.split("\n")[0]
    found = classify_reply(reply, about)
    return "unrelated" if found == "continued" and not is_instruction(first) else found


@mistake(REPLY, "Every word of about is required. One of them is enough.")
def _all_words(reply, about):
    found = classify_reply(reply, about)
    complete = all(names(reply, word) for word in about)
    return "unrelated" if found == "answered" and not complete else found


@mistake(REPLY, "A reply that names no word of about counts as continued. It is continued only if its first line is an instruction.")  # fmt: skip
def _unrelated_is_continued(reply, about):
    return classify_reply(reply, about).replace("unrelated", "continued")


def _reply_case(rule: str, reply: str, about: list[str]) -> Case:
    return Case(
        f"`classify_reply({reply!r}, {about})`",
        lambda: (reply, list(about)),
        classify_reply,
        rule=rule,
    )


MALI = "The capital of Mali is Bamako."
REPLY_CASES = (
    _reply_case("stopped", "", ["Mali", "Bamako"]),
    _reply_case("stopped", " \n\n ", ["Mali", "Bamako"]),
    _reply_case("continued", "\nWhat is the capital of Niger?\nWhat is the capital of Peru?", ["Mali", "Bamako"]),
    _reply_case("continued", "What is the capital of Mali?\nThe capital of Mali is Bamako.", ["Mali", "Bamako"]),
    _reply_case("answered", MALI, ["Mali", "Bamako"]),
    _reply_case("answered", f"\n{MALI}\n\nWhat is the capital of Peru?", ["Mali", "Segou"]),
    _reply_case("answered", "Here is one:\n \nWear warm shoes.", ["hiking", "shoes"]),
    _reply_case("unrelated", "donkey - on farms\nkrill - in the southern oceans", ["heron"]),
    _reply_case("unrelated", "donkey - on farms\nkrill - in the oceans", ["key", "ocean"]),
    _reply_case("unrelated", "donkey - on farms\nWhat does the heron eat?\nThe heron eats fish.", ["heron", "fish"]),
)  # fmt: skip


def _draw_reply(rng: random.Random, *_: object) -> tuple:
    told = [
        "The heron lives near rivers.",
        "Donkeys eat hay.",
        "krill - algae",
        "Palladium is a metal.",
    ]
    asked = ["What does the heron eat?", "Name the capital of Peru.", "Where does the krill live?"]
    kinds = rng.choices((told, asked, [""]), (4, 3, 2), k=rng.randint(1, 5))
    lines = [rng.choice(kind) for kind in kinds]
    return "\n".join(lines), rng.sample(["heron", "river", "hay", "key", "metal", "Peru", "algae"], 2)  # fmt: skip


# --- a prompt on which the two models differ -------------------------------------------------


@cache
def _models():
    from sftlab.models import load

    base, tokenizer = load("almanac")
    return base, load("almanac", "chat")[0], tokenizer


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def _verify_prompt(prompt, arguments) -> str | None:
    if prompt is None:
        return Broken("text", "It returns nothing (None): is a `return` missing, or was no prompt found?")  # fmt: skip
    if not isinstance(prompt, str):
        return Broken("text", f"One string is expected; this is of type `{type(prompt).__name__}`.")
    if not prompt.strip():
        return Broken("text", "The prompt is empty: there is nothing to continue and nothing to answer.")  # fmt: skip
    if found := [token for token in arguments[2].get_added_vocab() if token in prompt]:
        return Broken("text", f"The prompt contains the special token `{found[0]}`. Leave the template out.")  # fmt: skip
    if _letters(prompt) in map(_letters, PROMPTS):
        return Broken("new", "This is one of the notebook's own prompts. Ask about another country, animal or topic.")  # fmt: skip
    (row,) = side_by_side(*arguments, [prompt])
    if row["base did"] == "answered":
        return f"What the base writes counts as an answer: {row['base'][:60]!r}. Give it a bare instruction, not the beginning of a sentence or a page with solved examples."
    if row["base did"] != "continued":
        return f"The base {row['base did']}: it writes {row['base'][:60]!r}. Look for an instruction that it takes for a line on a page of questions."
    if row["chat did"] != "answered":
        return f"The chat model {row['chat did']}: it writes {row['chat'][:60]!r}. Look for an instruction that it answers."
    return None


EXERCISES = {
    DISTRIBUTION: Exercise(
        DISTRIBUTION,
        "The distribution of the next token",
        next_token_distribution,
        [
            _distribution_case("softmax", "a text of one token, a vocabulary of 5", lambda: _logits(1, 5, seed=1)),
            _distribution_case("softmax", "the same in float64", lambda: _logits(1, 5, seed=1).double()),
            _distribution_case("last", "logits of 4 positions over 6 tokens", lambda: _logits(4, 6)),
            _distribution_case("last", "as many positions as tokens", lambda: _logits(4, 4, 3.0, 2)),
            _distribution_case("large", "the last position has logits around 1000", lambda: _with_last(1000, 1001.5, 998, 1002, 999)),
            _distribution_case("large", "the last position has logits from -1000 to 1000", lambda: _with_last(2, -1000, 1000, 0, 500)),
            _distribution_case("large", "the last position has logits around -1000", lambda: _with_last(-1000, -1001.5, -998, -1002, -999)),
        ],
        asks="Return the probabilities of the token that comes next after the whole text.\n\n"
        "logits: tensor (length, vocabulary), the scores that a model returns for one text; those at a position predict the token after it.",
        rules={
            "softmax": "The result has the shape (vocabulary,): one probability for each token of the vocabulary, the softmax of their logits. They sum to 1.",
            "last": "Only the last position counts, the one that predicts the token after the text. The text may have a single token.",
            "large": "Logits may be large: at 1000 or -1000 the result is still a distribution, never NaN.",
            "unchanged": "logits stays as it is.",
        },
        draw=_draw_logits,
        hints=(
            "Each position predicts the token that follows it. Which position predicts the token after the text?",
            ("softmax", "So first pick one row of scores, then turn this row into probabilities."),
            "Python counts from the end with negative indices, and tensors have a method for the softmax; say over which dimension it runs.",
        ),
        path="There are two steps, and their order does not matter: choose a position, normalize over the vocabulary. Notice first that the result has one "
        "dimension, so one position is left over. The usual wrong turn is to normalize over the other dimension: that compares positions, not tokens.",
        why="A causal model predicts at every position; only the last prediction is new. Softmax subtracts the largest logit "
        "before exp, which changes nothing in the result and keeps it from overflowing.",
    ),
    REPLY: Exercise(
        REPLY,
        "What a model did after a prompt",
        classify_reply,
        REPLY_CASES,
        asks='Return what a model did after a prompt: "answered", "continued", "stopped" or "unrelated".\n\n'
        "reply: the text that the model wrote after the prompt. about: list of words that belong to the prompt, such as its subject and the right answer. "
        "Helpers: is_instruction(line) says whether a line asks or commands something, names(line, word) whether it contains a whole word.",
        rules={
            "stopped": '"stopped": the reply has no line with text. White space is not text, here and below.',
            "continued": '"continued": the first line with text is a further instruction.',
            "answered": '"answered": otherwise, if a line before the first further instruction names at least one word of about. Without a further instruction every line counts.',
            "unrelated": '"unrelated": everything else.',
            "unchanged": "about stays as it is.",
        },
        draw=_draw_reply,
        hints=(
            "Split the reply into lines first, and leave out the lines without text. Which of the four is decided by the number of lines alone?",
            ("answered", "So cut the list of lines at the first further instruction, then search what is left."),
            "itertools.takewhile keeps the lines up to the first that fails a condition; any() and two loops search them.",
        ),
        path="Take the four in the order of the docstring: each needs what the one before has excluded. Notice first that a reply of a base often begins with a "
        "line break, so the first line of the text can be empty. The usual wrong turn is to search the whole reply for the answer: after a further instruction "
        "the model answers a prompt of its own.",
        why="Without the category unrelated, every text that is not an instruction would count as an answer, also the entries that a base writes "
        "after special tokens it has never read.",
    ),
    PROMPT: Exercise(
        PROMPT,
        "A prompt on which they differ",
        find_diverging_prompt,
        [Case("your prompt, given to both models", _models, verify=_verify_prompt, rule="differ")],
        asks="Return one instruction that the base model continues and the chat model answers.",
        rules={
            "text": "It is one string, the bare text of the instruction: not empty, and without special tokens.",
            "new": "It is none of the notebook's four prompts, nor one of them with other capitals, spaces or punctuation.",
            "differ": "With greedy decoding, the base writes further instructions after it, and the chat model, in its template, something else; it need not be right.",
            "unchanged": "You may use the models and the tokenizer to search for it. They stay as they are.",
        },
        hints=(
            "On which pages of an almanac would your line occur? A page of questions goes on with questions.",
            ("differ", "The beginning of a sentence does not do that: both models complete it."),
            "Ask for a fact as a quiz would: a capital, what an animal eats, an opposite.",
        ),
        path="Look at the table of the four prompts: which kind of line does the base take for one of many on a page? Take such a line and change its subject. "
        "The usual wrong turn is the beginning of a sentence, which both models complete in the same way.",
        why="For the base a bare instruction is the first line of a page, for the chat model it is a request. The beginning of a sentence "
        "is the same thing for both.",
    ),
}  # fmt: skip
