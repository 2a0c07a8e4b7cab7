"""Answers to the checks of notebook 14, as students write them."""

import re

from sftlab.chat import chatml as right
from sftlab.templates import CHATML


def by_join(messages, add_generation_prompt=False):
    turns = ["<|im_start|>{}\n{}<|im_end|>\n".format(*m.values()) for m in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def by_jinja(messages, add_generation_prompt=False):
    from jinja2 import Environment

    template = re.sub(r"{% (end)?generation %}", "", CHATML)
    return Environment().from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt
    )  # fmt: skip


def by_lines(messages, add_generation_prompt=False):
    lines = []
    for message in messages:
        lines += ["<|im_start|>" + message["role"], message["content"] + "<|im_end|>"]
    if add_generation_prompt:
        lines.append("<|im_start|>assistant")
    return "\n".join([*lines, ""])


def written(start="<|im_start|>", role_end="\n", end="<|im_end|>\n", prompt=None):
    """The usual loop with one part written in another way."""
    prompt = f"{start}assistant{role_end}" if prompt is None else prompt

    def chatml(messages, add_generation_prompt=False):
        text = ""
        for m in messages:
            text += start + m["role"] + role_end + m["content"] + end
        return text + prompt * add_generation_prompt

    return chatml


def flag_ignored(messages, add_generation_prompt=False):
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def flag_always(messages, add_generation_prompt=True):
    return flag_ignored(messages) + "<|im_start|>assistant\n"


def prompt_in_the_loop(messages, add_generation_prompt=False):
    text = ""
    for m in messages:
        text += f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"
        if add_generation_prompt:
            text += "<|im_start|>assistant\n"
    return text


def joined_with_line_ends(messages, add_generation_prompt=False):
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages]
    if add_generation_prompt:
        turns.append("<|im_start|>assistant\n")
    return "\n".join(turns)


def stripped(messages, add_generation_prompt=False):
    return right(messages, add_generation_prompt).rstrip()


def contents_stripped(messages, add_generation_prompt=False):
    clean = [{"role": m["role"], "content": m["content"].strip()} for m in messages]
    return right(clean, add_generation_prompt)


def all_users(messages, add_generation_prompt=False):
    return right(
        [{"role": "user", "content": m["content"]} for m in messages], add_generation_prompt
    )


def without_system(messages, add_generation_prompt=False):
    return right([m for m in messages if m["role"] in ("user", "assistant")], add_generation_prompt)


def helpful(messages, add_generation_prompt=False):
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "You are a helpful assistant."}, *messages]
    return right(messages, add_generation_prompt)


def last_message(messages, add_generation_prompt=False):
    return right([messages[-1]], add_generation_prompt)


def messages_appended(messages, add_generation_prompt=False):
    text = right(messages, add_generation_prompt)
    messages.append({"role": "assistant", "content": ""})
    return text


def as_list(messages, add_generation_prompt=False):
    return [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]


def without_flag(messages):
    return flag_ignored(messages)


def printed(messages, add_generation_prompt=False):
    print(right(messages, add_generation_prompt))


# --- count_turns ---------------------------------------------------------------------------


def by_loop(tokenizer, ids):
    start = tokenizer.encode("<|im_start|>")[0]
    turns = 0
    for token in ids:
        if token == start:
            turns += 1
    return turns


def by_token(tokenizer, ids):
    return sum(token == "<|im_start|>" for token in tokenizer.convert_ids_to_tokens(ids))


def marker_id(tokenizer, marker):
    return tokenizer.convert_tokens_to_ids(marker)


def in_text(tokenizer, ids):
    return len(re.findall(re.escape("<|im_start|>"), tokenizer.decode(ids)))


def pieces(tokenizer, ids):
    return len(tokenizer.decode(ids).split("<|im_start|>")) - 1


def ends(tokenizer, ids):
    return sum(i == tokenizer.eos_token_id for i in ids)


def both_markers(tokenizer, ids):
    wanted = [marker_id(tokenizer, m) for m in ("<|im_start|>", "<|im_end|>")]
    return len([i for i in ids if i in wanted])


def gaps(tokenizer, ids):
    places = [k for k, i in enumerate(ids) if i == marker_id(tokenizer, "<|im_start|>")]
    return len(places) - 1


def pieces_of_ids(tokenizer, ids):
    return list(ids).count(marker_id(tokenizer, "<|im_start|>")) + 1


def exchanges(tokenizer, ids):
    return ids.count(marker_id(tokenizer, "<|im_start|>")) // 2


def any_turn(tokenizer, ids):
    return 1 if marker_id(tokenizer, "<|im_start|>") in ids else 0


def skipped(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True).count("<|im_start|>")


def roles(tokenizer, ids):
    return len(re.findall("system|user|assistant", tokenizer.decode(ids)))


def truth(tokenizer, ids):
    return marker_id(tokenizer, "<|im_start|>") in ids


def text_in_ids(tokenizer, ids):
    return ids.count("<|im_start|>")


WRONG = {
    "14.chatml": {
        "flag ignored": (flag_ignored, "generation prompt is missing"),
        "flag always": (flag_always, "always written"),
        "prompt in the loop": (prompt_in_the_loop, "after every message"),
        "space for a line end": (written(role_end=" "), "A space stands where"),
        "no line end after the role": (written(role_end=""), "line end after the role is missing"),
        "colon": (written(role_end=": "), "colon"),
        "prompt without line end": (written(prompt="<|im_start|>assistant"), "prompt has no line end"),
        "prompt closed": (written(prompt="<|im_start|>assistant\n<|im_end|>\n"), "finished, empty answer"),
        "prompt of the user": (written(prompt="<|im_start|>user\n"), "opens a turn of the user"),
        "no line end after a turn": (written(end="<|im_end|>"), "line end after <|im_end|> is missing"),
        "joined": (joined_with_line_ends, "last turn has no line end"),
        "line end before the end": (written(end="\n<|im_end|>\n"), "line end stands before <|im_end|>"),
        "no end marker": (written(end="\n"), "No turn is closed"),
        "space after the marker": (written(start="<|im_start|> "), "between <|im_start|> and the role"),
        "space before the end": (written(end=" <|im_end|>\n"), "space stands before <|im_end|>"),
        "markers exchanged": (written("<|im_end|>", "\n", "<|im_start|>\n"), "markers are exchanged"),
        "misspelt": (written("<im_start>", "\n", "<im_end>\n"), "misspelt"),
        "result stripped": (stripped, "stripped from the end"),
        "contents stripped": (contents_stripped, "stripped from the texts"),
        "one role": (all_users, "Every turn is the user's"),
        "no system": (without_system, "system turn is left out"),
        "a system turn of its own": (helpful, "not in the messages"),
        "last message": (last_message, "Only the last message"),
        "messages changed": (messages_appended, "changes its own input"),
        "a list": (as_list, "of type list"),
        "no flag": (without_flag, "called with 2 arguments"),
        "printed": (printed, "None"),
    },
    "14.count_turns": {
        "in the text": (in_text, "Counted in the decoded text"),
        "pieces of the text": (pieces, "Counted in the decoded text"),
        "ends": (ends, "Counted are the ends"),
        "both markers": (both_markers, "counts twice"),
        "gaps": (gaps, "One too few"),
        "pieces": (pieces_of_ids, "One too many"),
        "exchanges": (exchanges, "pairs of turns"),
        "whether": (any_turn, "not how many"),
        "markers skipped": (skipped, "removes the very markers"),
        "role words": (roles, "names of the roles"),
        "true or false": (truth, "bool"),
        "text among ids": (text_in_ids, "removes the very markers"),
    },
}  # fmt: skip
RIGHT = {
    "14.chatml": {"join": by_join, "the template itself": by_jinja, "lines": by_lines},
    "14.count_turns": {"loop": by_loop, "token names": by_token},
}
