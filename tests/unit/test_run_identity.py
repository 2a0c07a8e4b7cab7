"""A checkpoint goes on with its own run alone, and a refusal names what differs."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab import run_identity
from sftlab.chat import user
from sftlab.checkpoints import load_checkpoint
from sftlab.data import tokenize_conversations
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_layers
from sftlab.models import load
from sftlab.pipeline import train_run
from sftlab.quantized_layers import quantize_model_linears
from sftlab.run_identity import describe, differences, environment_differences
from sftlab.settings import read_run
from sftlab.train import TrainConfig, sft_train

CONFIG = TrainConfig(
    learning_rate=1e-2, num_train_epochs=2, batch_size=3, save_steps=2, max_steps=5
)
ADAPTER = {"target_modules": "all-linear", "r": 2, "lora_alpha": 4, "seed": 0}


def with_lora(model, **changes):
    return inject_lora(copy.deepcopy(model), **ADAPTER | changes)


def begin(model, rows, folder, config=CONFIG, until=2):
    return sft_train(model, rows, config, folder=folder, progress=False, stop_after_steps=until)


def moved(model):
    """The model with one frozen number changed by a little."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    return model


class TestWhatDecides:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"lora_alpha": 16}, "(lora_alpha: 4 → 16)"),
            ({"lora_dropout": 0.1}, "(lora_dropout: 0.0 → 0.1)"),
            ({"rule": "rslora"}, "(rule: lora → rslora)"),
            ({"r": 3}, "(r: 2 → 3)"),
            ({"r": 3, "lora_alpha": 5}, "r: 2 → 3; lora_alpha: 4 → 5"),
            ({"target_modules": ["q_proj"]}, "→ model.layers.0.self_attn.q_proj, model.layers.1"),
        ],
    )
    def test_settings_of_the_adapter(self, tiny_model, rows, tmp_path, changes, told):
        begin(with_lora(tiny_model), rows, tmp_path)
        other = with_lora(tiny_model, **changes)
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(WorkbookError, match="belongs to another run") as refusal:
            begin(other, rows, tmp_path, until=None)
        assert told in str(refusal.value)
        assert "set back what differs" in str(refusal.value)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"learning_rate": 2e-2}, "(learning_rate: 0.01 → 0.02)"),
            ({"batch_size": 2}, "(batch_size: 3 → 2)"),
            ({"num_train_epochs": 1}, "(num_train_epochs: 2 → 1)"),
            ({"max_steps": None}, "(max_steps: 5 → None)"),
            ({"warmup_ratio": 0.5}, "(warmup_ratio: 0.1 → 0.5)"),
            ({"lr_scheduler_type": "constant"}, "(lr_scheduler_type: cosine → constant)"),
            ({"weight_decay": 0.1}, "(weight_decay: 0.0 → 0.1)"),
            ({"max_grad_norm": None}, "(max_grad_norm: 1.0 → None)"),
            ({"precision": "bf16"}, "(precision: fp32 → bf16)"),
            ({"seed": 1}, "(seed: 0 → 1)"),
        ],
    )
    def test_settings_of_the_training(self, tiny_model, rows, tmp_path, changes, told):
        begin(with_lora(tiny_model), rows, tmp_path)
        with pytest.raises(WorkbookError, match="belongs to another run") as refusal:
            begin(with_lora(tiny_model), rows, tmp_path, replace(CONFIG, **changes))
        assert told in str(refusal.value)

    def test_rows(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"\(rows: 8 rows, sha256 \w{8}… → 7 rows, "):
            begin(with_lora(tiny_model), rows[:7], tmp_path)

    def test_a_single_frozen_number(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"\(frozen weights: \w{8}… → \w{8}…\)"):
            begin(with_lora(moved(tiny_model)), rows, tmp_path)

    def test_a_frozen_number_changed_in_the_pause(self, tiny_model, rows, tmp_path):
        model = with_lora(tiny_model)
        begin(model, rows, tmp_path)
        with torch.no_grad():
            model.model.norm.weight[0] += 1
        with pytest.raises(WorkbookError, match="frozen weights"):
            begin(model, rows, tmp_path, until=None)

    def test_a_single_number_where_all_are_trained(self, tiny_model, rows, tmp_path):
        begin(copy.deepcopy(tiny_model), rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"\(start: \w{8}… → \w{8}…\)"):
            begin(moved(tiny_model), rows, tmp_path)

    def test_an_adapter_that_was_trained_before(self, tiny_model, rows, tmp_path):
        trained = with_lora(tiny_model)
        sft_train(trained, rows, CONFIG, progress=False)
        begin(trained, rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"\(start: "):
            begin(with_lora(tiny_model), rows, tmp_path)

    def test_what_the_same_weights_compute(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        tiny_model.config.rms_norm_eps = 1e-3
        with pytest.raises(WorkbookError, match=r"\(config\.rms_norm_eps: 1e-06 → 0\.001\)"):
            begin(with_lora(tiny_model), rows, tmp_path)

    def test_settings_of_a_peft_adapter(self, tiny_model, rows, tmp_path):
        peft = pytest.importorskip("peft")

        def adapted(alpha):
            config = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj"])
            return peft.get_peft_model(copy.deepcopy(tiny_model), config)

        begin(adapted(4), rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"default\.lora_alpha: 4 → 8"):
            begin(adapted(8), rows, tmp_path)
        assert begin(adapted(4), rows, tmp_path, until=None).finished

    def test_a_label_and_the_order_of_the_rows(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        first = replace(rows[0], labels=[*rows[0].labels[:-2], -100, -100])
        for others in (rows[::-1], [first, *rows[1:]]):
            with pytest.raises(WorkbookError, match=r"\(rows: 8 rows, sha256 "):
                begin(with_lora(tiny_model), others, tmp_path)

    def test_dropout_in_the_base(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        tiny_model.model.layers[0].mlp = nn.Sequential(
            tiny_model.model.layers[0].mlp, nn.Dropout(0.1)
        )
        with pytest.raises(WorkbookError, match="belongs to another run"):
            begin(with_lora(tiny_model), rows, tmp_path)

    def test_a_factor_set_by_hand(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path)
        other = with_lora(tiny_model)
        next(iter(lora_layers(other).values())).scale *= 2
        with pytest.raises(WorkbookError, match=r"\(scale: None → .*q_proj': 4\.0"):
            begin(other, rows, tmp_path)

    @pytest.mark.parametrize("change", ["scales", "double"])
    def test_what_unpacks_a_quantized_base(self, rows, tokenizer, tmp_path, change):
        """The same four-bit codes stand for other weights if their scales are others."""

        def packed(factor=1.0, double=True):
            torch.manual_seed(0)
            sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
            config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)
            model = LlamaForCausalLM(config)
            for name, weight in model.named_parameters():
                if "proj" in name:
                    weight.data *= factor
            model = quantize_model_linears(model, double).requires_grad_(False)
            model.model.norm.requires_grad_(True)
            return model

        begin(packed(), rows, tmp_path)
        with pytest.raises(WorkbookError, match=r"\(frozen weights: "):
            begin(packed(2.0) if change == "scales" else packed(double=False), rows, tmp_path)
        assert begin(packed(), rows, tmp_path, until=None).finished

    def test_a_setting_that_this_list_does_not_know(self, tiny_model, rows):
        model = with_lora(tiny_model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first, second = (
            describe(model, trained, rows, asdict(CONFIG) | {"label_smoothing": share}, 5)
            for share in (0.0, 0.1)
        )
        told = differences(first["identity"], second["identity"], {}, {})
        assert told == ["label_smoothing: 0.0 → 0.1"]

    @pytest.mark.parametrize(
        ("kind", "settings", "changes"),
        [
            ("LoraConfig", {"r": 2, "target_modules": ["q_proj"]}, {"use_dora": True}),
            ("LoraConfig", {"r": 2, "target_modules": ["q_proj"]}, {"rank_pattern": {"q_proj": 3}}),
            ("IA3Config", {"target_modules": ["q_proj"], "feedforward_modules": []},
             {"target_modules": ["q_proj", "v_proj"]}),
            ("LoHaConfig", {"r": 2, "target_modules": ["q_proj"]}, {"alpha": 4}),
            ("PrefixTuningConfig", {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
             {"num_virtual_tokens": 4}),
        ],
        ids=str,
    )  # fmt: skip
    def test_every_kind_of_adapter_of_peft(
        self, tiny_model, rows, tmp_path, kind, settings, changes
    ):
        peft = pytest.importorskip("peft")

        def adapted(**more):
            torch.manual_seed(1)
            config = getattr(peft, kind)(**settings | more)
            return peft.get_peft_model(copy.deepcopy(tiny_model), config)

        def go_on(model, until):
            return sft_train(model, rows, CONFIG, folder=tmp_path, progress=False, check=False,
                             stop_after_steps=until)  # fmt: skip

        go_on(adapted(), 2)
        with pytest.raises(WorkbookError, match=rf"default\.{next(iter(changes))}"):
            go_on(adapted(**changes), 2)
        assert go_on(adapted(), None).finished

    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    def test_the_number_of_processes_where_each_draws_its_masks(
        self, tiny_model, rows, monkeypatch, dropout
    ):
        found = []
        for processes in (1, 2):
            monkeypatch.setattr(run_identity, "rank_and_world_size", lambda n=processes: (0, n))
            model = with_lora(tiny_model, lora_dropout=dropout)
            trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
            found.append(describe(model, trained, rows, asdict(CONFIG), 5))
        one, two = found
        told = differences(one["identity"], two["identity"], {}, {})
        assert told == (["processes: None → 2"] if dropout else [])
        note = environment_differences(one["environment"], two["environment"], bool(dropout))
        assert "(processes: 1 → 2)" in note


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"torch": "1.0"}, r"(torch: 1.0 → "),
            ({"threads": 512, "device": "abacus"}, "device: abacus → cpu; threads: 512 → "),
        ],
        ids=str,
    )
    def test_another_environment(self, tiny_model, rows, tmp_path, capsys, changes, told):
        begin(with_lora(tiny_model), rows, tmp_path)
        path = tmp_path / "checkpoint.pt"
        state = torch.load(path, weights_only=True)
        state["environment"] |= changes
        torch.save(state, path)
        assert begin(with_lora(tiny_model), rows, tmp_path, until=3)
        said = capsys.readouterr().err
        assert told in said and "may differ by rounding" in said
        assert begin(with_lora(tiny_model), rows, tmp_path, until=None).finished
        assert not capsys.readouterr().err

    def test_other_masks_after_another_micro_batch(self, tiny_model, rows, tmp_path, capsys):
        begin(with_lora(tiny_model, lora_dropout=0.1), rows, tmp_path)
        begin(
            with_lora(tiny_model, lora_dropout=0.1),
            rows,
            tmp_path,
            replace(CONFIG, micro_batch_size=1),
        )
        assert "dropout draws other masks" in capsys.readouterr().err

    def test_a_key_that_a_new_version_adds_is_no_difference(self):
        old, new = {"config.rope": None}, {"config.rope": None, "config.rope.kind": "new"}
        assert differences(old, new, {}, {}, same_libraries=False) == []
        assert differences(old, new, {}, {}, same_libraries=True) == [
            "config.rope.kind: None → new"
        ]

    def test_what_the_rows_come_from_is_named(self):
        old, new = {"rows": "8 rows, sha256 a"}, {"rows": "8 rows, sha256 b"}
        names = {"model": "almanac", "data": "a.jsonl", "max_length": None}
        told = differences(old, new, names, names | {"max_length": 9, "model": "x"})
        assert told == ["max_length: None → 9"]
        assert differences(old, new, names, names) == ["rows: 8 rows, sha256 a → 8 rows, sha256 b"]

    def test_of_many_layers_the_one_that_differs(self):
        old = {"r": dict.fromkeys("abcdef", 8)}
        assert differences(old, {"r": old["r"] | {"c": 4, "d": 4}}, {}, {}) == [
            "r of c: 8 → 4, and 1 more"
        ]


class TestWhatDoesNot:
    def test_gradient_checkpointing_and_tokens_of_the_configuration(
        self, tiny_model, rows, tmp_path
    ):
        begin(with_lora(tiny_model), rows, tmp_path)
        tiny_model.gradient_checkpointing_enable()
        tiny_model.config.eos_token_id, tiny_model.config.use_cache = 5, False
        assert begin(with_lora(tiny_model), rows, tmp_path, until=None).finished

    def test_the_order_of_the_parameters(self, tiny_model, rows, tmp_path):
        """The optimizer numbers its state; the names decide what belongs together."""
        model = with_lora(tiny_model)
        begin(model, rows, tmp_path)
        path = tmp_path / "checkpoint.pt"
        state = torch.load(path, weights_only=True)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        turned = dict(reversed(trained.items()))
        optimizer = torch.optim.AdamW(turned.values())
        load_checkpoint(path, turned, optimizer, {key: state[key] for key in ("identity", "names")})
        moments = dict(zip(state["parameters"], state["optimizer"]["state"].values(), strict=True))
        for name, parameter in turned.items():
            assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[name]["exp_avg"])

    @pytest.mark.parametrize(
        "changes",
        [
            {"micro_batch_size": 1},
            {"save_steps": 7},
            {"precision": "fp32"},
            {"num_train_epochs": 3},
        ],
        ids=str,
    )
    def test_settings(self, tiny_model, rows, tmp_path, changes):
        begin(with_lora(tiny_model), rows, tmp_path)
        history = begin(with_lora(tiny_model), rows, tmp_path, replace(CONFIG, **changes), None)
        assert len(history.losses) == 5 and history.finished

    def test_two_ways_not_to_clip(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model), rows, tmp_path, replace(CONFIG, max_grad_norm=None))
        assert begin(with_lora(tiny_model), rows, tmp_path, replace(CONFIG, max_grad_norm=0), None)

    def test_where_a_was_drawn_as_long_as_b_is_zero(self, tiny_model, rows, tmp_path):
        begin(with_lora(tiny_model, seed=None), rows, tmp_path)
        assert begin(with_lora(tiny_model, seed=None), rows, tmp_path, until=None).finished

    def test_another_folder_and_another_name(self, tiny_model, rows, tmp_path):
        sft_train(with_lora(tiny_model), rows, CONFIG, folder=tmp_path / "a", progress=False,
                  stop_after_steps=2, name="here/model")  # fmt: skip
        (tmp_path / "a").rename(tmp_path / "b")
        assert sft_train(with_lora(tiny_model), rows, CONFIG, folder=tmp_path / "b", progress=False,
                         name="there/model").finished  # fmt: skip

    def test_steps_that_no_checkpoint_has(self, tiny_model, rows, tmp_path):
        """The same model goes on after an error, although it stands where no checkpoint does."""
        model = copy.deepcopy(tiny_model)

        def fail(done, loss):
            if done == 3:
                raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            sft_train(model, rows, CONFIG, folder=tmp_path, on_step=fail, progress=False)
        assert begin(model, rows, tmp_path, until=None).finished

    def test_a_copy_of_a_model_that_pauses(self, tiny_model, rows, tmp_path):
        model = copy.deepcopy(tiny_model)
        begin(model, rows, tmp_path)
        assert begin(copy.deepcopy(model), rows, tmp_path, until=None).finished


def test_a_checkpoint_of_the_first_edition_is_refused_in_a_sentence(tiny_model, rows, tmp_path):
    torch.save({"config": asdict(CONFIG), "rows": "0", "parameters": {}, "optimizer": {},
                "history": {}}, tmp_path / "checkpoint.pt")  # fmt: skip
    with pytest.raises(
        WorkbookError, match=r"checkpoint of the first edition.*remove it or choose"
    ):
        begin(with_lora(tiny_model), rows, tmp_path)


def test_a_run_that_version_0_1_stopped_is_not_begun_anew(tiny_model, rows, tmp_path):
    (tmp_path / "snapshot.pt").write_bytes(b"")
    with pytest.raises(WorkbookError, match=r"stopped \(snapshot\.pt\): finish it with that"):
        begin(with_lora(tiny_model), rows, tmp_path)


@pytest.mark.parametrize(
    "adapter", [{"r": 2, "lora_alpha": 4}, None], ids=["LoRA", "all parameters"]
)
def test_a_file_with_another_model_is_refused_by_the_names(
    tiny_model, tokenizer, tmp_path, adapter
):
    for name, model in (("first", tiny_model), ("second", moved(tiny_model))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = [{"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(**changes):
        run = {"model": "first", "data": "rows.jsonl", "output": "out", "adapter": adapter,
               "train": {"num_train_epochs": 2, "batch_size": 2}}  # fmt: skip
        path = tmp_path / "run.json"
        path.write_text(json.dumps(run | changes))
        return read_run(path)

    train_run(write(), progress=False)
    with pytest.raises(WorkbookError, match=r"\(model: \S*first → \S*second\)"):
        train_run(write(model="second"), progress=False)
    (tmp_path / "first").rename(tmp_path / "third")
    assert train_run(write(model="third"), progress=False).finished


def test_the_embedded_models_are_told_apart(tmp_path):
    pairs = tmp_path / "rows.jsonl"
    pairs.write_text(json.dumps({"prompt": "Hi", "response": "Hello."}) + "\n")
    for name in ("almanac", "almanac-chat"):
        model, tokenizer = load(name)
        rows = tokenize_conversations(
            tokenizer, [[*user("Hi"), {"role": "assistant", "content": "Hello."}]]
        )
        model = with_lora(model)
        if name == "almanac":
            sft_train(model, rows.examples, folder=tmp_path, progress=False, stop_after_steps=1)
            continue
        with pytest.raises(WorkbookError, match="frozen weights"):
            sft_train(model, rows.examples, folder=tmp_path, progress=False)


def test_a_template_that_writes_the_date_keeps_that_of_the_start(
    tiny_model, tokenizer, tmp_path, capsys
):
    """Stopped today, the run goes on tomorrow; a folder without a start takes the date of now."""
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + tokenizer.chat_template
    tiny_model.save_pretrained(tmp_path / "model")
    dated.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Hi", "response": "Hello."}\n' * 2)
    run = {"model": "model", "data": "rows.jsonl", "output": "out", "adapter": {"r": 2},
           "train": {"num_train_epochs": 2, "batch_size": 1}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))
    run = read_run(tmp_path / "run.json")
    first = train_run(run, progress=False)
    begun = tmp_path / "out" / "begun.txt"
    assert "keeps that of its start" in capsys.readouterr().err
    assert train_run(run, progress=False).losses == first.losses

    today = begun.read_text()
    begun.write_text("2020-02-02T12:00:00\n")  # as if the checkpoint's rows were of another day
    with pytest.raises(WorkbookError, match="belongs to another run"):
        train_run(run, progress=False)
    (tmp_path / "out" / "checkpoint.pt").unlink()
    assert train_run(run, progress=False).finished  # rows and date are of one day again
    begun.write_text(today)
    with pytest.raises(WorkbookError, match="belongs to another run"):
        train_run(run, progress=False)


def test_a_template_without_a_date_leaves_no_file(tiny_model, tokenizer, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Hi", "response": "Hello."}\n')
    run = {"model": "model", "data": "rows.jsonl", "output": "out", "adapter": {"r": 2},
           "train": {"num_train_epochs": 1}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))
    train_run(read_run(tmp_path / "run.json"), progress=False)
    assert not (tmp_path / "out" / "begun.txt").exists()
