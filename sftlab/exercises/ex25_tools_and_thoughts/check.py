"""Checks of notebook 25: what is trained of a conversation, a loop with tools, and an answer behind a thought."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    BRACES,
    END,
    START,
    WORDS,
    answer_with_tools,
    calling,
    parts,
    split_thought,
)

PARTS, LOOP, SPLIT = "25.parts", "25.answer_with_tools", "25.split_thought"

# --- parts ---------------------------------------------------------------------------------


def _user(text: str) -> dict:
    return {"role": "user", "content": text}


def _said(text: str, **more: Any) -> dict:
    return {"role": "assistant", "content": text, **more}


def _result(text: str) -> dict:
    return {"role": "tool", "content": text}


def _two_calls() -> dict:
    first, second = calling("capital", "Samoa"), calling("language", "Samoa")
    return first | {"content": "Both.", "tool_calls": first["tool_calls"] + second["tool_calls"]}


def _written(
    messages: list[dict],
    style: Any,
    trained: Callable[[dict], bool] = lambda m: m["role"] == "assistant" and m.get("weight") != 0,
    kept: Callable[[int, int, int], bool] = lambda n, asked, count: n > asked,
    order: str = "tmc",
    between: str = "\n",
    behind: str = "",
    calls: slice = slice(None),
    layout: Callable[[str, str, bool], list] | None = None,
) -> list:
    """Write a conversation as ``parts`` does, but for one decision."""
    asked = max(n for n, message in enumerate(messages) if message["role"] == "user")
    found: list = []
    for n, message in enumerate(messages):
        thought = message.get("reasoning_content")
        pieces = {
            "t": [style.thought(thought) + behind]
            if thought and kept(n, asked, len(messages))
            else [],
            "m": [message["content"]] if message.get("content") else [],
            "c": [style.call(call) for call in (message.get("tool_calls") or [])[calls]],
        }
        if order == "tmc":
            text = "".join(pieces["t"]) + between.join(pieces["m"] + pieces["c"])
        else:
            text = between.join(piece for key in order for piece in pieces[key])
        on = bool(trained(message))
        if layout:
            found += layout(message["role"], text, on)
        else:
            found += [(f"{START}{message['role']}\n", False), (text + END, on), ("\n", False)]
    return found


def _wrong_parts(message: str, **settings: Any) -> None:
    mistake(PARTS, message)(lambda messages, style: _written(messages, style, **settings))


_wrong_parts("The results of tools are trained. They come from outside: the model never has to write them.",
             trained=lambda m: m["role"] in ("assistant", "tool") and m.get("weight") != 0)  # fmt: skip
_wrong_parts("Messages of weight 0 are trained. An answer of weight 0 is read by the model and not trained.",
             trained=lambda m: m["role"] == "assistant")  # fmt: skip
_wrong_parts("Messages that aren't answers are trained if they have a weight. Only the assistant's are.",
             trained=lambda m: m.get("weight", int(m["role"] == "assistant")) != 0)  # fmt: skip
_wrong_parts("Only messages with a weight are trained. An answer without one counts as trained.",
             trained=lambda m: m["role"] == "assistant" and m.get("weight"))  # fmt: skip
_wrong_parts("A weight that is None counts as 0. None stands for a missing key, so the message is trained.",
             trained=lambda m: m["role"] == "assistant" and m.get("weight", 1))  # fmt: skip
_wrong_parts("Messages with calls are not trained. A call is what the model should learn to write.",
             trained=lambda m: m["role"] == "assistant" and m.get("weight") != 0 and not m.get("tool_calls"))  # fmt: skip
_wrong_parts("Only messages with calls are trained. The other answers are trained as well.",
             trained=lambda m: m.get("weight") != 0 and m.get("tool_calls"))  # fmt: skip
_wrong_parts("Nothing is trained. True stands for a part that is.", trained=lambda m: False)
_wrong_parts("All thoughts are written. Those before the last user message are left out.",
             kept=lambda n, asked, count: True)  # fmt: skip
_wrong_parts("No thought is written. Those behind the last user message are.",
             kept=lambda n, asked, count: False)  # fmt: skip
_wrong_parts("A thought before a call is missing, though no user message follows it. Only a message of role user ends the turn, a result does not.",
             kept=lambda n, asked, count: n == count - 1)  # fmt: skip
_wrong_parts("The thought stands behind the content. The model thinks before it answers.", order="mtc", between="")  # fmt: skip
_wrong_parts("The calls stand before the content. They are the last of a message.", order="tcm")
_wrong_parts("Content and calls stand in one line. A line break joins them.", between="")
_wrong_parts("A line break stands behind the thought. style.thought has all that belongs to it.", behind="\n")  # fmt: skip
_wrong_parts("Only the first call of a message is written. It may have several.", calls=slice(1))
_wrong_parts("The content is missing beside calls. A message may have both.", order="tc")
_wrong_parts(
    "<|im_end|> stands in the third part and is not trained. The model has to write it, to stop.",
    layout=lambda role, text, on: [(f"{START}{role}\n", False), (text, on), (f"{END}\n", False)],
)
_wrong_parts(
    "The header of answers is trained. At inference it is a part of the prompt.",
    layout=lambda role, text, on: [(f"{START}{role}\n", on), (text + END, on), ("\n", False)],
)
_wrong_parts(
    "The line break behind <|im_end|> is trained. The model stops before it.",
    layout=lambda role, text, on: [(f"{START}{role}\n", False), (text + END, on), ("\n", on)],
)
_wrong_parts(
    "The line break behind a message is missing.",
    layout=lambda role, text, on: [(f"{START}{role}\n", False), (text + END, on)],
)
_wrong_parts(
    "The line break of the header is missing.",
    layout=lambda role, text, on: [(f"{START}{role}", False), (text + END, on), ("\n", False)],
)


def _parts_case(
    rule: str, remark: str, messages: Callable[[], list[dict]], style: Any = WORDS
) -> Case:
    return Case(
        f"`parts(messages, style)`: {remark}", lambda: (messages(), style), parts, rule=rule
    )


def _traced() -> list[dict]:
    return [
        {"role": "system", "content": "Be brief."},
        _user("What is the capital of Samoa?"),
        calling("capital", "Samoa"),
        _result("Apia"),
        _said("Apia."),
    ]


PARTS_CASES = (
    _parts_case("pairs", "a question and an answer", lambda: [_user("What does the owl eat?"), _said("Mice.")]),
    _parts_case("trained", "a call and its result", _traced),
    _parts_case(
        "trained",
        "weights 0 and 1",
        lambda: [_user("Hello!"), _said("Next comes May.", weight=0), _user("Hello?") | {"weight": 1}, _said("Hello.", weight=1)],
    ),
    _parts_case(
        "text",
        "a thought, a content and two calls in one message",
        lambda: [_user("Tell me about Samoa."), _two_calls() | {"reasoning_content": "I look it up."}],
    ),
    _parts_case("text", "another style", lambda: [*_traced()[:-1], _said("Apia.", reasoning_content="I read it.")], BRACES),
    _parts_case(
        "thought",
        "two turns with thoughts",
        lambda: [
            _user("3 plus 4?"),
            _said("7.", reasoning_content="3, 4."),
            _user("And 2?"),
            _said("9.", reasoning_content="7, 2."),
        ],
    ),
    _parts_case(
        "thought",
        "a thought before a call",
        lambda: [
            _user("The capital of Samoa?"),
            calling("capital", "Samoa") | {"reasoning_content": "I never read it."},
            _result("Apia"),
            _said("Apia.", reasoning_content="I read it."),
        ],
    ),
    _parts_case(
        "absent",
        "keys whose value is None",
        lambda: [
            _user("Hello!"),
            _said("Hello.", weight=None, tool_calls=None, reasoning_content=None),
            _user("The capital of Samoa?"),
            calling("capital", "Samoa") | {"content": None},
        ],
    ),
)  # fmt: skip


def _draw_parts(rng: random.Random, *_: object) -> tuple:
    messages: list[dict] = []
    for turn in range(rng.randint(1, 3)):
        messages.append(_user(f"Question {turn}?"))
        if rng.random() < 0.5:
            call = calling(rng.choice(("capital", "language")), rng.choice(("Samoa", "Peru")))
            messages += [call, _result(rng.choice(("Apia", "Lima")))]
            if rng.random() < 0.5:
                call["reasoning_content"] = "I look."
        answer = _said(f"Answer {turn}.")
        if rng.random() < 0.5:
            answer["reasoning_content"] = f"Thought {turn}."
        if rng.random() < 0.4:
            answer["weight"] = rng.choice((0, 1))
        messages.append(answer)
    return messages, WORDS


# --- answer_with_tools ---------------------------------------------------------------------

FACTS: dict[tuple[str, str], Any] = {
    ("capital", "Samoa"): "Apia", ("language", "Samoa"): "Samoan", ("islands", "Samoa"): 9, ("bridges", "Samoa"): 0,
}  # fmt: skip


def _look_up(fact: str, name: str) -> Any:
    return FACTS[fact, name]


def _add(a: int, b: int) -> int:
    if not isinstance(a, int):
        raise ValueError(f"{a!r} is no whole number")
    return a + b


def _adding(*numbers: Any) -> dict:
    """Return a call of the second tool; with three numbers one that it does not take."""
    arguments = dict(zip("abc", numbers, strict=False))
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    return _said("", tool_calls=[call])


class _Replies:
    """A model that gives one reply after the other, and names all results in its text."""

    def __init__(self, *replies: dict):
        self.replies = replies
        self.asked = 0

    def __call__(self, messages: list[dict]) -> dict:
        self.asked += 1
        if not messages or messages[0].get("role") != "user":
            return _said("Where is the question?")
        count = sum(message["role"] == "assistant" for message in messages)
        reply = dict(self.replies[min(count, len(self.replies) - 1)])
        results = [message["content"] for message in messages if message["role"] == "tool"]
        reply["content"] = reply["content"].replace("RESULTS", ", ".join(map(str, results)))
        return reply

    def __repr__(self) -> str:
        return "ask"


def _told(result: Any, given: tuple) -> dict:
    """Return the messages, of results only role and content, and how often the model was asked.

    Of a content that begins with "error", only that counts.
    """
    found = []
    for message in result:
        message = dict(message)
        if message.get("role") == "tool":
            content = message.get("content")
            failed = str(content).lower().startswith("error")
            message = {"role": "tool", "content": "error" if failed else content}
        found.append(message)
    return {"messages": found, "times asked": given[0].asked}


def _loop(ask, tools, question, most, *, context: Callable[[list], list] = list, calls: slice = slice(None),
          text: Callable[[Any], Any] = str, more: int = 0, keep: bool = True, last: bool = True,
          catch: type[BaseException] | tuple = Exception, error: str = "error", stop: bool = False, go_on: bool = False) -> list:  # fmt: skip
    """Hold a conversation with tools as ``answer_with_tools`` does, but for one decision."""
    messages = [_user(question)]
    for round_ in range(most + more):
        reply = ask(context(messages))
        if keep or not reply.get("tool_calls"):
            messages.append(reply)
        if not reply.get("tool_calls") and not go_on:
            break
        if not last and round_ == most - 1:
            break
        for call in (reply.get("tool_calls") or [])[calls]:
            try:
                result = text(tools[call["function"]["name"]](**call["function"]["arguments"]))
            except catch:
                result = error
                if stop:
                    return messages
            messages.append(_result(result))
    return messages


def _wrong_loop(message: str, **settings: Any) -> None:
    mistake(LOOP, message)(
        lambda ask, tools, question, most: _loop(ask, tools, question, most, **settings)
    )


_wrong_loop("The model is asked again after a reply without calls. Such a reply is the answer, and ends the conversation.", go_on=True)  # fmt: skip
_wrong_loop("The model is asked with the question alone each time. It has to read its own call and the result.",
            context=lambda messages: messages[:1])  # fmt: skip
_wrong_loop("The model does not read the results: ask gets the messages without those of the tool.",
            context=lambda messages: [m for m in messages if m["role"] != "tool"])  # fmt: skip
_wrong_loop("Only the first call of a reply is answered. Each call has its result.", calls=slice(1))
_wrong_loop("The content of a result is not a text. Messages hold texts: use str.", text=lambda value: value)  # fmt: skip
_wrong_loop("A result that counts as false, such as 0, is taken for a failure. Only an error is one.", text=lambda value: str(value) if value else "error")  # fmt: skip
_wrong_loop("Only a KeyError is caught. A tool may raise any error, and the model writes wrong arguments, too.", catch=KeyError, error="error")  # fmt: skip
_wrong_loop("ask is called once more than `most` allows.", more=1)
_wrong_loop("ask is called once less than `most` allows.", more=-1)
_wrong_loop("The replies with calls are missing. The conversation holds every reply.", keep=False)
_wrong_loop("The calls of the last reply have no results. They are answered as well.", last=False)
_wrong_loop("The conversation ends at an error. The model should read it, and go on.", stop=True)
_wrong_loop("The result of a failed call is empty. It begins with \"error\", so that the model can react.", error="")  # fmt: skip


def _loop_case(
    rule: str, remark: str, replies: tuple[dict, ...], most: int = 3, broken: bool = False
) -> Case:
    def arguments() -> tuple:
        tools = {} if broken else {"look_up": _look_up, "add": _add}
        return _Replies(*replies), tools, "Tell me about Samoa.", most

    return Case(
        f"`answer_with_tools(ask, tools, question, {most})`: {remark}",
        arguments,
        answer_with_tools,
        rule=rule,
        observe=_told,
    )


_CALL = calling("capital", "Samoa")
_FAILS = calling("anthem", "Samoa")
LOOP_CASES = (
    _loop_case("reply", "an answer without a call", (_said("It is in Oceania."),)),
    _loop_case("context", "a call, then an answer with the result", (_CALL, _said("RESULTS."))),
    _loop_case("result", "two calls in one reply", (_two_calls(), _said("RESULTS."))),
    _loop_case(
        "result",
        "a result that is a number",
        (calling("islands", "Samoa"), _said("RESULTS islands.")),
    ),
    _loop_case("result", "another tool", (_adding(3, 4), _said("RESULTS."))),
    _loop_case(
        "result", "a result that is 0", (calling("bridges", "Samoa"), _said("RESULTS bridges."))
    ),
    _loop_case("error", "a tool that raises a KeyError", (_FAILS, _said("I do not know."))),
    _loop_case(
        "error", "a tool that raises a ValueError", (_adding("three", 4), _said("I do not know."))
    ),
    _loop_case(
        "error",
        "an argument that the tool does not have",
        (_adding(3, 4, 5), _said("I do not know.")),
    ),
    _loop_case("error", "an unknown tool", (_CALL, _said("I do not know.")), broken=True),
    _loop_case("most", "calls without end", (_CALL,), most=2),
    _loop_case("most", "one reply allowed", (_CALL, _said("RESULTS.")), most=1),
)


def _draw_loop(rng: random.Random, *_: object) -> tuple:
    pool = (_CALL, _two_calls(), _adding(3, 4), calling("islands", "Samoa"))
    replies = [rng.choice(pool) for _ in range(rng.randint(0, 3))]
    ask = _Replies(*replies, _said("RESULTS."))
    return ask, {"look_up": _look_up, "add": _add}, "Tell me about Samoa.", rng.randint(1, 4)


# --- split_thought -------------------------------------------------------------------------


def _wrong_split(message: str, wrong: Callable[[str, str, str], tuple]) -> None:
    mistake(SPLIT, message)(lambda reply, opening, closing: wrong(reply, opening, closing))


_wrong_split("A thought that is cut off is taken for an answer. Without the closing there is no answer.",
             lambda r, o, c: split_thought(r, o, c) if c in r or not r.startswith(o) else ("", r))  # fmt: skip
_wrong_split("A thought that is cut off is lost. It is the rest of the reply, and the answer is empty.",
             lambda r, o, c: split_thought(r, o, c) if c in r or not r.startswith(o) else ("", ""))  # fmt: skip
_wrong_split("The answer begins behind the last closing. It begins behind the first: the answer may quote one.",
             lambda r, o, c: (r[len(o):].rpartition(c)[0], r.rpartition(c)[2]) if r.startswith(o) and c in r else split_thought(r, o, c))  # fmt: skip
_wrong_split("A reply that does not begin with the opening has no thought, even if the closing stands in it.",
             lambda r, o, c: ("", r) if c not in r and not r.startswith(o) else (r.removeprefix(o).partition(c)[0], r.removeprefix(o).partition(c)[2]))  # fmt: skip
_wrong_split("The opening is looked for anywhere. Only at the beginning does it open a thought.",
             lambda r, o, c: split_thought(r[r.find(o):] if o in r else r, o, c))  # fmt: skip
_wrong_split("The opening is still a part of the thought.",
             lambda r, o, c: (o + split_thought(r, o, c)[0] if r.startswith(o) else "", split_thought(r, o, c)[1]))  # fmt: skip
_wrong_split("The closing is still a part of the answer.",
             lambda r, o, c: (split_thought(r, o, c)[0], (c if r.startswith(o) and c in r else "") + split_thought(r, o, c)[1]))  # fmt: skip
_wrong_split("Thought and answer are exchanged.", lambda r, o, c: split_thought(r, o, c)[::-1])
_wrong_split("White space is removed. Both stay as they are: an answer is compared with what was trained.",
             lambda r, o, c: tuple(part.strip() for part in split_thought(r, o, c)))  # fmt: skip
_wrong_split("Without a thought, the reply is the answer, and not the thought.",
             lambda r, o, c: split_thought(r, o, c) if r.startswith(o) else (r, ""))  # fmt: skip

_OPEN, _CLOSE = WORDS.opening, WORDS.closing


def _split_case(
    rule: str, remark: str, reply: str, opening: str = _OPEN, closing: str = _CLOSE
) -> Case:
    return Case(
        f"`split_thought({reply!r}, {opening!r}, {closing!r})`: {remark}",
        lambda: (reply, opening, closing),
        split_thought,
        rule=rule,
    )


SPLIT_CASES = (
    _split_case("both", "a thought and an answer", f"{_OPEN}3 plus 4 is 7.{_CLOSE}7."),
    _split_case("both", "other markers", "<think>\nA.\n</think>\n\nB.", "<think>\n", "\n</think>\n\n"),
    _split_case("both", "the closing twice", f"{_OPEN}A.{_CLOSE}Say{_CLOSE}B."),
    _split_case("both", "white space", f"{_OPEN} A. {_CLOSE} B.\n"),
    _split_case("both", "the opening twice", f"{_OPEN}A.{_CLOSE}I said {_OPEN}B."),
    _split_case("both", "markers with brackets", "[think]A.[/think]B.", "[think]", "[/think]"),
    _split_case("none", "no thought", "7."),
    _split_case("none", "the opening inside of an answer", f"I said {_OPEN}A.{_CLOSE}B."),
    _split_case("none", "a closing without an opening", f"A.{_CLOSE}B."),
    _split_case("cut", "a thought without an end", f"{_OPEN}3 plus 4 is"),
    _split_case("cut", "an empty reply", ""),
)  # fmt: skip


def _draw_split(rng: random.Random, *_: object) -> tuple:
    pieces = [rng.choice(("7.", "A", " B ", "\n")) for _ in range(3)]
    marks = rng.choice(((_OPEN, _CLOSE), ("", _CLOSE), (_OPEN, ""), ("", "")))
    return f"{marks[0]}{pieces[0]}{marks[1]}{pieces[1]}{pieces[2]}", _OPEN, _CLOSE


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            PARTS,
            "What is trained of a conversation",
            parts,
            PARTS_CASES,
            asks="Return a conversation as a list of pairs (text, trained).\n\n"
            "messages: dictionaries with role, content and, for some, the keys below.\n"
            "style: style.thought(thought) and style.call(one of tool_calls) give their texts.",
            rules={
                "pairs": "A message gives three pairs: (1) <|im_start|>, its role, a line break; (2) its text and <|im_end|>; (3) a line break.",
                "text": "Its text is its thought (reasoning_content), and right behind it, joined by line breaks, its content, unless that is empty, and each of its tool_calls.",
                "thought": "Thoughts before the last message of role user are left out.",
                "trained": "Pair 2 of an assistant message is trained (True), unless its weight is 0. All other pairs are not.",
                "absent": "reasoning_content, tool_calls and weight may be missing or None; content may be None.",
                "unchanged": "messages stays as it is.",
            },
            draw=_draw_parts,
            hints=(
                "Find the last user message first. Then go through the messages, build the text of each, and add its three pairs.",
                ("absent", "`get` gives None for a missing key, so both cases are one."),
                "A weight that is missing is not 0: compare with 0, and do not ask whether it is true.",
            ),
            path="Decide for each piece who writes it at inference. The header is given to the model; thought, content, calls and the end token are its own; a tool's result comes from outside. "
            "Then the thoughts: a template writes those behind the last user message, and drops earlier ones. The usual wrong turn is to keep the thought of the last message only: a call and the answer after its result belong to one turn.",
            why="One loop makes the text and says what is trained, so the two cannot drift apart. Each part is tokenized by itself, and its tokens are trained or not as a whole.",
            points=2,
        ),
        Exercise(
            LOOP,
            "A conversation with tools",
            answer_with_tools,
            LOOP_CASES,
            asks="Return the messages of a conversation in which a model may call tools.\n\n"
            "ask: function; ask(messages) is the model's reply, a message.\n"
            "tools: name -> function. question: a text. most: a number from 1.",
            rules={
                "context": "The first message is the question, of role user. ask gets all messages so far.",
                "reply": "Each reply is added. If its tool_calls are missing, None or empty, it is the last one.",
                "result": "For each call, in order, a message with the role tool is added, and str(result) as its content. The function is tools[call[\"function\"][\"name\"]], its keyword arguments call[\"function\"][\"arguments\"].",
                "error": "If there is no such tool, or it raises, the content begins with \"error\", and the conversation goes on.",
                "most": "ask is called at most `most` times. Calls of its last reply get their results, too.",
                "unchanged": "tools stays as it is.",
            },
            draw=_draw_loop,
            hints=(
                "Each round is: ask, add the reply, and stop or add the results.",
                ("error", "Both failures can be caught at one place, around the call."),
                "A loop over `range(most)` needs no counter.",
            ),
            path="Write one round first: ask, append, look for calls. Then the results, one message for each call. Put the round into a loop that ends by itself after `most` rounds. "
            "The usual wrong turn is to let an error of a tool end the program: a model writes wrong names and wrong arguments, and can correct them only if it reads what went wrong.",
            why="The conversation is all the state there is. What the model did, and what came back, stands in the messages, and they are also what you would train on later.",
            points=2,
        ),
        Exercise(
            SPLIT,
            "The answer behind a thought",
            split_thought,
            SPLIT_CASES,
            asks="Return the thought and the answer of a reply, two texts.\n\n"
            "reply: a text. opening, closing: the texts around a thought.",
            rules={
                "both": "If reply begins with opening, the thought ends at the first closing, and the answer follows it. Nothing else is removed.",
                "none": "If reply does not begin with opening, the thought is empty, all is the answer.",
                "cut": "Without a closing, the thought is the rest of reply, and the answer is empty.",
            },
            draw=_draw_split,
            hints=(
                "Three kinds of reply: with a thought, without one, and with one that never ends.",
                ("both", "`str.partition` splits at the first place at which it finds the closing."),
                "If `partition` finds nothing, all stands in the first of its three texts, and the last one is empty.",
            ),
            path="Handle the reply without a thought first. Then split the rest at the first closing. The usual wrong turn is to take what cannot be split for an answer: a model that ran out of tokens "
            "in the middle of a thought would then be scored by a number that happens to stand in it.",
            why="`partition` handles both cases: without a closing, the rest of the reply is the thought, and the answer is empty. So a thought that was cut off is never scored as an answer.",
        ),
    )
}  # fmt: skip
