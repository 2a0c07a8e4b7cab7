"""Load a model and its tokenizer by name: the embedded almanac, an alias, a hub id, or a folder.

    model, tokenizer = load("almanac")                  # the base model
    model, tokenizer = load("almanac", role="chat")     # the same model, fine-tuned
    model, tokenizer = load("build/sft")                # what a run trained

A *family* has two roles, ``base`` and ``chat``. A hub id, a folder and a fetched model (``python -m
sftlab fetch smollm2-instruct``) are one model each and ignore the role. The base of Gemma 3 270M
can be fetched; once fetched, "gemma3-270m" refers to it.

A base model without a chat template gets the template of its family: its tokenizer contains these
special tokens, though the model was not trained on them. Every notebook can therefore prompt and
tune it. Loading never runs code that comes with a model and never reads pickle files.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto import modeling_auto

from sftlab._internal.paths import MODELS
from sftlab.adapters import CONFIG, WEIGHTS, adapter_config, load_adapter
from sftlab.chat import special_tokens
from sftlab.errors import WorkbookError
from sftlab.fetch import PACKAGES, fetched, file_checksum, model_folder
from sftlab.lora import merge_lora
from sftlab.run_identity import base_digest
from sftlab.templates import FAMILIES as TEMPLATES
from sftlab.templates import MARKERS

ROLES = ("base", "chat")
RESTORE = "restore it with  git checkout -- data/models"
RESULTS = ("adapter", "model")  # folders in the output of a run
RECORD = "sftlab_run.json"  # in a saved result: its base, data, settings; see ``sftlab.results``


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
# Fetched models -> the published model that they reconstruct from 4 bits.
PUBLISHED = {
    "smollm2-instruct": FAMILIES["smollm2"].chat,
    "gemma3-270m": FAMILIES["gemma3-270m"].base,
}


def names() -> list[str]:
    """Return all names for ``load``: families, their roles ("almanac-chat"), fetchable models."""
    roles = (f"{family}-{role}" for family in FAMILIES for role in ROLES)
    return sorted({*FAMILIES, *PACKAGES, *roles})


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    kind: str  # "embedded", "fetched", "hub", "folder", or "adapter" (a folder with an adapter)
    name: str  # accepted by ``load``; of a folder its last part
    place: str  # hub id or folder
    licence: str | None = None
    hub_id: str | None = None  # of the model itself, or of that which a fetched one reconstructs


def source_of(name: str | Path, role: str = "base") -> Source:
    """Return where a name's model comes from, without loading it. The arguments are ``load``'s.

    Raises:
        WorkbookError: the name is unknown, or a folder holds no result or two.
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
        place = str(model_folder(name))
        return Source("fetched", name, place, PACKAGES[name].licence, PUBLISHED.get(name))
    if family and family.embedded:
        return Source("embedded", f"{name}-{role}", getattr(family, role), family.licence)
    if family:
        hub_id = getattr(family, role)
        return Source("hub", f"{name}-{role}", hub_id, family.licence, hub_id)
    if _is_folder(name):
        folder = result_folder(Path(name).expanduser())
        kind = "adapter" if (folder / CONFIG).is_file() else "folder"
        parts = folder.resolve().parts
        own = parts[-2] if parts[-1] in RESULTS and len(parts) > 2 else parts[-1]
        return Source(kind, own, str(folder), _licence_of(folder))
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        licences = {m: f.licence for f in FAMILIES.values() for m in (f.base, f.chat)}
        return Source("hub", name, name, licences.get(name), name)
    what = "folder" if "/" in name or "\\" in name else "model"
    near = get_close_matches(name.lower(), names(), n=3, cutoff=0.4) if what == "model" else []
    raise WorkbookError(
        f"there is no {what} {name!r}. "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + f"Known names: {', '.join({**FAMILIES, **PACKAGES})}; a hub id such as org/model and a folder work too"
    )


def load(
    name: str | Path = "almanac",
    role: str = "base",
    dtype: torch.dtype = torch.float32,
    base: str | Path | None = None,
):
    """Load a model (in eval mode) and its tokenizer.

    A folder may hold a model, an adapter, ours or PEFT's, or the output of a run. An adapter is
    merged into its base, so that the model can be used and tuned as any other. The tokenizer and
    its chat template are those of the adapter's folder, or of the base if it has none.

    Args:
        name: a family ("almanac"), one of its roles ("almanac-chat", whatever ``role`` is), a
            fetched model ("smollm2-instruct"), a hub id ("org/model") or a folder. A folder takes
            precedence over a hub id of the same name.
        role: "base" or "chat"; used for families only.
        base: of a folder with an adapter: name or folder of its base, if that is not where the
            adapter's folder says.

    Raises:
        WorkbookError: the name is unknown (the message lists similar names), files are damaged or
            missing, there is no network, or the base of an adapter is missing, quantized or not
            the one that the adapter was trained on.
    """
    source = source_of(name, role)
    if source.kind == "adapter":
        model, tokenizer = load_unmerged(source.place, base)
        merge_lora(model).requires_grad_(True)
        return cast(model, dtype), tokenizer
    if base is not None:
        raise WorkbookError(f"{name} is a whole model: it needs no base, but base is {base}")
    if source.kind == "embedded":
        return _load_embedded(role_of(source), dtype)
    if source.kind == "fetched":
        return _load_pretrained(str(fetched(source.name)), dtype, local=True)
    if source.kind == "folder":
        return _load_pretrained(source.place, dtype, local=True)
    try:
        return _load_pretrained(source.place, dtype)
    except WorkbookError as error:
        package = source.name.removesuffix("-base")
        if package in PACKAGES:
            raise WorkbookError(f"{error}; or run  python -m sftlab fetch {package}") from error
        raise


def role_of(source: Source) -> str:
    """Return the role of an embedded model: "base" or "chat"."""
    return source.name.rpartition("-")[2]


def load_unmerged(folder: str | Path, base: str | Path | None = None):
    """Load the base of an adapter's folder in float32, with the adapter as LoRA layers on it.

    Returns:
        The model, in eval mode, and the tokenizer; see ``load``, also for ``base`` and errors.
    """
    folder = result_folder(Path(folder).expanduser())
    adapter_config(folder)  # refused before a base is loaded
    record = read_record(folder)
    place = base_of(folder, record) if base is None else str(base)
    with _not_in_a_circle(folder):
        try:
            source = source_of(place)
            _refuse_quantized(folder, source)
            model, tokenizer = load(place)
        except WorkbookError as error:
            told = "" if "--base" in str(error) else f"; {_remedy(folder)}"
            raise WorkbookError(f"{folder} is an adapter on {place}: {error}{told}") from error
    _check_base(model, source, folder, record)
    load_adapter(model, folder)
    if (folder / "tokenizer_config.json").is_file():
        with _explained(str(folder), local=True):
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        _complete(tokenizer)
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise WorkbookError(
                f"the tokenizer of {folder} has {len(tokenizer)} tokens, its base {place} reads "
                f"{rows}: tokens were added that the adapter does not hold; save the whole model"
            )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval(), tokenizer


def cast(model, dtype: torch.dtype):
    """Round a model's weights to a dtype, in place; return the model.

    Buffers that are computed, such as the frequencies of rotary positions, keep their precision, as
    do the few weights that transformers keeps in float32 in every model of their kind.
    """
    if dtype != model.dtype:
        kept = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and not any(part in name for part in kept):
                parameter.data = parameter.data.to(dtype)
        model.config.dtype = dtype
    return model


# --- Folders of results --------------------------------------------------------------------------
def result_folder(folder: Path) -> Path:
    """Return the folder of the result, if this is the output of a run; otherwise the folder itself.

    Raises:
        WorkbookError: the folder holds two results, or a run that has none yet.
    """
    whole, adapter = ((folder / name).is_file() for name in ("config.json", CONFIG))
    if whole and adapter:
        raise WorkbookError(
            f"{folder} holds a whole model and an adapter, and nothing says which is meant: move "
            f"{CONFIG} and {WEIGHTS} to a folder of their own"
        )
    found = [folder / part for part in RESULTS if (folder / part).is_dir()]
    if whole or adapter:
        return folder
    if len(found) == 2:
        raise WorkbookError(f"{folder} holds two results: name {found[0]} or {found[1]}")
    if not found and (folder / "checkpoint.pt").is_file():
        raise WorkbookError(
            f"{folder} holds a run without a result: run it again to its end, then load it"
        )
    return found[0] if found else folder


def read_record(folder: str | Path) -> dict:
    """Return what a saved result says about itself; empty if it was not saved by this package.

    Raises:
        WorkbookError: the file is damaged.
    """
    path = Path(folder) / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found | {"base": dict(found["base"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise WorkbookError(
            f"{path} is damaged ({error}): copy the result anew, or remove the file if you are "
            "sure of the base"
        ) from error


def adapter_checksum(source: Source) -> str | None:
    """Return the SHA-256 of the adapter's file in a model that is a base and an adapter, or None.

    Weights that were just merged can differ in the last bit from machine to machine; the files
    they come from do not.
    """
    if source.kind == "embedded" and role_of(source) == "chat":
        return file_checksum(MODELS / source.place / WEIGHTS)
    if source.kind == "adapter":
        return file_checksum(Path(source.place) / WEIGHTS)
    if source.kind == "folder":
        return read_record(source.place).get("adapter_sha256")
    return None


def base_of(folder: Path, record: dict) -> str:
    """Return the name or folder of an adapter's base, as recorded beside it or by PEFT."""
    if record:
        recorded = record["base"]
        if recorded["kind"] not in ("folder", "adapter"):
            return recorded["name"]
        if "path" in recorded and (folder / recorded["path"]).is_dir():
            return str((folder / recorded["path"]).resolve())
        there = f" beside it as {recorded['path']}" if "path" in recorded else ""
        known = str(recorded.get("weights_sha256", recorded.get("adapter_sha256")))[:12]
        raise WorkbookError(
            f"{folder} is an adapter on {recorded['name']}, a local folder (sha256 {known}…), which is "
            f"not{there or ' known here'}: place it there, or {_remedy(folder)}"
        )
    config = adapter_config(folder)
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not named:
        raise WorkbookError(f"{folder} is an adapter and names no base: {_remedy(folder)}")
    if revision not in (None, "main"):
        raise WorkbookError(
            f"{folder} is an adapter on the revision {revision} of {named}: download that with  "
            f"hf download {named} --revision {revision} --local-dir FOLDER,  and {_remedy(folder)}"
        )
    return str(folder / named) if not _is_folder(named) and _is_folder(folder / named) else named


def _remedy(folder: Path) -> str:
    return (
        f"make a whole model of it with  python -m sftlab merge {folder} OUT --base FOLDER  "
        f'(in Python load("{folder}", base="FOLDER") works too)'
    )


def _refuse_quantized(folder: Path, source: Source) -> None:
    """Raise WorkbookError if the base is stored in packed weights."""
    config = Path(source.place) / "config.json"
    if source.kind != "folder" or not config.is_file():
        return
    try:
        packed = json.loads(config.read_text(encoding="utf-8")).get("quantization_config")
    except (ValueError, AttributeError):
        return  # loading it tells more
    if packed:
        method = packed.get("quant_method", "packed weights")
        raise WorkbookError(
            f"the base is quantized ({method}), and an update cannot be added to packed weights; "
            "give the same model unquantized with --base (in Python: base=)"
        )


def _check_base(model, source: Source, folder: Path, record: dict) -> None:
    """Raise WorkbookError unless the weights are those that the adapter was trained on."""
    packed = [n for n, p in model.named_parameters() if not p.is_floating_point()]
    if packed:
        raise WorkbookError(
            f"{source.place} is quantized ({packed[0]}), and an update cannot be added to packed "
            f"weights; {_remedy(folder)}"
        )
    recorded = record.get("base", {})
    for key in ("adapter_sha256", "weights_sha256"):
        if known := recorded.get(key):
            found = adapter_checksum(source) if key == "adapter_sha256" else base_digest(model)
            if found != known:
                seen = f"{found[:12]}…" if found else "a model without that adapter"
                raise WorkbookError(
                    f"{folder} was trained on {recorded['name']}, and {source.place} is another "
                    f"base ({key.replace('_', ' ')}: {known[:12]}… → {seen}). {_remedy(folder)}"
                )


_loading: list[Path] = []


@contextmanager
def _not_in_a_circle(folder: Path) -> Iterator[None]:
    """Raise WorkbookError if an adapter's base is, at the end, the adapter itself."""
    here = folder.resolve()
    if here in _loading:
        raise WorkbookError(f"{folder} is an adapter on itself: {_remedy(folder)}")
    _loading.append(here)
    try:
        yield
    finally:
        _loading.remove(here)


def _licence_of(folder: Path) -> str | None:
    """Return the license that the model card in a folder states in its header, or None."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    header = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    stated = re.search(r"(?m)^license:\s*(\S.*?)\s*$", header[1]) if header else None
    return stated[1].strip("\"'") if stated else None


def _is_folder(name: str | Path) -> bool:
    try:
        return bool(str(name)) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # path too long, unknown user, null character
        return False


# --- Loading -------------------------------------------------------------------------------------
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


@contextmanager
def no_library_bars(hidden: bool = True) -> Iterator[None]:
    """Hide the progress bars of transformers: for what takes a tenth of a second."""
    bars = transformers.utils.logging
    hidden = hidden and bars.is_progress_bar_enabled()
    if hidden:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            bars.enable_progress_bar()


CAUSAL = "Choose one whose config.json names such a model under architectures (…ForCausalLM)"


@cache
def _other_tasks() -> frozenset[str]:
    """Return the classes for tasks that need an encoder, or a head of labels instead of tokens."""
    tasks = "SEQ_TO_SEQ_CAUSAL_LM SPEECH_SEQ_2_SEQ SEQUENCE_CLASSIFICATION TOKEN_CLASSIFICATION QUESTION_ANSWERING MULTIPLE_CHOICE"  # fmt: skip
    tables = [getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES") for task in tasks.split()]
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return frozenset(name for table in tables for name in table.values()) - frozenset(causal)


@contextmanager
def _no_report() -> Iterator[None]:
    """Hide the table of missing and unused tensors; ``_load_pretrained`` tells it in a sentence."""
    logger = logging.getLogger("transformers.modeling_utils")

    def shown(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(shown)  # a level of its own makes the library warn of parallel layers
    try:
        yield
    finally:
        logger.removeFilter(shown)


def _load_pretrained(source: str, dtype: torch.dtype, local: bool = False):
    # Set explicitly: by default transformers asks at the keyboard whether to run a model's code.
    options = {"local_files_only": local, "trust_remote_code": False}
    with no_library_bars(local), _no_report(), _explained(source, local):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, with their names
            **options,
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise WorkbookError(
            f"{source} is an adapter: download its files (hf download {source} --local-dir FOLDER), "
            "then load FOLDER"
        )
    missing, unused = (sorted(report[f"{kind}_keys"]) for kind in ("missing", "unexpected"))
    own, named = type(model).__name__, next(iter(model.config.architectures or ()), None)
    if named not in (None, own) and (missing or named in _other_tasks()):
        has = f"have no {missing[0]}" if missing else "are those of another task"
        raise WorkbookError(
            f"{source} is a {named}, not a causal language model (here {own}): its weights {has}. "
            f"{CAUSAL}"
        )
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise WorkbookError(
            f"{source}: {name} is {tuple(found)} in its weights, and config.json makes it "
            f"{tuple(wanted)}; copy or fetch the model anew"
        )
    if missing:  # the library only warns and uses random weights
        raise WorkbookError(
            f"{source} is not complete: {len(missing)} tensors are missing from its weights, such "
            f"as {missing[0]}; copy or fetch the model anew"
        )
    if unused:
        warnings.warn(
            f"{source}: {len(unused)} tensors of its weights are not used, such as {unused[0]}: "
            f"{own} has no place for them",
            stacklevel=2,
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
                tokenizer.borrowed_template = family
                break
    if tokenizer.pad_token is None:  # any token works; padding is neither attended to nor trained
        tokenizer.pad_token = tokenizer.eos_token


@contextmanager
def _explained(source: str, local: bool) -> Iterator[None]:
    """Turn what the libraries raise, many types for a few causes, into one sentence."""
    try:
        yield
    except Exception as error:
        raise WorkbookError(_explain(source, error, local)) from error


def _explain(source: str, error: Exception, local: bool) -> str:
    """Return one sentence that says what went wrong and what to do."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".: ")
    if "for this kind of AutoModel" in reason:  # a class that transformers has, for something else
        config = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
        what = "an encoder–decoder" if config.is_encoder_decoder else f"a {config.model_type} model"
        named = ", ".join(config.architectures or [type(config).__name__])
        return (
            f"{source} is {what} ({named}), not a causal language model that transformers can "
            f"build as one, so it is not supported. {CAUSAL}"
        )
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
