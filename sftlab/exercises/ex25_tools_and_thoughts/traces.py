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
Message = dict[str, Any]


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

    def message(self, reply: str) -> Message:
        """Return a reply as a message: a call if the whole of it is one, and otherwise text."""
        found = re.fullmatch(self.pattern, reply.strip())
        return calling(*found.groups()) if found else {"role": "assistant", "content": reply}


_LONG = (
    "I do not know it, so I look it up in the big book on the table. ",
    " It is the name of that place, and I read it to you in one short line, for the help and a good day to you all. That is it.",
)
# A line break ends what stands before an answer: a space would be a part of the answer's first token.
# In words that the embedded base has read, in as many tokens as the last one, and as in Qwen3's template.
WORDS = Style(
    "Thought: ", "\nAnswer:\n", "Look up: %(fact)s of %(name)s", r"Look up: (\w+) of (.+)"
)
WORDY = Style(
    "Thought: ", "\nAnswer:\n", f"{_LONG[0]}Look up: %(fact)s of %(name)s.{_LONG[1]}",
    rf"{re.escape(_LONG[0])}Look up: (\w+) of (.+)\.{re.escape(_LONG[1])}",
)  # fmt: skip
BRACES = Style(
    "<think>\n", "\n</think>\n\n",
    '<tool_call>\n{"name": "look_up", "arguments": {"fact": "%(fact)s", "name": "%(name)s"}}\n</tool_call>',
    r'<tool_call>\n\{"name": "look_up", "arguments": \{"fact": "([^"]+)", "name": "([^"]+)"\}\}\n</tool_call>',
)  # fmt: skip


def calling(fact: str, name: str) -> Message:
    """Return an assistant message that looks a fact up."""
    function = {"name": TOOL, "arguments": {"fact": fact, "name": name}}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function}],
    }


def parts(messages: Sequence[Mapping[str, Any]], style: Style) -> list[Part]:
    """Return the text of a conversation in parts, each with whether it is trained."""
    asked = max(n for n, message in enumerate(messages) if message["role"] == "user")
    found: list[Part] = []
    for n, message in enumerate(messages):
        thought = message.get("reasoning_content")
        before = style.thought(thought) if thought and n > asked else ""
        lines = [message["content"]] if message.get("content") else []
        lines += [style.call(call) for call in message.get("tool_calls") or []]
        trained = message["role"] == "assistant" and message.get("weight") != 0
        found += [
            (f"{START}{message['role']}\n", False),
            (before + "\n".join(lines) + END, trained),
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


def prompt(tokenizer, messages: Sequence[Mapping[str, Any]], style: Style, begun: str = "") -> list[int]:  # fmt: skip
    """Return the token ids of a conversation and of the header of the next answer, and its beginning."""
    header = [(f"{START}assistant\n", False), (begun, False)]
    return encoded(tokenizer, [*parts(messages, style), *header]).input_ids


def answer_with_tools(
    ask: Callable[[list[Message]], Message],
    tools: Mapping[str, Callable[..., Any]],
    question: str,
    most: int,
) -> list[Message]:
    """Return the conversation in which ``ask`` answers a question with the help of tools."""
    messages: list[Message] = [{"role": "user", "content": question}]
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
