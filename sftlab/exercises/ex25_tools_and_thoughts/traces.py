"""Conversations with tool calls and thoughts: their text, what is trained of it, and a loop with tools.

Messages have the keys that chat templates read: ``tool_calls`` and ``reasoning_content`` of an assistant
message, the role ``tool`` for a result, and ``weight``, 0 for an answer that is not trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

START, END = "<|im_start|>", "<|im_end|>"
TOOL = "look_up"  # the one tool of the lesson: look_up(fact, name)
Part = tuple[str, bool]  # a text, and whether its tokens are trained


@dataclass(frozen=True)
class Style:
    """How thoughts and calls are written, and found again in a reply.

    A thought stands between ``opening`` and ``closing``; ``pattern`` finds what is looked up, and of whom.
    """

    opening: str
    closing: str
    form: str
    pattern: str

    def thought(self, text: str) -> str:
        return f"{self.opening}{text}{self.closing}"

    def call(self, call: Mapping[str, Any]) -> str:
        """Return the text of a call, an entry of ``tool_calls``."""
        return self.form % call["function"]["arguments"]

    def message(self, reply: str) -> dict[str, Any]:
        """Return a reply as a message: a call if the whole of it is one, and otherwise text."""
        found = re.fullmatch(self.pattern, reply.strip())
        return calling(*found.groups()) if found else {"role": "assistant", "content": reply}


# In words that the embedded base has read, and as in Qwen3's chat template.
WORDS = Style("Thought: ", "\nAnswer: ", "Look up: %(fact)s of %(name)s", r"Look up: (\w+) of (.+)")
BRACES = Style(
    "<think>\n", "\n</think>\n\n",
    '<tool_call>\n{"name": "look_up", "arguments": {"fact": "%(fact)s", "name": "%(name)s"}}\n</tool_call>',
    r'<tool_call>\n\{"name": "look_up", "arguments": \{"fact": "([^"]+)", "name": "([^"]+)"\}\}\n</tool_call>',
)  # fmt: skip


def calling(fact: str, name: str) -> dict[str, Any]:
    """Return an assistant message that looks a fact up."""
    call = {
        "type": "function",
        "function": {"name": TOOL, "arguments": {"fact": fact, "name": name}},
    }
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def parts(messages: Sequence[Mapping[str, Any]], style: Style) -> list[Part]:
    """Return the text of a conversation in parts, each with whether it is trained."""
    asked = max(n for n, message in enumerate(messages) if message["role"] == "user")
    found: list[Part] = []
    for n, message in enumerate(messages):
        text = ""
        if message.get("reasoning_content") and n > asked:
            text += style.thought(message["reasoning_content"])
        text += message["content"]
        text += "".join(style.call(call) for call in message.get("tool_calls") or [])
        trained = message["role"] == "assistant" and message.get("weight") != 0
        found += [
            (f"{START}{message['role']}\n", False),
            (f"{text}{END}", trained),
            ("\n", False),
        ]
    return found


def encoded(tokenizer, some: Sequence[Part]) -> Example:
    """Return the parts as a training example; each part is tokenized by itself."""
    ids: list[int] = []
    labels: list[int] = []
    for text, trained in some:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        ids += tokens
        labels += tokens if trained else [IGNORE_INDEX] * len(tokens)
    return Example(ids, labels)


def prompt(tokenizer, messages: Sequence[Mapping[str, Any]], style: Style) -> list[int]:
    """Return the token ids of a conversation and of the header of the next answer."""
    header = (f"{START}assistant\n", False)
    return encoded(tokenizer, [*parts(messages, style), header]).input_ids


def answer_with_tools(
    ask: Callable[[list[dict]], dict],
    tools: Mapping[str, Callable[..., Any]],
    question: str,
    most: int = 3,
) -> list[dict]:
    """Return the conversation in which ``ask`` answers a question with the help of tools."""
    messages: list[dict] = [{"role": "user", "content": question}]
    for _ in range(most):
        reply = ask(list(messages))
        messages.append(reply)
        if not reply.get("tool_calls"):
            break
        for call in reply["tool_calls"]:
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            try:
                result = str(tools[name](**arguments))
            except Exception as error:  # the model reads what went wrong
                result = f"error: {type(error).__name__} {error}"
            messages.append({"role": "tool", "content": result})
    return messages


def split_thought(reply: str, opening: str, closing: str) -> tuple[str, str]:
    """Return the thought and the answer of a reply."""
    if not reply.startswith(opening):
        return "", reply
    thought, _, answer = reply[len(opening) :].partition(closing)
    return thought, answer
