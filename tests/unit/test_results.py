"""Saved results: what they hold, how they are used as models here, merging, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel

from sftlab import adapters, cli, models, results
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_layers, lora_parameters
from sftlab.merging import rounding_loss
from sftlab.models import load
from sftlab.results import data_record, merge_result, save_result
from sftlab.run_identity import base_digest

IDS = torch.arange(24)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def filled(model, seed=0):
    """Give every A and B values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in lora_parameters(model):
            matrix.copy_(0.1 * torch.randn(matrix.shape, generator=generator))
    return model


def with_lora(model, seed=0, targets="all-linear"):
    return filled(inject_lora(copy.deepcopy(model), targets, 2, 8, seed=0), seed)


def save(model, tokenizer, folder, base, adapter=True, **changes):
    settings = {
        "base_name": base,
        "run": {"model": str(base), "output": "/somewhere/out", "train": {"seed": 3}},
        "history": {"losses": [2.0, 1.5], "trained_tokens": 44},
        "end_ids": [2],
        "adapter": adapter,
    }
    return save_result(model, tokenizer, folder, **settings | changes)


@pytest.fixture
def base(tiny_model, tokenizer, tmp_path):
    """A folder with a model."""
    tiny_model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tiny_model, tokenizer, base, tmp_path):
    """The output folder of a run, and the model that was trained in it."""
    model = with_lora(tiny_model)
    save(model, tokenizer, tmp_path / "out" / "adapter", base)
    return tmp_path / "out", model


def record_of(folder):
    return json.loads((folder / models.RECORD).read_text(encoding="utf-8"))


def changed_base(base, tmp_path):
    """Another base: one number differs."""
    model, tokenizer = load(base)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


class TestWhatIsSaved:
    def test_an_adapter_says_what_it_is_and_names_no_path(self, adapter, base, tmp_path):
        data = tmp_path / "rows.jsonl"
        data.write_text('{"prompt": "a", "response": "b"}\n\n')
        folder = adapter[0] / "adapter"
        run = {"data": data_record(data, 1), "model": str(base), "template": str(tmp_path / "own.jinja"),
               "train": {"seed": 3}}  # fmt: skip
        _, tokenizer = load(base)
        save(adapter[1], tokenizer, folder, base, run=run)
        found = record_of(folder)
        assert found["data"] == run["data"]
        assert found["settings"] == {"template": "own.jinja", "train": {"seed": 3}}
        assert found["base"]["path"] == "../../base"
        assert found["base"]["weights_sha256"] == base_digest(load(base)[0])
        assert found["history"]["final_loss"] == 1.5
        for path in folder.iterdir():
            assert str(tmp_path).encode() not in path.read_bytes(), path.name
        card = (folder / "README.md").read_text()
        assert card.startswith('---\nbase_model: "base"\nlibrary_name: "peft"\n')
        for told in ("rows.jsonl`, 1 rows, sha256", "final loss: 1.5", "torch 2", "PeftModel.from"):
            assert told in card
        named = json.loads((folder / adapters.CONFIG).read_text())["base_model_name_or_path"]
        assert named == "base (a local folder; see README.md)"

    @pytest.mark.parametrize(
        ("base_name", "named", "licence"),
        [
            ("smollm2", "HuggingFaceTB/SmolLM2-135M", "apache-2.0"),
            ("gemma3-270m-chat", "google/gemma-3-270m-it", "gemma"),
            ("org/model", "org/model", None),
            ("smollm2-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
            ("almanac", "almanac-base (a model embedded in sftlab; see README.md)", "mit"),
        ],
    )
    def test_peft_reads_a_hub_id_or_why_there_is_none(
        self, tiny_model, tokenizer, tmp_path, base_name, named, licence
    ):
        folder = save(with_lora(tiny_model), tokenizer, tmp_path / "a", base_name)
        found = json.loads((folder / adapters.CONFIG).read_text())["base_model_name_or_path"]
        assert found == named
        card = (folder / "README.md").read_text()
        assert (f'license: "{licence}"' in card) == (licence is not None)

    @pytest.mark.parametrize(("own", "both"), [(None, 2), (0, [0, 2]), ([0, 7], [0, 7, 2]), (2, 2)])
    def test_generation_stops_at_trained_ends_and_at_those_of_the_base(
        self, tiny_model, tokenizer, base, tmp_path, own, both
    ):
        tiny_model.config.eos_token_id = tiny_model.generation_config.eos_token_id = own
        before = tiny_model.generation_config.to_dict()
        folder = save(tiny_model, tokenizer, tmp_path / "m", base, adapter=False, end_ids=[2, 2])
        assert GenerationConfig.from_pretrained(folder).eos_token_id == both
        assert tiny_model.generation_config.to_dict() == before

    def test_the_template_is_beside_it(self, adapter, tokenizer):
        found = AutoTokenizer.from_pretrained(adapter[0] / "adapter", local_files_only=True)
        assert found.chat_template == tokenizer.chat_template

    def test_terms_of_the_base_go_with_its_weights(self, tiny_model, tokenizer, base, tmp_path):
        (base / "LICENSE.txt").write_text("Be kind.")
        folder = save(tiny_model, tokenizer, tmp_path / "m", base, adapter=False)
        assert (folder / "LICENSE.txt").read_text() == "Be kind."
        assert not (
            save(with_lora(tiny_model), tokenizer, tmp_path / "a", base) / "LICENSE.txt"
        ).exists()

    def test_a_model_is_not_an_adapter(self, tiny_model, tokenizer, base, tmp_path):
        with pytest.raises(WorkbookError, match="has no LoRA layers"):
            save(tiny_model, tokenizer, tmp_path / "a", base)
        with pytest.raises(WorkbookError, match="merge_lora"):
            save(with_lora(tiny_model), tokenizer, tmp_path / "a", base, adapter=False)

    def test_the_digest_of_a_base_ignores_adapters_and_precision(self, tiny_model):
        known = base_digest(tiny_model)
        assert base_digest(with_lora(tiny_model)) == known
        half = copy.deepcopy(tiny_model).to(torch.bfloat16)
        assert base_digest(half) == base_digest(copy.deepcopy(half).float()) != known


class TestReplacing:
    """The old result stays until the new one is whole."""

    def fail(self, monkeypatch, error):
        def broken(*_, **__):
            raise error

        monkeypatch.setattr(adapters, "save_file", broken)

    @pytest.mark.parametrize(
        "error",
        [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")],
    )
    def test_a_full_disk_leaves_the_old_one(self, adapter, tokenizer, base, monkeypatch, error):
        folder = adapter[0] / "adapter"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.fail(monkeypatch, error)
        told = r"result cannot be written to \S*adapter \(.*No space left.*before it is still there"
        with pytest.raises(WorkbookError, match=told):
            save(with_lora(load(base)[0], 9), tokenizer, folder, base)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in adapter[0].iterdir()] == ["adapter"]

    def test_an_interrupt_too(self, adapter, tokenizer, base, monkeypatch):
        self.fail(monkeypatch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            save(adapter[1], tokenizer, adapter[0] / "adapter", base)
        assert [path.name for path in adapter[0].iterdir()] == ["adapter"]
        load(adapter[0])

    def test_an_error_of_a_library_is_told_in_a_sentence(
        self, tiny_model, tokenizer, base, tmp_path
    ):
        tiny_model.generation_config.temperature = 0.5  # transformers refuses it without sampling
        with pytest.raises(WorkbookError, match=r"result cannot be written to .*m \("):
            save(tiny_model, tokenizer, tmp_path / "m", base, adapter=False)
        assert not (tmp_path / "m").exists()

    def test_a_program_killed_between_two_renames_lost_nothing(self, adapter, tokenizer, base):
        folder = adapter[0] / "adapter"
        folder.rename(adapter[0] / ".adapter.old")
        save(adapter[1], tokenizer, folder, base)
        assert [path.name for path in adapter[0].iterdir()] == ["adapter"]

    def test_what_others_put_there_is_kept_and_what_is_outdated_goes(
        self, adapter, tokenizer, base
    ):
        folder = adapter[0] / "adapter"
        (folder / "notes.txt").write_text("mine")
        found = record_of(folder)
        (folder / "old.json").write_text("{}")
        found["files"].append("old.json")
        (folder / models.RECORD).write_text(json.dumps(found))
        save(adapter[1], tokenizer, folder, base)
        assert (folder / "notes.txt").read_text() == "mine"
        assert not (folder / "old.json").exists()

    def test_a_folder_of_something_else_is_refused(self, tiny_model, tokenizer, base, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "me.png").write_bytes(b"")
        with pytest.raises(WorkbookError, match=r"holds something else than a result \(me\.png\)"):
            save(tiny_model, tokenizer, tmp_path / "photos", base, adapter=False)
        with pytest.raises(WorkbookError, match=r"me\.png is a file"):
            save(tiny_model, tokenizer, tmp_path / "photos" / "me.png", base, adapter=False)
        assert [path.name for path in (tmp_path / "photos").iterdir()] == ["me.png"]

    def test_save_adapter_alone_leaves_the_old_files(self, adapter, monkeypatch):
        folder = adapter[0] / "adapter"
        self.fail(monkeypatch, OSError(28, "No space left on device"))
        before = sorted(folder.iterdir())
        with pytest.raises(WorkbookError, match=r"cannot be written to .*No space left on device"):
            adapters.save_adapter(adapter[1], folder)
        assert sorted(folder.iterdir()) == before


class TestAsAModel:
    @pytest.mark.parametrize("part", ["", "adapter"])
    def test_it_loads_as_a_plain_model(self, adapter, part):
        model, tokenizer = load(adapter[0] / part)
        torch.testing.assert_close(logits(model), logits(adapter[1]), rtol=0, atol=1e-5)
        assert not lora_layers(model) and not model.training
        assert all(p.requires_grad for p in model.parameters())
        assert model.generation_config.eos_token_id == 2
        assert tokenizer.chat_template

    def test_another_precision_is_rounded_once(self, adapter):
        model = load(adapter[0], dtype=torch.bfloat16)[0]
        whole = load(adapter[0])[0]
        assert model.dtype == torch.bfloat16
        for one, other in zip(model.parameters(), whole.parameters(), strict=True):
            assert torch.equal(one, other.to(torch.bfloat16))
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32

    def test_its_tokenizer_goes_before_that_of_the_base(self, adapter):
        path = adapter[0] / "adapter" / "chat_template.jinja"
        path.write_text(path.read_text() + "{# own #}")
        assert load(adapter[0])[1].chat_template.endswith("{# own #}")

    def test_an_adapter_on_an_adapter(self, adapter, tokenizer, tmp_path):
        """Further training on a result, and its result as a model."""
        first, _ = load(adapter[0])
        second = with_lora(first, seed=5)
        save(second, tokenizer, tmp_path / "second", adapter[0])
        torch.testing.assert_close(logits(load(tmp_path / "second")[0]), logits(second))
        merge_result(adapter[0], tmp_path / "merged", progress=False)
        from_merged = load(tmp_path / "second", base=tmp_path / "merged")[0]
        torch.testing.assert_close(logits(from_merged), logits(second), rtol=0, atol=1e-5)
        with pytest.raises(WorkbookError, match=r"another base.*→ a model without that adapter"):
            load(tmp_path / "second", base=tmp_path / "base")
        save(
            with_lora(load(tmp_path / "base")[0], 7),
            tokenizer,
            adapter[0] / "adapter",
            tmp_path / "base",
        )
        with pytest.raises(WorkbookError, match=r"adapter sha256: \w{12}… → \w{12}…"):
            load(tmp_path / "second")

    @pytest.mark.parametrize("where", ["absolute", "beside", "none"])
    def test_an_adapter_of_peft(self, tiny_model, base, tmp_path, where, monkeypatch):
        config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"])
        theirs = peft.get_peft_model(copy.deepcopy(tiny_model), config)
        for name, p in theirs.named_parameters():
            if "lora_B" in name:
                p.data.normal_(std=0.1)
        theirs.save_pretrained(tmp_path / "theirs")
        path = tmp_path / "theirs" / adapters.CONFIG
        named = {"absolute": str(base), "beside": "../base", "none": None}[where]
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": named})
        )
        if where == "none":
            with pytest.raises(WorkbookError, match=r"names no base.*sftlab merge"):
                load(path.parent)
        ours, _ = load(path.parent, base=base if where == "none" else None)
        torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)

    def test_the_tuned_almanac_is_one(self):
        ours, shipped = load(models.MODELS / "almanac-chat")[0], load("almanac-chat")[0]
        assert torch.equal(logits(ours), logits(shipped))


class TestWhatIsRefused:
    def test_another_base(self, adapter, base, tmp_path):
        other = changed_base(base, tmp_path)
        with pytest.raises(
            WorkbookError, match=r"another base \(weights sha256: \w{12}… → \w{12}…\)"
        ):
            load(adapter[0], base=other)

    def test_a_base_that_is_gone(self, adapter, base, tmp_path):
        shutil.move(base, tmp_path / "elsewhere")
        with pytest.raises(WorkbookError) as refusal:
            load(adapter[0])
        told = str(refusal.value)
        assert "is an adapter on base, a local folder (sha256" in told
        assert "not beside it as ../../base: place it there, or make a whole model" in told
        assert "python -m sftlab merge" in told
        load(adapter[0], base=tmp_path / "elsewhere")

    def test_a_base_of_the_hub_without_a_network(self, tiny_model, tokenizer, tmp_path):
        save(with_lora(tiny_model), tokenizer, tmp_path / "a", "org/model")
        with pytest.raises(WorkbookError, match=r"an adapter on org/model: .*hub.*base="):
            load(tmp_path / "a")

    def test_another_revision_of_the_base(self, adapter):
        folder = adapter[0] / "adapter"
        (folder / models.RECORD).unlink()
        path = folder / adapters.CONFIG
        changes = {"base_model_name_or_path": "org/model", "revision": "v2"}
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(
            WorkbookError, match=r"revision v2 of org/model: download .*--revision v2"
        ):
            load(folder)

    def test_a_quantized_base(self, adapter, base):
        config = base / "config.json"
        found = json.loads(config.read_text()) | {
            "quantization_config": {"quant_method": "bitsandbytes"}
        }
        config.write_text(json.dumps(found))
        with pytest.raises(
            WorkbookError, match=r"quantized \(bitsandbytes\).*unquantized with --base"
        ):
            load(adapter[0])

    def test_a_circle(self, adapter):
        folder = adapter[0] / "adapter"
        found = record_of(folder)
        found["base"] = {"kind": "adapter", "name": "adapter", "path": "."}
        (folder / models.RECORD).write_text(json.dumps(found))
        with pytest.raises(WorkbookError, match="is an adapter on itself"):
            load(folder)

    def test_two_results_and_none(self, adapter, tmp_path):
        (adapter[0] / "model").mkdir()
        with pytest.raises(WorkbookError, match="holds two results"):
            load(adapter[0])
        (tmp_path / "begun").mkdir()
        (tmp_path / "begun" / "checkpoint.pt").write_bytes(b"")
        with pytest.raises(WorkbookError, match="a run without a result: run it again"):
            load(tmp_path / "begun")

    def test_a_whole_model_and_an_adapter_in_one_folder(self, adapter, base):
        for name in (adapters.CONFIG, adapters.WEIGHTS):
            shutil.copy(adapter[0] / "adapter" / name, base)
        with pytest.raises(WorkbookError, match="holds a whole model and an adapter"):
            load(base)

    def test_an_adapter_on_the_hub_is_not_loaded_as_a_model(
        self, tiny_model, monkeypatch, tokenizer
    ):
        tiny_model._hf_peft_config_loaded = True
        found = (tiny_model, {"missing_keys": []})
        monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: found)
        monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
        with pytest.raises(WorkbookError, match="org/a is an adapter: download its files"):
            load("org/a")

    def test_a_base_for_a_whole_model(self, base):
        with pytest.raises(WorkbookError, match="it needs no base"):
            load(base, base="almanac")

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"peft_type": "IA3"}, "IA3"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
            ({"target_parameters": ["experts"]}, "target_parameters"),
            ({"layer_replication": [[0, 2]]}, "layer_replication"),
            ({"bias": "all"}, "bias"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base"),
            ({"a_setting_of_next_year": True}, "a_setting_of_next_year"),
        ],
    )
    def test_more_than_plain_lora(self, adapter, changes, told):
        path = adapter[0] / "adapter" / adapters.CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(
            WorkbookError, match=r"is not plain LoRA: .*PEFT can load it"
        ) as refusal:
            load(adapter[0])
        assert told in str(refusal.value)

    @pytest.mark.parametrize("text", ["{", "[]", "{}"])
    def test_a_damaged_record(self, adapter, text):
        (adapter[0] / "adapter" / models.RECORD).write_text(text)
        with pytest.raises(WorkbookError, match=r"sftlab_run\.json is damaged"):
            load(adapter[0])

    def test_a_tokenizer_with_tokens_that_the_base_does_not_read(self, adapter, tokenizer):
        larger = copy.deepcopy(tokenizer)
        larger.add_tokens(["<|new|>"])
        larger.save_pretrained(adapter[0] / "adapter")
        with pytest.raises(WorkbookError, match="tokens were added that the adapter does not hold"):
            load(adapter[0])


class TestMerging:
    def test_it_gives_a_model_that_needs_neither(self, adapter, base, tmp_path, capsys):
        assert cli.main(["merge", str(adapter[0]), str(tmp_path / "whole")]) == 0
        told = capsys.readouterr().err
        assert (
            "14 layers merged, 0.6 MB in float32; the logits differ from the adapter's by" in told
        )
        shutil.rmtree(base)
        shutil.rmtree(adapter[0])
        model, tokenizer = load(tmp_path / "whole")
        torch.testing.assert_close(logits(model), logits(adapter[1]), rtol=0, atol=1e-5)
        assert tokenizer.chat_template and model.generation_config.eos_token_id == 2
        found = record_of(tmp_path / "whole")
        assert found["kind"] == "merged" and found["base"]["name"] == "base"
        assert "merged in float32" in (tmp_path / "whole" / "README.md").read_text()

    def test_16_bits_are_rounded_once_and_the_loss_is_told(self, adapter, tmp_path):
        found = merge_result(adapter[0], tmp_path / "half", dtype="bfloat16", progress=False)
        assert 1e-4 < found["relative_error"] < found["limit"]
        assert 0 < found["lost"] < 0.5
        stored = load(tmp_path / "half", dtype=torch.bfloat16)[0]
        expected = load(adapter[0], dtype=torch.bfloat16)[0]
        for one, other in zip(stored.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_an_adapter_that_was_never_trained(self, tiny_model, tokenizer, base, tmp_path, capsys):
        untrained = inject_lora(tiny_model, "all-linear", 2, 8, seed=0)
        save(untrained, tokenizer, tmp_path / "a", base)
        merge_result(tmp_path / "a", tmp_path / "half", dtype="bfloat16")
        assert "unchanged" not in capsys.readouterr().err

    @pytest.mark.parametrize("rule", ["rslora", "plain"])
    def test_the_lost_share_is_that_of_the_update_under_its_rule(self, tiny_model, rule):
        model = filled(inject_lora(tiny_model, "q_proj", 4, 8, seed=0, rule=rule))
        layers = list(lora_layers(model).values())
        with torch.no_grad():
            updates = [layer.scale * (layer.B @ layer.A) for layer in layers]
            error = torch.cat([
                ((layer.weight.half() + update).half().float() - layer.weight.half() - update).flatten()
                for layer, update in zip(layers, updates, strict=True)
            ])  # fmt: skip
            expected = error.norm() / torch.cat([update.flatten() for update in updates]).norm()
        assert rounding_loss(layers, torch.float16)[1] == pytest.approx(expected.item(), rel=1e-3)

    def test_gpt2_with_its_transposed_weights_and_few_positions(self, tokenizer, tmp_path):
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
        whole = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
        whole.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        model = with_lora(whole)
        folder = save(model, tokenizer, tmp_path / "a", tmp_path / "base")
        theirs = peft.PeftModel.from_pretrained(whole, folder)
        torch.testing.assert_close(logits(theirs), logits(model), rtol=0, atol=1e-6)
        found = merge_result(folder, tmp_path / "half", dtype="bfloat16", progress=False)
        assert found["relative_error"] < found["limit"] and found["lost"] < 0.5
        merge_result(folder, tmp_path / "whole", progress=False)
        torch.testing.assert_close(logits(load(tmp_path / "whole")[0]), logits(model))

    def test_logits_that_differ_by_more_than_rounding_leave_nothing(
        self, adapter, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(results, "relative_error", lambda *_: float("nan"))
        with pytest.raises(WorkbookError, match="more than the rounding of float32 explains"):
            merge_result(adapter[0], tmp_path / "whole", progress=False)
        assert not (tmp_path / "whole").exists()

    @pytest.mark.parametrize(
        ("prepare", "arguments", "told"),
        [
            (
                lambda p: (p / "whole").mkdir() or (p / "whole" / "x").touch(),
                [],
                "whole is not empty",
            ),
            (lambda p: (p / "whole").touch(), [], "whole is a file"),
            (lambda p: None, ["--base", "base-2"], "there is no model 'base-2'"),
            (lambda p: shutil.rmtree(p / "out"), [], "there is no folder"),
            (
                lambda p: (p / "out" / "adapter" / adapters.WEIGHTS).unlink(),
                [],
                "has no adapter_model",
            ),
        ],
    )
    def test_refusals_are_told_in_a_sentence(
        self, adapter, tmp_path, capsys, prepare, arguments, told
    ):
        prepare(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(["merge", str(tmp_path / "out"), str(tmp_path / "whole"), *arguments]) == 1
        assert told in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before

    def test_another_base_is_refused(self, adapter, base, tmp_path, capsys):
        other = changed_base(base, tmp_path)
        arguments = ["merge", str(adapter[0]), str(tmp_path / "whole"), "--base", str(other)]
        assert cli.main(arguments) == 1
        assert "another base" in capsys.readouterr().err
        assert not Path(arguments[2]).exists()
