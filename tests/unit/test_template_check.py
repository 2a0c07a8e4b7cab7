"""What `check_template` finds out about templates that were made for one finding each."""

from __future__ import annotations

import copy

import pytest
from transformers import AutoTokenizer

from sftlab._internal.paths import MODELS
from sftlab.chat import CHATML
from sftlab.chatml import STYLES, with_style
from sftlab.errors import WorkbookError
from sftlab.findings import BROKEN, LOOK, OK
from sftlab.template_check import check_template, main
from sftlab.templates import HIDDEN_SYSTEM

BEGIN, PREFIX, END, AFTER = (
    "one begin token",
    "inference reads what was trained",
    "a token ends the answer",
    "what follows that token",
)
SYSTEM, MARKED, EARLIER, FORGED = (
    "no default system turn",
    "the template marks the answers",
    "earlier answers stay as they were",
    "a user's message opens no turn",
)


def found(tokenizer, template: str) -> dict:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return {f.guard: f for f in check_template(changed)}


def test_chatml_is_in_order_and_can_be_forged(tokenizer):
    states = {guard: f.state for guard, f in found(tokenizer, CHATML).items()}
    assert states.pop(FORGED) == LOOK
    assert set(states.values()) == {OK}
    assert set(states) == {BEGIN, PREFIX, END, AFTER, SYSTEM, MARKED, EARLIER}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_read_through(tokenizer, style):
    findings = check_template(with_style(tokenizer, style))
    assert {f.guard for f in findings} == {BEGIN, PREFIX, END, AFTER, SYSTEM, MARKED, EARLIER, FORGED}  # fmt: skip
    assert not [f for f in findings if f.state == BROKEN]
    kept = next(f for f in findings if f.guard == EARLIER)
    assert (kept.state == LOOK) == (style == "qwen3")


def test_a_default_system_turn_is_shown(tokenizer):
    finding = found(tokenizer, HIDDEN_SYSTEM)[SYSTEM]
    assert finding.state == LOOK and "Answer in one word." in finding.evidence


LLAMA_2 = "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.first %}DEFAULT{% endif %}{{ m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"  # fmt: skip


@pytest.mark.parametrize(
    ("default", "state"),
    [
        ("", OK),
        ("<<SYS>>\n\n<</SYS>>\n\n", OK),
        ("<<SYS>>\nBe brief.\n<</SYS>>\n\n", LOOK),
        ("[SYSTEM_PROMPT]Concise.[/SYSTEM_PROMPT]", LOOK),
        ("### System:\nBe brief.\n\n", LOOK),
    ],
)
def test_a_default_system_text_is_found_by_its_words(tokenizer, default, state):
    assert found(tokenizer, LLAMA_2.replace("DEFAULT", default))[SYSTEM].state == state
    named = LLAMA_2.replace("[INST]", "### User:").replace("[/INST]", "")
    assert found(tokenizer, named.replace("DEFAULT", default))[SYSTEM].state == state


def test_a_question_s_own_header_is_no_system_turn(tokenizer):
    headed = CHATML.replace("<|im_start|>'", "<|im_start|>the system serves a '")
    assert found(tokenizer, headed)[SYSTEM].state == OK


def test_what_a_message_can_forge_is_counted_with_and_without_the_defense(tokenizer):
    finding = found(tokenizer, CHATML)[FORGED]
    assert "of 2 special tokens typed into a message, 2 are read as such, 0 with" in finding.evidence  # fmt: skip


def test_a_begin_token_written_twice_is_broken_and_one_added_later_is_shown(tokenizer):
    begin = tokenizer.bos_token
    assert found(tokenizer, "{{ bos_token + bos_token }}" + CHATML)[BEGIN].state == BROKEN
    assert begin and found(tokenizer, "{{ bos_token }}" + CHATML)[BEGIN].state == OK


def test_what_follows_the_end_of_turn_is_shown(tokenizer):
    assert found(tokenizer, CHATML)[AFTER].evidence.startswith(r"'\n'")
    assert found(tokenizer, CHATML.replace("{{ '\\n' }}", ""))[AFTER].evidence.startswith("''")


def test_other_defects_are_found(tokenizer):
    other = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>' }}{% endif %}")
    broken = found(tokenizer, other)[PREFIX]
    assert broken.state == BROKEN and "isn't a prefix" in broken.evidence
    assert "is a prefix" in found(tokenizer, CHATML)[PREFIX].evidence
    plain = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert found(tokenizer, plain)[MARKED].state == LOOK
    endless = CHATML.replace(" + '<|im_end|>'", "").replace("'<|im_start|>' + ", "")
    assert found(tokenizer, endless)[END].state == BROKEN


def test_the_command_reads_a_folder(capsys, tmp_path):
    assert main([str(MODELS / "almanac-base")]) == 0
    assert "no default system turn" in capsys.readouterr().out
    assert main([str(tmp_path)]) == 2
    assert "holds no tokenizer that can be read" in capsys.readouterr().err


def test_without_a_template_it_says_so(tokenizer):
    bare = AutoTokenizer.from_pretrained(MODELS / "almanac-base")
    bare.chat_template = None
    with pytest.raises(WorkbookError, match="has no chat template"):
        check_template(bare)
