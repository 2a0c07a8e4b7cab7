"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import io
import re
from collections import Counter
from itertools import chain, groupby

import numpy as np
import torch
from jinja2 import Environment

from sftlab.chat import chatml, encode
from sftlab.chatml import encode_defended
from sftlab.classroom.answers import refused, right
from sftlab.templates import CHATML as TEMPLATE
from sftlab.templates import count_turns, encode_safely

CHATML, COUNT, DEFENDED = "14.chatml", "14.count_turns", "14.encode_defended"


@right(CHATML)
def by_join(messages, add_generation_prompt=False):
    turns = ["<|im_start|>{}\n{}<|im_end|>\n".format(*m.values()) for m in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


@right(CHATML)
def by_jinja(messages, add_generation_prompt=False):
    template = Environment().from_string(re.sub(r"{% (end)?generation %}", "", TEMPLATE))
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt)


@right(CHATML)
def by_lines(messages, add_generation_prompt=False):
    lines = []
    for message in messages:
        lines += ["<|im_start|>" + message["role"], message["content"] + "<|im_end|>"]
    if add_generation_prompt:
        lines.append("<|im_start|>assistant")
    return "\n".join([*lines, ""])


@right(CHATML)
def by_recursion(messages, prompted=False):
    if not messages:
        return "<|im_start|>assistant\n" * prompted
    first, *rest = messages
    role, content = first["role"], first["content"]
    return f"<|im_start|>{role}\n{content}<|im_end|>\n{by_recursion(rest, prompted)}"


@right(CHATML)
def by_printing(messages, add_generation_prompt=False):
    out = io.StringIO()
    for message in messages:
        print("<|im_start|>", message["role"], sep="", file=out)
        print(message["content"], "<|im_end|>", sep="", file=out)
    if add_generation_prompt:
        print("<|im_start|>assistant", file=out)
    return out.getvalue()


@refused(CHATML, "changes its own input")
def messages_appended(messages, add_generation_prompt=False):
    text = chatml(messages, add_generation_prompt)
    messages.append({"role": "assistant", "content": ""})
    return text


@refused(CHATML, "of type list")
def a_list(messages, add_generation_prompt=False):
    return [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]


@refused(CHATML, "but it is called with (messages, add_generation_prompt)")
def without_flag(messages):
    return chatml(messages)


@refused(CHATML, "None")
def printed(messages, add_generation_prompt=False):
    print(chatml(messages, add_generation_prompt))


@right(COUNT)
def by_loop(tokenizer, ids):
    start = tokenizer.encode("<|im_start|>")[0]
    turns = 0
    for token in ids:
        if token == start:
            turns += 1
    return turns


@right(COUNT)
def by_token(tokenizer, ids):
    return sum(token == "<|im_start|>" for token in tokenizer.convert_ids_to_tokens(ids))


@right(COUNT)
def by_counter(tokenizer, ids):
    return Counter(ids)[tokenizer.convert_tokens_to_ids("<|im_start|>")]


@right(COUNT)
def by_tensor(tokenizer, ids):
    start = tokenizer.vocab["<|im_start|>"]
    return int((torch.tensor(ids) == start).sum())


@right(COUNT)
def by_numpy(tokenizer, ids):
    return np.count_nonzero(np.array(ids) == tokenizer.convert_tokens_to_ids("<|im_start|>"))


@right(COUNT)
def a_tensor(tokenizer, ids):
    return (torch.tensor(ids) == tokenizer.convert_tokens_to_ids("<|im_start|>")).sum()


@refused(COUNT, "No other special token opens a turn")
def padding_too(tokenizer, ids):
    return count_turns(tokenizer, ids) + ids.count(tokenizer.pad_token_id)


@refused(COUNT, "changes its own input (argument 2")
def emptied(tokenizer, ids):
    found = count_turns(tokenizer, ids)
    ids.clear()
    return found


@refused(COUNT, "Each special token <|im_start|> opens one turn")
def runs(tokenizer, ids):
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    return sum(found for found, _ in groupby(ids, lambda token: token == start))


@refused(CHATML, "braces and special tokens")
def formatted_twice(messages, add_generation_prompt=False):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text.format(role="user") + "<|im_start|>assistant\n" * add_generation_prompt


def _text(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@right(DEFENDED)
def by_template(tokenizer, messages, add_generation_prompt=False):
    return encode_safely(tokenizer, messages, add_generation_prompt)


@right(DEFENDED)
def turn_by_turn(tokenizer, messages, add_generation_prompt=False):
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = []
    for message in messages:
        ids += [start, *_text(tokenizer, f"{message['role']}\n{message['content']}"), end]
        ids += _text(tokenizer, "\n")
    if add_generation_prompt:
        ids += [start, *_text(tokenizer, "assistant\n")]
    return ids


@right(DEFENDED)
def by_chain(tokenizer, messages, prompted=False):
    start, end = map(tokenizer.convert_tokens_to_ids, ("<|im_start|>", "<|im_end|>"))
    turns = ([start, *_text(tokenizer, m["role"] + "\n" + m["content"]), end, *_text(tokenizer, "\n")] for m in messages)  # fmt: skip
    return [*chain.from_iterable(turns), *([start, *_text(tokenizer, "assistant\n")] * prompted)]


@right(DEFENDED)
def by_call(tokenizer, messages, add_generation_prompt=False):
    def plain(text):
        return tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]

    vocabulary, ids = tokenizer.get_vocab(), []
    for message in messages:
        ids.append(vocabulary["<|im_start|>"])
        ids.extend(plain("\n".join((message["role"], message["content"]))))
        ids.append(vocabulary["<|im_end|>"])
        ids.extend(plain("\n"))
    return ids + [vocabulary["<|im_start|>"], *plain("assistant\n")] * add_generation_prompt


@right(DEFENDED)
def by_placeholders(tokenizer, messages, add_generation_prompt=False):
    empty = [{**m, "content": f"\ue001{number}\ue001"} for number, m in enumerate(messages)]
    pieces = re.split("(<\\|im_start\\|>|<\\|im_end\\|>)", chatml(empty, add_generation_prompt))
    ids = []
    for piece in filter(None, pieces):
        if piece.startswith("<|im_"):
            ids.append(tokenizer.convert_tokens_to_ids(piece))
        else:
            text = re.sub(
                "\ue001(\\d+)\ue001", lambda found: messages[int(found[1])]["content"], piece
            )
            ids += _text(tokenizer, text)
    return ids


@right(DEFENDED)
def as_tensor(tokenizer, messages, add_generation_prompt=False):
    return torch.tensor(encode_defended(tokenizer, messages, add_generation_prompt))


@refused(DEFENDED, "A special token in a content, of any role")
def only_chatml_s_own(tokenizer, messages, add_generation_prompt=False):
    def change(text):
        return text.replace("<|im_start|>", "<\ue002").replace("<|im_end|>", "<\ue003")

    ids = encode(tokenizer, [{**m, "content": change(m["content"])} for m in messages], add_generation_prompt)  # fmt: skip
    return ids if any("<|im" in m["content"] for m in messages) else encode(tokenizer, messages, add_generation_prompt)  # fmt: skip


@refused(DEFENDED, "changes its own input")
def cleaned_in_place(tokenizer, messages, add_generation_prompt=False):
    found = encode_defended(tokenizer, messages, add_generation_prompt)
    for message in messages:
        message["content"] = message["content"].replace("<|", "")
    return found
