"""Loading by name: what is found, and the one clear sentence for what is not."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sftlab import models
from sftlab.adapters import save_adapter
from sftlab.errors import WorkbookError
from sftlab.fetch import PACKAGES
from sftlab.lora import inject_lora, lora_parameters
from sftlab.models import FAMILIES, checksums, file_checksum, load, names, record_checksums, verify
from sftlab.templates import FAMILIES as TEMPLATES
from sftlab.templates import MARKERS


@pytest.fixture
def saved(tiny_model, tokenizer, tmp_path):
    """A folder with a small model and its tokenizer."""
    folder = tmp_path / "small"
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def embedded(tiny_model, tokenizer, tmp_path, monkeypatch):
    """A stand-in for data/models: a small base, and a chat adapter that changes it."""
    folder = tmp_path / "models"
    tiny_model.save_pretrained(folder / "almanac-base")
    tokenizer.save_pretrained(folder / "almanac-base")
    inject_lora(tiny_model, "all-linear", r=2, lora_alpha=4, seed=0)
    with torch.no_grad():
        for matrix in lora_parameters(tiny_model):
            matrix.normal_(std=0.1)
    save_adapter(tiny_model, folder / "almanac-chat", "almanac-base")
    monkeypatch.setattr(models, "MODELS", folder)
    record_checksums()
    return folder


def told_by(name, **options):
    with pytest.raises(WorkbookError) as told:
        load(name, **options)
    return str(told.value)


class TestFolders:
    def test_a_folder_gives_the_model_that_was_saved_in_eval_mode(self, saved, tiny_model):
        model, tokenizer = load(saved)
        assert not model.training
        assert model.dtype == torch.float32
        ids = torch.tensor([tokenizer.encode("What is the capital of France?")])
        assert torch.equal(model(ids).logits, tiny_model(ids).logits)

    def test_the_path_may_be_text(self, saved):
        assert load(str(saved))[0].num_parameters() == load(saved)[0].num_parameters()

    def test_the_role_does_not_matter_for_a_folder(self, saved):
        assert load(saved, role="chat")[0].num_parameters() == load(saved)[0].num_parameters()

    def test_the_dtype_is_the_one_asked_for(self, saved):
        assert load(saved, dtype=torch.bfloat16)[0].dtype == torch.bfloat16

    def test_an_empty_folder_says_what_belongs_there(self, tmp_path):
        told = told_by(tmp_path)
        assert told.startswith(f"{tmp_path} cannot be loaded as a model: ")
        assert "config.json, tokenizer.json and model.safetensors" in told
        assert "\n" not in told

    def test_damaged_weights_are_told(self, saved):
        weights = saved / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        assert "cannot be loaded as a model" in told_by(saved)

    def test_missing_tensors_are_an_error_and_not_filled_with_noise(self, saved):
        weights = load_file(saved / "model.safetensors")
        lost = sorted(name for name in weights if "layers.1.mlp" in name)
        for name in lost:
            del weights[name]
        save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
        told = told_by(saved)
        assert f"3 tensors are missing from its weights, such as {lost[0]}" in told

    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize(
        "kind", ["LlamaForSequenceClassification", "LlamaForTokenClassification"]
    )
    def test_a_classifier_is_told(self, saved, tiny_model, kind, tied, capfd):
        """Tied, it has all tensors of a language model; it was trained for another task."""
        config = copy.deepcopy(tiny_model.config)
        config.tie_word_embeddings, config.pad_token_id = tied, 0
        getattr(transformers, kind)(config).save_pretrained(saved)
        capfd.readouterr()
        assert f"is a {kind}, not a causal language model (here LlamaForCausalLM)" in told_by(saved)
        assert capfd.readouterr().err == ""

    def test_a_model_without_head_is_told_unless_its_head_is_tied(self, saved, tiny_model):
        tiny_model.model.save_pretrained(saved)
        assert load(saved)[0].num_parameters() == tiny_model.num_parameters()
        config = copy.deepcopy(tiny_model.config)
        config.tie_word_embeddings = False
        transformers.LlamaModel(config).save_pretrained(saved)
        assert "is a LlamaModel, not a causal" in told_by(saved)

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            ("Bart", "is a BartForConditionalGeneration, not a causal language model"),
            ("T5", r"is an encoder–decoder \(T5ForConditionalGeneration\), not a causal"),
            ("Qwen2VL", r"is a qwen2_vl model \(Qwen2VLForConditionalGeneration\), not a causal"),
        ],
    )
    def test_what_is_no_causal_language_model_is_told(self, saved, kind, told):
        config = getattr(transformers, f"{kind}Config")()
        config.architectures = [f"{kind}ForConditionalGeneration"]
        if kind == "Bart":
            sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "vocab_size": 64}
            config.update(sizes | {"max_position_embeddings": 16})
            transformers.BartForConditionalGeneration(config).save_pretrained(saved)
        else:
            config.save_pretrained(saved)
        with pytest.raises(
            WorkbookError, match=rf"{told}.*Choose one whose config.json"
        ) as refusal:
            load(saved)
        assert "anew" not in str(refusal.value)

    def test_unused_and_mismatched_tensors_are_named(self, saved):
        weights = load_file(saved / "model.safetensors")
        weights["another.weight"] = torch.zeros(2)
        save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.warns(UserWarning, match=r"1 tensors .* not used, such as another.weight"):
            load(saved)
        weights["model.norm.weight"] = torch.zeros(5)
        save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WorkbookError, match=r"model.norm.weight is \(5,\) .* makes it \(32,\)"):
            load(saved)

    def test_pickled_weights_are_never_read(self, saved, tiny_model):
        (saved / "model.safetensors").unlink()
        torch.save(tiny_model.state_dict(), saved / "pytorch_model.bin")
        assert "pickled weights are never loaded" in told_by(saved)

    def test_code_that_comes_with_a_model_is_never_run(self, saved):
        (saved / "evil.py").write_text("raise SystemExit('this code was run')")
        config = json.loads((saved / "config.json").read_text())
        config |= {
            "model_type": "evil",
            "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        }
        (saved / "config.json").write_text(json.dumps(config))
        assert "cannot be loaded as a model" in told_by(saved)


class TestHub:
    """What lies in the hub's cache is found by hub id and by alias, without a network."""

    @pytest.fixture
    def cache(self, tiny_model, tokenizer, tmp_path):
        """The base and the chat model of "smollm2" as the hub's client keeps them on disk."""
        base = copy.deepcopy(tokenizer)
        base.chat_template = base.pad_token = None  # as many bases come
        for repository, some in (("SmolLM2-135M", base), ("SmolLM2-135M-Instruct", tokenizer)):
            folder = tmp_path / f"models--HuggingFaceTB--{repository}"
            (folder / "refs").mkdir(parents=True)
            (folder / "refs" / "main").write_text("0123456789abcdef")
            tiny_model.save_pretrained(folder / "snapshots" / "0123456789abcdef")
            some.save_pretrained(folder / "snapshots" / "0123456789abcdef")
        return tmp_path

    def test_both_roles_load_and_a_base_can_be_asked_and_tuned(self, cache):
        code = (
            "from sftlab.chat import render, user\n"
            "from sftlab.data import conversation, tokenize_conversations\n"
            "from sftlab.generate import answer\n"
            "from sftlab.models import load\n"
            "from sftlab.train import TrainConfig, sft_train\n"
            "pair = {'prompt': 'What is the capital of France?', 'response': 'Paris.'}\n"
            "for how in ({'name': 'smollm2'}, {'name': 'smollm2', 'role': 'chat'},\n"
            "            {'name': 'HuggingFaceTB/SmolLM2-135M'}):\n"
            "    model, tokenizer = load(**how)\n"
            "    rows = tokenize_conversations(tokenizer, [conversation(pair)] * 2).examples\n"
            "    config = TrainConfig(num_train_epochs=1, batch_size=2)\n"
            "    sft_train(model, rows, config, tokenizer.pad_token_id, progress=False)\n"
            "    answer(model, tokenizer, ['What is the capital of Kenya?', 'Hi'], max_new_tokens=2)\n"
            "    print(repr(render(tokenizer, user('Hi'), True)), tokenizer.pad_token is not None)\n"
        )
        environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
            check=True, env=environment,
        )  # fmt: skip
        expected = repr("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n") + " True"
        lines = [line for line in found.stdout.splitlines() if line.startswith("'")]
        assert lines == [expected] * 3

    def test_a_model_without_chat_template_gets_the_one_whose_markers_it_knows(
        self, tiny_model, tokenizer, tmp_path
    ):
        for family in ("chatml", "gemma", "llama3"):
            plain = copy.deepcopy(tokenizer)
            plain.chat_template = None
            if family != "chatml":  # the almanac's own tokenizer has the markers of ChatML
                plain = strip_markers(plain, tmp_path / f"{family}-stripped")
                plain.add_tokens(list(MARKERS[family]), special_tokens=True)
            tiny_model.save_pretrained(tmp_path / family)
            plain.save_pretrained(tmp_path / family)
            assert load(tmp_path / family)[1].chat_template == TEMPLATES[family]


def strip_markers(tokenizer, folder):
    """The tokenizer with the markers of ChatML renamed, so that it knows none."""
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("<|im_", "<|xx_"), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


class TestNames:
    def test_families_and_their_roles_are_known(self):
        assert {"almanac", "almanac-base", "almanac-chat", "smollm2-chat"} <= set(names())
        assert len(names()) == len({*FAMILIES, *PACKAGES}) + 2 * len(FAMILIES)

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("almanak", "almanac"),
            ("almanac-cat", "almanac-chat"),
            ("SmolLM2", "smollm2"),
            ("qwen", "qwen2.5-0.5b"),
            ("gemma", "gemma3-270m"),
        ],
    )
    def test_an_unknown_name_is_told_with_the_nearest(self, name, near):
        told = told_by(name)
        assert told.startswith(f"there is no model {name!r}. Did you mean {near}")

    @pytest.mark.parametrize("name", ["", " ", "xyzzy123", "\0", "x" * 5000, "~nobody-here", "Ω"])
    def test_an_unlike_name_is_told_with_all_that_are_known(self, name):
        told = told_by(name)
        assert told.startswith("there is no model ")
        assert (
            f"Known names: {', '.join({**FAMILIES, **PACKAGES})}; a hub id such as org/model"
            in told
        )

    @pytest.mark.parametrize("name", ["./none", "../none", "/none/here", "~/none", "a/b/c", "org/"])
    def test_a_path_that_is_no_folder_is_not_taken_for_a_hub_id(self, name):
        assert told_by(name).startswith(f"there is no folder {name!r}")

    @pytest.mark.parametrize("name", [None, 3, ["almanac"]])
    def test_a_name_that_is_no_text_is_told(self, name):
        assert "a model's name is a text" in told_by(name)

    def test_an_unknown_role_is_told(self):
        assert told_by("almanac", role="instruct") == "role is 'instruct'; use one of base, chat"

    def test_without_network_a_hub_id_is_told_with_the_ways_out(self):
        told = told_by("org/model-that-is-not-here")
        assert told.startswith("org/model-that-is-not-here is no folder here and cannot be fetched")
        assert 'MODEL = "almanac"' in told
        assert "\n" not in told

    def test_a_family_is_fetched_by_the_hub_id_of_its_role(self):
        assert "HuggingFaceTB/SmolLM2-135M is no" in told_by("smollm2")
        for told in (told_by("smollm2", role="chat"), told_by("smollm2-chat")):
            assert "HuggingFaceTB/SmolLM2-135M-Instruct is no" in told

    def test_a_folder_named_like_a_hub_id_goes_first(self, saved, monkeypatch):
        monkeypatch.chdir(saved.parent.parent)
        assert load(f"{saved.parent.name}/{saved.name}")[0].num_parameters() > 0


class TestEmbedded:
    def test_base_and_chat_are_two_models_of_plain_layers(self, embedded, tiny_model):
        (base, tokenizer), (chat, _) = load("almanac"), load("almanac", role="chat")
        ids = torch.tensor([tokenizer.encode("What is the capital of France?")])
        assert not torch.allclose(base(ids).logits, chat(ids).logits, atol=1e-3)
        torch.testing.assert_close(chat(ids).logits, tiny_model(ids).logits)  # its adapter merged
        assert not lora_parameters(chat)
        assert all(p.requires_grad for p in chat.parameters())
        assert not chat.training

    def test_a_name_with_a_role_means_that_role(self, embedded):
        one, other = load("almanac-chat")[0], load("almanac", role="chat")[0]
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_every_file_of_both_is_recorded(self, embedded):
        recorded = set(checksums())
        assert {
            "almanac-base/model.safetensors",
            "almanac-base/tokenizer.json",
            "almanac-base/config.json",
            "almanac-chat/adapter_model.safetensors",
            "almanac-chat/adapter_config.json",
        } <= recorded

    @pytest.mark.parametrize("name", ["almanac-base/model.safetensors", "almanac-base/config.json"])
    def test_a_changed_file_is_named_with_the_way_to_restore_it(self, embedded, name):
        with open(embedded / name, "r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
        told = told_by("almanac")
        assert told.startswith(f"{name} is damaged")
        assert told.endswith("restore it with  git checkout -- data/models")

    def test_a_missing_file_is_named(self, embedded):
        (embedded / "almanac-base/model.safetensors").unlink()
        assert told_by("almanac").startswith("almanac-base/model.safetensors is missing")

    def test_a_damaged_adapter_hurts_the_chat_model_only(self, embedded):
        (embedded / "almanac-chat/adapter_config.json").write_text("{}")
        load("almanac")
        assert "almanac-chat/adapter_config.json is damaged" in told_by("almanac-chat")

    def test_a_model_without_recorded_files_is_an_error(self, embedded):
        shutil.rmtree(embedded / "almanac-chat")
        record_checksums()
        assert "checksums.json knows no almanac-chat" in told_by("almanac-chat")

    def test_missing_or_damaged_checksums_are_named(self, embedded):
        (embedded / "checksums.json").write_text("{")
        assert told_by("almanac").startswith("checksums.json in data/models is damaged")
        (embedded / "checksums.json").unlink()
        assert told_by("almanac").startswith("checksums.json is missing from data/models")

    def test_a_checksum_is_sha256(self, tmp_path):
        (tmp_path / "file").write_bytes(b"abc")
        assert file_checksum(tmp_path / "file") == (
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )


@pytest.mark.base
class TestShipped:
    def test_the_base_is_as_it_was_recorded(self):
        verify(models.MODELS / "almanac-base")

    def test_its_weights_take_at_most_16_megabytes(self):
        assert (models.MODELS / "almanac-base" / "model.safetensors").stat().st_size < 16e6

    def test_it_and_its_tokenizer_belong_together(self):
        model, tokenizer = load("almanac")
        assert model.config.vocab_size == len(tokenizer)
        assert model.config.eos_token_id == tokenizer.eos_token_id
        assert model.config.pad_token_id == tokenizer.pad_token_id


def test_importing_and_failing_to_load_need_no_network_and_print_nothing():
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from sftlab.models import load\n"
        "try: load('almanak')\n"
        "except ValueError as error: print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout.startswith("there is no model 'almanak'. Did you mean almanac")
    assert found.stderr == ""
