"""Check a training run before it starts: examples, special tokens, masks and adapters.

    python -m sftlab.preflight data.jsonl --model almanac

A wrong mask, a masked end-of-turn token or a doubled begin token causes no error and does not show
in the loss curve; the model learns something else. Each check reports what it found and how to fix
it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sftlab.chat import Message, encode, end_of_turn_id
from sftlab.data import load_conversations, read_jsonl, tokenize_conversations
from sftlab.errors import WorkbookError
from sftlab.lora import disable_lora, inject_lora, lora_layers, lora_parameters, lora_scale
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example


def preflight(
    model,
    tokenizer=None,
    examples: Sequence[Example] = (),
    conversations: Sequence[list[Message]] = (),
    heldout: Sequence[str] = (),
) -> list[Finding]:
    """Run every check that the arguments allow and return the findings, the worst first.

    The model's weights, gradients, mode and random state are not changed.

    Args:
        tokenizer: if None, only checks of ids and labels are run.
        examples: the examples as they will be trained.
        conversations: the same examples before tokenization.
        heldout: prompts that must not be among the training prompts.
    """
    findings: list[Finding] = []
    if examples:
        ends = end_ids(model, tokenizer, examples)
        findings += rows(examples, ends)
        findings += end_markers(examples, ends)
        findings += begin_tokens(examples, model, tokenizer)
    if tokenizer is not None and conversations:
        findings.append(prompt_is_a_prefix(tokenizer, conversations))
    if conversations and heldout:
        findings.append(leak(conversations, heldout))
    findings += parameters(model)
    if examples and lora_layers(model):
        findings.append(start(model, examples[0]))
    order = (BROKEN, LOOK, OK)
    return sorted(findings, key=lambda finding: order.index(finding.state))


def format_findings(findings: Sequence[Finding]) -> str:
    """Return the findings as a plain-text table, with the remedy below each finding if needed."""
    width = max((len(finding.guard) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:6}  {finding.guard:{width}}  {finding.evidence}")
        if finding.remedy:
            lines.append(f"{'':6}  {'':{width}}  → {finding.remedy}")
    return "\n".join(lines)


OK, LOOK, BROKEN = "ok", "look", "broken"


@dataclass(frozen=True)
class Finding:
    """The result of one check: its state, the evidence as a figure, and the remedy."""

    guard: str
    state: str
    evidence: str
    remedy: str = ""


# --- Examples ------------------------------------------------------------------------------------
def rows(examples: Sequence[Example], ends: Collection[int] = ()) -> Iterator[Finding]:
    """Check the examples: trained tokens, masks, label positions and duplicates.

    Args:
        ends: ids that end a turn, if known.
    """
    count = len(examples)
    empty = [number for number, row in enumerate(examples, 1) if not row.trained]
    yield Finding(
        "every row is trained",
        BROKEN if empty else OK,
        f"{len(empty)} of {count} rows have no trained token"
        + (f", the first is row {empty[0]}" if empty else ""),
        "look at the mask of these rows; a cut may have taken the whole answer" if empty else "",
    )
    whole = sum(row.trained >= len(row) - 1 for row in examples)
    share = sum(row.trained for row in examples) / sum(len(row) for row in examples)
    talks = sum(sum(token in ends for token in row.input_ids) > 1 for row in examples)
    state, remedy = OK, ""
    if whole > count / 2:  # normal for plain documents, but not for conversations
        state = BROKEN if talks > count / 2 else LOOK
        remedy = "mask the prompt (mask_prompt), unless you train all of it on purpose"
    yield Finding(
        "prompts are masked",
        state,
        f"{share:.0%} of the tokens are trained; {whole} of {count} rows from end to end",
        remedy,
    )
    here, later = _agreement(examples, 0), _agreement(examples, 1)
    yield Finding(
        "labels stand at their tokens",
        OK if here == 1 else BROKEN,
        f"{here:.0%} of the labels equal the token at their place"
        + (f", {later:.0%} the token after it" if here < 1 else ""),
        "" if here == 1 else "do not shift the labels: the loss does",
    )
    copies = Counter((tuple(row.input_ids), tuple(row.labels)) for row in examples)
    again = sum(times - 1 for times in copies.values())
    yield Finding(
        "rows differ",
        LOOK if again > 0.05 * count else OK,
        f"{again} of {count} rows are copies of another",
        "remove the copies, or they count several times" if again > 0.05 * count else "",
    )


def _agreement(examples: Sequence[Example], shift: int) -> float:
    """Return the share of labels that equal the token ``shift`` positions later."""
    pairs = [
        label == token
        for row in examples
        for label, token in zip(row.labels, row.input_ids[shift:], strict=False)
        if label != IGNORE_INDEX
    ]
    return sum(pairs) / len(pairs) if pairs else 1.0


# --- Special tokens ------------------------------------------------------------------------------
def end_ids(model, tokenizer, examples: Sequence[Example]) -> set[int]:
    """Return the ids that may end an answer.

    With a chat template, its end-of-turn token; otherwise the model's end tokens that occur in the
    examples.
    """
    if getattr(tokenizer, "chat_template", None):
        return {end_of_turn_id(tokenizer)}
    format_findings = getattr(model.config, "eos_token_id", None)
    used = {token for row in examples for token in row.input_ids}
    return used & set(format_findings if isinstance(format_findings, list) else [format_findings])


def end_markers(examples: Sequence[Example], ends: set[int]) -> Iterator[Finding]:
    """Check that the end-of-turn token of every answer is trained."""
    if not ends:
        return
    last = [
        max((i for i, x in enumerate(row.labels) if x != IGNORE_INDEX), default=-1)
        for row in examples
    ]
    # If the newline that a template may write after the end-of-turn token is trained too, the
    # end-of-turn token is the last but one.
    trained = [
        any(row.labels[at] in ends for at in range(max(place - 1, 0), place + 1))
        for row, place in zip(examples, last, strict=True)
    ]
    masked = [
        not done and any(token in ends for token in row.input_ids[place + 1 :])
        for row, place, done in zip(examples, last, trained, strict=True)
    ]
    good, hidden = sum(trained), sum(masked)
    cut = len(examples) - good - hidden
    state = OK if good == len(examples) else BROKEN if good < len(examples) / 2 else LOOK
    remedy = ""
    if hidden:
        remedy = "train the end marker: without it the model never learns to stop (is it masked as padding?)"
    elif cut:
        remedy = "keep whole answers: raise max_length, or leave these rows out"
    yield Finding(
        "answers end with their marker",
        state,
        f"in {good} of {len(examples)} rows the end marker is trained last; in {hidden} it "
        f"is there and masked, in {cut} it is missing",
        remedy,
    )


def begin_tokens(examples: Sequence[Example], model, tokenizer) -> Iterator[Finding]:
    """Check that no example starts with two begin tokens."""
    begin = getattr(tokenizer, "bos_token_id", None) if tokenizer else model.config.bos_token_id
    if begin is None:
        return
    doubled = sum(row.input_ids[:2] == [begin, begin] for row in examples)
    yield Finding(
        "one begin token",
        BROKEN if doubled else OK,
        f"{doubled} of {len(examples)} rows begin with it twice",
        "the template writes it already: tokenise with add_special_tokens=False" if doubled else "",
    )


def prompt_is_a_prefix(tokenizer, conversations: Sequence[list[Message]]) -> Finding:
    """Check that the prompt rendered at inference is the beginning of the trained sequence."""
    chosen = [talk for talk in conversations if talk[-1]["role"] == "assistant"][:50]
    wrong = 0
    for talk in chosen:
        prompt = encode(tokenizer, talk[:-1], add_generation_prompt=True)
        wrong += encode(tokenizer, talk)[: len(prompt)] != prompt
    return Finding(
        "inference reads what was trained",
        BROKEN if wrong else OK,
        f"in {wrong} of {len(chosen)} rows the prompt's tokens do not begin the row",
        "use one template for both, with its generation prompt" if wrong else "",
    )


def leak(conversations: Sequence[list[Message]], heldout: Sequence[str]) -> Finding:
    """Check that no held-out prompt occurs in the training prompts."""
    asked = {m["content"].strip() for talk in conversations for m in talk if m["role"] == "user"}
    both = sorted(asked & {prompt.strip() for prompt in heldout})
    return Finding(
        "held-out prompts are held out",
        BROKEN if both else OK,
        f"{len(both)} of {len(heldout)} are among the training prompts"
        + (f", {both[0]!r} for one" if both else ""),
        "take them out of the training data, or the score measures memory" if both else "",
    )


# --- Model ---------------------------------------------------------------------------------------
def parameters(model) -> Iterator[Finding]:
    """Check which parameters are trained, and their dtypes."""
    named = dict(model.named_parameters())
    trained = {name: p for name, p in named.items() if p.requires_grad}
    count, every = (sum(p.numel() for p in ps.values()) for ps in (trained, named))
    state, remedy = OK, ""
    if not trained:
        state, remedy = BROKEN, "inject LoRA, or model.requires_grad_(True)"
    layers = lora_layers(model)
    ours = {id(p) for p in lora_parameters(model)}
    beside = [name for name, p in trained.items() if id(p) not in ours] if layers else []
    if beside:
        state, remedy = LOOK, f"freeze the base: {beside[0]} is trained beside the adapters"
    half = [name for name, p in trained.items() if p.dtype == torch.float16]
    if half:
        state, remedy = BROKEN, "keep what is trained in float32: small steps vanish in float16"
    yield Finding("something is trained", state, f"{count:,} of {every:,} parameters", remedy)
    if layers:
        yield _scales(layers)


def _scales(layers: dict) -> Finding:
    """Check that the adapters are active and scaled correctly."""
    merged = [name for name, layer in layers.items() if layer.merged or not layer.enabled]
    wrong = [n for n, x in layers.items() if abs(x.scale - lora_scale(x.alpha, x.r, x.rule)) > 1e-6]
    some = next(iter(layers.values()))
    seen = f"{some.scale:g} for α = {some.alpha:g}, r = {some.r}"
    if merged:
        return Finding("adapters are in use", BROKEN, f"{merged[0]} is merged or switched off",
                       "un-merge or enable it: now its gradient is zero")  # fmt: skip
    if wrong:
        return Finding("adapters are in use", BROKEN, f"the factor is {seen}, not {some.rule}'s",
                       "divide α by r, once")  # fmt: skip
    if some.scale > 8:
        return Finding("adapters are in use", LOOK, f"the factor is {seen}",
                       "is α divided by r? A factor so large makes steps large")  # fmt: skip
    return Finding("adapters are in use", OK, f"{len(layers)} layers, factor {seen}")


def start(model, row: Example) -> Finding:
    """Check that the model with adapters starts as the base and that the adapters can learn."""
    name = "training starts at the base"
    stuck = [
        layer for layer in lora_layers(model).values() if not layer.A.any() and not layer.B.any()
    ]
    if stuck:
        return Finding(name, BROKEN, f"A and B are both zero in {len(stuck)} layers",
                       "start A at random: with both zero no gradient reaches either")  # fmt: skip
    ids = torch.tensor([row.input_ids[:64]], device=model.device)
    if any(layer.merged for layer in lora_layers(model).values()):
        return Finding(name, LOOK, "not compared: an adapter is merged")
    with _as_is(model), torch.no_grad():
        model.eval()
        with_adapters = model(ids, use_cache=False).logits
        with disable_lora(model):
            base = model(ids, use_cache=False).logits
    difference = (with_adapters - base).abs().max().item()
    if difference == 0:
        return Finding(name, OK, "the largest difference of the logits is exactly 0")
    return Finding(name, LOOK, f"the logits differ from the base's by up to {difference:.2g}",
                   "right if you go on with a trained adapter; else start B at zero")  # fmt: skip


@contextmanager
def _as_is(model) -> Iterator[None]:
    """Restore the training mode of all modules afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a file of conversations for a model. Return 0 if nothing is broken, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab.preflight", description=__doc__.split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="a JSONL file of conversations or pairs")
    parser.add_argument("--model", default="almanac", help="a name, hub id or folder")
    parser.add_argument("--heldout", type=Path, help="a JSONL file of questions that must not leak")
    parser.add_argument("--max-length", type=int, help="the most tokens a row may have")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    chosen = parser.parse_args(arguments)
    from sftlab.models import load  # imported here because transformers takes seconds to load

    try:
        model, tokenizer = load(chosen.model)
        conversations = load_conversations(chosen.data)
        prepared = tokenize_conversations(
            tokenizer, conversations, chosen.max_length, too_long="drop"
        )
        asked = [row["prompt"] for row in read_jsonl(chosen.heldout)] if chosen.heldout else []
        if chosen.full:
            model.requires_grad_(True)
        else:
            inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=0)
        findings = preflight(model, tokenizer, prepared.examples, conversations, asked)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(format_findings(findings))
    if prepared.dropped:
        print(f"left out: {len(prepared.dropped)} rows are longer than {chosen.max_length} tokens")
    return int(any(finding.state == BROKEN for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
