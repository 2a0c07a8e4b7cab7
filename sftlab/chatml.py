"""More about ChatML: Qwen3's style of it, and an encoding in which nobody else opens a turn."""

from __future__ import annotations

from sftlab.chat import Message
from sftlab.templates import FAMILIES, with_template

# In the style of Qwen3: ChatML without a default system turn. The answer after the last user turn
# begins with a thinking block, empty if there was no thinking; earlier answers lose theirs. With
# enable_thinking=False the generation prompt writes the empty block. Left out: tools, and thinking
# in a field of its own.
QWEN3 = (
    "{% set ns = namespace(last=messages | length - 1) %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}"
    "{% set said = message['content'] %}{% set thought = '' %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{ '<think>\\n' + thought + '\\n</think>\\n\\n' + said.lstrip('\\n') }}"
    "{% else %}{{ said }}{% endif %}"
    "{{ '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ said + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)

STYLES = {**FAMILIES, "qwen3": QWEN3}


def with_style(tokenizer, style: str):
    """Return a copy of the tokenizer with a template of ``STYLES``, as ``with_template`` does.

    Raises:
        WorkbookError: unknown style.
    """
    changed = with_template(tokenizer, "chatml" if style == "qwen3" else style)
    changed.chat_template = STYLES[style]
    return changed


def encode_defended(
    tokenizer, messages: list[Message], add_generation_prompt: bool = False
) -> list[int]:
    """Return the ids of the messages in ChatML; special tokens typed into them are plain text.

    The ids of ``<|im_start|>`` and ``<|im_end|>`` are written here and nowhere else. Roles, contents
    and line breaks are tokenized as text in which no special token is recognized.
    """
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    ids: list[int] = []
    for message in messages:
        ids += [start, *plain(f"{message['role']}\n{message['content']}"), end, *plain("\n")]
    if add_generation_prompt:
        ids += [start, *plain("assistant\n")]
    return ids
