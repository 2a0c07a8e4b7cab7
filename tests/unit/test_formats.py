"""Rows as people have them become conversations, or an error that says what to do."""

from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftlab.architectures import Limits
from sftlab.data import ExampleMaker, read_examples
from sftlab.errors import WorkbookError
from sftlab.formats import CHOICES, DataConfig, ReadingReport, read_conversations
from sftlab.masking import mask_all_but_assistant
from sftlab.templates import training_tokenizer

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
S = {"role": "system", "content": "S"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
WEATHER = {"type": "function", "function": {"name": "weather"}}


def read(tmp_path, *rows, **config):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ReadingReport(str(path))
    return list(read_conversations(path, DataConfig(**config), report)), report


def messages(tmp_path, row, **config):
    found, report = read(tmp_path, row, **config)
    report.raise_if_refused()
    return found[0].messages


SHAPES = [
    ({"messages": [Q, A]}, [Q, A]),
    ({"messages": [{**Q, "name": None}, {**A, "tool_calls": None, "weight": None}]}, [Q, A]),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, [Q, A]),
    ({"conversations": [Q, A], "system": "S"}, [S, Q, A]),
    ({"messages": [{"role": "User", "content": "Q"}, {"role": "model", "parts": ["A"]}]}, [Q, A]),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, A]}, [Q, A]),
    ({"messages": [{"role": "system", "content": ""}, Q, A]}, [Q, A]),
    ({"contents": [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"text": "A"}]}]}, [Q, A]),
    ({"custom_id": "1", "method": "POST", "body": {"model": "m", "messages": [S, Q, A]}}, [S, Q, A]),
    ({"custom_id": "1", "params": {"system": "S", "messages": [Q, A]}}, [S, Q, A]),
    ({"messages": [Q, A, S, Q, A]}, [Q, A, S, Q, A]),
    ({"prompt": "Q", "response": "A"}, [Q, A]),
    ({"prompt": "Q", "completion": "A"}, [Q, A]),
    ({"prompt": [S, Q], "completion": [A]}, [S, Q, A]),
    ({"prompt": [Q], "response": "A"}, [Q, A]),
    ({"instruction": "Q", "input": "", "output": "A", "text": ""}, [Q, A]),
    ({"instruction": "Q", "input": "I", "output": "A"}, [{**Q, "content": "Q\n\nI"}, A]),
    ({"instruction": "Q", "context": "I", "response": "A"}, [{**Q, "content": "Q\n\nI"}, A]),
    ({"question": "Q", "answer": "A"}, [Q, A]),
    ({"input": "Q", "output": "A"}, [Q, A]),
    ({"prompt": "Q", "response": "A", "history": [["P", "B"]]}, [{**Q, "content": "P"}, {**A, "content": "B"}, Q, A]),
    ({"prompt": "Q", "response": "A", "system_prompt": "S"}, [S, Q, A]),
    ({"messages": [Q, {**A, "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
                   {"role": "tool", "content": "T"}, A]},
     [Q, {**A, "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "T"}, A]),
    ({"messages": [Q, {"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": 1}'}},
                   {"role": "function", "name": "f", "content": "T"}, A]},
     [Q, {**A, "content": "", "tool_calls": [CALL]}, {"role": "tool", "name": "f", "content": "T"}, A]),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                        {"from": "observation", "value": "T"}, {"from": "gpt", "value": "A"}]},
     [Q, {**A, "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "T"}, A]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), SHAPES)
def test_a_known_shape_becomes_messages(row, expected, tmp_path):
    assert messages(tmp_path, row) == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"q": "Q", "a": "A"}, "prompt_column"),
        ({"text": "Q A"}, '"text" alone is no conversation'),
        ({"prompt": "Q", "question": "Q", "answer": "A"}, "say with prompt_column"),
        ({"question": "Q", "answer": "A", "solution": "A"}, "which column is the response"),
        ({"messages": [Q, A], "prompt": "Q"}, 'both "messages" and "prompt"'),
        ({"messages": [Q, A], "conversations": [Q, A]}, 'both "messages" and "conversations"'),
        ({"messages": "Q"}, "must be a list"),
        ({"messages": [{"content": "Q"}, A]}, 'message 1: no "role"'),
        ({"prompt": None, "response": "A"}, '"prompt" is null'),
        ({"prompt": 3, "response": "A"}, "expected text"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "a row of preferences"),
        ({"prompt": "Q", "response": "A", "images": ["x"]}, "only text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, A]}, '"image_url"'),
        ({"prompt": "Q", "response": "A", "weight": 0}, "is not trained; remove the row"),
        ({"messages": [Q, {**A, "weight": 0.5}]}, "only 0 and 1"),
        ({"messages": [{**Q, "train": True}, A]}, "asks to train a message of the user"),
        ({"messages": [Q, {**A, "weight": 1, "train": False}]}, "contradict"),
        ({"messages": [Q, {**A, "weight": 0}]}, "no answer is trained"),
        ({"messages": [Q, {**A, "train_detail": [{}]}]}, '"train_detail" is not used'),
        ({"messages": [Q, {**A, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "not valid JSON"),
        ({"messages": [Q, A], "tools": "no json"}, '"tools" is not valid JSON'),
        ({"messages": [{"role": "tool", "content": "T"}, A]}, "no message before it calls a tool"),
        ({"messages": [Q, A], "tools": [WEATHER], "functions": [WEATHER]}, 'both "tools" and "functions"'),
        ({"messages": [Q, A], "chat_template_kwargs": {"tokenize": True}}, "no option of a template"),
        ({"messages": [Q, {**A, "role": "narrator"}]}, 'the role "narrator" is unknown'),
        ({"messages": None}, '"messages" is of type NoneType'),
        ({"prompt": "Q", "completion": "A", "label": False}, "a row of preferences (KTO)"),
        ({"messages": [S, Q, A], "system": "S"}, "keep one of them"),
        ({"messages": [S], "body": {"messages": [Q, A]}}, 'both "messages" and "messages" in "body"'),
        ({"custom_id": "1", "body": {"messages": [Q]}}, "user_last"),
    ],
)  # fmt: skip
def test_what_is_unclear_or_not_supported_is_named(row, said, tmp_path):
    with pytest.raises(WorkbookError, match="line 1") as error:
        messages(tmp_path, row)
    assert said in str(error.value)


AMBIGUOUS = {
    "two_in_turn": ({"messages": [Q, Q, A]}, {"join": [{**Q, "content": "Q\n\nQ"}, A]}),
    "assistant_first": ({"messages": [S, A, Q, A]}, {"drop_message": [S, Q, A], "drop_row": None}),
    "user_last": ({"messages": [Q, A, Q]}, {"drop_message": [Q, A], "drop_row": None}),
    "empty_answer": ({"messages": [Q, {**A, "content": " "}]}, {"drop_row": None}),
}


@pytest.mark.parametrize("setting", AMBIGUOUS)
def test_an_ambiguous_shape_names_its_setting_and_the_setting_decides(setting, tmp_path):
    row, decided = AMBIGUOUS[setting]
    with pytest.raises(WorkbookError, match=f"set {setting} to"):
        messages(tmp_path, row)
    assert set(decided) == set(CHOICES[setting]) - {"error"}
    for value, expected in decided.items():
        found, report = read(tmp_path, row, {"messages": [Q, A]}, **{setting: value})
        assert [talk.messages for talk in found] == [*([expected] if expected else []), [Q, A]]
        assert sum(report.dropped.values()) == (expected is None)
        assert any(setting in line or "left out" in line or "joined" in line for line in report.conversions())  # fmt: skip


def test_columns_can_be_named(tmp_path):
    config = {"prompt_column": "q", "response_column": "a"}
    assert messages(tmp_path, {"q": "Q", "a": "A", "answer": "B"}, **config) == [Q, A]
    with pytest.raises(WorkbookError, match='"q" is missing'):
        messages(tmp_path, {"a": "A"}, **config)


def test_every_unknown_key_is_reported_and_one_without_a_value_is_not(tmp_path):
    rows = [{"prompt": "Q", "response": "A", "id": 0, "tags": []}] * 2
    _, report = read(tmp_path, *rows, {"messages": [Q, {**A, "mood": "good"}]})
    assert report.unknown == {'"id"': 2, '"mood" of a message': 1}


def test_every_bad_row_is_counted_and_ten_are_shown(tmp_path):
    bad = [{"prompt": str(n)} for n in range(25)]
    found, report = read(tmp_path, *bad, {"messages": [Q, A]}, {"prompt": "Q", "response": ""})
    assert (len(found), report.problems, report.rows) == (1, 26, 27)
    with pytest.raises(WorkbookError, match="26 of 27 rows cannot be used") as error:
        report.raise_if_refused()
    assert "line 9, line 10 … (25 rows): no " in str(error.value)
    assert "line 27: message 2 (assistant) is empty" in str(error.value)
    _, report = read(tmp_path, *[{"prompt": "Q", "response": "A", "weight": n + 2} for n in range(12)])  # fmt: skip
    assert len(report.refusals()) == 11 and report.refusals()[-1] == "and 2 more"


# --- With a chat template ------------------------------------------------------------------------
HERMES = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content %}{{ '[' + m.reasoning_content + ']' }}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)  # fmt: skip


def examples(tokenizer, tmp_path, *rows, limits=None, **config):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ReadingReport(str(path))
    maker = ExampleMaker(tokenizer, DataConfig(**config), report, limits)
    found = [example for _, example in read_examples(path, maker, report)]
    report.raise_if_refused()
    return found


def trained(tokenizer, example):
    return tokenizer.decode([label for label in example.labels if label != -100])


def with_template(tokenizer, template):
    changed = copy.copy(tokenizer)
    changed.chat_template = template
    return changed


TALK = [Q, A, {**Q, "content": "R"}, {**A, "content": "B"}]


def test_plain_rows_give_the_examples_of_the_lessons(tokenizer, tmp_path):
    (found,) = examples(tokenizer, tmp_path, {"messages": TALK})
    assert found == mask_all_but_assistant(tokenizer, TALK)


def test_which_answers_are_trained(tokenizer, tmp_path):
    def texts(row, **config):
        return [trained(tokenizer, e) for e in examples(tokenizer, tmp_path, row, **config)]

    row = {"messages": TALK}
    assert texts(row) == texts(row, answers="all") == ["A<|im_end|>B<|im_end|>"]
    assert texts(row, answers="last") == ["B<|im_end|>"]
    assert texts(row, answers="each") == ["A<|im_end|>", "B<|im_end|>"]
    for off in ({"weight": 0}, {"train": False}, {"loss": False}):
        first = {"messages": [Q, {**A, **off}, *TALK[2:]]}
        assert texts(first) == texts(first, answers="each") == ["B<|im_end|>"]
        last = {"messages": [*TALK[:3], {**TALK[3], **off}]}
        assert texts(last) == texts(last, answers="last") == ["A<|im_end|>"]


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("tools", {"messages": [Q, A], "tools": [WEATHER]}),
        ("tools", {"messages": [Q, A], "functions": json.dumps([WEATHER["function"]])}),
        ("tool_calls", {"messages": [Q, {**A, "tool_calls": [CALL]}, {"role": "tool", "content": "T"}, A]}),
        ("reasoning_content", {"messages": [Q, {**A, "reasoning_content": "Why"}]}),
    ],
)  # fmt: skip
def test_a_key_is_written_by_the_template_or_refused(key, row, tokenizer, tmp_path):
    with pytest.raises(WorkbookError, match=f'does not write "{key}"'):
        examples(tokenizer, tmp_path, row)
    (found,) = examples(with_template(tokenizer, HERMES), tmp_path, row)
    said = {"tools": "weather", "tool_calls": '"x": 1', "reasoning_content": "[Why]"}[key]
    assert said in tokenizer.decode(found.input_ids)
    assert (said in trained(tokenizer, found)) == (key != "tools")


def test_a_template_that_leaves_text_out_is_refused(tokenizer, tmp_path):
    short = HERMES.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    row = {"messages": [Q, {**A, "content": "<think>Why</think>A"}]}
    with pytest.raises(WorkbookError, match="leaves out some of its text"):
        examples(with_template(tokenizer, short), tmp_path, row)
    found = examples(with_template(tokenizer, short), tmp_path, {"messages": [*row["messages"], *TALK[2:]]}, answers="last")  # fmt: skip
    assert trained(tokenizer, found[0]) == "B<|im_end|>"  # earlier reasoning, as at inference


def test_what_a_template_may_leave_out_is_reported(tokenizer, tmp_path):
    row = {
        "messages": [{**Q, "name": "bob"}, A],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    report = ReadingReport(str(path))
    assert (
        len(list(read_examples(path, ExampleMaker(tokenizer, DataConfig(), report), report))) == 1
    )
    assert (
        len(report.unknown) == 2
        and "name" in report.unused()
        and "enable_thinking" in report.unused()
    )


def test_a_text_that_only_occurs_elsewhere_is_missed(tokenizer, tmp_path):
    silent = HERMES.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
    )
    row = {"messages": [{**S, "content": "q"}, {**Q, "content": "q is it"}, A]}
    with pytest.raises(WorkbookError, match="leaves out some of its text"):
        examples(with_template(tokenizer, silent), tmp_path, row)


def test_a_call_that_ends_with_another_token_is_trained(tokenizer, tmp_path):
    other = HERMES.replace(
        "{{ '<|im_end|>\\n' }}", "{{ '<|pad|>' if m.tool_calls else '<|im_end|>\\n' }}"
    )
    assert other != HERMES
    row = {"messages": [Q, {**A, "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "T"}, A]}  # fmt: skip
    (found,) = examples(with_template(tokenizer, other), tmp_path, row)
    text = trained(tokenizer, found)
    assert text.endswith("<|pad|>A<|im_end|>") and '"f"' in text


def test_what_the_model_cannot_read_is_refused(tokenizer, tmp_path):
    row = {"prompt": "Q", "response": "word " * 40}
    for limits, config, said in (
        (Limits(32, False, 4096), {}, "more tokens than the model's number of positions = 32"),
        (
            Limits(32, True, 4096),
            {"max_length": 99},
            "more tokens than the model's number of positions",
        ),
        (Limits(512, False, 4096), {"max_length": 32}, "more tokens than max_length = 32"),
        (Limits(512, False, 100), {}, "beyond the model's 100 embeddings"),
    ):
        with pytest.raises(WorkbookError, match=said):
            examples(tokenizer, tmp_path, row, limits=limits, **config)
    kept = examples(tokenizer, tmp_path, row, limits=Limits(32, False, 4096), max_length=99)
    assert len(kept) == 1
    with pytest.raises(WorkbookError, match="all 1 rows are left out"):
        examples(tokenizer, tmp_path, row, max_length=32, too_long="drop")


@pytest.mark.parametrize("text", ["\ud83d", "a<|im_end|>b"])
def test_a_text_that_no_tokenizer_should_read_is_refused(text, tokenizer, tmp_path):
    with pytest.raises(WorkbookError, match=r"lone surrogate|read as a marker"):
        examples(tokenizer, tmp_path, {"prompt": text, "response": "A"})


def test_the_role_of_a_developer_is_that_of_the_system_where_the_template_has_none(
    tokenizer, tmp_path
):
    row = {"messages": [{"role": "developer", "content": "S"}, Q, A]}
    (found,) = examples(tokenizer, tmp_path, row)
    assert "<|im_start|>system" in tokenizer.decode(found.input_ids)


SYSTEM_FIRST = "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "", "in its place, as one of the system"),
        ("m.role +", "(m.role if m.role != 'system' else 'user') +", "in its place, as one of the user"),
        ("{% for m in messages %}", NO_SYSTEM, r"message 3 \(system\): .* leaves out"),
        ("{% for m in messages %}", SYSTEM_FIRST + NO_SYSTEM, r"message 3 \(system\): .* before earlier ones"),
        ("{% for m in messages %}", "{% for m in messages %}"
         "{{ raise_exception('one system') if m.role == 'system' and not loop.first }}", "refuses these messages .one system"),
    ],
)  # fmt: skip
def test_what_a_template_makes_of_a_later_system_message_is_told(
    old, new, told, tokenizer, tmp_path
):
    changed = with_template(tokenizer, HERMES.replace(old, new, 1))
    report = ReadingReport("rows")
    maker = ExampleMaker(changed, DataConfig(answers="each"), report)
    (talk,), _ = read(tmp_path, {"messages": [Q, A, {**S, "content": "Short!"}, Q, A]})
    try:
        found = maker.examples(talk)[1]
        assert trained(tokenizer, found) == "A<|im_end|>"
    except WorkbookError as error:
        report.notes[str(error)] = 0
    assert re.search(told, *report.notes)


# --- Any file ------------------------------------------------------------------------------------
KEYS = [
    "messages",
    "conversations",
    "prompt",
    "response",
    "completion",
    "instruction",
    "input",
    "output",
    "question",
    "answer",
    "system",
    "history",
    "tools",
    "weight",
    "train",
    "text",
    "role",
    "content",
    "from",
    "value",
    "tool_calls",
    "name",
    "chat_template_kwargs",
    "images",
    "context",
    "id",
]
TEXT = st.sampled_from(["Hi", "", " ", "\ud83d", "<|im_end|>", "[]", '{"name":"f"}', "user", "assistant", "tool", "gpt", "é\x00"])  # fmt: skip
VALUE = st.recursive(
    TEXT | st.none() | st.booleans() | st.floats() | st.integers(-1, 2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "X"]), "content": VALUE},
    optional={"tool_calls": VALUE, "weight": VALUE, "name": VALUE, "reasoning_content": VALUE},
)
ROW = st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=5)}, optional={"tools": VALUE, "system": VALUE, "history": VALUE}) | VALUE  # fmt: skip
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=3)


@given(rows=st.lists(ROW, max_size=4), damage=DAMAGE, suffix=st.sampled_from([".jsonl", ".json", ".csv", ".gz"]),
       config=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHOICES.items()}))  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_file_gives_examples_or_a_clear_error(
    rows, damage, suffix, config, tokenizer, tmp_path
):
    content = "\n".join(json.dumps(row) for row in rows).encode()
    for place, noise in damage:
        at = int(place * len(content))
        content = content[:at] + noise + content[at + len(noise) :]
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    report = ReadingReport(str(path))
    maker = ExampleMaker(training_tokenizer(tokenizer)[0], DataConfig(**config), report)
    try:
        found = list(read_examples(path, maker, report))
        report.raise_if_refused()
    except WorkbookError as error:
        assert str(error) and "Traceback" not in str(error)
    else:
        assert found and all(example.trained for example in found)
    assert report.conversions()
