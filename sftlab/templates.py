"""Chat templates of four model families, and protection against special tokens in messages.

The templates are our own Jinja code in the style of each family, not copies. The exact template of
a model is part of its tokenizer. Assistant text is inside a ``{% generation %}`` block.
"""

from __future__ import annotations

import copy
import re
from datetime import datetime
from pathlib import Path

from sftlab.chat import (
    CHATML,
    Message,
    end_of_turn_id,
    render,
    special_tokens,
    spot_the_difference,
    user,
)
from sftlab.errors import WorkbookError
from sftlab.masking import mask_all_but_assistant

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


def training_tokenizer(tokenizer, chat_template_path: str | None = None):
    """Return a copy of the tokenizer whose chat template can be trained, and what was changed.

    The serving template stays in ``tokenizer``. Two kinds of template are completed for training:

    - one that writes no special token after the answer (GLM-4): the end-of-sequence token is
      written after the last answer, so that the model learns to stop;
    - one whose generation prompt writes more than the header of an answer (DeepSeek-R1:
      ``<think>``): what goes beyond the header is left out of the generation prompt.

    Args:
        chat_template_path: file of a Jinja template that is used in place of the tokenizer's own.

    Returns:
        The copy, and one sentence for each change.

    Raises:
        WorkbookError: there is no template, its file cannot be read, or no token could end a turn.
    """
    changed, notes = copy.copy(tokenizer), []
    changed.model_max_length = int(1e30)  # lengths are checked against the model, not here
    if borrowed := getattr(tokenizer, "borrowed_template", None):
        notes.append(f"the model has no chat template of its own: {borrowed}'s is used")
    if chat_template_path:
        try:
            changed.chat_template = Path(chat_template_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbookError(
                f"chat_template_path is {chat_template_path}, which cannot be read ({error}); give "
                "the file of a Jinja template"
            ) from None
        notes.append(f"training uses the template of {chat_template_path}")
    elif isinstance(changed.chat_template, dict):
        notes.append(_choose_default(changed))
    question, answer = user("Question"), Message(role="assistant", content="Answer")
    prompt = render(changed, question, add_generation_prompt=True)
    whole = render(changed, [*question, answer])
    if not whole.startswith(prompt):
        common = spot_the_difference(prompt, whole)[0]
        extra = prompt[common:]
        header_is_shared = common > len(render(changed, question))
        if header_is_shared and "Answer" in whole[common:]:
            changed.chat_template = _without_ending(changed.chat_template, len(extra))
            notes.append(
                f"the generation prompt of the template ends with {extra!r}, which no rendered answer "
                "has: it is left out in training; leave it out when you use the model, too"
            )
    elif prompt == render(changed, question) and not whole[len(prompt) :].lstrip().startswith(
        "Answer"
    ):
        header = whole[len(prompt) :].partition("Answer")[0]
        notes.append(
            f"the template has no generation prompt: the header {header!r} is trained as a part of each "
            "answer"
        )
    if "Answer" not in whole:
        raise WorkbookError(
            "the chat template does not write a plain text as answer (does it expect parts, or change texts?); give a "
            "template for text with chat_template_path"
        )
    try:
        end_of_turn_id(changed)
    except WorkbookError:
        if not changed.eos_token:
            raise
        changed.chat_template += (
            "{% if not add_generation_prompt and messages and messages[-1]['role'] == 'assistant' %}"
            "{{ '" + changed.eos_token + "' }}{% endif %}"
        )
        end_of_turn_id(changed)
        notes.append(
            f"the template writes no token after an answer: {changed.eos_token} is written after "
            "the last one and trained"
        )
    return changed, notes


def _choose_default(tokenizer) -> str:
    """Replace a dictionary of named templates by its default one; return a sentence about it."""
    names = list(tokenizer.chat_template)
    name = "default" if "default" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise WorkbookError(
            f"the tokenizer has several chat templates ({', '.join(names)}) and no default one; save "
            "one of them to a file and name it with chat_template_path"
        )
    tokenizer.chat_template = tokenizer.chat_template[name]
    return f'of the chat templates {", ".join(names)}, "{name}" is used'


def _without_ending(template: str, count: int) -> str:
    """Return a template whose generation prompt is shorter by ``count`` characters."""
    whole = "{% set rendered %}" + template + "{% endset %}"
    return whole + (
        "{% if add_generation_prompt %}{{ rendered[:-" + str(count) + "] }}"
        "{% else %}{{ rendered }}{% endif %}"
    )


def keeps_earlier_answers(tokenizer) -> bool:
    """Return whether all answers of a conversation can be trained in one example.

    Some templates render an answer differently once more messages follow: Qwen3 leaves out its
    reasoning, gpt-oss ends it with another token.
    """
    turn: list[Message] = [*user("Question"), {"role": "assistant", "content": "Answer"}]
    try:
        mask_all_but_assistant(tokenizer, turn + turn)
    except WorkbookError:
        return False
    return True


def _any_of(markers: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that matches any marker, longest first; ``split`` keeps the matches."""
    longest_first = sorted(markers, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
