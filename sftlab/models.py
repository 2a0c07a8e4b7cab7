"""Load a model and its tokenizer by name: the embedded almanac, an alias, a hub id, or a folder.

    model, tokenizer = load("almanac")                  # the base model
    model, tokenizer = load("almanac", role="chat")     # the same model, fine-tuned

A *family* has two roles, ``base`` and ``chat``. A hub id, a folder and a fetched model (``python -m
sftlab fetch smollm2-instruct``) are one model each and ignore the role. The base of Gemma 3 270M
can be fetched; once fetched, "gemma3-270m" refers to it.

A base model without a chat template gets the template of its family: its tokenizer contains these
special tokens, though the model was not trained on them. Every notebook can therefore prompt and
tune it. Loading never runs code that comes with a model and never reads pickle files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab._internal.paths import MODELS
from sftlab.adapters import load_adapter
from sftlab.chat import special_tokens
from sftlab.errors import WorkbookError
from sftlab.fetch import PACKAGES, fetched, file_checksum, model_folder
from sftlab.lora import merge_lora
from sftlab.templates import FAMILIES as TEMPLATES
from sftlab.templates import MARKERS

ROLES = ("base", "chat")
RESTORE = "restore it with  git checkout -- data/models"


@dataclass(frozen=True)
class Family:
    """Where the models of a family are stored: folders under ``data/models``, or hub ids."""

    base: str
    chat: str
    licence: str
    embedded: bool = False


FAMILIES = {
    "almanac": Family("almanac-base", "almanac-chat", "MIT", embedded=True),
    "smollm2": Family(
        "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0"
    ),
    "qwen2.5-0.5b": Family("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0"),
    "llama3.2-1b": Family(
        "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", "Llama 3.2 terms"
    ),
    "gemma3-270m": Family("google/gemma-3-270m", "google/gemma-3-270m-it", "Gemma terms"),
}


def names() -> list[str]:
    """Return all names for ``load``: families, their roles ("almanac-chat"), fetchable models."""
    roles = (f"{family}-{role}" for family in FAMILIES for role in ROLES)
    return sorted({*FAMILIES, *PACKAGES, *roles})


def load(name: str | Path = "almanac", role: str = "base", dtype: torch.dtype = torch.float32):
    """Load a model (in eval mode) and its tokenizer.

    Args:
        name: a family ("almanac"), one of its roles ("almanac-chat", whatever ``role`` is), a
            fetched model ("smollm2-instruct"), a hub id ("org/model") or a folder. A folder takes
            precedence over a hub id of the same name.
        role: "base" or "chat"; used for families only.

    Raises:
        WorkbookError: the name is unknown (the message lists similar names), files are damaged or
            missing, or there is no network.
    """
    if role not in ROLES:
        raise WorkbookError(f"role is {role!r}; use one of {', '.join(ROLES)}")
    if not isinstance(name, str | Path):
        raise WorkbookError(f'a model\'s name is a text such as "almanac", not {name!r}')
    name = str(name)
    for ending in ROLES:
        if name.removesuffix(f"-{ending}") in FAMILIES and name.endswith(f"-{ending}"):
            name, role = name.removesuffix(f"-{ending}"), ending
    family = FAMILIES.get(name)
    if name in PACKAGES and (not family or (role == "base" and model_folder(name).is_dir())):
        return _load_pretrained(str(fetched(name)), dtype, local=True)
    if family and family.embedded:
        return _load_embedded(role, dtype)
    if family:
        or_fetch = f"; or run  python -m sftlab fetch {name}" if name in PACKAGES else ""
        try:
            return _load_pretrained(getattr(family, role), dtype)
        except WorkbookError as error:
            raise WorkbookError(f"{error}{or_fetch if role == 'base' else ''}") from error
    if _is_folder(name):
        return _load_pretrained(str(Path(name).expanduser()), dtype, local=True)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        return _load_pretrained(name, dtype)
    what = "folder" if "/" in name or "\\" in name else "model"
    near = get_close_matches(name.lower(), names(), n=3, cutoff=0.4) if what == "model" else []
    raise WorkbookError(
        f"there is no {what} {name!r}. "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + f"Known names: {', '.join({**FAMILIES, **PACKAGES})}; a hub id such as org/model and a folder work too"
    )


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # path too long, unknown user, null character
        return False


def _load_embedded(role: str, dtype: torch.dtype):
    folder = MODELS / "almanac-base"
    verify(folder)
    model, tokenizer = _load_pretrained(str(folder), dtype, local=True)
    if role == "chat":
        verify(MODELS / "almanac-chat")
        load_adapter(model, MODELS / "almanac-chat")
        merge_lora(model)
        model.requires_grad_(True)
    return model.eval(), tokenizer


def _load_pretrained(source: str, dtype: torch.dtype, local: bool = False):
    # Set explicitly: by default transformers asks at the keyboard whether to run a model's code.
    options = {"local_files_only": local, "trust_remote_code": False}
    bars = transformers.utils.logging
    quiet = local and bars.is_progress_bar_enabled()
    if quiet:  # it takes a tenth of a second
        bars.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # the libraries raise many types for a few causes
        raise WorkbookError(_explain(source, error, local)) from error
    finally:
        if quiet:
            bars.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):  # the library only warns and uses random weights
        raise WorkbookError(
            f"{source} is not complete: {len(missing)} tensors are missing from its weights, such "
            f"as {missing[0]}; copy or fetch the model anew"
        )
    _complete(tokenizer)
    return model.eval(), tokenizer


def _complete(tokenizer) -> None:
    """Add a chat template and a padding token to the tokenizer if it has none.

    The template is that of the first family whose special tokens the tokenizer has.
    """
    if not tokenizer.chat_template:
        known = set(special_tokens(tokenizer))
        for family, markers in MARKERS.items():
            if known.issuperset(markers):
                tokenizer.chat_template = TEMPLATES[family]
                break
    if tokenizer.pad_token is None:  # any token works; padding is neither attended to nor trained
        tokenizer.pad_token = tokenizer.eos_token


def _explain(source: str, error: Exception, local: bool) -> str:
    """Return one sentence that says what went wrong and what to do."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".: ")
    if local:
        return (
            f"{source} cannot be loaded as a model: {reason}. Expected a folder with config.json, "
            "tokenizer.json and model.safetensors (a model's own code and pickled weights are "
            "never loaded); copy or fetch the model anew"
        )
    return (
        f"{source} is no folder here and cannot be fetched from the hub: {reason}. Check the name; "
        "without a network give the path of a local folder, or use the embedded model: "
        'MODEL = "almanac"'
    )


def checksums() -> dict[str, str]:
    """Return the recorded SHA-256 of every file of the embedded models.

    Raises:
        WorkbookError: checksums.json is missing or damaged.
    """
    path = MODELS / "checksums.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbookError(f"checksums.json is missing from data/models: {RESTORE}") from None
    except ValueError:
        raise WorkbookError(f"checksums.json in data/models is damaged: {RESTORE}") from None


def verify(folder: Path) -> None:
    """Check that every recorded file of an embedded model is present and unchanged.

    Raises:
        WorkbookError: a file is missing or damaged, or the model has no recorded files.
    """
    recorded = {n: c for n, c in checksums().items() if (MODELS / n).parent == folder}
    if not recorded:
        raise WorkbookError(f"data/models/checksums.json knows no {folder.name}: {RESTORE}")
    for name, expected in recorded.items():
        if not (MODELS / name).is_file():
            raise WorkbookError(f"{name} is missing from data/models: {RESTORE}")
        if file_checksum(MODELS / name) != expected:
            raise WorkbookError(
                f"{name} is damaged (its checksum is not the recorded one): {RESTORE}"
            )


def record_checksums() -> None:
    """Record the checksums again after the embedded models were rebuilt."""
    kinds = (".safetensors", ".json", ".jinja")
    files = sorted(p for p in MODELS.glob("almanac-*/*") if p.suffix in kinds)
    table = {f"{p.parent.name}/{p.name}": file_checksum(p) for p in files}
    (MODELS / "checksums.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
