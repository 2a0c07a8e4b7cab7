"""What 4 bits keep and lose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sftlab import quant, quantized_layers
from sftlab.errors import WorkbookError

CODES = {"nf4": quant.nf4_code, "fp4": quant.fp4_code, "even": quant.even_code}
PUBLISHED_NF4 = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
PUBLISHED_NF4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]


def test_nf4_has_the_published_values():
    torch.testing.assert_close(quant.nf4_code(), torch.tensor(PUBLISHED_NF4), rtol=0, atol=6e-5)


@pytest.mark.parametrize("name", CODES)
def test_codes_ascend_from_minus_one_to_one(name):
    code = CODES[name]()
    assert code[0] == -1 and code[-1] == 1 and (0 in code) == (name != "even")
    assert len(code) <= 16 and torch.equal(code, code.sort().values)


def test_on_normal_weights_nf4_errs_least():
    x = torch.randn(20_000, 64)
    error = {}
    for name, make in CODES.items():
        restored = quant.dequantize_block(*quant.quantize_block(x, make()), make())
        error[name] = (restored - x).square().mean().sqrt().item()
    assert error["nf4"] == pytest.approx(0.0920, abs=3e-4)
    assert error["fp4"] == pytest.approx(0.1057, abs=3e-4)
    assert error["even"] == pytest.approx(0.1006, abs=3e-4)


def test_a_block_by_hand():
    indices, absmax = quant.quantize_block(torch.tensor([0.0, 2.0, -2.0, 0.3, -0.05]))
    assert absmax.tolist() == [2.0]
    assert indices.tolist() == [7, 15, 0, 9, 7]  # 0.3/2 = 0.15 is nearest to 0.1609
    restored = quant.dequantize_block(indices, absmax)
    torch.testing.assert_close(restored, torch.tensor([0, 2, -2, 0.32186, 0]), rtol=0, atol=1e-4)


def test_each_row_is_a_block_of_its_own():
    rows = torch.randn(3, 8) * torch.tensor([[1.0], [100.0], [0.01]])
    together = quant.quantize_block(rows)
    for i, row in enumerate(rows):
        indices, absmax = quant.quantize_block(row)
        assert torch.equal(together[0][i], indices) and torch.equal(together[1][i], absmax)


finite = st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)


@settings(derandomize=True, deadline=None)
@given(st.lists(finite, min_size=1, max_size=80), st.sampled_from(sorted(CODES)))
def test_every_number_gets_the_nearest_value_of_the_code(numbers, name):
    x, code = torch.tensor(numbers), CODES[name]()
    restored = quant.dequantize_block(*quant.quantize_block(x, code), code)
    best = (x[:, None] - code * x.abs().max()).abs().min(dim=1).values
    torch.testing.assert_close((restored - x).abs(), best, rtol=1e-5, atol=1e-6)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.lists(finite, min_size=5, max_size=5), min_size=1, max_size=8))
def test_values_with_an_offset_are_those_of_pytorch(rows):
    x = torch.tensor(rows)
    indices, scale, zero = quant.quantize_affine(x)
    assert indices.max() <= 15 and scale.shape == zero.shape == (len(rows), 1)
    divisor = scale[:, 0].clamp(min=1e-38)
    peer = torch.fake_quantize_per_channel_affine(x, divisor, zero[:, 0].int(), 0, 0, 15)
    torch.testing.assert_close(quant.dequantize_affine(indices, scale, zero), peer)


def test_a_block_with_an_offset_by_hand():
    indices, scale, zero = quant.quantize_affine(torch.tensor([[1.0, 4.0, 3.1]]))
    assert (scale.item(), zero.item()) == (pytest.approx(4 / 15), 0)  # from 0 to 4
    assert indices.tolist() == [[4, 15, 12]]
    assert quant.quantize_affine(torch.tensor([[-2.0, 1.0]]))[2].item() == 10
    assert [found.sum().item() for found in quant.quantize_affine(torch.zeros(2, 3))] == [0, 0, 0]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 15), max_size=50))
def test_packing_two_to_a_byte_loses_nothing(indices):
    indices = torch.tensor(indices, dtype=torch.uint8)
    packed = quant.pack(indices)
    assert len(packed) == (len(indices) + 1) // 2
    assert torch.equal(quant.unpack(packed, len(indices)), indices)


def test_the_first_weight_of_a_byte_is_in_the_high_half():
    assert quant.pack(torch.tensor([0xA, 0x3], dtype=torch.uint8)).tolist() == [0xA3]


def test_quantising_what_was_quantised_changes_nothing_more():
    once = quant.dequantize_nf4(quant.quantize_nf4(torch.randn(32, 100)))
    assert torch.equal(quant.dequantize_nf4(quant.quantize_nf4(once)), once)


@pytest.mark.parametrize("double", [False, True])
def test_zeros_stay_zeros(double):
    weight = torch.zeros(10, 70)
    assert torch.equal(quant.dequantize_nf4(quant.quantize_nf4(weight, double=double)), weight)


def test_double_quantisation_moves_a_scale_by_little():
    weight = torch.randn(512, 512) * 0.02
    single, double = (
        quant.dequantize_nf4(quant.quantize_nf4(weight, 64, d)) for d in (False, True)
    )
    added = (double - single).norm() / (single - weight).norm()
    assert 0 < added < 0.15


def test_bits_per_parameter():
    assert quant.bits_per_parameter(64, double=False) == 4.5
    assert quant.bits_per_parameter(64, double=True) == pytest.approx(4.127, abs=5e-4)
    assert quant.bits_per_parameter(16, double=False) == 6


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("block_size", [32, 64, 256])
def test_the_stored_bytes_are_those_of_the_formula(block_size, double):
    stored = quant.quantize_nf4(torch.randn(1024, 256), block_size, double).bytes
    formula = 1024 * 256 * quant.bits_per_parameter(block_size, double) / 8
    assert stored == formula + (4 if double else 0)  # and the mean scale


def test_only_linear_layers_that_are_not_skipped_are_quantised():
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(10, 64),
            "up": nn.Linear(64, 128),
            "norm": nn.LayerNorm(128),
            "lm_head": nn.Linear(64, 10, bias=False),
        }
    )
    bias = model["up"].bias
    quantized_layers.quantize_model_linears(model)
    assert type(model["up"]).__name__ == "Linear4bit" and model["up"].bias is bias
    assert not model["up"].weight.requires_grad
    assert type(model["lm_head"]) is nn.Linear and model["embed"].weight.dtype == torch.float32


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(WorkbookError, match="no plain linear layer"):
        quantized_layers.quantize_model_linears(nn.Sequential(nn.Embedding(4, 4)))


def test_a_bfloat16_layer_computes_in_bfloat16():
    model = nn.Sequential(nn.Linear(64, 32)).to(torch.bfloat16)
    quantized_layers.quantize_model_linears(model)
    assert model[0].compute_dtype == torch.bfloat16
    assert model(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert quantized_layers.dequantize_model_linears(model)[0].weight.dtype == torch.bfloat16
