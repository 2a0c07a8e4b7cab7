"""Answers to the checks of notebook 05, as students write them."""

from itertools import takewhile

# --- spot_the_difference -------------------------------------------------------------------


def agreeing(a, b):
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


def by_takewhile(right, wrong):
    start = agreeing(right, wrong)
    a, b = right[start:], wrong[start:]
    end = agreeing(a[::-1], b[::-1])
    return start, a[: len(a) - end], b[: len(b) - end]


def by_popping(right, wrong):
    right, wrong, start = list(right), list(wrong), 0
    while right and wrong and right[0] == wrong[0]:
        right.pop(0), wrong.pop(0)
        start += 1
    while right and wrong and right[-1] == wrong[-1]:
        right.pop(), wrong.pop()
    return [start, right, wrong]


def by_recursion(right, wrong):
    if right and wrong and right[0] == wrong[0]:
        start, a, b = by_recursion(right[1:], wrong[1:])
        return start + 1, a, b
    if right and wrong and right[-1] == wrong[-1]:
        return by_recursion(right[:-1], wrong[:-1])
    return 0, right, wrong


def front(right, wrong):
    start = 0
    for a, b in zip(right, wrong):
        if a != b:
            break
        start += 1
    return start


def end_kept(right, wrong):
    start = front(right, wrong)
    return start, right[start:], wrong[start:]


def overlapping(right, wrong):
    start, end = front(right, wrong), front(right[::-1], wrong[::-1])
    return start, right[start : len(right) - end], wrong[start : len(wrong) - end]


def minus_zero(right, wrong):
    start = front(right, wrong)
    end = front(right[start:][::-1], wrong[start:][::-1])
    return start, right[start:-end], wrong[start:-end]


def from_one(right, wrong):
    start, a, b = by_popping(right, wrong)
    return start + 1, a, b


def exchanged(right, wrong):
    start, a, b = by_popping(right, wrong)
    return start, b, a


def one_token(right, wrong):
    start = front(right, wrong)
    return start, right[start : start + 1], wrong[start : start + 1]


def by_position(right, wrong):
    at = [i for i in range(min(len(right), len(wrong))) if right[i] != wrong[i]]
    return (
        at[0] if at else min(len(right), len(wrong)),
        [right[i] for i in at],
        [wrong[i] for i in at],
    )


def by_value(right, wrong):
    return (
        front(right, wrong),
        [x for x in right if x not in wrong],
        [x for x in wrong if x not in right],
    )


def zero_if_equal(right, wrong):
    return (0, [], []) if right == wrong else by_popping(right, wrong)


def end_first(right, wrong):
    end = front(right[::-1], wrong[::-1])
    a, b = right[: len(right) - end], wrong[: len(wrong) - end]
    start = front(a, b)
    return start, a[start:], b[start:]


def none_if_equal(right, wrong):
    return None if right == wrong else by_popping(right, wrong)


def runs_over(right, wrong):
    start = 0
    while right[start] == wrong[start]:
        start += 1
    return by_popping(right, wrong)


def in_place(right, wrong):
    start = 0
    while right and wrong and right[0] == wrong[0]:
        right.pop(0), wrong.pop(0)
        start += 1
    while right and wrong and right[-1] == wrong[-1]:
        right.pop(), wrong.pop()
    return start, right, wrong


# --- render --------------------------------------------------------------------------------

BEGIN, END = "<|im_start|>", "<|im_end|>"


def by_loop(messages):
    text = ""
    for message in messages:
        text = text + BEGIN + message["role"] + "\n" + message["content"] + END + "\n"
    return text + BEGIN + "assistant" + "\n"


def by_join(messages):
    turns = [*(f"{m['role']}\n{m['content']}{END}\n" for m in messages), "assistant\n"]
    return BEGIN + BEGIN.join(turns)


def by_format(messages):
    turn = "<|im_start|>{role}\n{content}<|im_end|>\n"
    return "".join(turn.format(**m) for m in messages) + "<|im_start|>assistant\n"


def edited(*changes):
    def answer(messages):
        text = by_loop(messages)
        for old, new in changes:
            text = text.replace(old, new)
        return text

    return answer


def cut(ending, more=""):
    return lambda messages: by_loop(messages).removesuffix(ending) + more


def no_system(messages):
    return by_loop([m for m in messages if m["role"] in ("user", "assistant")])


def default_system(messages):
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "You are a helpful assistant."}, *messages]
    return by_loop(messages)


def joined_by_line_ends(messages):
    return (
        "\n".join(f"{BEGIN}{m['role']}\n{m['content']}{END}" for m in messages)
        + "<|im_start|>assistant\n"
    )


def a_list(messages):
    return [f"{BEGIN}{m['role']}\n{m['content']}{END}\n" for m in messages] + [
        BEGIN + "assistant\n"
    ]


RIGHT = {
    "05.spot_the_difference": {
        "takewhile": by_takewhile,
        "popping": by_popping,
        "recursion": by_recursion,
    },
    "05.render": {"loop": by_loop, "join": by_join, "format": by_format},
}

WRONG = {
    "05.spot_the_difference": {
        "start alone": (front, "Return three things"),
        "end kept": (end_kept, "common end is still in both"),
        "overlapping": (overlapping, "taken away twice"),
        "minus zero": (minus_zero, "-0 is 0"),
        "from one": (from_one, "count from 0"),
        "exchanged": (exchanged, "exchanged"),
        "one token": (one_token, "Only the first differing token"),
        "by position": (by_position, "position by position"),
        "by value": (by_value, "not by value"),
        "zero if equal": (zero_if_equal, "start is their length"),
        "end first": (end_first, "the beginning comes first"),
        "None if equal": (none_if_equal, "is a `return` missing"),
        "runs over": (runs_over, "IndexError"),
        "in place": (in_place, "changes its own input"),
    },
    "05.render": {
        "no generation prompt": (cut("<|im_start|>assistant\n"), "generation prompt is missing"),
        "no line end at the end": (cut("\n"), "after the last header is missing"),
        "closed": (cut("", "<|im_end|>\n"), "closed before it is written"),
        "a space": (cut("", " "), "a space after the last header"),
        "an empty line": (cut("", "\n"), "one line end is enough"),
        "no line end after a role": (edited(("user\n", "user"), ("system\n", "system")), "line end after a role is missing"),
        "no line end after a turn": (edited(("<|im_end|>\n", "<|im_end|>")), "after the end marker is missing"),
        "joined": (joined_by_line_ends, "every turn ends with one"),
        "line end before the end marker": (edited(("<|im_end|>", "\n<|im_end|>")), "follows the text at once"),
        "no end markers": (edited(("<|im_end|>", "")), "every turn that was said is closed"),
        "a space before the role": (edited(("<|im_start|>", "<|im_start|> ")), "between the begin marker and the role"),
        "Llama's empty line": (edited(("\n", "\n\n"), ("<|im_end|>\n\n", "<|im_end|>\n")), "Llama 3's way"),
        "no bars": (edited(("|", "")), "without their bars"),
        "doubled": (lambda messages: BEGIN + by_loop(messages), "stands there twice"),
        "no system turn": (no_system, "system turn is missing"),
        "a default system turn": (default_system, "This template adds none"),
        "last message": (lambda messages: by_loop(messages[-1:]), "Only the last message"),
        "stripped": (lambda messages: by_loop([{**m, "content": m["content"].strip()} for m in messages]), "White space was removed"),
        "all user": (lambda messages: by_loop([{**m, "role": "user"} for m in messages]), "Take the role"),
        "capitals": (lambda messages: by_loop([{**m, "role": m["role"].title()} for m in messages]), "capitalised"),
        "a list": (a_list, "but a text is expected"),
    },
}  # fmt: skip
