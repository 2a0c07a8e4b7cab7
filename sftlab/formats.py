"""Recognize the shape of a row of training data and convert it to a conversation.

| shape | keys |
|---|---|
| messages | ``messages``: a list of ``role`` and ``content`` (OpenAI, TRL) |
| ShareGPT | ``conversations``: a list of ``from`` and ``value`` |
| pair | one prompt column and one response column: ``prompt`` and ``response`` or ``completion``, ``question`` and ``answer``, Alpaca's ``instruction``, ``input`` and ``output``, ... |
| conversational pair | ``prompt`` and ``completion`` are lists of messages (TRL) |
| batch request | one of these with ``messages``, in ``body`` (OpenAI) or ``params`` (Anthropic) |

Every key with a value is used as the tools that introduced it mean it, refused by name, or reported
as not used. What several readings fit is an error that names the setting of ``DataConfig`` that
decides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sftlab._internal.ranges import check_whole
from sftlab.chat import Message, validate
from sftlab.errors import WorkbookError
from sftlab.rows import read_rows

SHOWN = 10  # problems, and places of each, that a message lists
LISTS = (
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "turns",
    "chat",
    "contents",
)
PROMPTS = ("prompt", "instruction", "question", "query", "problem", "user", "human", "input")
RESPONSES = ("response", "completion", "output", "answer", "solution", "assistant", "target")
# If exactly one of these pairs is there, other columns are no rivals.
KNOWN_PAIRS = (("prompt", "response"), ("prompt", "completion"), ("instruction", "output"))
ADDITIONS = ("input", "context")  # appended to the prompt if another column is the prompt
SYSTEMS = ("system", "system_prompt")
TOOLS = ("tools", "functions")
BATCHES = ("body", "params")  # where a request of a batch holds its messages
PREFERENCES = ("chosen", "rejected", "preferred_output", "non_preferred_output")
NOT_TEXT = ("image", "images", "audio", "audios", "video", "videos")
SPANS = ("train_detail", "loss_scale", "labels", "input_ids", "assistant_masks", "completion_mask")
WEIGHTS = ("weight", "train", "loss", "training", "train_on_turn")
# Arguments of apply_chat_template that are not options of a template.
RESERVED = (
    "add_generation_prompt", "bos_token", "chat_template", "continue_final_message", "conversation", "eos_token",
    "max_length", "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize",
    "tokenizer", "tokenizer_kwargs", "tools", "truncation",
)  # fmt: skip

ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "ai": "assistant", "bing": "assistant", "bard": "assistant", "function": "tool",
    "observation": "tool", "tool_response": "tool", "function_response": "tool", "ipython": "tool",
    "function_call": "assistant", "tool_call": "assistant",
}  # fmt: skip
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool")
CALLS = ("function_call", "tool_call")  # in ShareGPT, roles of a message that is a tool call
# Keys of a message that chat templates may write, besides role and content.
MESSAGE_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "reasoning", "thinking")

CHOICES = {
    "two_in_turn": ("error", "join"),
    "assistant_first": ("error", "drop_message", "drop_row"),
    "user_last": ("error", "drop_message", "drop_row"),
    "empty_answer": ("error", "drop_row"),
    "answers": ("auto", "all", "last", "each"),
    "too_long": ("error", "drop_row"),
}
ALSO = {"drop": "drop_row"}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Settings that decide how rows become examples. The defaults refuse what is ambiguous."""

    prompt_column: str | None = None  # names of the columns, where they cannot be recognized
    response_column: str | None = None
    two_in_turn: str = "error"  # two messages of one role in turn: or "join" with an empty line
    assistant_first: str = "error"  # the assistant begins: or "drop_message", "drop_row"
    user_last: str = "error"  # no answer at the end: or "drop_message", "drop_row"
    empty_answer: str = "error"  # or "drop_row"
    # Which answers of a conversation are trained: "all" in one example, the "last" only, or "each"
    # in an example of its own, with the conversation before it as at inference. "auto" is "all" if
    # the chat template allows it, otherwise "each".
    answers: str = "auto"
    max_length: int | None = None  # tokens of an example; None: the positions of the model
    too_long: str = "error"  # a longer example: or "drop_row"; never cut
    chat_template_path: str | None = None  # a template for training only; the model keeps its own

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if ALSO.get(value, value) not in choices:
                listed = ", ".join(f'"{choice}"' for choice in choices)
                raise WorkbookError(f"{name} is {value!r}; use one of {listed}")
            if value in ALSO:
                object.__setattr__(self, name, ALSO[value])
        if self.max_length is not None:
            check_whole("max_length", self.max_length, 1)
        if (self.prompt_column is None) != (self.response_column is None):
            raise WorkbookError("prompt_column and response_column belong together; give both")
        if self.prompt_column and self.prompt_column == self.response_column:
            raise WorkbookError(f"prompt_column and response_column are both {self.prompt_column!r}; name two columns")  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    """Messages in the form that chat templates read, and what is trained."""

    messages: list[Message]
    trained: list[bool]  # for each message; only answers can be trained
    tools: list | None = None  # descriptions of functions, for the chat template
    template_options: dict = field(default_factory=dict)
    place: str = ""  # such as "line 3"


class Dropped(Exception):
    """A row is left out because a setting says so; the text is the reason."""


@dataclass
class ReadingReport:
    """What was read, converted, left out and refused in a file."""

    path: str
    rows: int = 0
    shapes: Counter[str] = field(default_factory=Counter)  # shape -> rows
    notes: Counter[str] = field(default_factory=Counter)  # conversion -> rows; 0: of the file
    unknown: Counter[str] = field(default_factory=Counter)  # key that is not used -> rows
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    problems: int = 0  # rows that cannot be used
    kinds: dict[str, list[str]] = field(default_factory=dict)  # problem -> the first places
    counts: Counter[str] = field(default_factory=Counter)  # problem -> rows; of the first ones

    def refuse(self, place: str, problem: object) -> None:
        """Note a row that cannot be used."""
        self.problems += 1
        text = str(problem)
        if text in self.kinds or len(self.kinds) < SHOWN:
            self.counts[text] += 1
            if len(places := self.kinds.setdefault(text, [])) < SHOWN:
                places.append(place)

    def refusals(self) -> list[str]:
        """Return one line for each of the first ten problems, with the places of the first rows."""
        lines = [
            f"{', '.join(places)}{f' … ({count} rows)' if (count := self.counts[problem]) > len(places) else ''}: {problem}"
            for problem, places in self.kinds.items()
        ]  # fmt: skip
        more = self.problems - sum(self.counts.values())
        return lines + ([f"and {more} more"] if more else [])

    def conversions(self) -> list[str]:
        """Return one line for each conversion, and for what was dropped or is not used."""
        shapes = [
            shape if count == self.rows else f"{count} × {shape}"
            for shape, count in self.shapes.most_common()
        ]
        lines = [f"{rows_(self.rows)}: {', '.join(shapes) or 'none can be used'}"]
        lines += [f"{note} ({rows_(rows)})" if rows else note for note, rows in self.notes.items()]
        lines += [f"{rows_(rows)} left out: {reason}" for reason, rows in self.dropped.items()]
        if self.unknown:
            lines.append("not used: " + self.unused())
        return lines

    def unused(self) -> str:
        return ", ".join(f"{key} ({rows_(rows)})" for key, rows in self.unknown.most_common())

    def raise_if_refused(self) -> None:
        """Raise WorkbookError if a row cannot be used or none is left."""
        if self.problems == 1:
            raise WorkbookError(f"{self.path}, {self.refusals()[0]}")
        if self.problems:
            shown = "\n  ".join(
                [
                    f"{self.path}: {self.problems} of {self.rows} rows cannot be used:",
                    *self.refusals(),
                ]
            )
            raise WorkbookError(shown)
        if not self.rows:
            raise WorkbookError(f"{self.path} has no rows; expected one JSON object per line")
        if self.rows == sum(self.dropped.values()):
            raise WorkbookError(f"{self.path}: all {self.rows} rows are left out ({', '.join(self.dropped)}); there is nothing to train on")  # fmt: skip


def read_conversations(
    path: str | Path, config: DataConfig, report: ReadingReport, prompts_only: bool = False
) -> Iterator[Conversation]:
    """Yield the conversations of a file; note in ``report`` what was done and what is refused.

    Args:
        prompts_only: a response may be missing, as in a file of held-out questions.

    Raises:
        WorkbookError: the file cannot be read at all.
    """
    notes: list[str] = []
    for place, row in read_rows(path, notes):
        report.rows += 1
        try:
            if isinstance(row, WorkbookError):
                raise row
            yield _converted(row, place, config, report, prompts_only)
        except Dropped as reason:
            report.dropped[str(reason)] += 1
        except WorkbookError as problem:
            report.refuse(place, problem)
    report.notes.update(dict.fromkeys(notes, 0))


def _converted(
    row: dict, place: str, config: DataConfig, report: ReadingReport, prompts_only: bool = False
) -> Conversation:
    """Return the conversation of a row; count its shape, conversions and unused keys."""
    reader = _Reader(row, config)
    messages, trained = reader.arranged(reader.messages(prompts_only), prompts_only)
    if not prompts_only:
        validate(messages, place="")
        if not any(trained):
            raise WorkbookError("no answer is trained: every weight is 0; leave the row out")
    report.shapes[reader.shape] += 1
    report.notes.update(dict.fromkeys(reader.notes, 1))
    report.unknown.update(dict.fromkeys(sorted(reader.unknown), 1))
    return Conversation(messages, trained, reader.tools, reader.options, place)


class _Reader:
    """Reads one row: ``shape``, ``notes``, ``unknown`` say how."""

    def __init__(self, row: dict, config: DataConfig):
        self.config = config
        self.notes: list[str] = []
        for name in BATCHES:
            if isinstance(request := row.get(name), dict) and "messages" in request:
                if both := [key for key in request if key in row]:
                    raise WorkbookError(f'both "{both[0]}" and "{both[0]}" in "{name}"; keep one of them')  # fmt: skip
                row = {key: value for key, value in row.items() if key != name} | request
                self.notes.append(f'the request of a batch ("{name}") is read as the row')
        self.row = {name: value for name, value in row.items() if value is not None}
        self.null = [name for name, value in row.items() if value is None]
        self.left = dict(self.row)  # keys not used yet
        self.unknown: set[str] = set()
        self.shape = ""
        self.tools: list | None = None
        self.options: dict = {}

    def messages(self, prompts_only: bool) -> list[dict]:
        self._refuse_by_name()
        lists = [name for name in LISTS if isinstance(self.row.get(name), list)]
        given = [name for name in LISTS if name in self.row]
        if self.config.prompt_column:
            found = self._pair(self.config.prompt_column, self.config.response_column, prompts_only)
        elif len(lists) > 1:
            raise WorkbookError(f'both "{lists[0]}" and "{lists[1]}"; which of them is trained? remove one')  # fmt: skip
        elif lists:
            if clash := [
                n for n in (*PROMPTS, *RESPONSES) if n in self.left and n not in ADDITIONS
            ]:
                raise WorkbookError(f'both "{lists[0]}" and "{clash[0]}"; which of them is trained? remove one')  # fmt: skip
            sharegpt = any(isinstance(m, dict) and "from" in m for m in self.row[lists[0]])
            self.shape = "ShareGPT → messages" if sharegpt else "messages"
            found = self._list(self.left.pop(lists[0]))
        elif given or (null := [name for name in LISTS if name in self.null]):
            given = given or null
            raise WorkbookError(
                f'the messages must be a list of {{"role": ..., "content": ...}}, but "{given[0]}" is of type {type(self.row.get(given[0])).__name__}'
            )
        else:
            found = self._pair(*self._columns(prompts_only), prompts_only)
        found = self._around(found)
        self.unknown |= {
            f'"{name}"' for name, value in self.left.items() if value not in ("", [], {})
        }
        return found

    def _refuse_by_name(self) -> None:
        for name in NOT_TEXT:
            if self.left.get(name):
                raise WorkbookError(f'"{name}": only text is trained here; remove the row')
        for name in PREFERENCES:
            if name in self.left:
                raise WorkbookError(
                    f'"{name}": a row of preferences; for SFT write the chosen answer as "response"'
                )
        if isinstance(self.left.get("label"), bool):
            raise WorkbookError('"label": a row of preferences (KTO); for SFT keep the good answers only')  # fmt: skip
        for name in SPANS:
            if name in self.left:
                raise WorkbookError(f'"{name}": tokens and spans chosen elsewhere are not used here; give the messages, with "weight" 0 for what is not trained')  # fmt: skip
        for name in WEIGHTS:
            if name in self.left and _weight(name, self.left.pop(name)) is False:
                raise WorkbookError(f'"{name}" of the row says that it is not trained; remove the row')  # fmt: skip

    def _columns(self, prompts_only: bool) -> tuple[str, str | None]:
        keys = [*self.row, *self.null]
        whole = [pair for pair in KNOWN_PAIRS if set(pair) <= set(keys)]
        if len(whole) == 1:
            return whole[0]
        prompts = [name for name in PROMPTS if name in keys]
        if len(prompts) > 1 and "input" in prompts:
            prompts.remove("input")
        responses = [name for name in RESPONSES if name in keys]
        if "output" in responses and "input" in prompts and len(responses) > 1:
            responses.remove("output")
        for kind, found, missing in (
            ("prompt", prompts, "prompt"),
            ("response", responses, "response"),
        ):
            if len(found) > 1:
                raise WorkbookError(
                    f'both "{found[0]}" and "{found[1]}"; say with prompt_column and '
                    f"response_column which column is the {kind}"
                )
            if not found and not (kind == "response" and prompts_only):
                text = ' "text" alone is no conversation;' if "text" in keys else ""
                raise WorkbookError(
                    f'no "{missing}";{text} expected "messages", or "prompt" and "response" (or other '
                    f"names: prompt_column, response_column) (found: {', '.join(keys) or 'nothing'})"
                )
        return prompts[0], responses[0] if responses else None

    def _pair(self, prompt: str, response: str | None, prompts_only: bool) -> list[dict]:
        asked = self._text_or_list(prompt, "user")
        answered = []
        if response is not None and not (prompts_only and response not in self.row):
            answered = self._text_or_list(response, "assistant")
        conversational = isinstance(self.row[prompt], list)
        alpaca = prompt == "instruction" and response == "output"
        names = f'"{prompt}"' + (f' and "{response}"' if response else "")
        self.shape = (
            "prompt and response" if (prompt, response) == ("prompt", "response")
            else f"{names}, lists of messages → messages" if conversational
            else "Alpaca → messages" if alpaca
            else f"{names} → user and assistant"
        )  # fmt: skip
        for name in ADDITIONS:
            if name != prompt and name != response and name in self.left and not conversational:
                text = self.left.pop(name)
                if not isinstance(text, str):
                    raise WorkbookError(f'"{name}" is of type {type(text).__name__}; expected text')
                if text.strip():
                    asked[-1]["content"] += "\n\n" + text
                    self.notes.append(f'"{name}" is appended to "{prompt}" after an empty line')
        if conversational:  # as in TRL, only the completion is trained
            for message in asked:
                if message["role"] == "assistant":
                    message["weight"] = False
                    self.notes.append("answers inside the prompt are not trained")
        return asked + answered

    def _text_or_list(self, name: str, role: str) -> list[dict]:
        if name in self.null or name not in self.row:
            what = "is null" if name in self.null else "is missing"
            raise WorkbookError(f'"{name}" {what}; expected text (found: {", ".join(self.row) or "nothing"})')  # fmt: skip
        value = self.left.pop(name)
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            if "text" in value[0] and "role" not in value[0]:  # parts
                return [{"role": role, "content": self._content(value)}]
            return self._list(value)
        if isinstance(value, dict) and role == "assistant" and "role" in value:
            return self._list([value])
        if not isinstance(value, str):
            raise WorkbookError(f'"{name}" is of type {type(value).__name__}; expected text')
        return [{"role": role, "content": value}]

    def _list(self, given: list) -> list[dict]:
        if not all(isinstance(message, dict) for message in given):
            raise WorkbookError('the messages must be a list of {"role": ..., "content": ...}')
        found = []
        for number, message in enumerate(given, 1):
            try:
                found.append(self._message(message))
            except WorkbookError as error:
                raise WorkbookError(f"message {number}: {error}") from None
        return found

    def _message(self, given: dict) -> dict:
        left = {name: value for name, value in given.items() if value is not None}
        role = left.pop("role", None) if "role" in left else left.pop("from", None)
        if not isinstance(role, str):
            raise WorkbookError(f'no "role" (found: {", ".join(given) or "nothing"})')
        plain = role.strip().lower()
        renamed = ROLES.get(plain, plain)
        if renamed not in KNOWN_ROLES:
            raise WorkbookError(
                f'the role "{role}" is unknown; use one of {", ".join(KNOWN_ROLES)}'
            )
        if renamed != role:
            self.notes.append(f'the role "{role}" is read as "{renamed}"')
        content = next((left.pop(n) for n in ("content", "value", "text", "parts") if n in left), None)  # fmt: skip
        message: dict[str, Any] = {"role": renamed, "content": self._content(content)}
        if message["content"] is None and renamed == "assistant":
            message["content"] = ""  # with a tool call, or an empty answer
        if plain in CALLS:
            called = _json(message["content"], plain)
            left["tool_calls"] = called if isinstance(called, list) else [called]
            message["content"] = ""
        if "function_call" in left:
            left["tool_calls"] = [_json(left.pop("function_call"), "function_call")]
        if left.get("tool_calls"):
            message["tool_calls"] = self._calls(left.pop("tool_calls"))
        for name in MESSAGE_KEYS:
            if left.get(name):
                message[name] = left.pop(name)
        weights = {name: _weight(name, left.pop(name)) for name in WEIGHTS if name in left}
        if len(set(weights.values())) > 1:
            raise WorkbookError(f"{' and '.join(weights)} contradict each other")
        if weights:
            trained = next(iter(weights.values()))
            if trained and renamed != "assistant":
                raise WorkbookError(
                    f'"{next(iter(weights))}" asks to train a message of the {renamed}; only the assistant\'s are'
                )
            message["weight"] = trained
        for name in (*SPANS, *NOT_TEXT, "refusal", "audio"):
            if left.get(name):
                raise WorkbookError(f'"{name}" is not used here; remove it or the row')
        self.unknown |= {f'"{name}" of a message' for name, value in left.items() if value not in ("", [], {})}  # fmt: skip
        return message

    def _calls(self, calls: Any) -> list:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise WorkbookError(
                '"tool_calls" must be a list of {"type": "function", "function": ...}'
            )
        found = []
        for call in calls:
            function = call.get("function", call)
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                self.notes.append("arguments of tool calls are read from JSON text")
            found.append(_call(call))
            for part, known in (
                (call, ("id", "type", "function", "name", "arguments")),
                (function, ("name", "arguments")),
            ):
                if part is not call or "function" in call:
                    self.unknown |= {
                        f'"{key}" of a tool call'
                        for key in part
                        if key not in known and part[key] is not None
                    }
        return found

    def _content(self, content: Any) -> Any:
        """Return the text of a content that is given as parts."""
        if not isinstance(content, list):
            return content
        texts = []
        for part in content:
            text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None  # fmt: skip
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
                raise WorkbookError(f'its content has a part of type "{kind}"; only text is trained here')  # fmt: skip
            texts.append(text)
        self.notes.append("contents in parts are joined")
        return "\n".join(texts)

    def _around(self, messages: list[dict]) -> list[dict]:
        """Add what stands beside the messages: system, history, tools, template options."""
        history = self.left.pop("history", None) or []
        if history:
            messages = self._history(history) + messages
            self.notes.append('"history" precedes the prompt; its answers are trained too')
        for name in SYSTEMS:
            text = self.left.pop(name, None)
            if isinstance(text, str) and text.strip():
                if messages and messages[0]["role"] == "system":
                    raise WorkbookError(f'both "{name}" and a system message; keep one of them')
                messages = [{"role": "system", "content": text}, *messages]
                self.notes.append(f'"{name}" is the system message')
            elif text not in (None, ""):
                raise WorkbookError(f'"{name}" is of type {type(text).__name__}; expected text')
        if all(self.left.get(name) for name in TOOLS):
            raise WorkbookError('both "tools" and "functions"; keep one of them')
        for name in TOOLS:
            tools = self.left.pop(name, None)
            tools = _json(tools, name) if isinstance(tools, str) and tools.strip() else tools
            if tools:
                if not isinstance(tools, list) or not all(isinstance(t, dict) for t in tools):
                    raise WorkbookError(f'"{name}" must be a list of descriptions of functions')
                self.tools = [t if "function" in t or "type" in t else {"type": "function", "function": t} for t in tools]  # fmt: skip
        options = self.left.pop("chat_template_kwargs", None)
        if options:
            if not isinstance(options, dict):
                raise WorkbookError('"chat_template_kwargs" must be an object')
            if reserved := [name for name in options if name in RESERVED]:
                raise WorkbookError(f'"{reserved[0]}" in chat_template_kwargs is no option of a template; remove it')  # fmt: skip
            self.options = options
        return messages

    def _history(self, history: Any) -> list[dict]:
        if isinstance(history, list) and all(isinstance(turn, dict) for turn in history):
            return self._list(history)
        pairs = isinstance(history, list) and all(
            isinstance(turn, list) and len(turn) == 2 for turn in history
        )
        if not pairs:
            raise WorkbookError('"history" must be a list of [question, answer] or of messages')
        roles = ("user", "assistant")
        return [{"role": r, "content": c} for turn in history for r, c in zip(roles, turn, strict=True)]  # fmt: skip

    # --- Order of the messages -------------------------------------------------------------------
    def arranged(self, messages: list[Any], prompts_only: bool) -> tuple[list[Message], list[bool]]:
        """Return the messages in an order that can be trained, and which of them are trained."""
        for message in messages:
            message["trained"] = message.pop("weight", True) and message["role"] == "assistant"
        if messages and messages[0]["role"] == "system" and messages[0]["content"] == "":
            messages = messages[1:]
            self.notes.append("an empty system message is left out")
        messages = self._joined(messages)
        start = next((i for i, m in enumerate(messages) if m["role"] not in ("system", "developer")), 0)  # fmt: skip
        if messages and messages[start]["role"] == "assistant" and not prompts_only:
            self._decide("assistant_first", "the first message comes from the assistant")
            end = next((i for i, m in enumerate(messages) if m["role"] == "user"), len(messages))
            messages = messages[:start] + messages[end:]
            self.notes.append("a first message of the assistant is left out")
        if messages and messages[-1]["role"] != "assistant" and not prompts_only:
            what = f"the last message comes from the {messages[-1]['role']}, so there is nothing to train after it"  # fmt: skip
            self._decide("user_last", what)
            while messages and messages[-1]["role"] != "assistant":
                messages = messages[:-1]
            self.notes.append("messages after the last answer are left out")
            if not messages:
                raise WorkbookError("there is no answer in it; remove the row")
        for number, message in enumerate(messages, 1):
            empty = isinstance(message["content"], str) and not message["content"].strip()
            if empty and message["role"] == "assistant" and "tool_calls" not in message:
                self._decide("empty_answer", f"message {number} (assistant) is empty")
        trained = [message.pop("trained") for message in messages]
        return messages, trained

    def _joined(self, messages: list[dict]) -> list[Any]:
        found: list[dict] = []
        for number, message in enumerate(messages, 1):
            before = found[-1] if found else None
            if before and before["role"] == message["role"] != "tool":
                what = f"messages {number - 1} and {number} both come from the {message['role']}"
                texts = (before["content"], message["content"])
                if before["trained"] != message["trained"] or not all(isinstance(t, str) for t in texts):  # fmt: skip
                    raise WorkbookError(f"{what}, and only one of them is trained or has text; edit the row")  # fmt: skip
                self._decide("two_in_turn", what)
                found[-1] = {**before, **message, "content": "\n\n".join(texts)}
                self.notes.append("messages of one role in turn are joined with an empty line")
            else:
                found.append(message)
        return found

    def _decide(self, setting: str, what: str) -> None:
        """Raise an error or ``Dropped``, or return, as a setting says."""
        value = getattr(self.config, setting)
        if value == "drop_row":
            raise Dropped(f'{setting} = "drop_row"')
        if value == "error":
            others = " or ".join(f'"{c}"' for c in CHOICES[setting][1:])
            raise WorkbookError(f"{what}; edit the row, or set {setting} to {others}")


def rows_(count: int) -> str:
    return f"{count} row" + "s" * (count != 1)


def _weight(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in (
        "0",
        "1",
        "false",
        "true",
    ):  # of a table
        return value.strip().lower() in ("1", "true")
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise WorkbookError(
        f'"{name}" is {json.dumps(value, default=str)}; only 0 and 1 (not trained, trained) are known'
    )


def _json(text: Any, name: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise WorkbookError(f'"{name}" is not valid JSON: {text[:60]!r}') from None


def _call(call: Any) -> dict:
    """Return a tool call in the form that chat templates read: arguments as an object."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise WorkbookError("a tool call has no name of a function")
    arguments = _json(function.get("arguments", {}), "arguments")
    found = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return found | ({"id": call["id"]} if call.get("id") else {})


SETTINGS = tuple(f.name for f in fields(DataConfig))
