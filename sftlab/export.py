"""Export a model for llama.cpp and what is built on it (GGUF), or as safetensors for all else.

    python -m sftlab export --gguf build/sft                      # float32: nothing is rounded
    python -m sftlab export --gguf build/sft OUT --dtype q8_0     # a quarter of the size
    python -m sftlab export build/sft OUT                         # safetensors, any architecture

An adapter is merged first. The folder then holds the weights, the tokenizer, the chat template, the
tokens that end an answer, and a Modelfile for Ollama. GGUF differs from safetensors in a few places,
and a mistake in any of them raises no error:

- Llama's queries and keys hold the two halves of each rotary pair next to each other, not apart;
- Gemma's norms hold the factor itself, not the factor minus 1;
- the tokenizer is named, not described: llama.cpp has its own code for each kind;
- the template must not have the tags that mark answers for training.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Stored
from gguf import LlamaFileType, TokenType

from sftlab._internal.progress_bar import ProgressBar
from sftlab.chat import Message, end_of_turn_id, render, special_tokens, user
from sftlab.errors import WorkbookError
from sftlab.fetch import MB, file_checksum
from sftlab.merging import relative_error
from sftlab.models import RECORD, cast, load, read_record, source_of
from sftlab.results import (
    DTYPES,
    _base_record,
    _logits,
    _probe,
    _stops_at,
    _write,
    replaced_folder,
)
from sftlab.run_identity import versions

FILE = "model.gguf"
# dtype -> how matrices are stored, and the file's type; vectors stay in float32
STORED = {
    "float32": (Stored.F32, LlamaFileType.ALL_F32),
    "float16": (Stored.F16, LlamaFileType.MOSTLY_F16),
    "bfloat16": (Stored.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Stored.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp's version of a model type differs from that of transformers."""

    name: str  # in the file
    activation: str = "silu"
    halves: bool = False  # rotary pairs of q and k lie next to each other
    norms_plus_one: bool = False
    own_head_size: bool = True  # the size of a head need not be the hidden size over the heads
    windows: int = 0  # every so many layers one sees all tokens, the others a window


ARCHITECTURES = {
    "llama": Architecture("llama", halves=True),
    "qwen2": Architecture("qwen2", own_head_size=False),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", "gelu_pytorch_tanh", norms_plus_one=True),
    "gemma2": Architecture("gemma2", "gelu_pytorch_tanh", norms_plus_one=True, windows=2),
    "gemma3_text": Architecture("gemma3", "gelu_pytorch_tanh", norms_plus_one=True, windows=6),
}
# What byte-level tokenizers do before merging -> llama.cpp's name for it.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
    (WORDS % "", "bytes"): "qwen2",
    (WORDS % "{1,3}", "bytes"): "llama-bpe",
}


# --- Weights -------------------------------------------------------------------------------------
def architecture_of(config) -> Architecture:
    """Return what llama.cpp calls a model of this configuration.

    Raises:
        WorkbookError: it has no such model, or one that would compute something else.
    """
    kind = ARCHITECTURES.get(config.model_type)
    remedy = "export it as safetensors: leave out --gguf"
    if kind is None:
        raise WorkbookError(
            f"a model of type {config.model_type} cannot be written as GGUF here (what can: "
            f"{', '.join(ARCHITECTURES)}); {remedy}"
        )
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    found = {
        "activation": getattr(config, "hidden_activation", None) or config.hidden_act,
        "heads of size": size,
        "scale of attention": getattr(config, "query_pre_attn_scalar", None) or size,
        "layers with a window": _windows(config),
    }
    wanted = {
        "activation": kind.activation,
        "heads of size": size if kind.own_head_size else config.hidden_size // heads,
        "scale of attention": size,
        "layers with a window": [
            bool(kind.windows) and (n + 1) % kind.windows > 0 for n in range(config.num_hidden_layers)
        ],
    }  # fmt: skip
    for what, value in found.items():
        if value != wanted[what]:
            raise WorkbookError(
                f"llama.cpp computes {config.model_type} with {what} {wanted[what]}, and this model "
                f"has {value}; {remedy}"
            )
    return kind


def _windows(config) -> list[bool]:
    """Return for each layer whether it sees a window of tokens only."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return [kind == "sliding_attention" for kind in kinds]


def interleave_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows of q or k in GGUF's order: pair by pair in each head, not half after half."""
    rows = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def split_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo ``interleave_halves``."""
    rows = weight.reshape(heads, len(weight) // heads // 2, 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def _tensors(model, kind: Architecture, there: Callable = interleave_halves, sign: int = 1
             ) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:  # fmt: skip
    """Yield for each tensor its name here, its name in GGUF, and what changes its numbers."""
    config = model.config
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == kind.name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise WorkbookError(
                f"GGUF has no place for the tensor {name} in a model of type {config.model_type}; "
                "export it as safetensors: leave out --gguf"
            )
        change: Callable[[np.ndarray], np.ndarray] = np.asarray
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        part = name.split(".")[-2]
        if kind.halves and part in heads:
            change = partial(there, heads=heads[part])
        elif kind.norms_plus_one and tensor.ndim == 1 and part.endswith("norm"):
            change = partial(np.add, np.float32(sign))
        yield name, found, change


def read_back(path: str | Path, model) -> dict[str, torch.Tensor]:
    """Return the weights of a GGUF file in float32, under the names that ``model`` gives them."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    found = {}
    for name, there, change in _tensors(model, architecture_of(model.config), split_halves, -1):
        tensor = stored[there]
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(reversed(tensor.shape.tolist()))
        found[name] = torch.from_numpy(change(numbers.reshape(shape).astype(np.float32)).copy())
    if "lm_head.weight" not in found:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return found


def with_weights_of(path: str | Path, model):
    """Return a copy of the model that computes, in float32, with the weights of a GGUF file."""
    changed = copy.deepcopy(model).float()
    changed.load_state_dict(read_back(path, model))
    return changed.eval()


# --- The tokenizer -------------------------------------------------------------------------------
def pre_tokenizer_name(description: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of what a byte-level tokenizer does before it merges.

    Args:
        description: the content of ``tokenizer.json``.

    Raises:
        WorkbookError: it has none; other token ids would be served than were trained.
    """
    steps = description.get("pre_tokenizer") or {}
    key = []
    for step in steps.get("pretokenizers", [steps]):
        if step.get("add_prefix_space") or (step["type"] == "Digits" and not step["individual_digits"]):  # fmt: skip
            key.append("another")
        elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            key.append(step["pattern"].get("Regex", "another"))
        else:
            plain = step["type"] == "ByteLevel" and not step.get("use_regex", True)
            key.append("bytes" if plain else step["type"])
    name = PRE_TOKENIZERS.get(tuple(key))
    normal = (description.get("normalizer") or {}).get("type")
    ignores = bool(description["model"].get("ignore_merges"))
    if name is None or normal not in (None, "NFC") or ignores != (name == "llama-bpe"):
        raise WorkbookError(
            f"llama.cpp is not known to split texts as this tokenizer does ({', '.join(key)}"
            f"{f', {normal}' if normal else ''}): it could read other tokens than were trained. "
            "Export it as safetensors: leave out --gguf"
        )
    return name


def _scores(model: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores with which llama.cpp merges as these merges say: earlier is higher.

    Raises:
        WorkbookError: no scores do, because two pieces form a token without a merge for it.
    """
    scores: dict[str, float] = {}
    pairs = set()
    for rank, pair in enumerate(model["merges"]):
        left, right = pair if isinstance(pair, list) else pair.split(" ")
        pairs.add((left, right))
        scores.setdefault(left + right, -float(rank))
    for token in scores:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in model["vocab"] and right in model["vocab"] and (left, right) not in pairs:
                raise WorkbookError(
                    f"llama.cpp would join {left!r} and {right!r}, and this tokenizer has no merge of "
                    "them: export it as safetensors, without --gguf"
                )
    return scores


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer, rows: int) -> list[str]:
    """Write the tokenizer's tokens, merges and special tokens; return notes.

    Args:
        rows: number of rows of the embedding, at least that of the tokens.
    """
    try:
        found = json.loads(tokenizer.backend_tokenizer.to_str())
    except AttributeError:
        raise WorkbookError(
            f"{type(tokenizer).__name__} has no tokenizer.json, from which the GGUF file gets its "
            "tokens: save the model with a fast tokenizer"
        ) from None
    model, notes = found["model"], []
    if model["type"] != "BPE":
        raise WorkbookError(
            f"the tokenizer is of type {model['type']}, and GGUF is written here for BPE: export it "
            "as safetensors, without --gguf"
        )
    pieces = bool(model.get("byte_fallback"))  # SentencePiece, as Gemma has it
    texts, kinds = [f"[PAD{n}]" for n in range(rows)], [TokenType.UNUSED] * rows
    for text, number in model["vocab"].items():
        texts[number] = text
        byte = pieces and re.fullmatch(r"<0x[0-9A-F]{2}>", text)
        kinds[number] = TokenType.BYTE if byte else TokenType.NORMAL
    for added in found["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    if pieces:
        _refuse_other_spaces(found)
        scores = _scores(model)
        if model.get("unk_token") in model["vocab"]:
            kinds[model["vocab"][model["unk_token"]]] = TokenType.UNKNOWN
            writer.add_unk_token_id(model["vocab"][model["unk_token"]])
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([scores.get(text, -1e6) for text in texts])
        writer.add_add_space_prefix("Prepend" in json.dumps(found["normalizer"]))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(found))
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        writer.add_token_merges(merges)
        if found.get("normalizer"):
            notes.append("the tokenizer composes accents (NFC) first, and llama.cpp does not")
    writer.add_token_list(texts)
    writer.add_token_types([int(kind) for kind in kinds])
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(ids) and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(ids) and ids[-1] == tokenizer.eos_token_id)
    for name in ("bos", "eos", "pad"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    return notes


def _refuse_other_spaces(found: Mapping[str, Any]) -> None:
    """Raise WorkbookError unless spaces become ▁ and nothing else is changed or split."""
    known = {"Replace", "Prepend", "Sequence"}
    normal = found.get("normalizer") or {}
    steps = normal.get("normalizers", [normal])
    split = found.get("pre_tokenizer") or {"pattern": {"String": " "}}
    if {step.get("type") for step in steps} - known or split.get("pattern") != {"String": " "}:
        raise WorkbookError(
            "llama.cpp is not known to split texts as this tokenizer does: it could read other tokens "
            "than were trained. Export it as safetensors: leave out --gguf"
        )


def serving_template(template: str) -> str:
    """Return a chat template without the tags that mark answers, ``{% generation %}``.

    They are put there for training, and most programs that serve models do not know them. What they
    enclose and the spaces that they take away stay as they are.
    """
    for tag, plain in (("generation", "if true"), ("endgeneration", "endif")):
        template = re.sub(rf"(\{{%[-+]?\s*){tag}(\s*[-+]?%\}})", rf"\g<1>{plain}\2", template)
    return template


# --- The Modelfile -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Parts:
    """What a simple chat template writes around the content of each message."""

    begin: str
    turns: dict[str, tuple[str, str]]  # role -> what is written before and after its content
    generation_prompt: str

    def render(self, messages: Sequence[Message]) -> str:
        """Return what the template renders, with the generation prompt at the end."""
        turns = [
            self.turns[m["role"]][0] + m["content"] + self.turns[m["role"]][1] for m in messages
        ]
        return self.begin + "".join(turns) + self.generation_prompt


def template_parts(tokenizer) -> Parts | None:
    """Return the parts of the chat template, or None if it is not that simple.

    Default system turns, tools and reasoning make a template less simple. The parts are compared
    with the template on conversations of one, two and three turns.
    """
    question, answer, more = "Question", "Answer", "More"
    talk: list[Message] = [*user(question), {"role": "assistant", "content": answer}, *user(more)]
    try:
        one, two, three = (render(tokenizer, talk[:n]) for n in (1, 2, 3))
        asked = render(tokenizer, talk[:1], add_generation_prompt=True)
        if not (asked.startswith(one) and two.startswith(one) and three.startswith(two)):
            return None
        before, after = one.split(question)
        turns = {
            "assistant": tuple(two[len(one) :].split(answer)),
            "user": tuple(three[len(two) :].split(more)),
        }
        begin = before.removesuffix(turns["user"][0])
        words = begin
        for token in special_tokens(tokenizer):
            words = words.replace(token, "")
        if words or (begin + turns["user"][0], turns["user"][1]) != (before, after):
            return None
        found = Parts(begin, turns, asked[len(one) :])  # type: ignore[arg-type]
        if found.render(talk) != render(tokenizer, talk, add_generation_prompt=True):
            return None
    except (WorkbookError, ValueError):  # a part twice, or refused
        return None
    try:
        system: Message = {"role": "system", "content": "Rule"}
        whole = render(tokenizer, [system, *talk], add_generation_prompt=True)
        rest = found.render(talk)[len(begin) :]
        if whole.startswith(begin) and whole.endswith(rest):
            first, last = whole.removesuffix(rest)[len(begin) :].split("Rule")
            turns["system"] = (first, last)
    except (WorkbookError, ValueError):
        pass
    return found


def modelfile(tokenizer, weights: str, stops: Sequence[int], positions: int | None) -> str:
    """Return a Modelfile for Ollama: weights, template, and what ends an answer.

    Ollama's templates are written in another language than those of transformers. A simple one is
    translated; of any other the Modelfile says that it has to be served as it is.
    """
    lines = [f"FROM ./{weights}", ""]
    parts = template_parts(tokenizer) if tokenizer.chat_template else None
    if parts and not any('"""' in text or "{{" in text for text in _texts(parts)):
        begin = parts.begin
        if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
            begin = begin.removeprefix(tokenizer.bos_token)  # written by the server
        cases = [
            f'{{{{ {"else " if n else ""}if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for n, (role, (before, after)) in enumerate(sorted(parts.turns.items()))
        ]
        text = f"{begin}{{{{ range .Messages }}}}{''.join(cases)}{{{{ end }}}}{{{{ end }}}}"
        lines += [f'TEMPLATE """{text}{parts.generation_prompt}"""', ""]
    else:
        lines += [
            "# The chat template cannot be translated into Ollama's language, so none is given here. Serve",
            "# the file with its own template:  llama-server --jinja -m " + weights,
            "",
        ]
    tokens = [tokenizer.convert_ids_to_tokens(token) for token in stops]
    lines += [f"PARAMETER stop {json.dumps(token, ensure_ascii=False)}" for token in tokens]
    lines += [f"PARAMETER num_ctx {min(positions, 8192)}"] if positions else []
    lines += ["# Greedy decoding, as models are scored here; remove the line to sample.", "PARAMETER temperature 0", ""]  # fmt: skip
    return "\n".join(lines)


def _texts(parts: Parts) -> list[str]:
    return [parts.begin, parts.generation_prompt, *(text for turn in parts.turns.values() for text in turn)]  # fmt: skip


# --- Export --------------------------------------------------------------------------------------
def write_gguf(model, tokenizer, path: str | Path, dtype: str = "float32", name: str = "") -> list[str]:  # fmt: skip
    """Write a model and its tokenizer as one GGUF file; return notes for the user.

    Args:
        dtype: of the matrices: "float32", "float16", "bfloat16" or "q8_0" (blocks of 32 numbers
            that share a scale, 8.5 bits each). Vectors stay in float32.

    Raises:
        WorkbookError: the architecture, the tokenizer or the dtype cannot be written as GGUF.
    """
    if dtype not in STORED:
        raise WorkbookError(f"dtype is {dtype!r}; use one of {', '.join(STORED)}")
    kind, config = architecture_of(model.config), model.config
    stored, file_type = STORED[dtype]
    notes: list[str] = []
    writer = gguf.GGUFWriter(path, kind.name, use_temp_file=False)
    try:
        writer.add_name(name or config.model_type)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _write_settings(writer, model, kind)
        rows = model.get_input_embeddings().weight.shape[0]
        notes += _write_tokenizer(writer, tokenizer, rows)
        if tokenizer.chat_template:
            writer.add_eot_token_id(end_of_turn_id(tokenizer))
            writer.add_chat_template(serving_template(tokenizer.chat_template))
        else:
            notes.append("the tokenizer has no chat template, so the file has none")
        weights = model.state_dict()
        for ours, theirs, change in _tensors(model, kind):
            array = change(weights[ours].detach().float().cpu().numpy())
            whole = array.ndim == 1 or (stored is Stored.Q8_0 and array.shape[-1] % 32)
            if whole and array.ndim > 1:
                notes.append(f"{ours} stays in float32: its rows are no multiple of 32")
            form = Stored.F32 if whole else stored
            if form is Stored.F32:
                writer.add_tensor(theirs, np.ascontiguousarray(array))
            else:
                writer.add_tensor(theirs, gguf.quants.quantize(array, form), raw_dtype=form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return notes


def _write_settings(writer: gguf.GGUFWriter, model, kind: Architecture) -> None:
    """Write the settings of the architecture, and what is special in its rotary positions."""
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(model.get_input_embeddings().weight.shape[0])
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind.windows:
        writer.add_sliding_window(config.sliding_window)
    rotary = config.rope_parameters
    if "full_attention" in rotary:
        local, rotary = rotary["sliding_attention"], rotary["full_attention"]
        if local["rope_theta"] != 10000 or local["rope_type"] != "default":
            raise WorkbookError(
                f"llama.cpp gives layers with a window the rotary base 10000, and this model has "
                f"{local['rope_theta']:g}; export it as safetensors: leave out --gguf"
            )
    writer.add_rope_freq_base(rotary["rope_theta"])
    writer.add_rope_dimension_count(size)
    _write_rotary(writer, rotary, size, kind)


def _write_rotary(writer, rotary: Mapping[str, Any], size: int, kind: Architecture) -> None:
    """Write how the rotary frequencies are stretched, if they are."""
    how = rotary["rope_type"]
    if rotary.get("partial_rotary_factor", 1) != 1 or how not in ("default", "linear", "llama3"):
        what = how if how not in ("default", "linear", "llama3") else "partial"
        raise WorkbookError(
            f"rotary positions of type {what} are not written here: export the model as safetensors, "
            "without --gguf"
        )
    if how == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["factor"])
    elif how == "llama3":
        if kind.name != "llama":
            raise WorkbookError("llama.cpp stretches rotary frequencies in parts (llama3) for Llama only")  # fmt: skip
        from transformers import LlamaConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        config = LlamaConfig(head_dim=size, rope_parameters=dict(rotary))
        stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        plain = rotary["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        writer.add_tensor("rope_freqs.weight", (plain / stretched).numpy().astype(np.float32))


def export_model(
    name: str | Path,
    out: str | Path | None = None,
    to_gguf: bool = False,
    dtype: str = "float32",
    base: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Export a model by name, or an adapter merged into its base, with a Modelfile.

    Args:
        name: as in ``models.load``.
        out: folder for the export; new or empty. Default: named after the model, in this folder.
        to_gguf: write GGUF; otherwise safetensors.
        base: of an adapter, as in ``models.load``.

    Returns:
        ``folder``, ``format``, ``dtype``; ``bytes`` and ``sha256`` of the weights; ``rounded``, the
        share of weights that are other numbers than in float32; ``relative_error`` of the logits;
        ``next_token_changed``, the share of positions of a probe whose most probable next token is
        another; ``notes``.

    Raises:
        WorkbookError: as in ``models.load`` and ``write_gguf``; or ``out`` is not empty or cannot
            be written to.
    """
    known = STORED if to_gguf else DTYPES
    if dtype not in known:
        raise WorkbookError(f"dtype is {dtype!r}; use one of {', '.join(known)}")
    source = source_of(name)
    ending = "gguf" if to_gguf else "safetensors"
    out = Path(out or f"{source.name}-{ending}").expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        what = "is a file" if out.is_file() else "is not empty"
        raise WorkbookError(f"{out} {what}; name a new folder for the export")
    with ProgressBar(3, "stages", shown=progress) as bar:
        bar.update(0, note="loading")
        model, tokenizer = load(name, base=base)
        before = read_record(source.place) if Path(source.place).is_dir() else {}
        ends = [end_of_turn_id(tokenizer)] if tokenizer.chat_template else []
        record = {"kind": "model", "base": _base_record(source, out), "end_of_turn_ids": ends,
                  "versions": versions(), **before}  # fmt: skip
        if record["kind"] == "adapter":
            record |= {"kind": "merged", "merged": {"dtype": dtype}}
        bar.update(note="writing")
        with replaced_folder(out) as new:
            if to_gguf:
                notes = write_gguf(model, tokenizer, new / FILE, dtype, source.name)
                bar.update(note="comparing")
                again = with_weights_of(new / FILE, model)
            else:
                notes = []
                _write(cast(copy.deepcopy(model), DTYPES[dtype]), tokenizer, new, record, source)
                bar.update(note="comparing")
                again, _ = load(new)
            stops = _stops_at(model, tokenizer, ends).eos_token_id
            text = modelfile(tokenizer, FILE if to_gguf else "", [stops] if isinstance(stops, int) else stops or [],
                             model.config.get_text_config().max_position_embeddings)  # fmt: skip
            (new / "Modelfile").write_text(text, encoding="utf-8")
            files = sorted([*new.glob("*.gguf"), *new.glob("*.safetensors")])
            found = {"format": ending, "dtype": dtype, "bytes": sum(f.stat().st_size for f in files),
                     "sha256": {f.name: file_checksum(f) for f in files}, **_changed(model, again, tokenizer)}  # fmt: skip
            names = sorted({*(path.name for path in new.iterdir()), RECORD})
            text = json.dumps(record | {"exported": found, "files": names}, indent=1, default=str)
            (new / RECORD).write_text(text + "\n", encoding="utf-8")
        if borrowed := getattr(tokenizer, "borrowed_template", None):
            notes.append(f"the model has no chat template of its own: {borrowed}'s was written")
        found |= {"folder": out, "notes": notes}
        bar.update()
        bar.done = told(found)
    return found


def _changed(model, again, tokenizer) -> dict[str, float]:
    """Return what storing the weights changed, in them and in the logits of a probe."""
    pairs = list(zip(model.parameters(), again.parameters(), strict=True))
    same = sum(int((p == q.float()).sum()) for p, q in pairs)
    probe = _probe(tokenizer, model)
    expected, got = _logits(model, probe), _logits(again, probe)
    return {
        "rounded": 1 - same / sum(p.numel() for p, _ in pairs),
        "relative_error": relative_error(got, expected),
        "next_token_changed": (got.argmax(-1) != expected.argmax(-1)).float().mean().item(),
    }


def told(found: Mapping[str, Any]) -> str:
    """Return what an export wrote and what rounding changed, in one sentence."""
    changed = "no weight was rounded"
    if found["rounded"]:
        changed = (
            f"{found['rounded']:.0%} of the weights were rounded; the logits of a probe differ by "
            f"{found['relative_error']:.1e} (relative), its most probable next token at "
            f"{found['next_token_changed']:.0%} of the positions"
        )
    return (
        f"{found['folder']}: {found['format']}, {found['bytes'] / MB:.1f} MB in {found['dtype']}, and a "
        f"Modelfile; {changed}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a model; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model", help="a folder of a run, a result or a model; a name works too")
    parser.add_argument("out", nargs="?", type=Path, help="folder for the export; new or empty")
    parser.add_argument("--gguf", action="store_true", help="for llama.cpp; else safetensors")
    parser.add_argument("--dtype", choices=STORED, default="float32", help="default: float32")
    parser.add_argument("--base", help="name or folder of an adapter's base, if it is not found")
    chosen = parser.parse_args(arguments)
    try:
        found = export_model(chosen.model, chosen.out, chosen.gguf, chosen.dtype, chosen.base)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    print(*found["notes"], sep="\n", end="\n" if found["notes"] else "", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
