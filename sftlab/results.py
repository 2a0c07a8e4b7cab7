"""Results that stand alone: folders that load elsewhere, and adapters merged into whole models.

    python -m sftlab merge build/sft merged                        # float32
    python -m sftlab merge build/sft merged --dtype bfloat16       # half the size, rounded once

A result is a folder in the format of transformers (a model) or of PEFT (an adapter), with what is
needed to use it where this package is not installed: the tokenizer with its chat template, the
tokens that end an answer, and a model card that names the base, the data and the settings.
``sftlab_run.json`` says the same for programs, with a SHA-256 of the base's weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from transformers import GenerationConfig

from sftlab._internal.progress_bar import ProgressBar
from sftlab.adapters import WEIGHTS, save_adapter
from sftlab.architectures import limits
from sftlab.chat import end_of_turn_id
from sftlab.errors import WorkbookError
from sftlab.fetch import MB, file_checksum
from sftlab.lora import lora_layers, merge_lora
from sftlab.merging import relative_error, rounding_loss
from sftlab.models import (
    RECORD,
    Source,
    adapter_checksum,
    base_of,
    cast,
    load,
    load_unmerged,
    no_library_bars,
    read_record,
    result_folder,
    source_of,
)
from sftlab.run_identity import base_digest, versions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The identifiers of model hubs for licenses that are named otherwise here.
LICENCE_IDS = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "Llama 3.2 terms": "llama3.2",
    "Gemma terms": "gemma",
}
# Layers by a part of their name that PEFT misses, by model type: it renames their tensors as
# transformers does with those of old checkpoints, to names that there are not.
MISSED_BY_PEFT = {"laguna": "shared_experts", "inkling2_text": "sconv"}
TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "*TERMS*")  # files of a base that go with its weights


def save_result(
    model,
    tokenizer,
    folder: str | Path,
    *,
    base_name: str | Path,
    run: Mapping[str, Any],
    history: Mapping[str, Any],
    end_ids: Sequence[int],
    adapter: bool,
) -> Path:
    """Save a trained model, or its adapter, as a folder that can be used elsewhere.

    The folder is written beside an earlier result and then takes its place, so that an error, a
    full disk or an interrupt leaves the earlier one. Nothing in it names a folder outside it, but
    for the relative path of a base that is a local folder.

    Args:
        model: with LoRA layers if ``adapter``, otherwise without.
        tokenizer: the one to serve the model with.
        base_name: name or folder of the base, as given to ``models.load``.
        run: settings of the run. ``data`` is what ``data_record`` returned; ``model`` and
            ``output`` are left out.
        history: ``losses``, one per step in nats per trained token, and if known ``trained_tokens``,
            ``seconds``, ``processes`` and ``device``.
        end_ids: ids of the trained tokens that end a turn. Generation stops at them and at those
            of the base.
        adapter: save the LoRA layers alone, in PEFT's format.

    Returns:
        The folder.

    Raises:
        WorkbookError: the folder cannot be written to or holds something else than a result, or
            model and ``adapter`` do not agree.
    """
    if bool(lora_layers(model)) != adapter:
        raise WorkbookError(
            "the model has no LoRA layers, so there is no adapter to save"
            if adapter
            else "the model has LoRA layers: merge_lora(model), or save the adapter"
        )
    folder = Path(folder)
    source = source_of(base_name)
    losses = list(history.get("losses", ()))
    record = {
        "kind": "adapter" if adapter else "model",
        "base": base_record(source, folder, model if adapter else None),
        "data": run.get("data", {}),
        "settings": _without_places(run),
        "history": {key: value for key, value in history.items() if key != "losses"}
        | {"steps": len(losses)}
        | ({"first_loss": losses[0], "final_loss": losses[-1]} if losses else {}),
        "end_of_turn_ids": sorted({int(token) for token in end_ids}),
        "versions": versions(),
    }
    with replaced_folder(folder) as new:
        write_files(model, tokenizer, new, record, source)
    return folder


def data_record(path: str | Path, rows: int) -> dict[str, Any]:
    """Return a data file's name, number of rows and SHA-256, for ``save_result``.

    Raises:
        WorkbookError: the file cannot be read.
    """
    try:
        return {"file": Path(path).name, "rows": rows, "sha256": file_checksum(Path(path))}
    except OSError as error:
        raise WorkbookError(
            f"{path} cannot be read ({error.strerror}): a result names its data"
        ) from None


# --- What a result says about itself -------------------------------------------------------------
def base_record(source: Source, folder: Path, model=None) -> dict[str, Any]:
    """Return the base as a result records it: what it is, where, and the SHA-256 of its weights.

    Args:
        model: the base with an adapter, to compute the digest from; None if its weights are gone.
    """
    found: dict[str, Any] = {"kind": source.kind, "name": source.hub_id or source.name}
    if source.kind == "fetched":
        found |= {"name": source.name, "reconstructs": source.hub_id}
    if source.licence:
        found["licence"] = source.licence
    if source.kind in ("folder", "adapter"):
        try:
            relative = os.path.relpath(Path(source.place).resolve(), folder.resolve())
            found["path"] = Path(relative).as_posix()
        except ValueError:  # on another drive
            pass
    if source.kind != "folder" and (checksum := adapter_checksum(source)):
        found["adapter_sha256"] = checksum
    elif model is not None:
        found["weights_sha256"] = base_digest(model)
    return found


def _without_places(settings: Any) -> Any:
    """Return the settings without the run's files, and with names for paths of this machine."""
    if isinstance(settings, Mapping):
        return {
            key: _without_places(value)
            for key, value in settings.items()
            if key not in ("model", "data", "output")
        }
    if isinstance(settings, list | tuple):
        return [_without_places(each) for each in settings]
    if isinstance(settings, str | Path):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(settings).is_absolute():
                return kind(settings).name
        return str(settings)
    return settings


def _named_for_peft(base: Mapping[str, Any]) -> str:
    """Return PEFT's base_model_name_or_path: a hub id, or words that say why there is none."""
    if base["kind"] in ("hub", "fetched"):
        return base.get("reconstructs") or base["name"]
    what = {
        "embedded": "a model embedded in sftlab",
        "folder": "a local folder",
        "adapter": "itself an adapter: merge it first",
    }
    return f"{base['name']} ({what[base['kind']]}; see README.md)"


# --- Writing -------------------------------------------------------------------------------------
def write_files(model, tokenizer, folder: Path, record: dict, source: Source) -> None:
    """Write a result's files into a new folder."""
    ends = generation_config(model, tokenizer, record["end_of_turn_ids"])
    if record["kind"] == "adapter":
        save_adapter(model, folder, _named_for_peft(record["base"]))
        ends.save_pretrained(folder)
        part = MISSED_BY_PEFT.get(model.config.model_type)
        if part and any(part in name for name in lora_layers(model)):
            told = f"PEFT does not load this adapter whole (it misses {part}); use sftlab merge"
            record = record | {"missed_by_peft": told}
            print(told, file=sys.stderr)
    else:
        before, model.generation_config = model.generation_config, ends
        try:
            with no_library_bars():
                model.save_pretrained(folder)
        finally:
            model.generation_config = before
        for pattern in TERMS if source.kind in ("folder", "fetched") else ():
            for paper in Path(source.place).glob(pattern):
                shutil.copyfile(paper, folder / paper.name)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_card(record), encoding="utf-8")
    record = record | {"files": sorted([*(path.name for path in folder.iterdir()), RECORD])}
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def generation_config(model, tokenizer, end_ids: Sequence[int]) -> GenerationConfig:
    """Return the model's generation settings, which also stop at the given tokens."""
    found = GenerationConfig.from_dict(model.generation_config.to_dict())
    found._from_model_config = False  # otherwise transformers derives it anew from the model
    own = found.eos_token_id
    if own is None:
        own = model.config.get_text_config().eos_token_id
    own = [] if own is None else [own] if isinstance(own, int) else list(own)
    ends = list(dict.fromkeys([*own, *end_ids]))
    found.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if found.pad_token_id is None:
        found.pad_token_id = tokenizer.pad_token_id
    return found


def check_new_folder(folder: Path, what: str) -> None:
    """Raise WorkbookError if a folder for ``what`` is a file or not empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        why = "is a file" if folder.is_file() else "is not empty"
        raise WorkbookError(f"{folder} {why}; name a new folder for {what}")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``folder`` if the block succeeds.

    Files that an earlier result did not write are moved to the new folder.

    Raises:
        WorkbookError: it cannot be written, or ``folder`` is a file or holds no result. An earlier
            result is then still there.
    """
    folder = folder.resolve()  # a link stays one
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    if folder.is_file():
        raise WorkbookError(f"{folder} is a file; name a folder, new or not")
    try:
        if old.exists() and not folder.exists():  # stopped between two renames
            old.rename(folder)
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)
        if not folder.exists() or not any(folder.iterdir()):
            others = []
        elif any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
            written = read_record(folder).get("files", [p.name for p in folder.iterdir()])
            others = [path for path in folder.iterdir() if path.name not in written]
        else:
            raise WorkbookError(
                f"{folder} holds something else than a result ({next(folder.iterdir()).name}): "
                "choose another folder, or empty it"
            )
        new.mkdir(parents=True)
        yield new
        for path in new.rglob("*"):
            if path.is_file():
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())  # on the disk before it replaces what is there
        for path in others:
            if not (new / path.name).exists():
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        named = isinstance(error, WorkbookError) and str(new) not in str(error)
        if named or not isinstance(error, Exception):
            raise
        error = error.__cause__ or error  # of a message that names the temporary folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kept = "; the result before it is still there" if folder.exists() else ""
        raise WorkbookError(
            f"the result cannot be written to {folder} ({reason}){kept}: free some space or choose "
            "another folder, then run again"
        ) from error


# --- The model card ------------------------------------------------------------------------------
def _card(record: Mapping[str, Any]) -> str:
    """Return the model card: a header in YAML for model hubs, then Markdown."""
    base, kind = record["base"], record["kind"]
    hub_id = base["name"] if base["kind"] == "hub" else base.get("reconstructs")
    licence = base.get("licence")
    tags = ["sft", "sftlab", *(["lora"] if kind != "model" else [])]
    if hub_id:
        tags.append(f"base_model:{'adapter' if kind == 'adapter' else 'finetune'}:{hub_id}")
    header = {
        "base_model": hub_id or base["name"],
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        **({"license": LICENCE_IDS.get(licence, licence)} if licence else {}),
        "tags": tags,
    }
    what = {
        "adapter": "A LoRA adapter for",
        "merged": "A model: a LoRA adapter, merged into",
        "model": "A model, fine-tuned in all its parameters from",
    }[kind]
    data, history = record.get("data", {}), record.get("history", {})
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in header.items()),  # JSON is YAML
        "---",
        f"# {Path(data.get('file', 'Result')).stem} on {base['name']}",
        "",
        f"{what} `{base['name']}`, trained by supervised fine-tuning with sftlab.",
        "",
        "## Base",
        "",
        *_told_base(base),
        f"- license: {licence or 'not known here; ask where the base comes from'}",
        "",
        "## Training",
        "",
        *_told_data(data),
        *(
            f"- {key}: `{json.dumps(value)}`"
            for key, value in record.get("settings", {}).items()
            if value is not None
        ),
        *(f"- {key.replace('_', ' ')}: {_figure(value)}" for key, value in history.items()),
        f"- an answer ends with the token ids {record['end_of_turn_ids']} (generation_config.json)",
    ]
    if merged := record.get("merged"):
        lines += [f"- merged in float32, stored in {merged['dtype']}"]
    libraries = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines += [f"- versions: {libraries}", "", "## Use", "", *_told_use(record, hub_id), ""]
    return "\n".join(lines)


def _told_base(base: Mapping[str, Any]) -> list[str]:
    where = {
        "embedded": "embedded in sftlab (`data/models` of its repository), on no model hub",
        "fetched": f"a reconstruction of `{base.get('reconstructs')}` from 4 bits per weight "
        f"(`python -m sftlab fetch {base['name']}`); on the published weights the results differ a "
        "little",
        "hub": f"`{base['name']}` on the model hub",
        "folder": "a local folder of whoever trained this; it has to be passed on with this result",
        "adapter": "itself an adapter on another base: merge that one first "
        "(`python -m sftlab merge`)",
    }[base["kind"]]
    lines = [f"- `{base['name']}`: {where}"]
    for key in ("weights_sha256", "adapter_sha256"):
        if key in base:
            lines.append(f"- {key.replace('_', ' ')}: `{base[key]}`")
    return lines


def _told_data(data: Mapping[str, Any]) -> list[str]:
    if not data:
        return []
    return [f"- data: `{data.get('file')}`, {data.get('rows')} rows, sha256 `{data.get('sha256')}`"]


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _told_use(record: Mapping[str, Any], hub_id: str | None) -> list[str]:
    """Return Markdown with code that loads the result with the libraries and with this package."""
    names = "AutoModelForCausalLM, AutoTokenizer"
    if record["kind"] == "adapter":
        place = hub_id or f"path/to/{record['base']['name']}"
        code = [
            "from peft import PeftModel",
            f"from transformers import {names}, GenerationConfig",
            "",
            'folder = "path/to/this/folder"',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'model = AutoModelForCausalLM.from_pretrained("{place}", dtype="float32")',
            "model.generation_config = GenerationConfig.from_pretrained(folder)",
            "model = PeftModel.from_pretrained(model, folder).eval()",
        ]
    else:
        code = [
            f"from transformers import {names}",
            "",
            'folder = "path/to/this/folder"',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            "model = AutoModelForCausalLM.from_pretrained(folder)",
        ]
    ask = [
        "",
        'messages = [{"role": "user", "content": "..."}]',
        'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)',
        'ids = model.generate(**inputs, max_new_tokens=100)[0, inputs["input_ids"].shape[1]:]',
        "print(tokenizer.decode(ids, skip_special_tokens=True))",
    ]
    here = [
        "from sftlab.models import load",
        "",
        'model, tokenizer = load("path/to/this/folder")',
    ]
    elsewhere = ["```python", *code, *ask, "```"]
    if record["kind"] == "adapter" and "missed_by_peft" in record:
        elsewhere = [f"{record['missed_by_peft']}."]
    return [*elsewhere, "", "With sftlab:", "", "```python", *here, "```"]


# --- Merging -------------------------------------------------------------------------------------
def merge_result(
    adapter: str | Path,
    out: str | Path,
    base: str | Path | None = None,
    dtype: str = "float32",
    progress: bool = True,
) -> dict[str, Any]:
    """Merge a saved adapter into its base and save the model as a folder that can be used elsewhere.

    The sum W + s·B·A is computed in float32 and rounded once to ``dtype``. Before the folder gets
    its name, the saved model is loaded and its logits are compared with those of base and adapter.

    Args:
        adapter: folder of an adapter, ours or PEFT's, or the output of a run.
        out: folder for the model; new or empty.
        base: name or folder of the base, if that is not where the adapter's folder says.
        dtype: "float32", "bfloat16" or "float16".

    Returns:
        ``bytes`` of the weights, ``relative_error`` of the logits, the ``limit`` it was checked
        against, and for 16 bits the ``lost`` share of the update (``rounding_loss``).

    Raises:
        WorkbookError: there is no such adapter, its base is missing, quantized or another, ``out``
            is not empty or cannot be written to, or the logits differ by more than rounding.
    """
    if dtype not in DTYPES:
        raise WorkbookError(f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    folder, out = Path(adapter).expanduser(), Path(out).expanduser()
    if not folder.is_dir():
        raise WorkbookError(f"there is no folder {folder}; give that of an adapter or of a run")
    folder = result_folder(folder)
    check_new_folder(out, "the merged model")
    with ProgressBar(4, "stages", shown=progress) as bar:
        bar.update(0, note="loading")
        model, tokenizer = load_unmerged(folder, base)
        record = read_record(folder)
        probe = probe_ids(tokenizer, model)
        expected = logits_on(model, probe)
        layers = list(lora_layers(model).values())
        found: dict[str, Any] = {}
        if dtype != "float32":
            found["unchanged"], found["lost"] = rounding_loss(layers, DTYPES[dtype])
        bar.update(note="merging")
        merge_lora(model).requires_grad_(True)
        cast(model, DTYPES[dtype])
        bar.update(note="saving")
        source = source_of(base_of(folder, record) if base is None else base)
        record = _merged_record(record, source, folder, out, tokenizer, dtype)
        with replaced_folder(out) as new:
            write_files(model, tokenizer, new, record, source)
            del model
            bar.update(note="comparing")
            again, _ = load(new)
            # Two measures: 8 units in the last place for the rounding of the weights, and 1e-4 for
            # sums in another order.
            found["relative_error"] = relative_error(logits_on(again, probe), expected)
            found["limit"] = max(1e-4, 8 * torch.finfo(DTYPES[dtype]).eps)
            found["bytes"] = sum(path.stat().st_size for path in new.glob("*.safetensors"))
            if not found["relative_error"] <= found["limit"]:
                raise WorkbookError(
                    f"the merged model's logits differ from the adapter's by "
                    f"{found['relative_error']:.1e} (relative), more than the rounding of {dtype} "
                    f"explains ({found['limit']:.1e}): nothing was saved; use --dtype float32"
                )
        bar.update()
        bar.done = _told_merge(out, dtype, len(layers), found)
    return found


def probe_ids(tokenizer, model) -> torch.Tensor:
    """Return token ids to compare models on, (1, at most 64): spread over the vocabulary."""
    positions, _, vocabulary = limits(model)
    return torch.arange(min(64, positions or 64))[None] * 7919 % min(len(tokenizer), vocabulary)


@torch.inference_mode()
def logits_on(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids.to(model.device), use_cache=False).logits.float()


def _merged_record(record, source: Source, folder: Path, out: Path, tokenizer, dtype: str) -> dict:
    """Return the record of a merged model: that of its adapter, which may be PEFT's own."""
    ends = [end_of_turn_id(tokenizer)] if tokenizer.chat_template else []
    known = {"end_of_turn_ids": ends, "versions": versions(), **record}
    sums = {k: v for k, v in known.get("base", {}).items() if k.endswith("sha256")}
    checksum = file_checksum(folder / WEIGHTS)
    return known | {
        "kind": "merged",
        "base": base_record(source, out) | sums,
        "merged": {"dtype": dtype, "adapter_sha256": checksum},
        # With it the model passes for base and adapter, if nothing was rounded.
        **({"adapter_sha256": checksum} if dtype == "float32" else {}),
    }


def _told_merge(out: Path, dtype: str, layers: int, found: Mapping[str, float]) -> str:
    lost = ""
    if not math.isnan(found.get("lost", math.nan)):
        lost = (
            f"; rounding leaves {found['unchanged']:.0%} of the weights unchanged and loses "
            f"{found['lost']:.0%} of the update"
        )
    return (
        f"{out}: {layers} layers merged, {found['bytes'] / MB:.1f} MB in {dtype}; the logits differ "
        f"from the adapter's by {found['relative_error']:.1e} (relative; rounding explains up to "
        f"{found['limit']:.1e}){lost}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge an adapter into a whole model; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab merge",
        description="Merge a LoRA adapter into its base, and save a model that needs neither.",
    )
    parser.add_argument("adapter", type=Path, help="folder of an adapter, or the output of a run")
    parser.add_argument("out", type=Path, help="folder for the model; new or empty")
    parser.add_argument("--base", help="name or folder of the base, if it is not found by itself")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of the saved weights (default: float32)"
    )
    chosen = parser.parse_args(arguments)
    try:
        merge_result(chosen.adapter, chosen.out, chosen.base, chosen.dtype)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
