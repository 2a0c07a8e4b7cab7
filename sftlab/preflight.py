"""Check a training run before it starts: data, examples, special tokens, masks and adapters.

    python -m sftlab.preflight data.jsonl --model almanac
    python -m sftlab.preflight configs/sft.json               # with all settings of a run

A wrong mask, a masked end-of-turn token or a doubled begin token causes no error and does not show
in the loss curve; the model learns something else. Each check reports what it found and how to fix
it. Rows are read, converted and tokenized by the code of the training run, so that what it refuses
or leaves out is reported here.

Exit status: 0 the run can start (look at the findings), 1 something is broken, 2 nothing could be
checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from sftlab._internal.progress_bar import ProgressBar
from sftlab.architectures import check_adapters, check_loss, left_out, limits
from sftlab.chat import (
    Message,
    encode,
    end_of_turn_id,
    render,
    special_tokens,
    spot_the_difference,
)
from sftlab.checkpoints import folder_problem
from sftlab.data import EACH, ExampleMaker, collate, read_examples
from sftlab.errors import WorkbookError
from sftlab.findings import BROKEN, LOOK, OK, Finding, Inspection, format_findings, worst_first
from sftlab.formats import CHOICES, DataConfig, ReadingReport, read_conversations, rows_
from sftlab.lora import (
    disable_lora,
    inject_lora,
    lora_layers,
    lora_parameters,
    lora_scale,
)
from sftlab.loss import IGNORE_INDEX, trial
from sftlab.masking import Example
from sftlab.models import load
from sftlab.preflight_report import write_report
from sftlab.settings import Adapter, is_run, read_run
from sftlab.survey import SHOWN, Facts, TextSurvey, facts, quantiles
from sftlab.templates import training_tokenizer, writes_the_date

LOSS = "the loss is the model's own"


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
        ends, begin = end_ids(model, tokenizer, examples), begin_id(model, tokenizer)
        found = [facts(e, f"row {n}", ends, begin) for n, e in enumerate(examples, 1)]
        findings += of_examples(found, ends, begin)
    if tokenizer is not None and conversations:
        findings.append(prompt_is_a_prefix(tokenizer, conversations))
    if conversations and heldout:
        survey = TextSurvey([("", prompt) for prompt in heldout])
        for number, messages in enumerate(conversations, 1):
            survey.add(messages, f"row {number}")
        findings.append(leak(survey, len(heldout)))
    findings += of_model(model, examples)
    return worst_first(findings)


# --- Examples ------------------------------------------------------------------------------------
def of_examples(found: Sequence[Facts], ends: Collection[int], begin: int | None) -> list[Finding]:
    """Run the checks of examples: trained tokens, masks, label positions, copies, special tokens.

    Args:
        ends: ids that end a turn, if known.
        begin: id of the begin-of-sequence token, if there is one.
    """
    count = len(found)
    empty = [row.place for row in found if not row.trained]
    findings = [Finding(
        "every row is trained",
        BROKEN if empty else OK,
        f"{len(empty)} of {count} rows have no trained token"
        + (f", the first is {empty[0]}" if empty else ""),
        "look at the mask of these rows; a cut may have taken the whole answer" if empty else "",
    )]  # fmt: skip
    whole = sum(row.trained >= row.length - 1 for row in found)
    share = sum(row.trained for row in found) / sum(row.length for row in found)
    talks = sum(row.turns > 1 for row in found)
    state, remedy = OK, ""
    if whole > count / 2:  # normal for plain documents, but not for conversations
        state = BROKEN if talks > count / 2 else LOOK
        remedy = "mask the prompt (mask_prompt), unless you train all of it on purpose"
    findings.append(Finding(
        "prompts are masked",
        state,
        f"{share:.0%} of the tokens are trained; {whole} of {count} rows from end to end",
        remedy,
    ))  # fmt: skip
    here = sum(r.here for r in found) / max(sum(r.labels for r in found), 1)
    later = sum(r.later for r in found) / max(sum(r.compared_later for r in found), 1)
    right = here == 1 or not any(r.labels for r in found)
    findings.append(Finding(
        "labels stand at their tokens",
        OK if right else BROKEN,
        f"{1 if right else here:.0%} of the labels equal the token at their place"
        + ("" if right else f", {later:.0%} the token after it"),
        "" if right else "do not shift the labels: the loss does",
    ))  # fmt: skip
    again = sum(times - 1 for times in Counter(row.digest for row in found).values())
    findings.append(Finding(
        "rows differ",
        LOOK if again > 0.05 * count else OK,
        f"{again} of {count} rows are copies of another",
        "remove the copies, or they count several times" if again > 0.05 * count else "",
    ))  # fmt: skip
    if ends:
        findings.append(_end_markers(found))
    if begin is not None:
        doubled = sum(row.doubled for row in found)
        findings.append(Finding(
            "one begin token",
            BROKEN if doubled else OK,
            f"{doubled} of {count} rows begin with it twice",
            "the template writes it already: tokenize with add_special_tokens=False" if doubled else "",
        ))  # fmt: skip
    return findings


def end_ids(model, tokenizer, examples: Sequence[Example]) -> set[int]:
    """Return the ids that may end an answer.

    With a chat template, its end-of-turn token; otherwise the model's end tokens that occur in the
    examples.
    """
    if getattr(tokenizer, "chat_template", None):
        return {end_of_turn_id(tokenizer)}
    known = getattr(model.config, "eos_token_id", None)
    used = {token for row in examples for token in row.input_ids}
    return used & set(known if isinstance(known, list) else [known])


def begin_id(model, tokenizer) -> int | None:
    """Return the id of the begin-of-sequence token, or None if there is none."""
    source = tokenizer if tokenizer else model.config
    return getattr(source, "bos_token_id", None)


def _end_markers(found: Sequence[Facts]) -> Finding:
    """Check that the end-of-turn token of every answer is trained."""
    count = Counter(row.end for row in found)
    good, hidden, cut = count["trained"], count["masked"], count["missing"]
    state = OK if good == len(found) else BROKEN if good < len(found) / 2 else LOOK
    remedy = ""
    if hidden:
        remedy = "train the end marker: without it the model never learns to stop (is it masked as padding?)"
    elif cut:
        remedy = "keep whole answers: raise max_length, or leave these rows out"
    where = [row.place for row in found if row.end != "trained"][:SHOWN]
    return Finding(
        "answers end with their marker",
        state,
        f"in {good} of {len(found)} rows the end marker is trained last; in {hidden} it "
        f"is there and masked, in {cut} it is missing",
        remedy,
        _first(where),
    )  # fmt: skip


def _first(places: Sequence[str]) -> tuple[str, ...]:
    """Return the line that a finding shows of the first places."""
    return (f"first: {', '.join(places)}",) if places else ()


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


def leak(survey: TextSurvey, count: int) -> Finding:
    """Check that no held-out prompt occurs in the training prompts, exactly or nearly."""
    both = sorted(survey.leaked.items())
    near = survey.nearly_leaked()
    state = BROKEN if both else LOOK if near else OK
    where = [f"{place}: {prompt[:60]!r}" for prompt, place in both[:SHOWN]]
    where += [f"{place} is {similarity:.0%} {known}" for place, known, similarity in near[:SHOWN]]
    return Finding(
        "held-out prompts are held out",
        state,
        f"{len(both)} of {count} are among the training prompts, {len(near)} nearly"
        + (f"; {both[0][0]!r} for one" if both else ""),
        "take them out of the training data, or the score measures memory" if both or near else "",
        tuple(where),
    )


# --- Data ----------------------------------------------------------------------------------------
def of_data(report: ReadingReport, survey: TextSurvey) -> Iterator[Finding]:
    """Check what was read: rows that cannot be used, keys, duplicates, damage, personal data."""
    yield Finding(
        "rows can be used",
        BROKEN if report.problems or not report.rows else OK,
        f"{report.problems} of {rows_(report.rows)} cannot be used" + (":" if report.problems else ""),
        "repair or remove them: training refuses the file" if report.problems else "" if report.rows else "the file has no rows",
        tuple(report.refusals()),
    )  # fmt: skip
    left_out = sum(report.dropped.values())
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
        nothing = left_out + report.problems == report.rows
        yield Finding("rows are left out", BROKEN if nothing else LOOK, f"{left_out} of {report.rows}: {reasons}",
                      "nothing is left to train" if nothing else "as the settings say; look whether they are too many")  # fmt: skip
    if report.unknown:
        yield Finding("every key is used", LOOK, f"not used: {report.unused()}",
                      "if one of them means something for training, rename or convert it")  # fmt: skip
    else:
        yield Finding("every key is used", OK, f"in {rows_(report.rows)}")
    near = survey.duplicates.near()
    copies = survey.duplicates.exact
    many = copies + len(near) > 0.05 * report.rows
    yield Finding(
        "texts differ",
        LOOK if many else OK,
        f"{copies} rows repeat another, {len(near)} nearly (≥ 80% of the word triples)",
        "remove them, or they count several times" if many else "",
        tuple(f"{a} is {similarity:.0%} like {b}" for a, b, similarity in near[:SHOWN]) if many else (),
    )  # fmt: skip
    if survey.damaged.count:
        yield Finding("texts are decoded rightly", LOOK, f"{rows_(survey.damaged.count)} with characters such as Ã©, \ufffd or control characters",
                      "read the source again with its encoding; the ftfy library repairs most", _first(survey.damaged.first))  # fmt: skip
    for kind, places in survey.personal.items():
        yield Finding("no personal data", LOOK, f"{kind} in {rows_(places.count)}",
                      "replace it, if it is real: models repeat what they are trained on", _first(places.first))  # fmt: skip
    if survey.unfinished.count:
        yield Finding("answers are complete", LOOK, f"{survey.unfinished.count} long answers end without a full stop",
                      "were they cut when they were generated? The model learns to stop there", _first(survey.unfinished.first))  # fmt: skip


# --- Model ---------------------------------------------------------------------------------------
def of_model(model, examples: Sequence[Example]) -> Iterator[Finding]:
    """Check what is trained, and the adapters; ``examples``: a few are enough."""
    yield from parameters(model)
    if examples and lora_layers(model):
        yield start(model, examples[0])
    trained = [example for example in examples if example.trained][:2]
    if trained:
        batch = {k: v.to(model.device) for k, v in collate(trained, 0).items()}
        problem = check_loss(model, batch)
        if problem is None and lora_layers(model):
            problem = check_adapters(model, batch)
        yield Finding(LOSS, BROKEN if problem else OK,
                      problem or "equal to the library's on two rows",
                      "choose another model or other target_modules" if problem else "")  # fmt: skip


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
    with trial(model):
        with_adapters = model(ids, use_cache=False).logits
        with disable_lora(model):
            base = model(ids, use_cache=False).logits
    difference = (with_adapters - base).abs().max().item()
    if difference == 0:
        return Finding(name, OK, "the largest difference of the logits is exactly 0")
    return Finding(name, LOOK, f"the logits differ from the base's by up to {difference:.2g}",
                   "right if you go on with a trained adapter; else start B at zero")  # fmt: skip


def untrained_tokens(model, tokenizer, used: Collection[int]) -> Finding | None:
    """Look for special tokens in the examples whose embeddings were never trained and stay frozen.

    Such rows are zero, equal to another's, or lie at the mean of all rows, where ``transformers``
    puts the rows of added tokens.
    """
    embeddings = model.get_input_embeddings().weight
    if embeddings.requires_grad or not used:
        return None
    rows = embeddings.detach().float()
    mean = rows.mean(0)
    usual = (rows[:: max(1, len(rows) // 4096)] - mean).norm(dim=1).median()
    chosen = rows[sorted(used)]
    odd = (chosen - mean).norm(dim=1) < 0.1 * usual
    odd |= chosen.norm(dim=1) < 0.1 * rows[:: max(1, len(rows) // 4096)].norm(dim=1).median()
    odd |= (torch.cdist(chosen, chosen) == 0).sum(1) > 1
    names = tokenizer.convert_ids_to_tokens([t for t, bad in zip(sorted(used), odd, strict=True) if bad])  # fmt: skip
    return Finding(
        "special tokens were trained",
        LOOK if names else OK,
        f"{len(names)} of {len(used)} special tokens in the examples look untrained"
        + (f" ({', '.join(names[:5])}), and the embeddings are frozen" if names else ""),
        "use a chat template whose tokens the model knows, or train all parameters" if names else "",
    )  # fmt: skip


def inspect(
    model, tokenizer, data: str | Path, config: DataConfig, heldout: str | Path | None = None,
    progress: bool = True,
) -> Inspection:  # fmt: skip
    """Look at a file of data as a training run with this model would read it.

    Args:
        model: with its adapters, as it would be trained.
        tokenizer: with the chat template for serving.
        heldout: a file of questions, in any format, that must not be among the prompts.

    Raises:
        WorkbookError: a file cannot be read at all, or there is no chat template.
    """
    trained, notes = training_tokenizer(tokenizer, config.chat_template_path)
    if writes_the_date(trained):
        notes.append("the chat template writes the date: a run keeps that of its start")
    questions = held_out_questions(heldout) if heldout else []
    report, survey = ReadingReport(str(data)), TextSurvey(questions)
    maker = ExampleMaker(trained, config, report, limits(model))
    ends, begin = {end_of_turn_id(trained)}, begin_id(model, trained)
    special = set(trained.convert_tokens_to_ids(list(special_tokens(trained))))
    found: list[Facts] = []
    first: list[tuple[list[Message], Example, str]] = []
    used: set[int] = set()
    with ProgressBar(_rows_in(Path(data)), "rows", shown=progress and sys.stderr.isatty()) as bar:
        for conversation, example in read_examples(data, maker, report):
            found.append(facts(example, conversation.place, ends, begin))
            survey.add(conversation.messages, conversation.place)
            used.update(special.intersection(example.input_ids))
            if len(first) < FIRST:
                first.append((conversation.messages, example, conversation.place))
            bar.update(report.rows - bar.n)
        bar.done = f"{report.rows} read"
    if maker.answers != "all" and config.answers == "auto":
        notes.append(EACH)
    findings = list(of_data(report, survey))
    if found:
        findings += of_examples(found, ends, begin)
        findings.append(prompt_is_a_prefix(trained, [messages for messages, _, _ in first]))
        if config.chat_template_path:
            findings.append(_templates_agree(tokenizer, trained, [m for m, _, _ in first]))
    if questions:
        findings.append(leak(survey, len(questions)))
    findings += of_model(model, [example for _, example, _ in first])
    if known := untrained_tokens(model, trained, used):
        findings.append(known)
    views = [
        (place, [(trained.decode([t]), x != IGNORE_INDEX) for t, x in zip(e.input_ids, e.labels, strict=True)])
        for _, e, place in first[:5]
    ]  # fmt: skip
    return Inspection(
        worst_first(findings), report, notes + report.conversions(),
        quantiles([row.length for row in found]) if found else {},
        quantiles([row.trained for row in found]) if found else {},
        views, [(row.length, row.trained) for row in found],
    )  # fmt: skip


FIRST = 50  # examples that the slower checks look at


def held_out_questions(path: str | Path) -> list[tuple[str, str]]:
    """Return the (place, prompt) of every held-out question."""
    report = ReadingReport(str(path))
    found = [
        (talk.place, message["content"])
        for talk in read_conversations(path, DataConfig(), report, prompts_only=True)
        for message in talk.messages
        if message["role"] == "user" and isinstance(message["content"], str)
    ]
    report.raise_if_refused()
    return found


def _rows_in(path: Path) -> int:
    """Return the number of lines of a text file, for the progress bar; 0 for other files."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _templates_agree(serving, training, conversations: Sequence[list[Message]]) -> Finding:
    """Compare the template for training with the one the model is used with."""
    shown = ""
    differ = 0
    for talk in conversations:
        texts = []
        for tokenizer in (serving, training):
            try:
                texts.append(render(tokenizer, talk))
            except WorkbookError as error:
                texts.append(str(error))
        differ += texts[0] != texts[1]
        if differ == 1 and not shown:
            at, one, other = spot_the_difference(*texts)
            shown = f"; first at character {at}: {''.join(one)[:40]!r}, in training {''.join(other)[:40]!r}"  # fmt: skip
    return Finding(
        "training and serving render alike",
        LOOK if differ else OK,
        f"{differ} of {len(conversations)} rows differ between the two templates{shown}",
        "the model is used with its own template: is the difference meant?" if differ else "",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sftlab.preflight",
        description=(__doc__ or "").split("\n")[0],
        epilog="exit status: 0 the run can start (look at the findings), 1 something is broken, 2 nothing could be checked",
    )  # fmt: skip
    parser.add_argument("data", type=Path, help="a file of conversations, or the file of a run")
    parser.add_argument("--model", default="almanac", help="a name, hub id or folder")
    parser.add_argument("--heldout", type=Path, help="a file of questions that must not leak")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--report", type=Path, help="write a page (HTML) that can be mailed")
    settings = parser.add_argument_group("how rows become examples")
    for setting in fields(DataConfig):
        flag = "--" + setting.name.replace("_", "-")
        if setting.name == "max_length":
            settings.add_argument(flag, type=int, help="the most tokens an example may have")
        else:
            settings.add_argument(flag, choices=CHOICES.get(setting.name), metavar="|".join(CHOICES.get(setting.name, ("TEXT",))))  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a file of conversations for a model; return the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.report and chosen.report.suffix.lower() not in (".html", ".htm"):
            raise WorkbookError(
                f"--report is {chosen.report}; the page is written to a file that ends in .html"
            )
        found = _inspected(chosen)
        if chosen.report:
            write_report(found, chosen.report)
    except WorkbookError as error:
        print(json.dumps({"exit_status": 2, "error": str(error)}) if chosen.json else error,
              file=sys.stdout if chosen.json else sys.stderr)  # fmt: skip
        return 2
    if chosen.json:
        print(found.as_json())
        return found.exit_status
    print(format_findings(found.findings))
    print("\n".join(["", *found.notes, *_sizes(found)]))
    return found.exit_status


def _sizes(found: Inspection) -> list[str]:
    return [
        f"{name}: {counts['least']} to {counts['most']}, median {counts['median']}, 95% up to {counts['95%']}"
        for name, counts in (("tokens per example", found.lengths), ("of these trained", found.trained))
        if counts
    ]  # fmt: skip


def _inspected(chosen: argparse.Namespace) -> Inspection:
    """Load what the arguments name and look at it."""
    settings = {
        setting.name: value
        for setting in fields(DataConfig)
        if (value := getattr(chosen, setting.name)) is not None
    }
    notes: list[str] = []
    config: DataConfig
    if is_run(chosen.data):
        config = run = replace(read_run(chosen.data, notes), **settings)
        heldout, adapter, name = chosen.heldout or run.heldout, run.adapter, run.model
        data, seed = Path(run.data), run.train.seed
    else:
        config, data, heldout, name = DataConfig(**settings), chosen.data, chosen.heldout, chosen.model  # fmt: skip
        adapter, seed = None if chosen.full else Adapter(), 0
    if not data.exists():
        raise WorkbookError(f"{data} is no file; expected a file of conversations, such as JSONL")
    if is_run(chosen.data) and (problem := folder_problem(run.output)):
        raise WorkbookError(f"output is {run.output!r}, which cannot be written to ({problem})")
    model, tokenizer = load(name)
    if adapter is None or chosen.full:
        model.requires_grad_(True)
    else:
        inject_lora(model, **asdict(adapter), seed=seed)
        notes += left_out(model, adapter.target_modules)
    found = inspect(model, tokenizer, data, config, heldout, progress=not chosen.json)
    found.notes[:0] = notes
    return found


if __name__ == "__main__":
    sys.exit(main())
