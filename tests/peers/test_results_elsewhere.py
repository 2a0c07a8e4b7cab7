"""A saved result loads with transformers and PEFT where this package is not imported."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch

from sftlab.chat import encode, end_of_turn_id, user
from sftlab.data import tokenize_conversations
from sftlab.lora import inject_lora
from sftlab.results import data_record, merge_result, save_result
from sftlab.train import TrainConfig, sft_train

QUESTION, ANSWER = "Is 3 larger than 2?", "Yes."
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error", UserWarning)  # PEFT warns of tensors that are missing or unknown
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

def told(folder, base=None):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base or folder, dtype="float32")
    if base:
        model.generation_config = GenerationConfig.from_pretrained(folder)
        model = PeftModel.from_pretrained(model, folder)
    messages = [{"role": "user", "content": "Is 3 larger than 2?"}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model.eval()
    ids = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0].tolist()
    new = ids[inputs["input_ids"].shape[1]:]
    with torch.no_grad():
        logits = model(torch.arange(24)[None]).logits
    return {"new": new, "text": tokenizer.decode(new, skip_special_tokens=True),
            "prompt": inputs["input_ids"][0].tolist(), "logits": logits.tolist()}

found = {"adapter": told("adapter", "base"), "full": told("full"), "merged": told("merged")}
assert not any(name.partition(".")[0] == "sftlab" for name in sys.modules)
json.dump(found, open("found.json", "w"))
"""


def trained(model, tokenizer, rate):
    """The model after it has learned one answer, in some seconds."""
    row = [*user(QUESTION), {"role": "assistant", "content": ANSWER}]
    rows = tokenize_conversations(tokenizer, [row]).examples
    config = TrainConfig(learning_rate=rate, num_train_epochs=40, lr_scheduler_type="constant")
    sft_train(model, rows, config, progress=False)
    return model.eval()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, tokenizer):
    """What another process, in another folder, found in a moved adapter, full and merged model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    tokenizer = copy.deepcopy(tokenizer)
    # As with many bases, the model's own end is that of documents, the template's that of turns.
    tokenizer.eos_token = "<|endoftext|>"
    assert end_of_turn_id(tokenizer) != tokenizer.eos_token_id
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    base.save_pretrained(here / "base")
    tokenizer.save_pretrained(here / "base")
    (here / "rows.jsonl").write_text(json.dumps({"prompt": QUESTION, "response": ANSWER}) + "\n")
    models = {
        "adapter": inject_lora(copy.deepcopy(base), "all-linear", 8, 64, seed=0),
        "full": copy.deepcopy(base),
    }
    for name, model in models.items():
        trained(model, tokenizer, rate=2e-2)
        save_result(
            model, tokenizer, here / name, base_name=here / "base", adapter=name == "adapter",
            run={"data": data_record(here / "rows.jsonl", 1), "train": {"seed": 0}},
            history={"losses": [2.0, 0.1]}, end_ids=[end_of_turn_id(tokenizer)],
        )  # fmt: skip
    merge_result(here / "adapter", here / "merged", progress=False)
    for name in ("base", "adapter", "full", "merged"):
        (here / name).rename(there / name)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=there, capture_output=True, text=True, timeout=300,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    models["merged"] = models["adapter"]
    return json.loads((there / "found.json").read_text()), models, tokenizer, base


@pytest.mark.parametrize("name", ["adapter", "full", "merged"])
class TestElsewhere:
    def test_the_logits_are_the_same(self, elsewhere, name):
        found, models, _, base = elsewhere
        ids = torch.arange(24)[None]
        with torch.no_grad():
            expected, untrained = models[name](ids).logits, base(ids).logits
        logits = torch.tensor(found[name]["logits"])
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        assert (logits - untrained).abs().max() > 0.1

    def test_the_template_is_that_of_the_training(self, elsewhere, name):
        found, _, tokenizer, _ = elsewhere
        assert found[name]["prompt"] == encode(tokenizer, user(QUESTION), True)

    def test_generation_stops_at_the_end_of_the_turn(self, elsewhere, name):
        found, _, tokenizer, _ = elsewhere
        assert found[name]["text"] == ANSWER
        assert found[name]["new"][-1] == end_of_turn_id(tokenizer)
        assert len(found[name]["new"]) < 30
