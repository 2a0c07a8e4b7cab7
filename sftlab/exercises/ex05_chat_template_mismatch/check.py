"""Checks of notebook 05: where two prompts part, and the right prompt written by hand."""

from __future__ import annotations

from sftlab.chat import render_prompt, spot_the_difference
from sftlab.classroom.checking import Case, Exercise, mistake

SPOT, RENDER = "05.spot_the_difference", "05.render"

# --- where two prompts part ------------------------------------------------------------------


def _beginning(right, wrong):
    start = 0
    while start < min(len(right), len(wrong)) and right[start] == wrong[start]:
        start += 1
    return start


def _end(right, wrong):
    return _beginning(right[::-1], wrong[::-1])


@mistake(SPOT, "That is where they part. Return three things: (start, what the right one has there, what the wrong one has there).")  # fmt: skip
def _start_alone(right, wrong):
    return _beginning(right, wrong)


@mistake(SPOT, "The common end is still in both parts. Take it away too, so that only what differs is left.")  # fmt: skip
def _end_kept(right, wrong):
    start = _beginning(right, wrong)
    return start, right[start:], wrong[start:]


@mistake(SPOT, "The common end overlaps the common beginning: a token was taken away twice. Stop before the end reaches `start`.")  # fmt: skip
def _overlapping(right, wrong):
    start, end = _beginning(right, wrong), _end(right, wrong)
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


@mistake(SPOT, "With no common end, `x[start:-0]` is empty: in Python, -0 is 0. Count the end from the front: `len(x) - end`.")  # fmt: skip
def _minus_zero(right, wrong):
    start = _beginning(right, wrong)
    end = _end(right[start:], wrong[start:])
    return start, right[start:-end], wrong[start:-end]


@mistake(SPOT, "The start is one too large: count from 0, as Python's positions do.")  # fmt: skip
def _from_one(right, wrong):
    start, *parts = spot_the_difference(right, wrong)
    return start + 1, *parts


@mistake(SPOT, "The two parts are exchanged: first what the right one has, then what the wrong one has.")  # fmt: skip
def _exchanged(right, wrong):
    return spot_the_difference(wrong, right)


@mistake(SPOT, "Only the first differing token is shown. The difference goes on up to the common end.")  # fmt: skip
def _one_token(right, wrong):
    start = _beginning(right, wrong)
    return start, right[start : start + 1], wrong[start : start + 1]


@mistake(SPOT, "You compared position by position. After a token that is missing or added, all later positions are shifted: cut off the common end instead.")  # fmt: skip
def _position_by_position(right, wrong):
    at = [i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b]
    start = _beginning(right, wrong)
    return start, [right[i] for i in at], [wrong[i] for i in at]


@mistake(SPOT, "You kept ids that occur in one of them only. Markers occur several times: go by position, not by value.")  # fmt: skip
def _by_value(right, wrong):
    start = _beginning(right, wrong)
    return start, [x for x in right if x not in wrong], [x for x in wrong if x not in right]


@mistake(SPOT, "For equal sequences the common beginning is all of it: start is their length.")  # fmt: skip
def _zero_if_equal(right, wrong):
    return (0, [], []) if right == wrong else spot_the_difference(right, wrong)


@mistake(SPOT, "You took the common end away first. Where a token repeats, that places the difference elsewhere: the beginning comes first.")  # fmt: skip
def _end_first(right, wrong):
    end = _end(right, wrong)
    right, wrong = right[: len(right) - end], wrong[: len(wrong) - end]
    start = _beginning(right, wrong)
    return start, right[start:], wrong[start:]


def _spot(remark: str, right: list[int], wrong: list[int]) -> Case:
    return Case(
        f"`spot_the_difference({right}, {wrong})`: {remark}",
        lambda: (list(right), list(wrong)),
        spot_the_difference,
    )


SPOT_CASES = (
    _spot("one token is another one", [1, 7, 3, 9, 5], [1, 7, 4, 9, 5]),
    _spot("one token is missing", [1, 5, 202, 6, 2], [1, 5, 6, 2]),
    _spot("the begin marker is doubled", [1, 8, 9], [1, 1, 8, 9]),
    _spot("two differences: both lie between start and end", [1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 8, 6]),
    _spot("the wrong one breaks off", [4, 5, 6, 7], [4, 5]),
    _spot("the last token differs", [4, 5, 6], [4, 5, 7]),
    _spot("an id occurs again elsewhere", [1, 2, 3, 2, 5], [1, 3, 3, 2, 5]),
    _spot("the same", [3, 1, 2], [3, 1, 2]),
    _spot("nothing in common", [1, 2], [3, 4, 5]),
)  # fmt: skip

# --- the right prompt by hand ----------------------------------------------------------------

HEADER = "<|im_start|>assistant\n"


@mistake(RENDER, "The generation prompt is missing: the text must end with the header of the assistant's turn, which the model fills.")  # fmt: skip
def _not_opened(messages):
    return render_prompt(messages).removesuffix(HEADER)


@mistake(RENDER, "The line end after the last header is missing. In training the answer came after that line end.")  # fmt: skip
def _header_without_line_end(messages):
    return render_prompt(messages).removesuffix("\n")


@mistake(RENDER, "The assistant's turn is closed before it is written. Leave it open: the model writes the end marker.")  # fmt: skip
def _closed(messages):
    return render_prompt(messages) + "<|im_end|>\n"


@mistake(RENDER, "There is a space after the last header. Nothing stood between header and answer in training.")  # fmt: skip
def _space_at_the_end(messages):
    return render_prompt(messages) + " "


@mistake(RENDER, "There is an empty line after the last header: one line end is enough.")  # fmt: skip
def _empty_line_at_the_end(messages):
    return render_prompt(messages) + "\n"


@mistake(RENDER, "The line end after a role is missing.")  # fmt: skip
def _role_without_line_end(messages):
    text = render_prompt(messages)
    return text.replace("user\n", "user").replace("system\n", "system")


@mistake(RENDER, "The line end after the end marker is missing.")  # fmt: skip
def _turn_without_line_end(messages):
    return render_prompt(messages).replace("<|im_end|>\n", "<|im_end|>")


@mistake(RENDER, "The line end between the last turn and the generation prompt is missing: every turn ends with one, the last too.")  # fmt: skip
def _joined_by_line_ends(messages):
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages]
    return "\n".join(turns) + HEADER


@mistake(RENDER, "There is a line end between a text and its end marker. The marker follows the text at once.")  # fmt: skip
def _line_end_before_the_marker(messages):
    return render_prompt(messages).replace("<|im_end|>", "\n<|im_end|>")


@mistake(RENDER, "The end markers are missing: every turn that was said is closed.")  # fmt: skip
def _end_markers_missing(messages):
    return render_prompt(messages).replace("<|im_end|>", "")


@mistake(RENDER, "There is a space between the begin marker and the role.")  # fmt: skip
def _space_before_the_role(messages):
    return render_prompt(messages).replace("<|im_start|>", "<|im_start|> ")


@mistake(RENDER, "A role is followed by an empty line. That is Llama 3's way; ChatML has one line end.")  # fmt: skip
def _empty_line_after_a_role(messages):
    text = render_prompt(messages).replace("\n", "\n\n")
    return text.replace("<|im_end|>\n\n", "<|im_end|>\n")


@mistake(RENDER, "The markers are written without their bars: `<|im_start|>` and `<|im_end|>`, to the character.")  # fmt: skip
def _without_bars(messages):
    return render_prompt(messages).replace("|", "")


@mistake(RENDER, "The first begin marker stands there twice.")  # fmt: skip
def _begin_marker_doubled(messages):
    return "<|im_start|>" + render_prompt(messages)


@mistake(RENDER, "The system turn is missing. It is a turn like the others.")  # fmt: skip
def _system_dropped(messages):
    return render_prompt([m for m in messages if m["role"] != "system"])


@mistake(RENDER, "A system turn was added that is not in the messages. This template adds none.")  # fmt: skip
def _system_added(messages):
    system = {"role": "system", "content": "You are a helpful assistant."}
    return render_prompt(messages if messages[0]["role"] == "system" else [system, *messages])


@mistake(RENDER, "Only the last message is rendered. The model reads the whole conversation each time.")  # fmt: skip
def _last_only(messages):
    return render_prompt(messages[-1:])


@mistake(RENDER, "White space was removed from a text. This template passes texts on as they are.")  # fmt: skip
def _stripped(messages):
    return render_prompt([{**m, "content": m["content"].strip()} for m in messages])


@mistake(RENDER, "Every turn is called user. Take the role from the message.")  # fmt: skip
def _all_user(messages):
    return render_prompt([{**m, "role": "user"} for m in messages])


@mistake(RENDER, "The roles are capitalised. For the model “User” is another word than “user”.")  # fmt: skip
def _capitals(messages):
    return render_prompt([{**m, "role": m["role"].capitalize()} for m in messages])


def _talk(*texts: str, system: str = "") -> list[dict[str, str]]:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)
    ]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _render(remark: str, *texts: str, system: str = "") -> Case:
    return Case(
        f"`render(messages)`: {remark}",
        lambda: (_talk(*texts, system=system),),
        render_prompt,
    )


RENDER_CASES = (
    _render("a system turn and a question", "What is the capital of France?", system="Be brief."),
    _render("a question alone", "Where does the frog live?"),
    _render("a talk of three messages after a system turn", "Hi.", "Hello.", "Who wrote Hamlet?", system="Answer in one word."),
    _render("a text of two lines with white space around it", " Rewrite this:\nI go. "),
)  # fmt: skip

EXERCISES = {
    SPOT: Exercise(
        id=SPOT,
        title="Where two prompts part",
        reference=spot_the_difference,
        cases=SPOT_CASES,
        hints=[
            "Walk from the front while both agree: that is `start`. Then walk from the back while both agree.",
            "The two walks must not meet: a token that belongs to the common beginning cannot be part of the common end.",
            "If `end` tokens agree at the back, the parts are `x[start : len(x) - end]`. (`x[start:-end]` goes wrong for end = 0.)",
        ],
        why="Two prompts that look alike on a page can differ in their ids, so compare ids. Cutting off the common ends shows one difference at a "
        "glance; where there are several, they lie between start and end, and `sftlab.chat.difference` lists them one by one.",
        points=2,
    ),
    RENDER: Exercise(
        id=RENDER,
        title="The right prompt, by hand",
        reference=render_prompt,
        cases=RENDER_CASES,
        hints=[
            "One turn: begin marker, role, line end, text, end marker, line end. Look at the string with `repr`, so that line ends show.",
            "After the last turn comes the header of the assistant's turn: begin marker, the word assistant, line end. Nothing more.",
            "No special case is needed for the system turn: it is a message with a role.",
        ],
        why="It is the same for every role, and no text is touched: what the template of the training rows wrote is written again, to the character. "
        "In practice call `apply_chat_template` and never write this by hand; the point is to have seen how little may differ.",
    ),
}
