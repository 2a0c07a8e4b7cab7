"""Look at a run before it starts: rows, markers, masks, adapters. Seconds here save an afternoon.

    python -m sftlab.preflight data.jsonl --model almanac

A wrong mask, a masked end marker or a doubled begin token do not crash and do not show in the loss
curve: the model learns something else, smoothly. Each guard names what it saw and what to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sftlab import guards
from sftlab.chat import Message
from sftlab.data import load_conversations, prepare, read_jsonl
from sftlab.errors import WorkbookError
from sftlab.guards import BROKEN, LOOK, OK, Finding
from sftlab.lora import inject_lora, lora_layers
from sftlab.masking import Example


def preflight(
    model,
    tokenizer=None,
    examples: Sequence[Example] = (),
    conversations: Sequence[list[Message]] = (),
    heldout: Sequence[str] = (),
) -> list[Finding]:
    """Run every guard that the arguments allow; the worst findings come first.

    Args:
        tokenizer: without it, only what ids and labels tell is looked at.
        examples: the rows as they will be trained.
        conversations: the same rows before they were tokenised.
        heldout: prompts that must not be among the training prompts.

    Nothing is changed: not the model's weights, gradients, mode or random state.
    """
    findings: list[Finding] = []
    if examples:
        ends = guards.end_ids(model, tokenizer, examples)
        findings += guards.rows(examples, ends)
        findings += guards.end_markers(examples, ends)
        findings += guards.begin_tokens(examples, model, tokenizer)
    if tokenizer is not None and conversations:
        findings.append(guards.prompt_is_a_prefix(tokenizer, conversations))
    if conversations and heldout:
        findings.append(guards.leak(conversations, heldout))
    findings += guards.parameters(model)
    if examples and lora_layers(model):
        findings.append(guards.start(model, examples[0]))
    order = (BROKEN, LOOK, OK)
    return sorted(findings, key=lambda finding: order.index(finding.state))


def told(findings: Sequence[Finding]) -> str:
    """The findings as a table in plain text, with a remedy under each that needs one."""
    width = max((len(finding.guard) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:6}  {finding.guard:{width}}  {finding.evidence}")
        if finding.remedy:
            lines.append(f"{'':6}  {'':{width}}  → {finding.remedy}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a file of conversations against a model. 0: nothing broken; 1: something is."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab.preflight", description=__doc__.split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="a JSONL file of conversations or pairs")
    parser.add_argument("--model", default="almanac", help="a name, hub id or folder")
    parser.add_argument("--heldout", type=Path, help="a JSONL file of questions that must not leak")
    parser.add_argument("--max-length", type=int, help="the most tokens a row may have")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    chosen = parser.parse_args(arguments)
    from sftlab.models import load  # here: it loads transformers, which takes seconds

    try:
        model, tokenizer = load(chosen.model)
        conversations = load_conversations(chosen.data)
        prepared = prepare(tokenizer, conversations, chosen.max_length, too_long="drop")
        asked = [row["prompt"] for row in read_jsonl(chosen.heldout)] if chosen.heldout else []
        if chosen.full:
            model.requires_grad_(True)
        else:
            inject_lora(model, "all-linear", r=8, alpha=16, seed=0)
        findings = preflight(model, tokenizer, prepared.examples, conversations, asked)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(told(findings))
    if prepared.dropped:
        print(f"left out: {len(prepared.dropped)} rows are longer than {chosen.max_length} tokens")
    return int(any(finding.state == BROKEN for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
