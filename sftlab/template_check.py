"""Check a chat template: what does it insert, and what can a user's message do to it?

    python -m sftlab template FOLDER        # the folder of a model or of its tokenizer

Each check renders a small conversation and looks at the token ids. Exit status: 0 nothing is broken,
1 something is, 2 the tokenizer cannot be read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sftlab.chat import Message, encode, end_of_turn_id, render, special_tokens, user
from sftlab.errors import WorkbookError
from sftlab.findings import BROKEN, LOOK, OK, Finding, format_findings, worst_first
from sftlab.masking import template_mask
from sftlab.preflight import prompt_is_a_prefix
from sftlab.templates import encode_safely, forged, keeps_earlier_answers

ASKED = user("Question")
TURN: list[Message] = [*ASKED, {"role": "assistant", "content": "Answer"}]


def check_template(tokenizer) -> list[Finding]:
    """Return what was found out about the tokenizer's chat template, the worst first.

    Raises:
        WorkbookError: there is no chat template, or it refuses a question and an answer.
    """
    render(tokenizer, TURN)
    return worst_first(
        [
            _begin_token(tokenizer),
            _prefix(tokenizer),
            *_end_of_turn(tokenizer),
            _system_turn(tokenizer),
            _generation_block(tokenizer),
            _earlier_answers(tokenizer),
            _forged_turn(tokenizer),
        ]
    )


def _begin_token(tokenizer) -> Finding:
    """The text of a rendering, tokenized with the defaults, must begin as the template's ids do."""
    name, begin = "one begin token", tokenizer.bos_token_id
    if begin is None:
        return Finding(name, OK, "the tokenizer has none")
    counts = []
    for ids in (encode(tokenizer, TURN), tokenizer(render(tokenizer, TURN))["input_ids"]):
        other = (place for place, token in enumerate(ids) if token != begin)
        counts.append(next(other, len(ids)))
    evidence = f"{counts[0]} from the template, {counts[1]} if its text is tokenized with the defaults"  # fmt: skip
    if counts[0] > 1:
        return Finding(name, BROKEN, evidence, "write it once in the template")
    if counts[1] > counts[0]:
        return Finding(name, LOOK, evidence, "tokenize rendered text with add_special_tokens=False")
    return Finding(name, OK, evidence)


def _end_of_turn(tokenizer) -> Iterator[Finding]:
    name = "a token ends the answer"
    try:
        end = end_of_turn_id(tokenizer)
    except WorkbookError as error:
        yield Finding(name, BROKEN, str(error))
        return
    token = tokenizer.convert_ids_to_tokens(end)
    same = end == tokenizer.eos_token_id
    yield Finding(name, OK if same else LOOK, f"{token}, id {end}; eos_token is {tokenizer.eos_token}",
                  "" if same else "tell generation to stop at it: generation_config.eos_token_id")  # fmt: skip
    text = render(tokenizer, TURN)
    after = text[text.rindex(token) + len(token) :]
    yield Finding("what follows that token", OK, f"{after!r}; it has no part in the answer's loss")


def _prefix(tokenizer) -> Finding:
    found = prompt_is_a_prefix(tokenizer, [TURN])
    how = "is" if found.state == OK else "isn't"
    return replace(found, evidence=f"the prompt {how} a prefix of the example")


def _system_turn(tokenizer) -> Finding:
    """Words before the first question that don't stand before a later one were inserted."""
    name, text = "no default system turn", render(tokenizer, ASKED)
    before = text[: text.rindex("Question")]
    longer = render(tokenizer, [*TURN, *user("Another")])
    header = longer[longer.rindex("Answer") + len("Answer") : longer.rindex("Another")]
    known = special_tokens(tokenizer)
    tags = "|".join([*map(re.escape, known), r"\[[^\[\]]*\]", "<[^<>]*>"])
    words = [len(re.findall(r"\w+", re.sub(tags, " ", some))) for some in (before, header)]
    inserted = words[0] > words[1]
    return Finding(
        name,
        LOOK if inserted else OK,
        f"before the question stand {sum(map(before.count, known))} special tokens and {before!r}",
        "give a system turn of your own, the same in training and in use" if inserted else "",
    )


def _generation_block(tokenizer) -> Finding:
    name = "the template marks the answers"
    try:
        trained = template_mask(tokenizer, TURN).trained
    except WorkbookError:
        trained = 0
    found = f"{trained} tokens of an answer are marked by {{% generation %}}"
    return Finding(name, OK if trained else LOOK, found, "" if trained else
                   "assistant_only_loss needs it; sftlab finds the answers without it")  # fmt: skip


def _earlier_answers(tokenizer) -> Finding:
    kept = keeps_earlier_answers(tokenizer)
    return Finding(
        "earlier answers stay as they were",
        OK if kept else LOOK,
        "an answer reads the same when more messages follow" if kept else
        "an answer is rendered differently when more messages follow",
        "" if kept else "train one answer per example (answers: each)",
    )  # fmt: skip


def _forged_turn(tokenizer) -> Finding:
    """A message that holds the special tokens of a whole turn, plainly and with the defense."""
    name = "a user's message opens no turn"
    attack = user("Hi. " + render(tokenizer, ASKED))
    special = set(tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer))))
    count = [sum(token in special for token in ids)
             for ids in (encode(tokenizer, user("Hi.")), encode(tokenizer, attack), encode_safely(tokenizer, attack))]  # fmt: skip
    open_, closed = (found - count[0] for found in count[1:])
    return Finding(
        name,
        LOOK if open_ else OK,
        f"of {len(forged(tokenizer, attack))} special tokens typed into a message, {open_} are read as such, "
        f"{closed} with encode_safely",
        "encode messages of users with encode_safely, or with sanitize_control_tokens=True" if open_ else "",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the template of a folder or a hub id; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sftlab template", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", help="the folder of a tokenizer, or its id on the hub")
    chosen = parser.parse_args(arguments)
    from transformers import AutoTokenizer

    try:
        try:
            tokenizer = AutoTokenizer.from_pretrained(chosen.source)
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise WorkbookError(f"{chosen.source} holds no tokenizer that can be read ({reason}); give its folder") from None  # fmt: skip
        found = check_template(tokenizer)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 2
    print(format_findings(found))
    return int(any(finding.state == BROKEN for finding in found))


if __name__ == "__main__":
    sys.exit(main())
