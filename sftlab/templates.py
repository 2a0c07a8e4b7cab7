"""Chat templates of four model families, and protection against special tokens in messages.

The templates are our own Jinja code in the style of each family, not copies. The exact template of
a model is part of its tokenizer. Assistant text is inside a ``{% generation %}`` block.
"""

from __future__ import annotations

import copy
import re
from datetime import datetime

from sftlab.chat import CHATML, Message, render, special_tokens
from sftlab.errors import WorkbookError

# Has a system role. An empty line follows each header; contents are trimmed.
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

# No system role: the system message is put before the first user message. The assistant role is
# "model".
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

# Brackets around each instruction, no roles. There is no generation prompt: the closing bracket
# takes its place, and the space before the answer belongs to the answer.
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

# ChatML that adds a default system turn if the messages have none, like SmolLM2's template.
HIDDEN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nAnswer in one word.<|im_end|>\\n' }}"
    "{% endif %}"
) + CHATML


def with_template(tokenizer, family: str):
    """Return a copy of the tokenizer with a family's template and its special tokens.

    The ids of added tokens lie beyond the vocabulary of a model trained with this tokenizer, so the
    model cannot read them. Use the copy only to look at tokens.

    Raises:
        WorkbookError: unknown family.
    """
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = _template(family)
    known = special_tokens(changed)
    new = [marker for marker in MARKERS[family] if marker not in known]
    if new:
        changed.add_tokens(new, special_tokens=True)
    return changed


def with_typed_markers(tokenizer, family: str):
    """Return a copy with a family's template that reads all special tokens as plain text.

    This shows the effect of typing the special tokens. Renderings can still be tokenized and
    continued, but no token ends a turn, so ``chat.end_of_turn_id`` raises an error.

    Raises:
        WorkbookError: unknown family.
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
    """Count the turns in a list of token ids: the number of occurrences of ``marker``.

    Only the special token counts, not the same characters read as plain text. A generation prompt
    counts as a turn.
    """
    return list(ids).count(tokenizer.convert_tokens_to_ids(marker))


def forged(tokenizer, messages: list[Message]) -> list[tuple[int, str]]:
    """Return the special tokens found in the messages, as (message number from 1, token) pairs."""
    pattern = _any_of(special_tokens(tokenizer))
    return [(n, hit) for n, m in enumerate(messages, 1) for hit in pattern.findall(m["content"])]


GUARD = "\ue000"  # private-use character that splits typed special tokens during rendering


def encode_safely(
    tokenizer, messages: list[Message], add_generation_prompt: bool = False
) -> list[int]:
    """Return the ids of a rendering in which only the template writes special tokens.

    A special token typed into a message is encoded as plain text, which the model can read but
    which opens or closes no turn. If no message contains a special token, the ids equal those of
    ``chat.encode``.

    Typed special tokens are split by a guard character and the template is rendered. The text is
    then cut at the remaining special tokens, which come from the template. The parts between them
    are tokenized as plain text after the guard characters are removed.

    Works with byte-level tokenizers. A tokenizer that adds a space before every text would add one
    after each special token.

    Raises:
        WorkbookError: a message contains the guard character U+E000.
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
    """Return whether the template uses the current time; the rendering then depends on the date."""
    return "strftime_now" in str(tokenizer.chat_template)


def with_clock_at(tokenizer, moment: datetime):
    """Return a copy of the tokenizer whose template writes the date and time of ``moment``.

    Templates get the time from a function, ``strftime_now``. A macro of the same name replaces it
    and inserts the parts of ``moment``.
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
    """Return a pattern that matches any marker, longest first; ``split`` keeps the matches."""
    longest_first = sorted(markers, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
