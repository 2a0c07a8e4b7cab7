"""Chat templates of four families, and what a message can smuggle into them.

The templates are our own Jinja in the style of each family, not copies: look up the exact one of a
real model in its tokenizer. What the assistant writes stands in a ``{% generation %}`` block.
"""

from __future__ import annotations

import copy
import re
from datetime import datetime

from sftlab.chat import CHATML, Message, render, special_tokens
from sftlab.errors import WorkbookError

# A system turn with a name of its own, headers closed by an empty line; texts are trimmed.
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)

# No system turn: its text is put in front of the first user's. The assistant is called model.
GEMMA = (
    "{{ '<bos>' }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<start_of_turn>model\\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}"
    "{{ '\\n' }}"
    "{% else %}"
    "{{ '<start_of_turn>user\\n' + (first if loop.first else '') }}"
    "{{ message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

# Brackets around each instruction, no roles at all. Nothing to add for the generation prompt: the
# closing bracket is it, and the space before the answer belongs to the answer.
INST = (
    "{{ '<s>' }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] + '</s>' }}{% endgeneration %}"
    "{% else %}"
    "{{ '[INST] ' + (first if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)

FAMILIES: dict[str, str] = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "inst": INST}
MARKERS: dict[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "inst": ("<s>", "</s>", "[INST]", "[/INST]"),
}
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "inst": "</s>",
}

# ChatML that writes a system turn of its own where the messages have none, as SmolLM2's does.
HIDDEN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nAnswer in one word.<|im_end|>\\n' }}"
    "{% endif %}"
) + CHATML


def with_template(tokenizer, family: str):
    """A copy of the tokenizer with a family's template, its markers added as special tokens.

    A model that was made with the tokenizer has never seen the markers that were added: their ids
    lie beyond its vocabulary, so it cannot even read them. This is for looking at tokens.
    """
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = _template(family)
    known = special_tokens(changed)
    new = [marker for marker in MARKERS[family] if marker not in known]
    if new:
        changed.add_tokens(new, special_tokens=True)
    return changed


def with_typed_markers(tokenizer, family: str):
    """A copy with a family's template whose markers, and all special tokens, are read as text.

    This is what typing the markers amounts to. No token ends a turn any more, so the rendering can
    be read and continued, but ``chat.end_of_turn_id`` has none to find.
    """
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = _template(family)
    changed.split_special_tokens = True
    return changed


def _template(family: str) -> str:
    if family not in FAMILIES:
        raise WorkbookError(f"there is no family {family!r}; use one of {', '.join(FAMILIES)}")
    return FAMILIES[family]


def count_turns(tokenizer, ids: list[int], marker: str = "<|im_start|>") -> int:
    """How many turns a model reads in a list of ids: how often the marker that opens one occurs.

    It counts ids and not text: a marker that was read as plain text opens nothing. A generation
    prompt opens a turn too.
    """
    return list(ids).count(tokenizer.convert_tokens_to_ids(marker))


def forged(tokenizer, messages: list[Message]) -> list[tuple[int, str]]:
    """Special tokens typed into the messages: (number of the message from 1, token) pairs."""
    pattern = _any_of(special_tokens(tokenizer))
    return [(n, hit) for n, m in enumerate(messages, 1) for hit in pattern.findall(m["content"])]


GUARD = "\ue000"  # a private-use character, put into typed markers while the template is rendered


def encode_safely(
    tokenizer, messages: list[Message], add_generation_prompt: bool = False
) -> list[int]:
    """The ids of the rendering in which only the template writes special tokens.

    A marker typed into a message becomes plain text, which the model can read but which opens and
    closes nothing. The same ids as ``chat.encode`` if no message contains a special token.

    How: typed markers are broken by a guard character, the template is rendered, the text is cut
    at the markers that are still whole (the template's own), and what lies between them is
    tokenised as plain text without the guards.

    Raises WorkbookError if a message contains the guard character itself. Meant for byte-level
    tokenizers; one that puts a space in front of every text would do so after each marker.
    """
    pattern = _any_of(special_tokens(tokenizer))
    broken: list[Message] = []
    for number, message in enumerate(messages, 1):
        if GUARD in message["content"]:
            raise WorkbookError(
                f"message {number} contains the character U+E000, which is needed to tell typed "
                "markers from real ones; remove it"
            )
        text = pattern.sub(lambda hit: hit[0][0] + GUARD + hit[0][1:], message["content"])
        broken.append({**message, "content": text})
    ids = []
    for part in pattern.split(render(tokenizer, broken, add_generation_prompt)):
        if pattern.fullmatch(part):
            ids.append(tokenizer.convert_tokens_to_ids(part))
        else:
            text = part.replace(GUARD, "")
            ids += tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def writes_the_date(tokenizer) -> bool:
    """Does the template ask for the time, so that tomorrow the same messages are another text?"""
    return "strftime_now" in str(tokenizer.chat_template)


def with_clock_at(tokenizer, moment: datetime):
    """A copy of the tokenizer whose template, where it writes the date, writes this moment's.

    Templates ask for the time by a function that is theirs to replace: a macro of the same name
    puts in the moment's parts, which are known beforehand.
    """
    parts = {f"%{code}": moment.strftime(f"%{code}") for code in "aAbBcdHIjmMpSuUVwWxXyY"}
    parts |= {f"%-{code}": parts[f"%{code}"].lstrip("0") or "0" for code in "dHIjmMS"}
    filters = "".join(f" | replace({code!r}, {part!r})" for code, part in parts.items())
    macro = f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro +%}}"
    dated = copy.copy(tokenizer)
    found = tokenizer.chat_template
    several = (
        {name: macro + text for name, text in found.items()} if isinstance(found, dict) else {}
    )
    dated.chat_template = several or macro + found
    return dated


def _any_of(markers: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the markers, the longest first; ``split`` keeps what matched."""
    longest_first = sorted(markers, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
