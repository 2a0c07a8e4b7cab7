"""Checks of notebook 12: labels for a prompt and its response, and the border between them."""

from __future__ import annotations

import functools
import random

import torch
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from sftlab._internal.paths import MODELS
from sftlab.chat import encode
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import conversation
from sftlab.exercises.ex12_prompt_masking.experiment import small_tokenizer, unsafe_answers
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example, build_example, mask_all_but_assistant, mask_prompt
from sftlab.templates import with_template

MASK, EXAMPLE, UNSAFE = "12.mask_prompt", "12.build_example", "12.unsafe_answers"
SHIFTED = "The labels are shifted already. They stay in line with input_ids; the loss shifts them, and to do it twice would train the token after next."  # fmt: skip

# --- mask_prompt ---------------------------------------------------------------------------


@mistake(MASK, "Nothing is masked: the prompt keeps its labels, so the model would be trained to write the user's words. Look at labels[:prompt_length].")  # fmt: skip
def _nothing_masked(input_ids, prompt_length):
    return input_ids.clone()


@mistake(MASK, "Everything is masked: no token is left to learn from. The response keeps its ids.")  # fmt: skip
def _everything_masked(input_ids, prompt_length):
    return torch.full_like(input_ids, IGNORE_INDEX)


@mistake(MASK, "The wrong part is masked: here the prompt is trained and the response is not.")  # fmt: skip
def _response_masked(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[prompt_length:] = IGNORE_INDEX
    return labels


@mistake(MASK, "Off by one: the first response token is masked too. labels[prompt_length] must still be a real id.")  # fmt: skip
def _one_too_many(input_ids, prompt_length):
    return mask_prompt(input_ids, prompt_length + 1)


@mistake(MASK, "Off by one: the last prompt token is still trained. labels[prompt_length - 1] must be -100.")  # fmt: skip
def _one_too_few(input_ids, prompt_length):
    return mask_prompt(input_ids, max(prompt_length - 1, 0))


@mistake(MASK, SHIFTED)
def _shifted(input_ids, prompt_length):
    labels = mask_prompt(input_ids, prompt_length)
    return torch.cat([labels[1:], torch.tensor([IGNORE_INDEX])])


@mistake(MASK, SHIFTED)
def _rolled(input_ids, prompt_length):
    return mask_prompt(input_ids, prompt_length).roll(-1)


@mistake(MASK, "The last token is masked as well. It is the end of the answer: without it the model never learns to stop.")  # fmt: skip
def _end_masked(input_ids, prompt_length):
    labels = mask_prompt(input_ids, prompt_length)
    labels[-1] = IGNORE_INDEX
    return labels


@mistake(MASK, "Response tokens are masked because the same ids occur in the prompt. The mask goes by position, not by value.")  # fmt: skip
def _by_value(input_ids, prompt_length):
    in_prompt = torch.isin(input_ids, input_ids[:prompt_length])
    return input_ids.masked_fill(in_prompt, IGNORE_INDEX)


@mistake(MASK, "Token 0 in the response is masked. 0 is an id like any other, not a padding sign.")  # fmt: skip
def _zero_masked(input_ids, prompt_length):
    labels = mask_prompt(input_ids, prompt_length)
    labels[labels == 0] = IGNORE_INDEX
    return labels


def _filled(value, input_ids, prompt_length):
    labels = input_ids.clone()
    labels[:prompt_length] = value
    return labels


@mistake(MASK, "The prompt is labelled 0, but 0 is a real token: the model would be trained to write it. The loss leaves out -100 only.")  # fmt: skip
def _filled_with_zero(input_ids, prompt_length):
    return _filled(0, input_ids, prompt_length)


@mistake(MASK, "The prompt is labelled -1. The loss leaves out -100 only.")
def _filled_with_minus_one(input_ids, prompt_length):
    return _filled(-1, input_ids, prompt_length)


@mistake(MASK, "The prompt is labelled 100: a sign is missing. The loss leaves out -100 only.")
def _sign_forgotten(input_ids, prompt_length):
    return _filled(100, input_ids, prompt_length)


@mistake(MASK, "Counted from the end, a response of no tokens becomes the whole row: in Python, `x[-0:]` is all of x. Count from the front.")  # fmt: skip
def _counted_from_the_end(input_ids, prompt_length):
    response = len(input_ids) - prompt_length
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[-response:] = input_ids[-response:]
    return labels


@mistake(MASK, "Only the response is returned. The labels need one entry for every input token, masked where the prompt is.")  # fmt: skip
def _response_alone(input_ids, prompt_length):
    return input_ids[prompt_length:]


def _mask_case(rule: str, ids: list[int], prompt_length: int, remark: str) -> Case:
    return Case(
        f"`mask_prompt(tensor({ids}), {prompt_length})`: {remark}",
        lambda: (torch.tensor(ids), prompt_length),
        mask_prompt,
        rule=rule,
    )


MASK_CASES = (
    _mask_case(
        "response", [7, 3, 40_009, 70_001, 1, 2], 2, "two tokens of prompt, four of response"
    ),
    _mask_case("position", [5, 6, 5, 6, 6, 2], 2, "the response repeats the prompt's tokens"),
    _mask_case("position", [4, 9, 0, 0, 2], 2, "the response contains token 0"),
    _mask_case("ends", [8, 3, 2], 0, "no prompt"),
    _mask_case("ends", [8, 3, 2], 3, "no response"),
    _mask_case("response", [8, 3, 5, 2], 3, "a response of one token"),
)


def _draw_mask(rng: random.Random, *_: object) -> tuple:
    ids = [rng.randrange(6) for _ in range(rng.randint(3, 9))]
    return torch.tensor(ids), rng.randint(0, len(ids))


# --- build_example -------------------------------------------------------------------------


def _borders(tokenizer, messages):
    """Where the header begins, where the answer does, and where its end marker is over."""
    labels = build_example(tokenizer, messages).labels
    trained = [at for at, label in enumerate(labels) if label != IGNORE_INDEX]
    return len(encode(tokenizer, messages[:-1])), trained[0], trained[-1] + 1


def _trained(tokenizer, messages, first, last=None):
    """The row in which the tokens from ``first`` up to ``last`` are trained."""
    ids = encode(tokenizer, messages)
    last = len(ids) if last is None else last
    masked = [IGNORE_INDEX] * len(ids)
    return Example(ids, masked[:first] + ids[first:last] + masked[last:])


@mistake(EXAMPLE, "Nothing is masked: the user's words are trained as well as the answer.")
def _user_trained(tokenizer, messages):
    return _trained(tokenizer, messages, 0)


@mistake(EXAMPLE, "The assistant's header is trained. At inference it is part of the prompt: render the prompt with its generation prompt, and see what the first trained token is then.")  # fmt: skip
def _generation_prompt_forgotten(tokenizer, messages):
    header, _, _ = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, header)


@mistake(EXAMPLE, "The assistant's header is trained. At inference it is part of the prompt: the first trained token must be the first of the answer.")  # fmt: skip
def _header_trained(tokenizer, messages):
    header, _, stop = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, header, stop)


@mistake(EXAMPLE, "The end-of-turn token is masked. It belongs to the answer: without it in the loss the model never learns to stop.")  # fmt: skip
def _end_marker_masked(tokenizer, messages):
    _, first, stop = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, first, stop - 1)


@mistake(EXAMPLE, "The end-of-turn token is missing from the row. It belongs to the answer: without it the model never learns to stop.")  # fmt: skip
def _end_marker_missing(tokenizer, messages):
    row = build_example(tokenizer, messages)
    _, _, stop = _borders(tokenizer, messages)
    return Example(row.input_ids[: stop - 1], row.labels[: stop - 1])


@mistake(EXAMPLE, "What the template writes after the end-of-turn token is trained. The model stops at that token, so it never has to write what follows.")  # fmt: skip
def _after_the_end_trained(tokenizer, messages):
    _, first, _ = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, first)


@mistake(EXAMPLE, "Off by one: the first token of the answer is masked.")
def _first_token_masked(tokenizer, messages):
    _, first, stop = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, first + 1, stop)


@mistake(EXAMPLE, "Off by one: the last token of the prompt is trained.")
def _last_prompt_token_trained(tokenizer, messages):
    _, first, stop = _borders(tokenizer, messages)
    return _trained(tokenizer, messages, first - 1, stop)


@mistake(EXAMPLE, "The labels are shifted already. They stay in line with input_ids; the loss does the shifting.")  # fmt: skip
def _labels_shifted(tokenizer, messages):
    row = build_example(tokenizer, messages)
    return Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX])


@mistake(EXAMPLE, "The prompt is masked in input_ids: the model could no longer read the question. Only labels are masked.")  # fmt: skip
def _inputs_masked(tokenizer, messages):
    row = build_example(tokenizer, messages)
    _, first, _ = _borders(tokenizer, messages)
    return Example([IGNORE_INDEX] * first + row.input_ids[first:], row.labels)


@mistake(EXAMPLE, "Every assistant turn is trained. Here only the last answer is: the earlier ones belong to its prompt.")  # fmt: skip
def _every_answer_trained(tokenizer, messages):
    return mask_all_but_assistant(tokenizer, messages)


@mistake(EXAMPLE, "The system turn is missing from the row. It is part of the prompt that the model reads.")  # fmt: skip
def _system_dropped(tokenizer, messages):
    return build_example(tokenizer, [m for m in messages if m["role"] != "system"])


@mistake(EXAMPLE, "Only the last question and its answer are in the row. The earlier turns belong to the prompt.")  # fmt: skip
def _last_exchange(tokenizer, messages):
    return build_example(tokenizer, messages[-2:])


@mistake(EXAMPLE, "Only the answer is in the row. The model reads the prompt as well, with its labels masked.")  # fmt: skip
def _answer_alone(tokenizer, messages):
    row = build_example(tokenizer, messages)
    _, first, _ = _borders(tokenizer, messages)
    return Example(row.input_ids[first:], row.labels[first:])


def _masked_with(value, tokenizer, messages):
    row = build_example(tokenizer, messages)
    return Example(row.input_ids, [value if y == IGNORE_INDEX else y for y in row.labels])


@mistake(EXAMPLE, "Masked positions are labelled 0, but 0 is a real token. The loss leaves out -100 only.")  # fmt: skip
def _masked_with_zero(tokenizer, messages):
    return _masked_with(0, tokenizer, messages)


@mistake(EXAMPLE, "Masked positions carry the padding id, which is a token like any other to the loss. It leaves out -100 only.")  # fmt: skip
def _masked_with_padding(tokenizer, messages):
    return _masked_with(tokenizer.pad_token_id, tokenizer, messages)


# A second family: other headers, an end marker with nothing after it.
OTHER_FAMILY = (
    "{% for message in messages %}"
    "[{{ message['role'] }}]: {{ message['content'] }}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}[assistant]:{% endif %}"
)


# ChatML that leaves a space and two line breaks after every turn.
SPACED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|> \n\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def _tokenizer(template: str | None = None):
    """Return the embedded tokenizer with this template, or with a family's template and tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "almanac-base")
    if template in ("gemma", "llama3"):
        return with_template(tokenizer, template)
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def _conversation(*texts: str, system: str = "") -> list[dict[str, str]]:
    """User and assistant in turn, after an optional system message."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _example_case(
    rule: str, remark: str, *texts: str, system: str = "", template: str | None = None
) -> Case:
    return Case(
        f"`build_example(tokenizer, messages)`: {remark}",
        lambda: (_tokenizer(template), _conversation(*texts, system=system)),
        build_example,
        rule=rule,
    )


FROGS = ("Where do frogs live?", "In ponds.")
OPPOSITES = ("What is the opposite of hot?", "Cold.", "And of big?", "Small.")
EXAMPLE_CASES = (
    _example_case("answer", "one question, one answer", "What is the capital of Peru?", "Lima."),
    _example_case("answer", "the answer repeats the question", "Say yes.", "Say yes."),
    _example_case("whole", "with a system message", *FROGS, system="Be brief."),
    _example_case("last", "two questions and two answers", *OPPOSITES),
    _example_case("answer", "white space around the contents", " Where? ", " In ponds. "),
    _example_case("template", "another family's template", *FROGS, template=OTHER_FAMILY),
    _example_case("template", "a template with more white space", *FROGS, template=SPACED),
    _example_case("template", "Gemma's template and special tokens", *FROGS, template="gemma"),
    _example_case(
        "template", "Llama 3's template and special tokens", *OPPOSITES, template="llama3"
    ),
)


def _draw_example(rng: random.Random, tokenizer: object, *_: object) -> tuple:
    return tokenizer, conversation(rng, rng.choice([2, 4, 6]))


# --- unsafe_answers --------------------------------------------------------------------------


def _ids(tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@mistake(UNSAFE, "The answers that *are* safe are returned. Keep those whose ids differ.")
def _safe_ones(tokenizer, header, answers):
    unsafe = unsafe_answers(tokenizer, header, answers)
    return {answer: 0 for answer in answers if answer not in unsafe}


@mistake(UNSAFE, "The texts are compared: decoded, both ways give the same text. Compare the ids.")
def _texts_compared(tokenizer, header, answers):
    return {}


@mistake(UNSAFE, "The lengths are compared: two lists can be equally long and hold other ids. Compare the ids.")  # fmt: skip
def _lengths_compared(tokenizer, header, answers):
    found = unsafe_answers(tokenizer, header, answers)
    head = len(_ids(tokenizer, header))
    return {
        answer: place
        for answer, place in found.items()
        if head + len(_ids(tokenizer, answer)) != len(_ids(tokenizer, header + answer))
    }


@mistake(UNSAFE, "Special tokens are added in front of each text: so header and answer always differ from the whole. Pass add_special_tokens=False.")  # fmt: skip
def _special_tokens_added(tokenizer, header, answers):
    found = {}
    for answer in answers:
        apart = tokenizer.encode(header) + tokenizer.encode(answer)
        together = tokenizer.encode(header + answer)
        if apart != together:
            pairs = enumerate(zip(apart, together, strict=False))
            found[answer] = next((i for i, (a, b) in pairs if a != b), len(together))
    return found


BORDER = "The position is that of the border. The ids can differ earlier, if the header's last tokens change too: compare the lists from the first id on."  # fmt: skip


@mistake(UNSAFE, BORDER)
def _always_the_border(tokenizer, header, answers):
    border = len(_ids(tokenizer, header))
    return dict.fromkeys(unsafe_answers(tokenizer, header, answers), border)


@mistake(UNSAFE, BORDER)
def _token_before_the_border(tokenizer, header, answers):
    border = len(_ids(tokenizer, header))
    return dict.fromkeys(unsafe_answers(tokenizer, header, answers), border - 1)


@mistake(UNSAFE, "The position is counted from the border. Count from the first id of the header.")
def _counted_from_the_border(tokenizer, header, answers):
    border = len(_ids(tokenizer, header))
    return {a: place - border for a, place in unsafe_answers(tokenizer, header, answers).items()}


@mistake(UNSAFE, "The position is that of the *last* id that differs. Return that of the first.")
def _last_that_differs(tokenizer, header, answers):
    found = unsafe_answers(tokenizer, header, answers)
    for answer in found:
        apart = _ids(tokenizer, header) + _ids(tokenizer, answer)
        together = _ids(tokenizer, header + answer)
        pairs = enumerate(zip(apart, together, strict=False))
        found[answer] = max(i for i, (a, b) in pairs if a != b)
    return found


@mistake(UNSAFE, "Only the first unsafe answer is returned: does the function return inside the loop?")  # fmt: skip
def _first_alone(tokenizer, header, answers):
    return dict(list(unsafe_answers(tokenizer, header, answers).items())[:1])


@mistake(UNSAFE, "A space is put between header and answer. Join the texts as they are.")
def _joined_by_a_space(tokenizer, header, answers):
    found = {}
    for answer in answers:
        apart = _ids(tokenizer, header) + _ids(tokenizer, answer)
        together = _ids(tokenizer, f"{header} {answer}")
        if apart != together:
            pairs = enumerate(zip(apart, together, strict=False))
            found[answer] = next((i for i, (a, b) in pairs if a != b), len(apart))
    return found


@mistake(UNSAFE, "Only the header's ids are compared. The answer's can change as well: some tokenizers put a space before a text. Compare the whole lists.")  # fmt: skip
def _headers_compared(tokenizer, header, answers):
    head = len(_ids(tokenizer, header))
    found = unsafe_answers(tokenizer, header, answers)
    return {answer: place for answer, place in found.items() if place < head}


def _embedded():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODELS / "almanac-base")


@functools.cache
def _with_prefix_space():
    """Return the embedded tokenizer, which now puts a space before every text, as some families do."""
    tokenizer = _embedded()
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    return tokenizer


@functools.cache
def _with_begin_token():
    """Return the embedded tokenizer, which now adds a begin token, as many families do."""
    tokenizer = _embedded()
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    return tokenizer


_with_blank_lines = functools.cache(functools.partial(small_tokenizer, True, 400))


def _unsafe_case(rule: str, remark: str, header: str, *answers: str, made=_tokenizer) -> Case:
    return Case(
        f"`unsafe_answers(tokenizer, {header!r}, {list(answers)})`: {remark}",
        lambda: (made(), header, list(answers)),
        unsafe_answers,
        rule=rule,
    )


UNSAFE_CASES = (
    _unsafe_case("same", "a space at the end", "Q: Who?\nA: ", "Rome", "12", "The end.", "ou"),
    _unsafe_case("same", "the space begins the answer", "Q: Who?\nA:", " Rome", " 12", " ou"),
    _unsafe_case("same", "a special token ends the header", "Hi<|im_start|>", "Rome", " Rome"),
    _unsafe_case(
        "same", "blank lines are one token", "assistant\n", "Yes", "\nYes", made=_with_blank_lines
    ),
    _unsafe_case(
        "position", "the header ends in a word", "Tell me. The fro", "g", "a", "gs.", " a"
    ),
    _unsafe_case("plain", "a tokenizer with a begin token", "A:", " Rome", made=_with_begin_token),
    _unsafe_case(
        "same", "a space is put before each text", "A:", "Rome", " Rome", made=_with_prefix_space
    ),
    _unsafe_case("same", "no answers", "A:"),
)


def _draw_unsafe(rng: random.Random, tokenizer: object, *_: object) -> tuple:
    words = ["The", "river", "near", "the", "small", "heron", "lives", "today"]
    word = rng.choice(words)
    cut = rng.randint(1, len(word))
    return tokenizer, f"Note: {word[:cut]}", [word[cut:] + "s", *rng.sample(words, 3), " now"]


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            MASK,
            "Masking the prompt",
            mask_prompt,
            MASK_CASES,
            asks="Return the labels of one training example.\n\n"
            "input_ids: tensor (length,), the prompt first. prompt_length: number of its tokens.",
            rules={
                "response": "Labels 0 to prompt_length - 1 are -100; every later one is the id at its position.",
                "position": "The position alone decides, not the id: any id, 0 too, may occur in both parts.",
                "ends": "The prompt may be empty or be the whole sequence.",
                "dtype": "The labels are an int64 tensor like input_ids: cross_entropy takes no other.",
                "unchanged": "input_ids stays as it is: the model still reads it.",
            },
            draw=_draw_mask,
            hints=(
                "The result is as long as input_ids. Which of its entries does the loss leave out?",
                ("response", "Say it for one example: three ids and prompt_length 2."),
                "You need a copy of input_ids and one assignment to a part of it: the part from the start up to prompt_length.",
            ),
            path="Notice first that the result has the shape of the input and differs from it only in the prompt. So begin with a copy of "
            "input_ids, then overwrite its first prompt_length entries. The usual wrong turn is to shift the labels here: the loss shifts "
            "them, and shifted twice, each token would predict the token after next.",
            why="The labels are a copy because the model still reads the prompt; it is only not trained to write it. PyTorch's cross entropy "
            "ignores the label -100 by default.",
        ),
        Exercise(
            EXAMPLE,
            "The training example of a conversation",
            build_example,
            EXAMPLE_CASES,
            asks="Return an Example(input_ids, labels) in which only the last answer is trained.\n\n"
            "messages: a conversation that ends with an assistant message.",
            rules={
                "whole": "input_ids are those of the whole conversation: encode(tokenizer, messages).",
                "answer": "Trained are the last answer and its end-of-turn token; -100 before and after.",
                "last": "The assistant header and earlier answers are part of the prompt. Nothing is shifted.",
                "template": "Any chat template works; end_of_turn_id(tokenizer) is the id that ends a turn in it.",
                "unchanged": "The tokenizer and messages stay as they are.",
            },
            draw=_draw_example,
            hints=(
                "Render the prompt exactly as it will be at inference. What does the template add "
                "when it is asked for a generation prompt?",
                ("answer", "The rendered prompt is the beginning of the rendered conversation, so its length in tokens says where the answer begins."),
                "The place to look is the end of the rendered conversation: what does the template write after the end-of-turn token?",
            ),
            path="Two borders decide everything: where the answer begins and where it ends. For the first, render the prompt as the model "
            "meets it at inference, with its generation prompt, and count its tokens. For the second, find the first end-of-turn token "
            "after that. The usual wrong turn is to tokenize prompt and answer separately: at the joint they may be cut into other tokens.",
            why="The whole conversation is tokenized at once, and the check that the prompt is its beginning is made and not assumed. The "
            "end-of-turn token is trained because the model has to write it; the newline after it is not, because generation has stopped by then.",
        ),
        Exercise(
            UNSAFE,
            "Answers that must not be tokenized apart",
            unsafe_answers,
            UNSAFE_CASES,
            asks="Return the answers whose ids change if they are tokenized apart from a header.\n\n"
            "header: the text that ends a prompt. answers: a list of texts. Two lists of ids are\n"
            "compared: those of header + answer, and the header's followed by the answer's.\n"
            "Returns: dict, answer -> first position at which the two lists differ.",
            rules={
                "same": "Answers whose two lists are equal are left out.",
                "position": "Positions count from 0 at the first id of the header.",
                "plain": "No special tokens are added: encode(text, add_special_tokens=False).",
                "unchanged": "The tokenizer and answers stay as they are.",
            },
            draw=_draw_unsafe,
            hints=(
                "Every answer is tokenized in two ways. Which two lists of ids do you compare?",
                ("position", "The header's own last ids can change as well: look for the first difference in the whole lists."),
                "`zip` the two lists, and take the first index at which they differ.",
            ),
            path="For one answer first: the ids of the header followed by those of the answer, against the ids of the joined text. If the two lists "
            "are equal, the answer is safe. If not, walk through both until two ids differ. The usual wrong turn is to look at the answer's "
            "ids alone: the header's last token can change too, and then the mask is wrong by one.",
            why="Nothing about spaces, line breaks or families stands in this function: it asks the tokenizer. Only equal ids "
            "say that a text may be tokenized in parts.",
        ),
    )
}  # fmt: skip
