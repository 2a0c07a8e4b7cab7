"""bitsandbytes on the CPU is the oracle: codes, scales and values equal, element for element."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import nn

from sftlab import quant, quantized_layers
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameters, merge_lora

SHAPES = [(64,), (256, 64), (96, 128), (7, 33), (130, 50), (3, 5, 14), (1, 1), (1024, 300)]


def test_the_nf4_code_is_theirs():
    assert torch.equal(quant.nf4_code(), bnb.get_4bit_type("nf4", device="cpu"))


def test_the_code_for_scales_is_theirs():
    assert torch.equal(quant.dynamic_code(), bnb.create_dynamic_map())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_quantising_and_back_is_theirs(shape, double, dtype):
    weight = (torch.randn(shape) * 0.02).to(dtype)
    packed, state = bnb.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")
    ours = quant.quantize_nf4(weight, double=double)
    assert torch.equal(ours.packed, packed.flatten())
    assert torch.equal(ours.scales, state.absmax)
    if double:
        assert torch.equal(ours.offset, state.offset)
        assert torch.equal(ours.scale_of_scales, state.state2.absmax)
    restored = quant.dequantize_nf4(ours)
    assert restored.shape == weight.shape and restored.dtype == dtype
    assert torch.equal(restored, bnb.dequantize_4bit(packed, state).reshape(shape))


@pytest.mark.parametrize("block_size", [32, 128, 1024])
def test_other_block_sizes_are_theirs(block_size):
    weight = torch.randn(100, 70)
    packed, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type="nf4")
    ours = quant.quantize_nf4(weight, block_size)
    assert torch.equal(ours.packed, packed.flatten())
    assert torch.equal(quant.dequantize_nf4(ours), bnb.dequantize_4bit(packed, state))


def test_zero_blocks_and_outliers_are_theirs():
    weight = torch.randn(40, 64)
    weight[3] = 0
    weight[5, 5] = 1e4
    packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    ours = quant.quantize_nf4(weight, double=True)
    assert torch.equal(ours.packed, packed.flatten())
    assert torch.equal(quant.dequantize_nf4(ours), bnb.dequantize_4bit(packed, state))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(40, 96), (64, 48), (4, 160)])
def test_rows_that_are_no_whole_blocks_dequantise_as_their_flattened_form(shape, double):
    """The AVX512 kernel (0.50.2) takes wrong scales for such rows; as one long row it is right."""
    weight = torch.randn(shape)
    packed, state = bnb.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")
    ours = quant.quantize_nf4(weight, double=double)
    assert torch.equal(ours.packed, packed.flatten())
    state.shape = torch.Size([1, weight.numel()])
    theirs = bnb.dequantize_4bit(packed, state).reshape(shape)
    assert torch.equal(quant.dequantize_nf4(ours), theirs)


def small_model(d_in=64, d_hidden=128, d_out=40):
    """Two layers; 40 outputs are no multiple of 32, which the repacked layout cannot hold."""
    return nn.Sequential(nn.Linear(d_in, d_hidden), nn.Tanh(), nn.Linear(d_hidden, d_out))


def test_a_layer_whose_rows_are_no_whole_blocks_is_refused():
    with pytest.raises(WorkbookError, match="2 has 96 inputs, no multiple of 64"):
        quantized_layers.quantize_model_linears(small_model(d_hidden=96))


@pytest.mark.parametrize("double", [False, True])
def test_a_quantised_model_computes_with_our_dequantised_weights(double):
    model, x = small_model(), torch.randn(5, 64)
    expected = small_model()
    expected.load_state_dict(model.state_dict())
    for layer in (expected[0], expected[2]):
        q = quant.quantize_nf4(layer.weight.data, double=double)
        layer.weight.data = quant.dequantize_nf4(q)
    quantized_layers.quantize_model_linears(model, double=double)
    torch.testing.assert_close(model(x), expected(x), rtol=0, atol=1e-6)
    restored = quantized_layers.dequantize_model_linears(model)
    assert type(restored[0]) is nn.Linear
    assert torch.equal(restored[0].weight, expected[0].weight)
    assert torch.equal(restored(x), expected(x))


def gradients(model, x):
    model.train()
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad.clone() for p in lora_parameters(model)]


@pytest.mark.parametrize("double", [False, True])
def test_answering_in_between_changes_neither_training_nor_merging(double):
    """The trap: on AVX512-BF16 an eval forward repacks the weights and they stay repacked."""
    model, x = small_model(d_out=64), torch.randn(5, 64)
    quantized_layers.quantize_model_linears(model, double=double)
    inject_lora(model, "all-linear", r=4, lora_alpha=8, seed=1)
    for p in lora_parameters(model):
        p.data += 0.1 * torch.randn(p.shape)
    before = gradients(model, x)
    assert all(g.abs().max() > 0 for g in before)

    model.eval()
    with torch.inference_mode():
        answer = model(x)

    for was, now in zip(before, gradients(model, x), strict=True):
        assert torch.equal(was, now)
    merged = merge_lora(quantized_layers.dequantize_model_linears(model))
    torch.testing.assert_close(merged(x), answer, rtol=0, atol=1e-5)


def test_without_our_guard_the_trap_is_there():
    """Shows that the test above can fail: the same steps with the library's own setting."""
    if not bnb.has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16: bitsandbytes does not repack")
    model, x = small_model(d_out=64), torch.randn(5, 64)
    quantized_layers.quantize_model_linears(model)
    model[0].support_avx512bf16_for_cpu = True
    weight = bnb.dequantize_4bit(model[0].weight.data, model[0].weight.quant_state)
    model.eval()
    with torch.inference_mode():
        model(x)
    spoilt = bnb.dequantize_4bit(model[0].weight.data, model[0].weight.quant_state)
    assert (spoilt.float() - weight).norm() > 0.5 * weight.norm()
    with pytest.raises(WorkbookError, match="0 has been repacked for inference"):
        quantized_layers.dequantize_model_linears(model)
