"""Where bitsandbytes is not installed, the layers that stand in for it give its numbers."""

import copy

import pytest
import torch
from torch import nn

from sftlab import quantized_layers
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameters
from sftlab.memory.count import memory_report, trainable_share


def trained(library, monkeypatch, double, dtype):
    """A packed model of the library's layers with its adapters, and the gradients of one step."""
    monkeypatch.setattr(quantized_layers, "_bitsandbytes", lambda: library)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64, bias=False)).to(dtype)
    quantized_layers.quantize_model_linears(model, double=double)
    inject_lora(model, "all-linear", r=4, lora_alpha=8, seed=1)
    for p in lora_parameters(model):
        p.data += 0.1 * torch.randn(p.shape)
    out = model(torch.randn(5, 64, dtype=dtype))
    out.float().square().sum().backward()
    return model, out, [p.grad for p in lora_parameters(model)]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_gradients_and_bytes_are_those_of_bitsandbytes(monkeypatch, double, dtype):
    theirs = trained(pytest.importorskip("bitsandbytes"), monkeypatch, double, dtype)
    ours = trained(quantized_layers, monkeypatch, double, dtype)
    assert type(ours[0][0].base) is quantized_layers.Linear4bit
    close = {"rtol": 0, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(ours[1], theirs[1], **close)
    for a, b in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(a, b, rtol=close["rtol"], atol=30 * close["atol"])
    assert memory_report(ours[0]) == memory_report(theirs[0])
    assert trainable_share(ours[0]) == trainable_share(theirs[0])


def test_unpacked_a_layer_is_the_one_it_computed_with(monkeypatch):
    model, _, _ = trained(quantized_layers, monkeypatch, True, torch.float32)
    base = quantized_layers.dequantize_model_linears(nn.Sequential(model[0].base))
    x = torch.randn(3, 64)
    assert torch.equal(base(x), model[0].base(x))


def test_a_copy_is_packed_too_and_shares_no_weights(monkeypatch):
    model, _, _ = trained(quantized_layers, monkeypatch, True, torch.float32)
    layer, copied = model[0].base, copy.deepcopy(model[0].base)
    assert copied.weight.data_ptr() != layer.weight.data_ptr()
    assert torch.equal(copied(torch.ones(1, 64)), layer(torch.ones(1, 64)))


def test_only_the_packed_weight_is_kept_for_the_backward_pass(monkeypatch):
    model, _, _ = trained(quantized_layers, monkeypatch, True, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model[0].base(torch.ones(1, 64, requires_grad=True))
    assert all(t.numel() < 64 * 128 for t in kept)


def test_another_code_than_nf4_is_refused_when_a_weight_is_packed():
    """Not before: a layer is made with bitsandbytes' default, fp4, and may get another weight."""
    layer = quantized_layers.nn.Linear4bit(64, 64)
    with pytest.raises(WorkbookError, match="packs NF4 alone"):
        layer.to("cpu")
    layer.weight = quantized_layers.nn.Params4bit(torch.ones(64, 64), quant_type="nf4")
    assert copy.deepcopy(layer).to("cpu").weight.dtype == torch.uint8


def test_peft_counts_its_weights_as_packed(monkeypatch):
    from sftlab.classroom.peft_compat import peft

    monkeypatch.setattr(quantized_layers, "_bitsandbytes", lambda: quantized_layers)
    monkeypatch.setattr("peft.tuners.lora.model.is_bnb_4bit_available", lambda: False)
    model = quantized_layers.quantize_model_linears(nn.Sequential(nn.Linear(64, 128, bias=False)))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"]))
    assert wrapped.get_nb_trainable_parameters() == (2 * 192, 2 * 192 + 64 * 128)
