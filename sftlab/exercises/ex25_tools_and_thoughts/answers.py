"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import re

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.exercises.ex25_tools_and_thoughts.traces import WORDS
from sftlab.exercises.ex25_tools_and_thoughts.traces import parts as reference_parts
from sftlab.exercises.ex25_tools_and_thoughts.traces import split_thought as reference_split

PARTS, LOOP, SPLIT = "25.parts", "25.answer_with_tools", "25.split_thought"


@right(PARTS)
def by_roles(messages, style):
    found = []
    left = sum(message["role"] == "user" for message in messages)
    for message in messages:
        role = message["role"]
        left -= role == "user"
        found.append((f"<|im_start|>{role}\n", False))
        pieces = [message["content"]] if message["content"] else []
        for call in message.get("tool_calls") or ():
            pieces.append(style.call(call))
        text = "\n".join(pieces)
        thought = message.get("reasoning_content")
        if thought and not left:
            text = style.thought(thought) + text
        on = False if role != "assistant" or message.get("weight") == 0 else True
        found.append((text + "<|im_end|>", on))
        found.append(("\n", False))
    return found


@right(PARTS)
def backwards(messages, style):
    found, behind = [], True
    for message in reversed(messages):
        if message["role"] == "user":
            behind = False
        text = ""
        if behind and message.get("reasoning_content"):
            text = style.thought(message["reasoning_content"])
        body = message["content"] or ""
        if message.get("tool_calls"):
            for call in message["tool_calls"]:
                body += ("\n" if body else "") + style.call(call)
        text += body
        weight = message.get("weight")
        trained = message["role"] == "assistant" and (weight is None or weight > 0)
        found = [
            ["<|im_start|>" + message["role"] + "\n", False],
            [text + "<|im_end|>", trained],
            ["\n", False],
            *found,
        ]
    return found


@right(PARTS)
def as_numbers(messages, style):
    """1 and 0 in place of True and False."""
    return tuple((text, int(on)) for text, on in reference_parts(messages, style))


@right(PARTS)
def in_steps(messages, style):
    last = [message["role"] for message in messages][::-1].index("user")
    begin = len(messages) - last
    texts = []
    for number, message in enumerate(messages):
        thought = (message.get("reasoning_content") or "") if number >= begin else ""
        thought = style.thought(thought) if thought else ""
        lines = [message["content"] or "", *map(style.call, message.get("tool_calls") or [])]
        texts.append(thought + "\n".join(filter(None, lines)))
    trained = [m["role"] == "assistant" and m.get("weight") != 0 for m in messages]
    return [
        pair
        for m, text, on in zip(messages, texts, trained, strict=True)
        for pair in ((f"<|im_start|>{m['role']}\n", False), (f"{text}<|im_end|>", on), ("\n", False))
    ]  # fmt: skip


equivalent(PARTS, "A user message has no thought.", "`n > asked` becomes `n >= asked`")


@refused(PARTS, "another style")
def in_one_style(messages, style):
    return reference_parts(messages, WORDS)


@refused(PARTS, "KeyError")
def without_get(messages, style):
    return [style.call(call) for message in messages for call in message["tool_calls"]]


@refused(PARTS, "changes its own input")
def emptied(messages, style):
    found = reference_parts(messages, style)
    messages.clear()
    return found


def _answered(call, tools):
    try:
        return str(tools[call["function"]["name"]](**call["function"]["arguments"]))
    except Exception as problem:
        return f"Error: {problem}"


@right(LOOP)
def by_while(ask, tools, question, most):
    messages = [{"role": "user", "content": question}]
    while most:
        most -= 1
        reply = ask(messages)
        messages += [reply]
        calls = reply.get("tool_calls") or []
        messages += [{"role": "tool", "content": _answered(call, tools)} for call in calls]
        if not calls:
            return messages
    return messages


@right(LOOP)
def by_recursion(ask, tools, question, most, so_far=None):
    messages = so_far or [{"role": "user", "content": question}]
    if not most:
        return messages
    reply = ask(messages)
    messages = [*messages, reply]
    if "tool_calls" not in reply:
        return messages
    for call in reply["tool_calls"]:
        name = call["function"]["name"]
        messages.append({"content": _answered(call, tools), "role": "tool", "name": name})
    return by_recursion(ask, tools, question, most - 1, messages)


@right(LOOP)
def by_names(ask, tools, question, most):
    messages = [{"role": "user", "content": question}]
    for _ in range(most):
        messages.append(ask(messages))
        if "tool_calls" not in messages[-1]:
            break
        for call in messages[-1]["tool_calls"]:
            name = call["function"]["name"]
            if name in tools:
                try:
                    text = str(tools[name](**call["function"]["arguments"]))
                except Exception as problem:
                    text = f"error in {name}: {problem!r}"
            else:
                text = f"error: there is no tool {name}"
            messages.append({"role": "tool", "content": text})
    return messages


@right(LOOP)
def asked_before(ask, tools, question, most):
    """The first reply before the loop."""
    messages = [{"role": "user", "content": question}]
    reply = ask(messages)
    messages.append(reply)
    for number in range(1, most + 1):
        calls = reply.get("tool_calls")
        if not calls:
            break
        for call in calls:
            messages.append({"role": "tool", "content": _answered(call, tools)})
        if number < most:
            reply = ask(messages)
            messages.append(reply)
    return messages


@refused(LOOP, "times asked")
def asked_once_more(ask, tools, question, most):
    messages = by_while(ask, tools, question, most)
    ask(messages)
    return messages


@refused(LOOP, "changes its own input")
def one_tool_less(ask, tools, question, most):
    messages = by_while(ask, tools, question, most)
    tools.clear()
    return messages


@refused(LOOP, "KeyError")
def errors_raise(ask, tools, question, most):
    messages = [{"role": "user", "content": question}]
    for _ in range(most):
        reply = ask(messages)
        messages.append(reply)
        if not reply.get("tool_calls"):
            break
        for call in reply["tool_calls"]:
            result = tools[call["function"]["name"]](**call["function"]["arguments"])
            messages.append({"role": "tool", "content": str(result)})
    return messages


@right(SPLIT)
def by_index(reply, opening, closing):
    if reply[: len(opening)] != opening:
        return "", reply
    rest = reply[len(opening) :]
    at = rest.find(closing)
    return (rest, "") if at < 0 else (rest[:at], rest[at + len(closing) :])


@right(SPLIT)
def by_split(reply, opening, closing):
    if not reply.startswith(opening):
        return ["", reply]
    found = reply.removeprefix(opening).split(closing, 1)
    return [*found, ""][:2]


@right(SPLIT)
def by_pattern(reply, opening, closing):
    found = re.match(rf"{re.escape(opening)}(.*?)(?:{re.escape(closing)}(.*))?\Z", reply, re.DOTALL)
    if not found:
        return "", reply
    return found[1], found[2] or ""


@right(SPLIT)
def by_error(reply, opening, closing):
    if not reply.startswith(opening):
        return "", reply
    rest = reply.replace(opening, "", 1)
    try:
        at = rest.index(closing)
    except ValueError:
        return rest, ""
    return rest[:at], rest[at + len(closing) :]


@refused(SPLIT, "the opening twice")
def without_any_opening(reply, opening, closing):
    if not reply.startswith(opening):
        return "", reply
    return reference_split(opening + reply.replace(opening, ""), opening, closing)


@refused(SPLIT, "markers with brackets")
def by_open_pattern(reply, opening, closing):
    if closing not in reply or not reply.startswith(opening):
        return reference_split(reply, opening, closing)
    found = re.match(f"{opening}(.*?){closing}(.*)", reply, re.DOTALL)
    return (found[1], found[2]) if found else ("", reply)


@refused(SPLIT, "a tuple is expected")
def joined(reply, opening, closing):
    return "".join(reference_split(reply, opening, closing))
