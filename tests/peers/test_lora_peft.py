"""PEFT is the oracle: the same matrices give the same outputs, merged weights, files and counts."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab import adapters, lora
from sftlab.errors import WorkbookError

R, ALPHA = 3, 12  # α ≠ r, or a forgotten division would go unseen
IDS = torch.arange(24).reshape(2, 12)


def peft_layer(base, ours, use_rslora=False):
    """PEFT's layer around `base`, holding our A and B."""
    config = peft.LoraConfig(
        r=ours.r, lora_alpha=ours.alpha, lora_dropout=ours.dropout.p, use_rslora=use_rslora
    )
    layer = peft.tuners.lora.Linear(base, "default", config, r=ours.r, lora_alpha=ours.alpha)
    layer.lora_A["default"].weight.data = ours.A.detach().clone()
    layer.lora_B["default"].weight.data = ours.B.detach().clone()
    return layer


def pair(d_in=40, d_out=24, dtype=torch.float32, bias=True, rule="lora", dropout=0.3):
    """Our trained layer and PEFT's, each around its own copy of one base, in eval mode."""
    base, copy = (nn.Linear(d_in, d_out, bias=bias).to(dtype) for _ in range(2))
    copy.load_state_dict(base.state_dict())
    ours = lora.LoRALinear(base, R, ALPHA, dropout, rule)
    nn.init.normal_(ours.B, std=0.1)
    return ours.eval(), peft_layer(copy, ours, use_rslora=rule == "rslora").eval()


@pytest.mark.parametrize("rule", ["lora", "rslora"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("d_in, d_out", [(40, 24), (24, 40), (7, 1)])
def test_the_layer_computes_what_pefts_does(d_in, d_out, bias, rule):
    ours, theirs = pair(d_in, d_out, bias=bias, rule=rule)
    x = torch.randn(2, 5, d_in)
    assert not torch.equal(ours(x), ours.base(x))
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


def test_the_layer_computes_what_pefts_does_over_bfloat16():
    ours, theirs = pair(dtype=torch.bfloat16)
    x = torch.randn(2, 5, 40, dtype=torch.bfloat16)
    assert torch.equal(ours(x), theirs(x))


def test_gradients_are_pefts():
    ours, theirs = pair()
    x = torch.randn(5, 40)
    for layer in (ours, theirs):
        layer(x).square().mean().backward()
    a, b = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    torch.testing.assert_close(ours.A.grad, a.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.B.grad, b.grad, rtol=0, atol=1e-6)


def test_dropout_in_training_is_pefts():
    ours, theirs = pair(dropout=0.5)
    x = torch.randn(5, 40)
    outputs = []
    for layer in (ours.train(), theirs.train()):
        torch.manual_seed(7)
        outputs.append(layer(x))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
    assert not torch.equal(outputs[0], ours.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_and_unmerging_give_pefts_weight(dtype):
    ours, theirs = pair(dtype=dtype)
    by_hand = lora.merge(ours.base.weight, ours.A, ours.B, ALPHA, R)
    ours.merge()
    theirs.merge()
    # One rounding to bfloat16 against PEFT's two: the update is rounded before it is added there.
    atol = 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(ours.base.weight, theirs.weight, rtol=0, atol=atol)
    torch.testing.assert_close(ours.base.weight, by_hand, rtol=0, atol=1e-6)
    x = torch.randn(2, 40, dtype=dtype)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=8 * atol)
    ours.unmerge()
    theirs.unmerge()
    torch.testing.assert_close(ours.base.weight, theirs.weight, rtol=0, atol=atol)


def test_the_random_start_is_drawn_as_pefts():
    theirs = peft_layer(nn.Linear(40, 24), lora.LoRALinear(nn.Linear(40, 24), R, ALPHA))
    torch.manual_seed(5)
    theirs.reset_lora_parameters("default", True)
    A, B = torch.empty(R, 40), torch.ones(24, R)
    torch.manual_seed(5)
    lora.init_lora_(A, B)
    assert torch.equal(A, theirs.lora_A["default"].weight)
    assert torch.equal(B, theirs.lora_B["default"].weight)


# --- Whole models -------------------------------------------------------------------------------
def llama():
    """A tiny Llama with grouped-query attention (k and v are not square) and a tied head."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(11)
    return LlamaForCausalLM(config).eval()


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


def trained(model, ending):
    """Fill every B, as training would."""
    generator = torch.Generator().manual_seed(2)
    for name, p in model.named_parameters():
        if name.endswith(ending):
            p.data = 0.1 * torch.randn(p.shape, generator=generator)
    return model.eval()


TARGETS = [["q_proj", "v_proj"], "all-linear", ["layers.1.mlp.down_proj", "k_proj"]]


@pytest.mark.parametrize("rule", ["lora", "rslora", "plain"])
@pytest.mark.parametrize("targets", TARGETS)
def test_peft_loads_our_adapter(tmp_path, targets, rule):
    ours = lora.inject_lora(llama(), targets, R, ALPHA, lora_dropout=0.1, rule=rule)
    trained(ours, ".B")
    adapters.save_adapter(ours, tmp_path, base_name="tiny")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", UserWarning
        )  # PEFT warns of missing and of unexpected tensors
        theirs = peft.PeftModel.from_pretrained(llama(), tmp_path).eval()
    torch.testing.assert_close(logits(theirs), logits(ours), rtol=0, atol=1e-6)
    assert not torch.equal(logits(ours), logits(llama()))
    assert theirs.peft_config["default"].base_model_name_or_path == "tiny"


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("targets", TARGETS)
def test_we_load_pefts_adapter(tmp_path, targets, use_rslora):
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, target_modules=targets, use_rslora=use_rslora, lora_dropout=0.1
    )
    theirs = trained(peft.get_peft_model(llama(), config), "lora_B.default.weight")
    theirs.save_pretrained(tmp_path)
    ours = adapters.load_adapter(llama(), tmp_path).eval()
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-6)
    assert set(json.loads((tmp_path / adapters.CONFIG).read_text())) > {"r", "lora_alpha"}
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(logits(lora.merge_lora(ours)), logits(merged), rtol=0, atol=1e-6)
    theirs_state = merged.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs_state[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_we_load_pefts_adapter_with_patterns(tmp_path, use_rslora):
    """The first pattern that matches a layer gives its r or alpha; a pattern is a regex."""
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj", "up_proj"], use_rslora=use_rslora,
        rank_pattern={r"layers\.1\..*": 3, "q_proj": 5}, alpha_pattern={"^model.layers.0.mlp.up_proj": 7},
    )  # fmt: skip
    theirs = trained(peft.get_peft_model(llama(), config), "lora_B.default.weight")
    theirs.save_pretrained(tmp_path)
    ours = adapters.load_adapter(llama(), tmp_path).eval()
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-6)
    assert {layer.r for layer in lora.lora_layers(ours).values()} == {R, 3, 5}
    adapters.load_adapter(ours, tmp_path)  # into the layers that are there
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("targets", TARGETS)
def test_the_same_parameters_are_trained_as_with_peft(targets):
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=targets)
    theirs, _ = peft.get_peft_model(llama(), config).get_nb_trainable_parameters()
    ours = lora.inject_lora(llama(), targets, R, ALPHA)
    assert sum(p.numel() for p in lora.lora_parameters(ours)) == theirs


def test_a_disabled_adapter_gives_pefts_base(tmp_path):
    ours = trained(lora.inject_lora(llama(), "all-linear", R, ALPHA), ".B")
    adapters.save_adapter(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(llama(), tmp_path).eval()
    with lora.disable_lora(ours), theirs.disable_adapter():
        assert torch.equal(logits(ours), logits(theirs))


def test_a_dora_adapter_of_peft_is_refused(tmp_path):
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["q_proj"], use_dora=True)
    peft.get_peft_model(llama(), config).save_pretrained(tmp_path)
    with pytest.raises(WorkbookError, match="use_dora"):
        adapters.load_adapter(llama(), tmp_path)
